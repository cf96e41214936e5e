"""Vectors and tables to a file: Parquet, NumPy or CSV, by suffix."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from structmae.checkpoint import replacing
from structmae.errors import StructmaeError, UsageError

SUFFIXES = (".parquet", ".npy", ".csv")
TABLES = (".parquet", ".csv")


def check_suffix(path: Path, suffixes: Sequence[str] = SUFFIXES) -> Path:
    """`path`, if it is one that can be written. Raises before any work is done for it."""
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"--out {path}: the suffix says the format; it must be {', '.join(suffixes)}")
    if not path.parent.is_dir() or path.is_dir():
        raise StructmaeError(f"--out {path} cannot be written: {path.parent} is not a folder, or {path} is one")
    return path


def write_vectors(
    path: Path,
    vectors: Tensor,
    ids: Sequence[str | int] | None = None,
    columns: Mapping[str, Sequence[Any] | pd.Index] | None = None,
) -> None:
    """(rows, width) to `path`: `.npy` the array alone, the others a column `id` (the row's number without `ids`), or
    the `columns` in its place, and columns e0, e1, ... Raises StructmaeError where the file can't be written."""
    array = vectors.numpy()
    if path.suffix.lower() == ".npy":
        with _beside(path) as beside, beside.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        return
    table = pd.DataFrame(array, columns=[f"e{column}" for column in range(array.shape[1])])
    first = columns or {"id": list(range(len(array))) if ids is None else list(ids)}
    for place, (name, cells) in enumerate(first.items()):
        table.insert(place, name, cells)
    write_table(path, table)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """`table` to `path`, .csv or .parquet; its index too, unless it numbers the rows. Raises StructmaeError where the
    file can't be written."""
    numbered = isinstance(table.index, pd.RangeIndex)
    with _beside(path) as beside:
        if path.suffix.lower() == ".csv":
            table.to_csv(beside, index=not numbered, float_format="%.9g")  # all that a float32 has
        else:
            table.to_parquet(beside, index=not numbered)


def columns_of(encoder: Any, source: Any, data: Any) -> dict[str, Any]:
    """What each row of `Run.embed` is about, in its order: the columns that come before the vectors.

    Of graphs `id` alone, a node's as the data has it or a graph's number. Of images the image's number as `id`, and of
    a vector a token its `map` (where there are several), `row` and `column` on the grid. Of text the `document` (its
    number) and its `title`, and as `position` which of the document's pieces is the first of the window, or is this
    `piece`. Of series see `series_columns`.
    """
    kind = getattr(data, "level", None)
    if kind in ("panel", "sample"):
        return series_columns(encoder, source)
    if kind == "image":
        return _image_columns(encoder, data.num_items)
    if kind == "text":
        return _text_columns(encoder, source)
    ids = getattr(data, "ids", None) if encoder.pool == "none" else None
    return {} if ids is None else {"id": list(ids)}


def _image_columns(encoder: Any, images: int) -> dict[str, pd.Index]:
    tokenizer = encoder.tokenizer
    if encoder.pool != "none":
        return {"id": pd.RangeIndex(images)}
    rows, columns = tokenizer.grid
    each = len(tokenizer.kinds) * rows * columns
    place = np.tile(np.arange(rows * columns), images * len(tokenizer.kinds))
    found = {"id": pd.Index(np.arange(images).repeat(each))}
    if len(tokenizer.kinds) > 1:
        found["map"] = pd.Index(np.tile(np.repeat(np.array(tokenizer.kinds), rows * columns), images))
    return {**found, "row": pd.Index(place // columns), "column": pd.Index(place % columns)}


def _text_columns(encoder: Any, source: Any) -> dict[str, pd.Index]:
    document = source.document.numpy()
    starts, lengths = source.starts.numpy(), source.lengths.numpy()
    # A document's first window begins with its first piece.
    begins = starts[np.searchsorted(document, document)]
    titles = np.array(source.texts.titles, dtype=object)
    if encoder.pool != "none":
        return {
            "document": pd.Index(document),
            "title": pd.Index(titles[document]),
            "position": pd.Index(starts - begins),
        }
    within = np.arange(lengths.sum()) - (lengths.cumsum() - lengths).repeat(lengths)
    of = np.arange(len(document)).repeat(lengths)
    ids = source.flat.numpy()[starts[of] + within]
    known, which = np.unique(ids, return_inverse=True)
    names = np.array([source.tokenizer.piece(int(piece)) for piece in known], dtype=object)
    return {
        "document": pd.Index(document[of]),
        "title": pd.Index(titles[document[of]]),
        "position": pd.Index(starts[of] - begins[of] + within),
        "piece": pd.Index(names[which]),
    }


def series_columns(encoder: Any, source: Any) -> dict[str, pd.Index]:
    """What each row of `Run.embed` of series is about, in its order.

    `id`: the recording's number, or of a table the stamp (or number) of the window's first row; windows lie side by
    side, the last one ends with the data. Where there is a vector a token also `channel` (unless channels are mixed)
    and `position`: the token's place in its window, of a spectrogram by frequency, then time.
    """
    series = source.series
    starts = torch.cat([part.set_id[:: part.members].cpu() for part in _segments(source)]).numpy()
    if series.level == "sample":
        names = pd.Index(np.searchsorted(series.ptr, starts, side="right") - 1)
    else:
        names = pd.Index(starts) if series.stamps is None else series.stamps[starts]
    if encoder.pool != "none":
        return {"id": names}
    size, channels = encoder.size, pd.Index(series.channels)
    each = 1 if encoder.mixed else len(channels)
    columns = {"id": names.repeat(each * size)}
    if not encoder.mixed:
        columns["channel"] = channels.repeat(size).take(np.tile(np.arange(each * size), len(starts)))
    return {**columns, "position": pd.Index(np.tile(np.arange(size), each * len(starts)))}


def _segments(source: Any) -> Iterator[Any]:
    for tokens in source.sweep():
        yield tokens["segment"]


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place once it is whole."""
    try:
        with replacing(path) as beside:
            yield beside
    except OSError as error:
        raise StructmaeError(f"--out {path} cannot be written: {error.strerror or error}") from None
