"""Small runs of images and text."""

import numpy as np

import structmae

SMALL = {
    "train.epochs": 1, "train.warmup": 0, "encoder.hidden": 8, "encoder.heads": 2, "encoder.layers": 1,
    "encoder.feed_forward": 8, "tokens.patch": 2, "heads.pixels.hidden": 8, "heads.pixels.heads": 2,
}  # fmt: skip
TEXT = "the masked model reads what is left of a text and says which pieces were there before they were hidden"
DOCUMENTS = [
    " ".join(np.random.default_rng(number).choice(TEXT.split(), 60)) + "\nand so it ends" for number in range(20)
]


def images(channels=1, count=40):
    """(N, C, 8, 8) raw values."""
    rng = np.random.default_rng(0)
    return (5 * rng.random((count, channels, 8, 8)) + 2).astype(np.float32)


def text_settings():
    """Of recipes of text."""
    few = {key: value for key, value in SMALL.items() if not key.startswith(("heads.", "tokens."))}
    return {**few, "tokens.vocabulary": 300, "tokens.context": 32}


def trained(data, recipe, **more):
    """A run of one epoch."""
    settings = SMALL if recipe == "mae" else {k: v for k, v in SMALL.items() if not k.startswith(("heads.", "tokens."))}
    return structmae.pretrain(data, recipe, settings={**settings, **more}, progress=False)
