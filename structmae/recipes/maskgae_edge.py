"""MaskGAE (edges): hide edges at random, tell them from pairs that are none, and say how many each node lost."""

from structmae.recipe import EncoderOptions, HeadOptions, MaskOptions, Override, Recipe, TrainOptions

RECIPE = Recipe(
    name="maskgae_edge",
    summary="hide edges, tell them from pairs that are none, and say how many each node lost",
    paper="Li et al., What's behind the mask: understanding masked graph modeling for graph autoencoders, KDD 2023",
    mask=MaskOptions(of="edge", ratio=0.7, act="drop"),
    encoder=EncoderOptions(layer="gcn", layers=2, hidden=128, dropout=0.8, activation="elu", norm="batchnorm"),
    heads={
        "edges": HeadOptions(of="pair", loss="bce", layers=1, hidden=64, remask="none"),
        "degree": HeadOptions(
            target="degree", at="all", layer="mlp", layers=1, hidden=64, loss="mse", weight=3e-3, remask="none"
        ),
    },
    train=TrainOptions(epochs=500, lr=0.01, weight_decay=5e-5, schedule="constant", clip=1.0),
)
