"""Series as audio: patches of each series' spectrogram are dropped and rebuilt.

Paper    After P.-Y. Huang, H. Xu, J. Li, A. Baevski, M. Auli, W. Galuba, F. Metze, C. Feichtenhofer. Masked
         autoencoders that listen (Audio-MAE). NeurIPS 2022; that anything but audio be read so is this toolkit's.
Keeps    2-D patches of a log-spectrogram, most of them dropped, an encoder on the visible ones, a decoder on all;
         strips of time or frequency by mask.group=column or row.
Differs  frames do not overlap: with a hop below the window a visible frame holds part of a hidden one. Linear
         frequencies, small frames, each series on its own.
Command  structmae pretrain --data etth1 --recipe spectrogram
"""

from structmae.recipe import EncoderOptions, HeadOptions, MaskOptions, Override, Recipe, TokenOptions, TrainOptions
from structmae.recipes.tuning import SERIES

RECIPE = Recipe(
    name="spectrogram",
    summary="drop most patches of each series' spectrogram, encode the rest, rebuild them",
    paper="after Huang et al., Masked autoencoders that listen, NeurIPS 2022",
    modality="series",
    default_data="lorenz96",
    tokens=TokenOptions(context=512, segment=1, spectrum=16, bands=4, window_norm=True),
    mask=MaskOptions(ratio=0.7, act="drop"),
    encoder=EncoderOptions(
        layers=4,
        hidden=128,
        heads=8,
        feed_forward=512,
        dropout=0.1,
        attention_dropout=0.0,
        activation="gelu",
        norm="layernorm",
    ),
    heads={"patches": HeadOptions(of="segment", layers=2, hidden=64, remask="none", loss="mse")},
    train=TrainOptions(epochs=100, batch_size=64, lr=5e-4, warmup=5),
    sizes={
        "tiny": {
            "encoder.layers": 3,
            "encoder.hidden": 32,
            "encoder.heads": 4,
            "encoder.feed_forward": 128,
            "heads.patches.layers": 1,
            "heads.patches.hidden": 32,
            "train.epochs": 20,
            "train.items": 2048,
            "train.lr": 1e-3,
            "train.warmup": 1,
        }
    },
    overrides=(
        *SERIES,
        # Of recordings, loudness tells classes apart.
        Override(
            "level:sample",
            {
                "tokens.spectrum": 10,
                "tokens.bands": 1,
                "tokens.window_norm": False,
                "encoder.pool": "mean",
                "train.epochs": 200,
                "train.batch_size": 32,
                "train.items": 0,
            },
        ),
        Override("lorenz96", {"tokens.context": 96, "tokens.spectrum": 8, "tokens.bands": 2}),
        Override("basicmotions", {"tokens.spectrum": 20, "tokens.bands": 2}),
        # An amplitude has no sign: where values are centred, a level above the mean and one below it are alike.
        Override("japanesevowels", {"tokens.spectrum": 4, "tokens.normalize": "none", "train.epochs": 40}),
    ),
)
