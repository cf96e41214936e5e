"""Spans of single points: hidden runs of each series, a step's channels read together (TST).

Paper    G. Zerveas, S. Jayaraman, D. Patel, A. Bhamidipaty, C. Eickhoff. A transformer-based framework for multivariate
         time series representation learning. KDD 2021. Section 3.2 and appendix.
Keeps    15% of the values of each series hidden in runs of 3 on average, zeros in their place, a token a step that
         reads all channels, batch normalisation, squared error on hidden values.
Differs  counts are exact in each series of a window; the paper's are so on average.
Command  structmae pretrain --data etth1 --recipe spans
"""

from structmae.recipe import EncoderOptions, HeadOptions, MaskOptions, Override, Recipe, TokenOptions, TrainOptions
from structmae.recipes.tuning import SERIES

RECIPE = Recipe(
    name="spans",
    summary="hide runs of single values in each series, rebuild them from steps that read all channels",
    paper="Zerveas et al., A transformer-based framework for multivariate time series representation learning, "
    "KDD 2021",
    modality="series",
    default_data="lorenz96",
    tokens=TokenOptions(context=96, segment=1, window_norm=False),
    mask=MaskOptions(strategy="span", ratio=0.15, length=3, act="zero"),
    encoder=EncoderOptions(
        layers=3,
        hidden=128,
        heads=16,
        feed_forward=256,
        channels="mixed",
        dropout=0.1,
        attention_dropout=0.0,
        activation="gelu",
        norm="batchnorm",
    ),
    heads={"points": HeadOptions(of="segment", layers=0, remask="none", loss="mse")},
    train=TrainOptions(epochs=100, batch_size=128, lr=1e-3),
    sizes={
        "tiny": {
            "encoder.hidden": 64,
            "encoder.heads": 8,
            "encoder.feed_forward": 128,
            "train.epochs": 20,
            "train.items": 2048,
        }
    },
    overrides=(
        *SERIES,
        Override("level:sample", {"encoder.pool": "mean", "train.epochs": 100, "train.items": 0}),
        # A head reads all latents of a window: 40 channels of 96 steps would be a regression of 10,000 features.
        Override("lorenz96", {"tokens.context": 48, "encoder.hidden": 32, "encoder.heads": 4}, "tiny"),
    ),
)
