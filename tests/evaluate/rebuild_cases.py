"""Small images, texts and runs of them."""

import numpy as np
import torch

import structmae
from structmae.data.images import Images, split_images

SMALL = {
    "tokens.patch": 2,
    "encoder.layers": 2,
    "encoder.hidden": 16,
    "encoder.heads": 2,
    "encoder.feed_forward": 16,
    "train.batch_size": 16,
    "train.epochs": 2,
    "train.warmup": 0,
    "probe.epochs": 30,
    "probe.labels": 5,
    "probe.subsets": 3,
}
DECODER = {"layers": 1, "hidden": 16, "heads": 2}


def images(count=60, *, maps=(("image", 1),), labels=True, missing=0.0, seed=0, side=4):
    """Two classes of images: bright at the top, or at the bottom, and noise."""
    rng = np.random.default_rng(seed)
    channels = sum(size for _, size in maps)
    y = np.arange(count) % 2
    x = 0.3 * rng.random((count, channels, side, side))
    for image, label in enumerate(y):
        x[image, :, label * side // 2 : (label + 1) * side // 2] += 0.7
    x[rng.random(x.shape) < missing] = np.nan
    known = torch.from_numpy(y)
    sizes = (count - 2 * (count // 5), count // 5, count // 5)
    return Images(
        "made", torch.from_numpy(x).float(), maps, known if labels else None, split_images(known, count, sizes), "made",
        ("top", "bottom") if labels else (), {},
    )  # fmt: skip


def texts(documents=12, words=160, seed=0):
    """Documents of words, of which each has two that may come next."""
    rng = np.random.default_rng(seed)
    vocabulary = ["red", "tin", "oak", "sea", "fog", "hen", "jam", "key"]
    found = []
    for _ in range(documents):
        at, said = 0, []
        for _ in range(words):
            said.append(vocabulary[at])
            at = (3 * at + 1 + int(rng.integers(2))) % len(vocabulary)
        found.append(" ".join(said))
    return found


def run(data, recipe, **settings):
    """A run of a moment. Options of heads are given for all heads at once, as `head_layers`."""
    known = structmae.resolve(recipe, {"size": "tiny"})
    heads = {key[5:]: settings.pop(key) for key in list(settings) if key.startswith("head_")}
    if recipe.startswith("igpt") or recipe == "bert":
        own = {key: value for key, value in SMALL.items() if key != "tokens.patch"}
    else:
        own, heads = dict(SMALL), {**DECODER, **heads}
    if recipe == "bert":
        own = {key: value for key, value in own.items() if not key.startswith("probe")}
    of_heads = {f"heads.{name}.{key}": value for name in known.heads for key, value in heads.items()}
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return structmae.pretrain(data, recipe=recipe, settings={**own, **of_heads, **dotted}, progress=False)
