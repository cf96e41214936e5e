"""`Series`: one multichannel recording to forecast, or many labelled recordings; and `SeriesSchema`: its layout."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from structmae.errors import StructmaeError, UsageError

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Layout = Literal["wide", "long", "array"]
Step = pd.DateOffset | pd.Timedelta | int

#: Above this many bytes a fingerprint reads evenly spaced pages.
FINGERPRINT_WHOLE = 64 << 20
_PAGES = 256
_PAGE = 4096
_BLOCK = 1 << 22  # values of a block of rows, when all train rows are read


@dataclass(frozen=True, eq=False)
class SeriesSchema:
    """How a table was laid out, so that another is read, and a forecast is written, the same way.

    `time`, `id` and `value` are column names. With `time` None the rows have no stamps.
    """

    channels: tuple[str, ...]
    layout: Layout = "array"
    time: str | None = None
    id: str | None = None
    value: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values; `from_json` gives the schema back."""
        return {
            "channels": list(self.channels),
            "layout": self.layout,
            "time": self.time,
            "id": self.id,
            "value": self.value,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "SeriesSchema":
        """The schema that `to_json` wrote."""
        return cls(tuple(value["channels"]), value["layout"], value["time"], value["id"], value["value"])


@dataclass(frozen=True, eq=False)
class Written:
    """How a table itself is laid out, whatever schema it was read by: `schema` names its own columns, `head` is the
    table without its rows."""

    schema: SeriesSchema
    head: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Series:
    """One recording of several channels (`level == "panel"`) or a set of recordings (`level == "sample"`), packed.

    Shapes:
        values (R, C) float32, NaN where not observed, rows in time order. A file that is mapped into memory keeps its
            own number type; `windows` and `scale` convert what they read.
        ptr (S+1,) int64: recording s is rows `ptr[s]..ptr[s+1]-1`. A panel has one recording.
        stamps (R,): the regular stamps of a panel, datetimes or whole numbers; None: rows are 0..R-1.
        y (S,) int64 or None: codes into `classes`, -1 where unlabelled.
        split: int64 under the keys train, validation, test. Of a panel the borders (2,) of rows, first and one past
            the last; of samples the sorted indices of recordings, where validation (and test) may be empty.

    `written` is the layout of a table, so that a forecast is laid out alike; None of arrays and recordings.
    `step` lies between stamps, `period` is the season in rows (24 of hourly data, 1 where none is known), `horizons`
    are the lengths of forecasts that the split allows (of a panel).
    """

    name: str
    values: NDArray[np.float32]
    ptr: Integers
    level: Literal["panel", "sample"]
    channels: tuple[str, ...]
    stamps: pd.Index | None
    step: Step | None
    period: int
    y: Integers | None
    classes: tuple[str, ...]
    split: dict[str, Integers]
    split_source: str
    horizons: tuple[int, ...]
    schema: SeriesSchema
    spec: dict[str, Any]
    notes: tuple[str, ...]
    card: str | None = None
    written: Written | None = None

    @property
    def num_items(self) -> int:
        """Recordings: S."""
        return self.ptr.size - 1

    @property
    def num_rows(self) -> int:
        """Rows over all recordings: R."""
        return int(self.values.shape[0])

    @property
    def num_channels(self) -> int:
        """Channels: C."""
        return len(self.channels)

    def windows(self, starts: Integers, length: int) -> NDArray[np.float32]:
        """Rows `start..start + length - 1` of the recording in which each start lies.

        Only the rows asked for are read, also of a file that is mapped into memory. Beyond the end of a recording,
        and before row 0, nothing is observed.

        Arguments:
            starts: (B,) rows of `values`; a negative one reaches back before the first recording.
            length: rows of a window, at least 1.

        Returns:
            (B, C, length) float32, a copy, NaN where not observed.

        Raises:
            UsageError: a length below 1.
            StructmaeError: an infinite value among those read.
        """
        if length < 1:
            raise UsageError(f"windows: length is {length}; it must be at least 1.")
        starts = np.asarray(starts, dtype=np.int64).reshape(-1)
        first, stop = self._recordings(starts)
        if starts.size and self.inside(starts, length):
            views = sliding_window_view(self.values, length, axis=0)
            out = np.ascontiguousarray(views[starts], dtype=np.float32)
        else:
            rows = starts[:, None] + np.arange(length)
            inside = (rows >= first[:, None]) & (rows < stop[:, None])
            steps = np.full((starts.size, length, self.num_channels), np.nan, np.float32)
            steps[inside] = self.values[rows[inside]]
            out = np.ascontiguousarray(steps.transpose(0, 2, 1))
        # A table was checked when it was loaded; of a mapped file only what is read can be.
        if isinstance(self.values, np.memmap) and bool(np.isinf(out).any()):
            window, channel, offset = (int(i) for i in np.argwhere(np.isinf(out))[0])
            raise self._infinite(channel, int(starts[window]) + offset)
        return out

    def inside(self, starts: Integers, length: int) -> bool:
        """Whether all of the windows of `length` rows from `starts` (B,) on lie in their recordings."""
        first, stop = self._recordings(starts)
        return bool(np.all((starts >= first) & (starts + length <= stop)))

    def _recordings(self, starts: Integers) -> tuple[Integers, Integers]:
        """First and one past the last row of the recording in which each start lies."""
        recording = np.clip(np.searchsorted(self.ptr, starts, side="right") - 1, 0, self.num_items - 1)
        return self.ptr[recording], self.ptr[recording + 1]

    def scale(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of each channel's observed values in the train part, and nowhere else.

        Read in blocks of rows, so that a mapped file needs little memory. A channel that is constant there, or never
        observed, has deviation 1; one never observed has mean 0.

        Returns:
            mean (C,) and deviation (C,), float64, the deviation that of a population (ddof=0).

        Raises:
            StructmaeError: an infinite value.
        """
        count = np.zeros(self.num_channels)
        mean, squares = np.zeros(self.num_channels), np.zeros(self.num_channels)
        low, high = np.full(self.num_channels, np.inf), np.full(self.num_channels, -np.inf)
        for row, block in self.train_blocks():
            if bool(np.isinf(block).any()):
                at, channel = (int(i) for i in np.argwhere(np.isinf(block))[0])
                raise self._infinite(channel, row + at)
            observed = ~np.isnan(block)
            more = observed.sum(0)
            block_mean = np.where(observed, block, 0.0).sum(0) / np.maximum(more, 1)
            deviations = np.where(observed, block - block_mean, 0.0)
            # Two sets of values joined: their squares about the common mean (Chan, Golub and LeVeque, 1979).
            total = np.maximum(count + more, 1)
            shift = block_mean - mean
            squares += (deviations**2).sum(0) + shift**2 * count * more / total
            mean += shift * more / total
            count += more
            low = np.minimum(low, np.where(observed, block, np.inf).min(0))
            high = np.maximum(high, np.where(observed, block, -np.inf).max(0))
        constant = high <= low  # by the values themselves: the squares of a constant are not always exactly zero
        mean = np.where(constant & (count > 0), low, mean)
        deviation = np.sqrt(squares / np.maximum(count, 1))
        return mean, np.where(constant | (deviation == 0), 1.0, deviation)

    def following(self, count: int) -> pd.Index:
        """The `count` stamps after the last row: of the same kind as `stamps`, or row numbers where there are none.

        Raises:
            UsageError: a negative count, or samples, which have no common clock.
        """
        if count < 0 or self.level != "panel":
            raise UsageError(f"following: count is {count} at level '{self.level}'; it must be 0 or more, of a panel.")
        if self.stamps is None or isinstance(self.step, int) or self.step is None:
            step = self.step if isinstance(self.step, int) else 1
            last = self.num_rows - 1 if self.stamps is None else int(self.stamps[-1])
            return pd.RangeIndex(last + step, last + step * (count + 1), step)
        return pd.date_range(self.stamps[-1], periods=count + 1, freq=self.step)[1:]

    def fingerprint(self) -> str:
        """SHA-256 (hex) over dtype, shape and bytes of values, ptr, y and the split.

        Of an array above 64 MB, dtype, shape and evenly spaced pages count: a change between them is not seen. Two
        loads of the same data have the same fingerprint; names, stamps, notes and paths do not count.
        """
        parts: list[tuple[str, NDArray[Any] | None]] = [("values", self.values), ("ptr", self.ptr), ("y", self.y)]
        parts += [(f"split.{key}", self.split[key]) for key in sorted(self.split)]
        digest = hashlib.sha256()
        for key, array in parts:
            if array is None:
                digest.update(f"{key}:none;".encode())
                continue
            digest.update(f"{key}:{array.dtype}:{array.shape};".encode())
            for piece in _pieces(array):
                digest.update(np.ascontiguousarray(piece).tobytes())
        return digest.hexdigest()

    def train_blocks(self) -> Iterator[tuple[int, Floats]]:
        """The train part in blocks of rows: the first row of each, and its values (n, C) as float64."""
        size = max(1, _BLOCK // max(1, self.num_channels))
        for first, stop in self._train_spans():
            for row in range(first, stop, size):
                yield row, np.asarray(self.values[row : min(row + size, stop)], dtype=np.float64)

    def _train_spans(self) -> Iterator[tuple[int, int]]:
        train = self.split["train"]
        if self.level == "panel":
            yield int(train[0]), int(train[1])
            return
        # Neighbouring recordings are one span, so that many short ones are not read one by one.
        breaks = np.flatnonzero(np.diff(train) != 1) + 1
        for run in np.split(train, breaks):
            if run.size:
                yield int(self.ptr[run[0]]), int(self.ptr[run[-1] + 1])

    def _infinite(self, channel: int, row: int) -> StructmaeError:
        return StructmaeError(
            f"{self.name}: channel '{self.channels[channel]}' is infinite in row {row}. Values must be finite; "
            "use NaN for a missing one."
        )


def _pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """All of an array, or evenly spaced runs of rows of one that is large."""
    if array.nbytes <= FINGERPRINT_WHOLE:
        yield array
        return
    rows = max(1, _PAGE // max(1, array.nbytes // array.shape[0]))
    for start in np.linspace(0, array.shape[0] - rows, _PAGES).astype(np.int64).tolist():
        yield array[start : start + rows]
