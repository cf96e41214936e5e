"""Series from arrays: (T, C) to forecast, (N, C, T) samples, tsai's (X, y, splits), lists of recordings."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structmae.data.labels import encode_names
from structmae.data.series import Integers, SeriesSchema
from structmae.data.series_build import SeriesDraft, channel_names
from structmae.data.series_tables import slug
from structmae.data.splits import KEYS
from structmae.errors import StructmaeError


def from_npy(path: str | os.PathLike[str]) -> SeriesDraft:
    """A .npy file: (T, C) is mapped into memory and not read; (N, C, T) is read as samples.

    Raises:
        StructmaeError: a file that cannot be read, or another shape or type.
    """
    path = Path(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StructmaeError(f"{path}: not a .npy array that can be read: {error}.") from None
    draft = _from_array(array, str(path))
    draft.name = slug(path.stem)
    return draft


def from_object(data: Any) -> SeriesDraft:
    """An array (T,), (T, C) or (N, C, T); or (X, y) or (X, y, splits) with X (N, C, T) and y (N,).

    Raises:
        StructmaeError: another type, shape or length; splits that overlap or are out of range.
    """
    if isinstance(data, tuple):
        if len(data) not in (2, 3):
            raise StructmaeError(f"a tuple of {len(data)}: give (X, y) or (X, y, splits), X (N, C, T) and y (N,).")
        x, y, splits = (*data, None)[:3]
        array = _array(x, "X")
        if array.ndim == 2:
            array = array[:, None, :]  # (N, T): one channel, as scikit-learn's users have it
        if array.ndim != 3:
            raise StructmaeError(f"X has shape {array.shape}; samples have (samples, channels, steps).")
        labels = None if y is None else _labels(y, array.shape[0])
        split = None if splits is None else _splits(splits, array.shape[0])
        draft = from_samples(array, labels, None if split is None else split[0], "samples", where="X")
        draft.notes += [] if split is None else split[1]
        return draft
    return _from_array(_array(data, "the array"), "the array")


def from_samples(
    recordings: Sequence[NDArray[Any]] | NDArray[Any],
    labels: Sequence[str | None] | None,
    split: dict[str, Integers] | None,
    name: str,
    *,
    where: str,
) -> SeriesDraft:
    """Recordings (C, T_i) each, packed; `labels` as text, None where unlabelled.

    Raises:
        StructmaeError: no recordings, or labels that are no classes.
    """
    if len(recordings) == 0 or any(0 in recording.shape for recording in recordings):
        raise StructmaeError(f"{where}: {'a recording' if len(recordings) else 'the set'} is empty. Leave it out.")
    lengths = [recording.shape[1] for recording in recordings]
    ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if isinstance(recordings, np.ndarray):
        values = recordings.transpose(0, 2, 1).reshape(-1, recordings.shape[1]).astype(np.float32)
    else:
        values = np.concatenate([recording.T for recording in recordings]).astype(np.float32)
    channels = channel_names(values.shape[1])
    notes: list[str] = []
    if min(lengths) < max(lengths):
        notes.append(f"recordings of {min(lengths)} to {max(lengths)} steps")
    y: Integers | None = None
    classes: tuple[str, ...] = ()
    if labels is not None:
        codes, names, remarks = encode_names(labels, where)
        y, classes = codes.numpy(), names
        notes += remarks
    return SeriesDraft(
        name=slug(name),
        where=where,
        values=values,
        channels=channels,
        schema=SeriesSchema(channels, "array"),
        ptr=ptr,
        level="sample",
        period=1,
        y=y,
        classes=classes,
        split=split,
        split_source="" if split is None else "given",
        notes=notes,
    )


def _from_array(array: NDArray[Any], where: str) -> SeriesDraft:
    if array.dtype.kind not in "fiub":
        raise StructmaeError(f"{where}: type {array.dtype}; give numbers (float32 is read as it is).")
    if array.ndim == 3:
        return from_samples(np.asarray(array), None, None, "samples", where=where)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise StructmaeError(f"{where}: shape {array.shape}; give (steps, channels), or (samples, channels, steps).")
    if array.shape[0] < 2 or array.shape[1] < 1:
        raise StructmaeError(f"{where}: shape {array.shape}; a series has at least two steps and one channel.")
    # A mapped file stays as it is: converting it would read it whole.
    values = array if isinstance(array, np.memmap) else array.astype(np.float32)
    channels = channel_names(array.shape[1])
    where = f"{where} of shape {array.shape} (steps, channels)"
    return SeriesDraft("array", where, values, channels, SeriesSchema(channels, "array"))


def _array(data: Any, where: str) -> NDArray[Any]:
    if type(data).__module__.partition(".")[0] == "torch":
        data = data.detach().cpu().numpy()
    if not isinstance(data, np.ndarray) and not hasattr(data, "__array__"):
        raise StructmaeError(
            f"{where} is of type {type(data).__name__}; give a table, an array (T, C) or (N, C, T), (X, y, splits), a "
            "path, or a name of `structmae data`."
        )
    # tsai's arrays on disk are mapped files; np.asarray keeps them mapped.
    array = data if isinstance(data, np.ndarray) else np.asarray(data)
    if array.dtype.kind not in "fiub":
        raise StructmaeError(f"{where} has the type {array.dtype}; give numbers.")
    return array


def _labels(y: Any, count: int) -> list[str | None]:
    values = np.asarray(y).tolist()
    if not isinstance(values, list) or len(values) != count:
        raise StructmaeError(f"y has shape {np.shape(y)}; X has {count} samples, so give ({count},).")
    if values and isinstance(values[0], list):
        raise StructmaeError(f"y has shape {np.shape(y)}; give one label a sample, ({count},).")
    return [None if v is None or (isinstance(v, float) and math.isnan(v)) else str(v) for v in values]


def _splits(splits: Any, count: int) -> tuple[dict[str, Integers], list[str]]:
    """tsai's (train, valid) or (train, valid, test). Of two the second is scored: it is the test part."""
    parts = [np.asarray(list(part) if part is not None else [], dtype=np.int64).reshape(-1) for part in splits]
    if len(parts) not in (2, 3):
        raise StructmaeError(f"splits has {len(parts)} lists; give (train, valid) or (train, valid, test).")
    notes = []
    if len(parts) == 2:
        parts.insert(1, np.zeros(0, np.int64))
        notes.append("splits has two lists: the second is the test part")
    joined = np.concatenate(parts)
    if joined.size and (joined.min() < 0 or joined.max() >= count):
        raise StructmaeError(f"splits names sample {joined.min() if joined.min() < 0 else joined.max()} of {count}.")
    repeated = np.flatnonzero(np.bincount(joined, minlength=1) > 1)
    if repeated.size:
        raise StructmaeError(f"splits has sample {repeated[0]} twice. Each sample is in one part.")
    if not parts[0].size:
        raise StructmaeError("splits has no train sample. The first list is the train part.")
    return {key: np.sort(part) for key, part in zip(KEYS, parts, strict=True)}, notes
