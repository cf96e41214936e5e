"""PatchTST, self-supervised: segments of each series, 40% set to zero, rebuilt by one linear map.

Paper    Y. Nie, N. H. Nguyen, P. Sinthong, J. Kalagnanam. A time series is worth 64 words: long-term forecasting with
         transformers. ICLR 2023. Section 3.2 (masking), appendix A.1.4 (settings).
Keeps    context 512, segments of 12 that do not overlap, 40% zeroed at full length, each series on its own, 3 layers of
         128 with 16 heads and batch normalisation, squared error on the hidden segments.
Differs  a window's mean and deviation are those of its visible values: the paper's code takes them before it hides, and
         so shows the encoder something of what is hidden. 504 of the 512 rows are read, as there. Missing values are
         known to be missing. Learned positions start at sines: from small random numbers, as published, a short
         pre-training learns next to nothing. Size tiny, what a data set without published settings gets, is 64 wide
         with 4 heads, no dropout, and sees 1,024 windows an epoch.
Command  structmae pretrain --data etth1
"""

from structmae.recipe import EncoderOptions, HeadOptions, MaskOptions, Override, Recipe, TokenOptions, TrainOptions
from structmae.recipes.tuning import SERIES

RECIPE = Recipe(
    name="patchtst",
    summary="hide 40% of each series' segments, rebuild them by one linear map from a transformer's latents",
    paper="Nie et al., A time series is worth 64 words: long-term forecasting with transformers, ICLR 2023",
    modality="series",
    default_data="lorenz96",
    tokens=TokenOptions(context=512, segment=12, window_norm=True),
    mask=MaskOptions(ratio=0.4, act="zero"),
    encoder=EncoderOptions(
        layers=3,
        hidden=128,
        heads=16,
        feed_forward=256,
        dropout=0.2,
        attention_dropout=0.0,
        activation="gelu",
        norm="batchnorm",
    ),
    heads={"segments": HeadOptions(of="segment", layers=0, remask="none", loss="mse")},
    train=TrainOptions(epochs=100, batch_size=64, lr=1e-4, warmup=5),
    sizes={
        "tiny": {
            "encoder.hidden": 64,
            "encoder.heads": 4,
            "encoder.feed_forward": 128,
            "encoder.dropout": 0.0,
            "train.epochs": 20,
            "train.batch_size": 32,
            "train.items": 1024,
            "train.lr": 3e-3,
            "train.warmup": 1,
        }
    },
    overrides=(
        *SERIES,
        # Of recordings, level and size tell classes apart, and one at rest has no deviation to divide by.
        Override(
            "level:sample",
            {
                "tokens.segment": 5,
                "tokens.window_norm": False,
                "encoder.pool": "mean",
                "train.epochs": 200,
                "train.batch_size": 32,
                "train.items": 0,
            },
        ),
        Override("level:sample", {"encoder.hidden": 32, "train.lr": 1e-3}, size="tiny"),  # the budget of spectrogram
        Override("lorenz96", {"tokens.context": 96, "tokens.segment": 8}),
        Override("lorenz96", {"train.batch_size": 16, "train.items": 512, "train.epochs": 12}, "tiny"),
        Override("japanesevowels", {"tokens.segment": 2, "train.epochs": 40}),
    ),
)
