"""The last step of reading series: a draft gets its split, season and horizons, and what cannot be used is refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from structmae.data.calendar import season
from structmae.data.series import Integers, Series, SeriesSchema, Step, Written
from structmae.data.splits import KEYS
from structmae.errors import StructmaeError, UsageError

HORIZONS = (96, 192, 336, 720)
_SHORT_HORIZONS = (48, 24, 12, 6, 3, 1)
SHARES = (0.7, 0.1, 0.2)
_SAMPLE_SHARES = (0.7, 0.0, 0.3)


@dataclass
class SeriesDraft:
    """Series as read: what a reader knows, the rest as its default. Shapes as in `Series`."""

    name: str
    where: str  # how messages name the source
    values: NDArray[Any]
    channels: tuple[str, ...]
    schema: SeriesSchema
    ptr: Integers | None = None
    level: Literal["panel", "sample"] = "panel"
    stamps: pd.Index | None = None
    step: Step | None = None
    period: int | None = None
    y: Integers | None = None
    classes: tuple[str, ...] = ()
    split: dict[str, Integers] | None = None
    split_source: str = ""
    horizons: tuple[int, ...] | None = None
    notes: list[str] = field(default_factory=list)
    card: str | None = None
    head: pd.DataFrame | None = None  # of a table: its columns and index, no rows


def build(
    draft: SeriesDraft, channels: str | Sequence[str], split: str, schema: SeriesSchema | None, spec: dict[str, Any]
) -> Series:
    """The series of a draft.

    With a `schema` the series is read for a model that exists: it may be too short to split, or lack a channel's
    values, as the model brings its own scale.

    Raises:
        UsageError: channels or a split that are badly written or do not exist.
        StructmaeError: too few rows for the split, a channel that is never observed in the train part, a channel of
            the schema that is missing.
    """
    _select(draft, channels, schema)
    rows = int(draft.values.shape[0])
    ptr = np.array([0, rows], np.int64) if draft.ptr is None else draft.ptr
    if draft.level == "panel":
        parts, source = _borders(draft, rows, split, schema is not None)
        test, validation = (int(np.diff(parts[key])[0]) for key in ("test", "validation"))
        horizons = _horizons(draft.horizons or HORIZONS, min(test, validation))
    else:
        parts, source = _recordings(draft, ptr.size - 1, split)
        horizons = ()
    period = season(draft.step) if draft.period is None else draft.period
    if 2 * period > rows:
        period = 1
    series = Series(
        name=draft.name,
        values=draft.values,
        ptr=ptr,
        level=draft.level,
        channels=draft.channels,
        stamps=draft.stamps,
        step=draft.step,
        period=period,
        y=draft.y,
        classes=draft.classes,
        split=parts,
        split_source=source,
        horizons=horizons,
        schema=draft.schema if schema is None else schema,
        spec=spec,
        notes=tuple(draft.notes),
        card=draft.card,
        written=None if draft.head is None else Written(replace(draft.schema, channels=draft.channels), draft.head),
    )
    notes = [] if isinstance(series.values, np.memmap) else _check_values(series, draft.where, schema is not None)
    return replace(series, notes=(*series.notes, *notes))


def channel_names(count: int) -> tuple[str, ...]:
    """Names for the channels of an array, which has none."""
    return tuple(f"c{index}" for index in range(count))


def _select(draft: SeriesDraft, channels: str | Sequence[str], schema: SeriesSchema | None) -> None:
    """Keep the channels asked for, in that order, or those of the schema."""
    wanted = _wanted(draft, channels)
    if schema is not None:
        # An array has no names of its own: with the right number of channels they are those of the schema, in order.
        unnamed = draft.schema.layout == "array" and draft.channels == channel_names(len(draft.channels))
        if unnamed and len(draft.channels) == len(schema.channels) and channels == "all":
            draft.channels = schema.channels
        missing = [name for name in schema.channels if name not in draft.channels]
        if missing:
            raise StructmaeError(
                f"{draft.where}: no channel {_quoted(missing)}; the model reads {_quoted(schema.channels)}. "
                "Add the column, with blanks where nothing was observed."
            )
        if extra := [name for name in draft.channels if name not in schema.channels]:
            draft.notes.append(f"left out: {_quoted(extra)} (the model does not read {_them(extra)})")
        wanted = list(schema.channels)
    if wanted == list(draft.channels):
        return
    columns = [draft.channels.index(name) for name in wanted]
    # Of a mapped file a run of columns is still a view; other picks would read all of it.
    if isinstance(draft.values, np.memmap):
        first, step = columns[0], columns[1] - columns[0] if len(columns) > 1 else 1
        if step < 1 or columns != list(range(first, first + step * len(columns), step)):
            raise UsageError(
                f"{draft.where}: channels {_quoted(wanted)} are not evenly spaced in the file, so that they cannot be "
                "read without all of it. Save them as a file of their own."
            )
        draft.values = draft.values[:, first : columns[-1] + 1 : step]
    else:
        draft.values = np.ascontiguousarray(draft.values[:, columns])
    draft.channels = tuple(wanted)
    draft.schema = SeriesSchema(
        draft.channels, draft.schema.layout, draft.schema.time, draft.schema.id, draft.schema.value
    )


def _wanted(draft: SeriesDraft, channels: str | Sequence[str]) -> list[str]:
    if isinstance(channels, str) and channels == "all":
        return list(draft.channels)
    names = [name.strip() for name in channels.split(",")] if isinstance(channels, str) else [str(n) for n in channels]
    for name in names:
        if name not in draft.channels:
            shown = _quoted(draft.channels[:12]) + (", ..." if len(draft.channels) > 12 else "")
            raise UsageError(f"{draft.where}: no channel '{name}'; there are {shown}.")
    if len(set(names)) < len(names) or not names:
        raise UsageError(f"channels '{channels}': name each channel once, with commas between, or write all.")
    return names


def _borders(draft: SeriesDraft, rows: int, split: str, relaxed: bool) -> tuple[dict[str, Integers], str]:
    """Row borders of the three parts of a panel."""
    if split == "auto" and draft.split is not None:
        return draft.split, draft.split_source
    sizes, text = _sizes(draft, SHARES if split == "auto" else _numbers(split), split, rows, "rows")
    source = f"in time order, {text}"
    if min(sizes) < 1 and not relaxed:
        empty = KEYS[sizes.index(min(sizes))]
        raise StructmaeError(
            f"{draft.where}: {rows} {'row' if rows == 1 else 'rows'}, too few rows: the {empty} part of the split has "
            "none. Give a longer series, or another split (--set data.split=0.6/0.2/0.2)."
        )
    ends = np.cumsum((0, *sizes))
    return {key: ends[i : i + 2].astype(np.int64) for i, key in enumerate(KEYS)}, source


def _recordings(draft: SeriesDraft, count: int, split: str) -> tuple[dict[str, Integers], str]:
    """Which recordings are in which part."""
    if split == "auto" and draft.split is not None:
        return draft.split, draft.split_source
    empty = np.zeros(0, np.int64)
    if split == "auto" and (draft.y is None or not bool((draft.y >= 0).any())):
        return {"train": np.arange(count), "validation": empty, "test": empty}, "none: all recordings train"
    labels = np.zeros(count, np.int64) if draft.y is None else draft.y
    labelled = int((labels >= 0).sum())
    sizes, text = _sizes(
        draft, _SAMPLE_SHARES if split == "auto" else _numbers(split), split, labelled, "labelled recordings"
    )
    order = _interleaved(labels)
    ends = np.cumsum(sizes)
    parts = {key: order[end - size : end] for key, end, size in zip(KEYS, ends, sizes, strict=True)}
    # Without a label a recording can train an encoder, and nothing else.
    parts["train"] = np.concatenate([parts["train"], np.flatnonzero(labels < 0)])
    return {key: np.sort(part).astype(np.int64) for key, part in parts.items()}, f"made: stratified {text}, seed 0"


def _interleaved(labels: Integers) -> Integers:
    """The labelled recordings in a random order of which every run holds the classes in their shares."""
    rng = np.random.default_rng(0)
    place = np.full(labels.size, np.inf)
    for label in np.unique(labels[labels >= 0]):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(members.size) + 0.5) / members.size
    return np.argsort(place, kind="stable")[: int((labels >= 0).sum())]


def _sizes(
    draft: SeriesDraft, values: tuple[float, ...], split: str, count: int, unit: str
) -> tuple[tuple[int, ...], str]:
    """Rows or recordings of each part, and how the split is called."""
    total = sum(values)
    if total <= 1 + 1e-9:
        # As the field cuts: train and test rounded down, validation what is left of them.
        train, test = (int(count * share + 1e-9) for share in (values[0], values[2]))
        rest = (count if total > 1 - 1e-9 else int(count * total + 1e-9)) - train - test
        sizes = (train, rest, test) if values[1] > 0 else (train + rest, 0, test)
        return sizes, " / ".join(f"{100 * share:g}" for share in values) + " %"
    if any(value != int(value) for value in values):
        raise UsageError(f"split '{split}': shares must sum to 1 or less, and counts must be whole numbers.")
    if total > count:
        raise StructmaeError(f"{draft.where}: split {split} needs {total:.0f} {unit}; there are {count}. Give fewer.")
    return tuple(int(value) for value in values), " / ".join(f"{value:.0f}" for value in values) + f" {unit}"


def _numbers(split: str) -> tuple[float, ...]:
    try:
        values = tuple(float(piece) for piece in split.split("/"))
    except ValueError:
        values = ()
    if len(values) != 3 or not all(np.isfinite(values)) or min(values) < 0 or values[0] <= 0:
        raise UsageError(
            f"split '{split}': give three shares of train, validation and test (0.7/0.1/0.2), or three counts "
            "(8640/2880/2880), or auto."
        )
    return values


def _horizons(wanted: tuple[int, ...], room: int) -> tuple[int, ...]:
    """Those horizons that fit the shorter of the validation and test parts; one that fits where none does."""
    fitting = tuple(horizon for horizon in wanted if horizon <= room)
    if fitting or room < 1:
        return fitting
    return (next(horizon for horizon in _SHORT_HORIZONS if horizon <= max(1, room // 2)),)


def _check_values(series: Series, where: str, relaxed: bool) -> list[str]:
    """Notes on the values of the train part: constant channels, missing cells.

    Raises:
        StructmaeError: an infinite value anywhere, or a channel that is never observed in the train part.
    """
    values = series.values
    infinite = np.isinf(values)
    if bool(infinite.any()):
        row, channel = (int(i) for i in np.argwhere(infinite)[0])
        raise StructmaeError(
            f"{where}: column '{series.channels[channel]}' is infinite in row {row}, or too large for float32. "
            "Values must be finite; leave a missing one blank."
        )
    low, high = np.full(series.num_channels, np.inf), np.full(series.num_channels, -np.inf)
    for _, block in series.train_blocks():
        observed = ~np.isnan(block)
        low = np.minimum(low, np.where(observed, block, np.inf).min(0))
        high = np.maximum(high, np.where(observed, block, -np.inf).max(0))
    empty = [name for name, lowest in zip(series.channels, low, strict=True) if lowest == np.inf]
    if empty and not relaxed:
        raise StructmaeError(
            f"{where}: channel {_quoted(empty)} has no observed value in the train part ({series.split_source}). "
            "Leave it out (data.channels), or give another split."
        )
    constant = [name for name, a, b in zip(series.channels, low, high, strict=True) if a == b]
    notes = [f"constant in the train part: {_quoted(constant)}"] if constant else []
    missing = int(np.isnan(values).sum())
    if missing:
        notes.append(f"{missing:,} of {values.size:,} values are not observed ({100 * missing / values.size:.2g} %)")
    return notes


def _quoted(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:8])
    return shown + (f", and {len(names) - 8} more" if len(names) > 8 else "")


def _them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"
