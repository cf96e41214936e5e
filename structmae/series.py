"""The series modality: how series are read, become tokens and batches, and are described."""

from collections.abc import Mapping
from typing import Any

import torch

from structmae.data.series import Series, SeriesSchema
from structmae.data.series_loading import load_series
from structmae.errors import StructmaeError, UsageError
from structmae.nn.base import Encoder
from structmae.nn.series import SeriesEncoder
from structmae.recipe import DataOptions, Recipe
from structmae.tokens.series import SeriesSource, SeriesTokenizer

_OPTIONS = ("time", "id", "value", "channels", "split")


def load(data: Any, options: DataOptions, *, nodes: Any = None, kind: Any = None) -> Series:
    """Data as the recipe reads it."""
    if nodes is not None:
        raise UsageError("--nodes goes with an edge table; this recipe reads series")
    return load_series(data, **{name: getattr(options, name) for name in _OPTIONS})


def load_like(data: Any, options: DataOptions, schema: Mapping[str, Any], encoder: Encoder, **where: Any) -> Series:
    """Other data, read as the run's own was. An encoder that reads each series alone takes any; one that mixes channels
    needs the same ones."""
    known = SeriesSchema.from_json(dict(schema))
    asked = {} if isinstance(data, Series) else {name: getattr(options, name) for name in _OPTIONS}
    if not isinstance(encoder, SeriesEncoder) or encoder.mixed:
        return load_series(data, schema=known, **asked)
    try:
        found = load_series(data, **asked)
    except UsageError:
        raise
    except StructmaeError as refused:  # the model's own channels may have few rows, or lack values: it has their scale
        try:
            return load_series(data, schema=known, **asked)
        except StructmaeError:
            raise refused from None
    same = set(found.channels) == set(known.channels) and found.channels != known.channels
    return load_series(data, schema=known, **asked) if same else found


def fit(series: Series, recipe: Recipe) -> SeriesTokenizer:
    """The tokenizer, with what it learns of the training rows."""
    return SeriesTokenizer.fit(series, recipe)


def encoder(recipe: Recipe, tokenizer: SeriesTokenizer | Mapping[str, Any]) -> SeriesEncoder:
    """The encoder over a fitted tokenizer, or over the settings of one (its buffers are then loaded)."""
    made = SeriesTokenizer.from_config(tokenizer) if isinstance(tokenizer, Mapping) else tokenizer
    return SeriesEncoder(recipe, made)


def source(series: Series, tokenizer: SeriesTokenizer, device: torch.device, *, anew: bool = False) -> SeriesSource:
    """Batches for the training loop. `anew`: scaled by the training rows of these series, whatever their names."""
    return SeriesSource(series, tokenizer, device, anew=anew)


def tasks(series: Series) -> tuple[str, ...]:
    """What these series can be scored on, the usual first."""
    return ("classification", "clustering") if series.level == "sample" else ("forecasting", "imputation")


def describe(series: Series, tokenizer: SeriesTokenizer) -> str:
    """One line on what is trained on."""
    several = f"{series.num_items} recordings, " if series.level == "sample" else ""
    rows, columns = tokenizer.grid
    tokens = (
        f"{columns} segments of {tokenizer.unit} rows"
        if not tokenizer.spectrum
        else (f"{rows} x {columns} patches of the spectrogram")
    )
    longest = int((series.ptr[1:] - series.ptr[:-1]).max())
    if series.level == "sample" and longest > tokenizer.context:
        tokens += f"; of recordings of up to {longest} rows training reads the first {tokenizer.context}"
    shrunk = f", shrunk from tokens.context={tokenizer.shrunk_from}" if tokenizer.shrunk_from else ""
    return (
        f"{series.name}: {several}{len(series.values)} rows, {len(series.channels)} channels; windows of "
        f"{tokenizer.context} rows{shrunk}, {tokens}"
    )


def adapt(tokenizer: SeriesTokenizer, series: Series) -> SeriesTokenizer:
    """The tokenizer for fine-tuning on other series: windows as they were, channels and scaler of these."""
    made = SeriesTokenizer.from_config({**tokenizer.config(), "channels": list(series.channels)})
    if made.normalize == "standard":
        mean, deviation = series.scale()
        made.mean.copy_(torch.from_numpy(mean))
        made.deviation.copy_(torch.from_numpy(deviation))
    return made
