"""duo: hide nodes and edges at once, rebuild the features of the ones and tell the others from pairs that are none.

Paper    ours. Features as GraphMAE (Hou et al., KDD 2022), edges as MaskGAE (Li et al., KDD 2023).
Keeps    GraphMAE's learned token, random replacement, re-masking, GNN decoder and scaled cosine error; MaskGAE's
         walks, whose edges the encoder then lacks, and its decoder of pairs.
Adds     both in one model and step: what a node says has to be told from what is left of its surroundings. Vectors are
         averaged over neighbours once before they are read.
Score    benchmarks/README.md: behind the vectors of graphmae and maskgae_path side by side. Settings: the best of 30
         trials on random splits of those nodes of Cora and CiteSeer that are no test nodes, a score that
         benchmarks/search.py has given up since (its lines: "held out" in benchmarks/results/search.jsonl; three seeds
         of the best seven)
Command  structmae pretrain --data cora --recipe duo
"""

from structmae.recipe import EncoderOptions, HeadOptions, MaskOptions, Override, ProbeOptions, Recipe, TrainOptions
from structmae.recipes.graphmae import RECIPE as GRAPHMAE

RECIPE = Recipe(
    name="duo",
    summary="hide nodes and edges at once: rebuild features, and tell hidden edges from pairs that are none",
    paper="ours, of GraphMAE (KDD 2022) and MaskGAE (KDD 2023)",
    mask=MaskOptions(
        ratio=0.3, random=0.05, random_from="any", edge_ratio=0.3, edge_act="drop", edge_strategy="walk", length=3
    ),
    encoder=EncoderOptions(layer="gcn", layers=2, hidden=256, dropout=0.2, norm="batchnorm", smooth=1),
    heads={
        "features": HeadOptions(layer="gat", loss="sce", gamma=2.0),
        "edges": HeadOptions(of="pair", layers=1, hidden=64, loss="bce", remask="none", weight=0.1),
    },
    train=TrainOptions(epochs=200, lr=5e-4, weight_decay=1e-3, schedule="cosine"),
    probe=ProbeOptions(lr=0.01, weight_decay=1e-3, epochs=300),
    sizes={"tiny": {"encoder.hidden": 128, "train.epochs": 100}},
    overrides=(
        *(override for override in GRAPHMAE.overrides if override.on == "level:node"),
        Override("level:graph", {"encoder.pool": "mean", "encoder.smooth": 0}),
        *(Override(name, {"tokens.normalize": "row"}, "published") for name in ("cora", "citeseer", "pubmed")),
    ),
)
