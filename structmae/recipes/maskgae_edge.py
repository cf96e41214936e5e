"""MaskGAE (edges): hide edges at random, tell them from pairs that are none, and say how many each node lost.

Paper    J. Li, R. Wu, W. Sun, L. Chen, S. Tian, L. Zhu, C. Meng, Z. Zheng, W. Wang. What's behind the mask:
         understanding masked graph modeling for graph autoencoders. KDD 2023. Settings: those of link prediction in the
         authors' repository (train_linkpred.py and its README).
Keeps    70% of the edges hidden, which the encoder then lacks both ways (section 4.2); GCN; the product of two latents
         through a perceptron, against as many pairs that are no edges; lost degrees as a second, light target (4.3).
Differs  counts are exact; the encoder's dropout is the decoders' too (the authors' have less); the degree is that of
         both ends, and its decoder has batch normalisation and an open end, where the authors' ends in a ReLU. The last
         epoch's weights stay; the authors keep those of the best validation AUC. One recipe for both tasks: the
         authors' node classification has two layers, side by side, which here had the lower validation accuracy.
Tiny     64 wide, 200 epochs.
Command  structmae pretrain --data cora --recipe maskgae_edge; for link prediction --set data.edges=train, then
         structmae evaluate RUN --task link_prediction
"""

from structmae.recipe import (
    EncoderOptions,
    HeadOptions,
    MaskOptions,
    Override,
    ProbeOptions,
    Recipe,
    TrainOptions,
)
from structmae.recipes.graphmae import RECIPE as GRAPHMAE

_RAW = {"tokens.normalize": "none"}

RECIPE = Recipe(
    name="maskgae_edge",
    summary="hide edges, tell them from pairs that are none, and say how many each node lost",
    paper="Li et al., What's behind the mask: understanding masked graph modeling for graph autoencoders, KDD 2023",
    mask=MaskOptions(of="edge", ratio=0.7, act="drop"),
    encoder=EncoderOptions(layer="gcn", layers=1, hidden=128, dropout=0.8, activation="elu", norm="batchnorm"),
    heads={
        "edges": HeadOptions(of="pair", layers=1, hidden=64, loss="bce", remask="none"),
        "degree": HeadOptions(
            target="degree", at="all", layer="mlp", layers=2, hidden=64, loss="mse", weight=3e-3, remask="none"
        ),
    },
    train=TrainOptions(epochs=500, lr=0.01, weight_decay=5e-5, schedule="constant", clip=1.0),
    probe=ProbeOptions(lr=0.01, weight_decay=1e-3, epochs=100),
    sizes={"tiny": {"encoder.hidden": 64, "train.epochs": 200}},
    overrides=(
        *(override for override in GRAPHMAE.overrides if override.on == "level:node"),
        Override("level:graph", {"encoder.pool": "mean"}),
        Override("cora", _RAW, "published"),
        Override("citeseer", {**_RAW, "probe.weight_decay": 0.1}, "published"),
        Override("pubmed", {**_RAW, "encoder.dropout": 0.2}, "published"),
    ),
)
