"""Small models of series, and ways to hide."""

import numpy as np
import torch

from structmae import resolve
from structmae.data.series_loading import load_series
from structmae.planning import Planner
from structmae.run import build
from structmae.tokens.series import SeriesSource, SeriesTokenizer

SMALL = {
    "encoder.layers": 1, "encoder.hidden": 8, "encoder.heads": 2, "encoder.feed_forward": 12, "tokens.context": 24,
    "train.epochs": 2, "train.batch_size": 8, "train.items": 24, "train.warmup": 0,
}  # fmt: skip
OF = {
    "patchtst": {"tokens.segment": 3},
    "tsformer": {"tokens.segment": 3},
    "spans": {"mask.ratio": 0.3},
    "spectrogram": {
        "tokens.context": 48, "tokens.spectrum": 8, "tokens.bands": 2, "mask.ratio": 0.5, "heads.patches.layers": 1,
        "heads.patches.hidden": 8,
    },
}  # fmt: skip
DECODER = {"heads.segments.layers": 1}
VARIANTS = {
    **{name: (name, {}) for name in OF},
    "token": ("patchtst", {"mask.act": "token"}),
    "drop": ("patchtst", {"mask.act": "drop", **DECODER, "heads.segments.hidden": 4}),
    "zero": ("tsformer", {"mask.act": "zero"}),
    "learned, not normalised": ("tsformer", {"mask.act": "token", "mask.scope": "item"}),
    "rows": ("spectrogram", {"mask.group": "row"}),
    "columns": ("spectrogram", {"mask.group": "column", "mask.act": "token"}),
    "cells": ("spectrogram", {"mask.group": "cell", "mask.act": "zero"}),
    "spans of segments": ("patchtst", {"mask.strategy": "span", "mask.length": 2}),
    "block": ("spectrogram", {"mask.strategy": "block"}),
    "walk": ("spectrogram", {"mask.strategy": "walk", "mask.act": "token"}),
    "variance": ("patchtst", {"mask.strategy": "weighted", "mask.weights": "variance", "mask.power": 2.0}),
    "set": ("patchtst", {"mask.scope": "set"}),
    "batch": ("patchtst", {"mask.scope": "batch", "tokens.window_norm": False}),
    "random": ("patchtst", {"mask.act": "token", "mask.random": 0.4, "mask.random_from": "visible", "mask.keep": 0.2}),
    "re-masked": ("patchtst", {"heads.segments.remask": "hidden", **DECODER}),
    "cosine": ("patchtst", {"heads.segments.loss": "sce"}),
    "mixed and dropped": ("spans", {"mask.act": "drop", "mask.ratio": 0.6, "heads.points.layers": 1}),
    "mixed and normalised": ("spans", {"tokens.window_norm": True, "tokens.segment": 3, "mask.scope": "set"}),
    "mixed and random": ("spans", {"mask.random": 0.3, "mask.keep": 0.2}),
}  # fmt: skip


def values(rows=160, channels=3, seed=0, missing=0.0):
    """(R, C): waves, noise, and NaN at a share of the places."""
    rng = np.random.default_rng(seed)
    x = np.sin(np.arange(rows)[:, None] / rng.uniform(2, 9, channels)) * 3 + rng.normal(size=(rows, channels)) + 7
    return np.where(rng.random(x.shape) < missing, np.nan, x).astype(np.float32)


def settings_of(variant):
    recipe, changes = VARIANTS[variant]
    return recipe, {**SMALL, **OF[recipe], **changes}


def parts(variant, series=None, **changes):
    """Recipe, model in evaluation mode, and source."""
    series = load_series(values(missing=0.05)) if series is None else series
    name, settings = settings_of(variant)
    recipe = resolve(name, {**settings, **changes}, level=series.level)
    tokenizer = SeriesTokenizer.fit(series, recipe)
    return recipe, build(recipe, tokenizer).eval(), SeriesSource(series, tokenizer)


def drawn(recipe, source, visit=0, items=(3, 40, 11)):
    """Tokens of some windows, and their plans."""
    tokens = source.batch(torch.tensor(items))
    return tokens, Planner(recipe.mask, 0).draw(tokens, visit=visit, step=visit)
