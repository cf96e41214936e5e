"""TSFormer: three quarters of the segments are dropped, an encoder reads the rest, a small decoder rebuilds.

Paper    Z. Shao, Z. Zhang, F. Wang, Y. Xu. Pre-training enhanced spatial-temporal graph neural network for multivariate
         time series forecasting (STEP). KDD 2022. Section 3.1.
Keeps    segments of 12, 75% dropped by one draw for the batch, encoder of 4 layers x 96 with 4 heads on visible tokens,
         decoder of 1 layer, absolute error on values that are hidden and observed.
Differs  a missing value is one that was not observed; in the paper's code it is a zero. Values are scaled by the
         training rows and windows not normalised, as published.
Command  structmae pretrain --data etth1 --recipe tsformer
"""

from structmae.recipe import EncoderOptions, HeadOptions, MaskOptions, Override, Recipe, TokenOptions, TrainOptions
from structmae.recipes.tuning import SERIES

RECIPE = Recipe(
    name="tsformer",
    summary="drop 75% of the segments, encode the rest, rebuild with a decoder of one layer",
    paper="Shao et al., Pre-training enhanced spatial-temporal graph neural network, KDD 2022",
    modality="series",
    default_data="lorenz96",
    tokens=TokenOptions(context=2016, segment=12, window_norm=False),
    mask=MaskOptions(ratio=0.75, act="drop", scope="batch"),
    encoder=EncoderOptions(
        layers=4,
        hidden=96,
        heads=4,
        feed_forward=384,
        dropout=0.1,
        attention_dropout=0.0,
        activation="relu",
        norm="layernorm",
    ),
    heads={"segments": HeadOptions(of="segment", layers=1, remask="none", loss="l1")},
    train=TrainOptions(epochs=100, batch_size=8, lr=5e-4, clip=5.0),
    sizes={
        "tiny": {
            "tokens.context": 504,
            "encoder.hidden": 32,
            "encoder.feed_forward": 128,
            "train.epochs": 20,
            "train.items": 2048,
            "train.batch_size": 64,
            "train.lr": 1e-3,
        }
    },
    overrides=(
        *SERIES,
        Override("level:sample", {"encoder.pool": "mean", "tokens.segment": 5, "train.epochs": 100, "train.items": 0}),
        Override("lorenz96", {"tokens.context": 96, "tokens.segment": 8}),
        Override("japanesevowels", {"tokens.segment": 2}),
    ),
)
