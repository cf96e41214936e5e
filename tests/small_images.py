"""Small images, text, and models of them."""

from dataclasses import replace

import numpy as np
import torch

from structmae import resolve
from structmae.data.image_loading import load_images
from structmae.data.text_loading import load_texts
from structmae.planning import Planner
from structmae.run import build
from structmae.tokens.image import ImageSource, ImageTokenizer
from structmae.tokens.text import TextSource, TextTokenizer

MAPS = (("image", 1), ("gradient", 1), ("threshold", 1))
_ENCODER = {"encoder.layers": 1, "encoder.hidden": 16, "encoder.heads": 2, "encoder.feed_forward": 12}
_TRAIN = {"train.epochs": 2, "train.batch_size": 8, "train.warmup": 0, "train.lr": 3e-3, "train.save_every": 1}
_PATCHES = {"tokens.patch": 2}
_WORDS = ("red", "tin", "oak", "sea", "fog", "hen", "jam", "key", "the", "and")
SMALL = {
    "mae": {**_PATCHES, "heads.pixels.hidden": 8, "heads.pixels.heads": 2},
    "cmae": {
        "tokens.patch": 1, "mask.group": "cell", "heads.pixels.hidden": 8, "heads.pixels.heads": 2,
        "terms.infonce.hidden": 8, "views.teacher.momentum": 0.75,
    },
    "multimae": {
        **_PATCHES,
        **{f"heads.{name}.{key}": value for name, _ in MAPS for key, value in (("hidden", 8), ("heads", 2))},
    },
    "igpt": {"tokens.palette": 5},
    "igpt_masked": {"tokens.palette": 5},
    "bert": {"tokens.vocabulary": 280, "tokens.context": 32},
}  # fmt: skip


def images(count=40, maps=(("image", 1),), side=6, seed=0, missing=0.0):
    """Blobs at random places, and noise, without labels. NaN at a share of the pixels."""
    rng = np.random.default_rng(seed)
    channels = sum(size for _, size in maps)
    at = np.arange(side)
    place = rng.uniform(0, side, (2, count, channels, 1))
    blobs = np.exp(-((at - place[0]) ** 2)[..., None] / 3 - ((at - place[1]) ** 2)[..., None, :] / 3)
    x = blobs + 0.1 * rng.normal(size=blobs.shape)
    x[rng.random(x.shape) < missing] = np.nan
    return replace(load_images(x.astype(np.float32)), maps=maps)


def documents(count=20, words=60, seed=0):
    """Documents of words, of which each has two that may come next."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        at, said = int(rng.integers(len(_WORDS))), []
        for _ in range(words + int(rng.integers(words))):
            said.append(_WORDS[at])
            at = (3 * at + 1 + int(rng.integers(2))) % len(_WORDS)
        found.append(" ".join(said))
    return found


def read(name, data=None, **changes):
    """Source and recipe. Of no data but some images or text of its own."""
    settings = {"size": "tiny", **_ENCODER, **_TRAIN, **SMALL[name], **changes}
    if name == "bert":
        texts = load_texts(documents()) if data is None else data
        recipe = resolve(name, settings, level=texts.level)
        return TextSource(texts, TextTokenizer.fit(texts, recipe)), recipe
    found = images(maps=MAPS if name == "multimae" else (("image", 1),)) if data is None else data
    recipe = resolve(name, settings, level=found.level)
    return ImageSource(found, ImageTokenizer.fit(found, recipe)), recipe


def ready(name, data=None, **changes):
    """Model, source and recipe."""
    source, recipe = read(name, data, **changes)
    return build(recipe, source.tokenizer), source, recipe


def drawn(name, data=None, *, items=8, visit=0, **changes):
    """A model in evaluation, its recipe, and what a step reads of the first items."""
    model, source, recipe = ready(name, data, **changes)
    return model.eval(), recipe, batch_of(source, recipe, torch.arange(items), visit)


def batch_of(source, recipe, items, visit=0):
    return Planner.of(recipe).batch(source, torch.as_tensor(items), visit=visit, step=visit)


def latent(model, tokens, plans):
    with torch.no_grad():
        return model.encode(tokens, plans).latent["patch"]


def altered(part, rows, seed):
    """Other content in these rows: values, which of them were observed, ids."""
    generator = torch.Generator().manual_seed(seed)
    if part.ids is not None:
        other = (part.ids[rows] + 1 + torch.randint(0, 3, (len(rows),), generator=generator)) % 5
        return replace(part, ids=part.ids.index_copy(0, rows, other))
    new = torch.randn(len(rows), part.values.shape[1], generator=generator) * 50
    observed = part.observed
    if observed is not None:
        shuffled = observed[rows][:, torch.randperm(observed.shape[1], generator=generator)]
        new, observed = new.where(shuffled, 0.0), observed.index_copy(0, rows, shuffled)
    return replace(part, values=part.values.index_copy(0, rows, new), observed=observed)
