"""GMAE: a deep graph transformer reads the few nodes that are visible, a shallow decoder rebuilds the others.

Paper    S. Zhang, H. Chen, H. Yang, X. Sun, P. S. Yu, G. Xu. Graph masked autoencoders with transformers. arXiv
         2202.08391, 2022.
Command  structmae pretrain --recipe gmae
"""

from structmae.recipe import EncoderOptions, HeadOptions, MaskOptions, Override, Recipe, TokenOptions, TrainOptions

RECIPE = Recipe(
    name="gmae",
    summary="drop 80% of the nodes, encode the rest with a graph transformer, rebuild with a small decoder",
    paper="Zhang et al., Graph masked autoencoders with transformers, 2022",
    mask=MaskOptions(ratio=0.8, act="drop"),
    encoder=EncoderOptions(
        kind="graph_transformer",
        layers=8,
        hidden=128,
        heads=8,
        feed_forward=256,
        dropout=0.1,
        attention_dropout=0.1,
        activation="gelu",
        norm="layernorm",
        prenorm=True,
    ),
    heads={"features": HeadOptions(layer="gat", layers=2, remask="none", loss="sce", gamma=2.0)},
    train=TrainOptions(epochs=100, batch_size=64, lr=5e-4, warmup=5, clip=1.0),
    sizes={"tiny": {"encoder.layers": 4, "encoder.hidden": 64, "encoder.heads": 4, "train.epochs": 20, "train.items": 1024}},
    overrides=(
        Override("level:node", {"tokens.hops": 2, "tokens.neighbours": 64}),
        Override("level:graph", {"encoder.pool": "mean"}),
    ),
)
