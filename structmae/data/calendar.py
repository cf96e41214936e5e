"""Stamps of rows: dates read from text, the step between them, gaps on their grid, and the season of a step."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from structmae.data.series import Integers, Step
from structmae.errors import StructmaeError

#: Share of the stamps that must lie on the grid of the commonest step.
ON_GRID = 0.9
#: A grid with fewer rows observed than this is one stamp gone wrong, not a series with gaps.
_COVERAGE = 0.05
_CALENDARS = ("B", "MS", "ME", "BMS", "BME", "QS", "QE", "YS", "YE")
#: Days of a calendar's step, and of how many steps the median may be (every second month, no weeks of business days).
_LENGTHS = {"D": (1, 20), "": (1, 3), "M": (30, 13), "Q": (91, 4), "Y": (365, 10)}
_SEASONS = {"B": 5, "C": 5, "BH": 8, "SM": 24, "WOM": 12, "W": 52, "Q": 4, "BQ": 4, "Y": 1, "BY": 1, "M": 12, "BM": 12}
#: Months without a day, which pandas does not guess, come after the standard form.
_FORMATS = ("ISO8601", "%Y/%m", "%b %Y", "%B %Y", "%b-%Y", "%b-%y")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4})?|\d{8}\b|\d{1,2}[ -]?[A-Za-z]{3,9}|[A-Za-z]{3,9}\.?[ -]\d")


@dataclass(frozen=True)
class Grid:
    """Regular stamps: `index` (R,), the step between them, and for each the row that it takes, -1 for none (R,)."""

    index: pd.Index
    step: Step
    take: Integers
    notes: list[str]


def on_grid(stamps: pd.Index, where: str, place: Callable[[int], str]) -> Grid:
    """The regular grid of stamps (n,) that are sorted and distinct: datetimes or whole numbers.

    The step is the one that pandas infers (hours, business days, month ends), else the commonest difference. Where at
    least 90 % of the stamps lie on the grid, it is filled up: what is missing becomes a row without a stamp's values.

    Raises:
        StructmaeError: fewer than two stamps, or stamps that lie on no grid; the first one that does not is named.
    """
    if len(stamps) < 2:
        raise StructmaeError(f"{where}: one row. Give rows at several times.")
    codes = _codes(stamps)
    differences = np.diff(codes)
    whole = np.arange(len(stamps))
    if isinstance(stamps, pd.DatetimeIndex):
        # Days of a zone with summer time have 23 to 25 hours, and months 28 to 31 days: a calendar knows both.
        offset = _inferred(stamps)
        if offset is not None:
            return Grid(stamps, _fixed(offset), whole, [])
    elif bool((differences == differences[0]).all()):
        return Grid(stamps, int(differences[0]), whole, [])
    if isinstance(stamps, pd.DatetimeIndex):
        if bool((differences == differences[0]).all()):
            return Grid(stamps, _span(int(differences[0]), stamps), whole, [])
        found = _on_calendar(stamps)
        if found is not None:
            return _fill(stamps, *found)
    values, counts = np.unique(differences, return_counts=True)
    common = int(values[np.argmax(counts)])
    residues, sizes = np.unique(codes % common, return_counts=True)
    phase = int(residues[np.argmax(sizes)])
    aligned = codes % common == phase
    if aligned.mean() < ON_GRID:
        row = int(np.flatnonzero(~aligned)[0])
        raise StructmaeError(
            f"{where}: stamps are irregular: the commonest step is {_shown_step(common, stamps)}, and "
            f"{stamps[row]} ({place(row)}) is not on its grid. Resample the table first "
            f"(frame.resample('{_rule(common, stamps)}').mean()), or leave the stamps out (--set data.time=none)."
        )
    first, last = codes[aligned][0], codes[aligned][-1]
    size = int((last - first) // common) + 1
    if aligned.sum() < _COVERAGE * size:
        gap = int(np.argmax(differences))
        raise StructmaeError(
            f"{where}: {len(stamps)} stamps lie on a grid of {size:,} (step {_shown_step(common, stamps)}); the "
            f"longest gap is from {stamps[gap]} to {stamps[gap + 1]} ({place(gap + 1)}). Correct it, or resample."
        )
    grid = first + common * np.arange(size)
    index = _from_codes(grid, stamps)
    return _fill(stamps, index, _span(common, stamps) if isinstance(stamps, pd.DatetimeIndex) else common)


def _fill(stamps: pd.Index, index: pd.Index, step: Step) -> Grid:
    take = stamps.get_indexer(index)
    notes = []
    if missing := int((take < 0).sum()):
        first = index[int(np.argmin(take >= 0))]
        notes.append(f"{missing:,} missing stamps (the first: {first}): their rows are not observed")
    if left := len(stamps) - int((take >= 0).sum()):
        off = stamps[~np.isin(np.arange(len(stamps)), take)][0]
        notes.append(
            f"{left:,} {'row' if left == 1 else 'rows'} left out: not on the grid of the stamps (the first: {off})"
        )
    return Grid(index, step, take.astype(np.int64), notes)


def _on_calendar(stamps: pd.DatetimeIndex) -> tuple[pd.DatetimeIndex, pd.DateOffset] | None:
    """The grid of a calendar with gaps: business days without holidays, months with some missing."""
    if bool((stamps.normalize() + (stamps[0] - stamps[0].normalize()) != stamps).any()):
        return None  # stamps at several times of the day
    days = float(np.median(np.diff(_codes(stamps.tz_localize(None).as_unit("s"))))) / 86400
    best: tuple[float, pd.DatetimeIndex, pd.DateOffset] | None = None
    for name in ("D", *_CALENDARS):
        offset = _offset(name)
        # Weekly stamps are no business days with four in five missing, nor are hours days.
        length, most = _LENGTHS[name.removeprefix("B")[:1]]
        if not 0.4 <= days / length <= most:
            continue
        if name == "D" and stamps.tz is None:
            continue  # a fixed step
        index = pd.date_range(offset.rollforward(stamps[0]), stamps[-1], freq=offset)
        if len(index) < 2 or len(index) > len(stamps) / _COVERAGE:
            continue
        # Every second month is a calendar too: the common distance of the stamps, in rows of the grid.
        found = np.flatnonzero(stamps.get_indexer(index) >= 0)
        if found.size > 1 and (every := int(np.gcd.reduce(np.diff(found)))) > 1:
            index, offset = index[found[0] :: every], offset * every
        hits = found.size
        coverage = hits / len(index)
        if hits >= (1.0 if name == "B" else ON_GRID) * len(stamps) and (best is None or coverage > best[0]):
            best = (coverage, index, offset)
    return None if best is None else best[1:]


def parse_dates(cells: pd.Series, guess: bool = False) -> tuple[pd.DatetimeIndex, list[str]] | None:
    """Text cells (n,) as datetimes with notes, or None where they do not parse whole.

    01/02/2020 is read as that of month and day which gives the more regular steps. With `guess` only cells that look
    like dates are tried.
    """
    first = next((str(cell) for cell in cells.head(50) if not pd.isna(cell)), "")
    if guess and not _DATE.match(first.strip()):
        return None
    for form in _FORMATS:
        found = _attempt(cells, format=form)
        if found is not None:
            return found, []
    month, day = _attempt(cells, dayfirst=False), _attempt(cells, dayfirst=True)
    if month is not None and day is not None and not month.equals(day):
        ways = ((month, "month first"), (day, "day first"))
        found, way = max(ways, key=lambda pair: _regularity(pair[0]))
        return found, [f"dates such as {first} are read with the {way}"]
    if (found := day if month is None else month) is not None:
        return found, []
    found = _attempt(cells, format="ISO8601", utc=True)
    return None if found is None else (found, ["stamps have several offsets from UTC: read as UTC"])


def first_bad_date(cells: pd.Series) -> int:
    """The row of the first cell that is no date by itself."""
    for row, cell in enumerate(cells):
        if _attempt(pd.Series([cell])) is None:
            return row
    return 0


def season(step: Step | None) -> int:
    """Rows of the season that a step suggests: a day of hours or minutes, a week of days, a year of weeks or months."""
    if step is None or isinstance(step, int):
        return 1
    if isinstance(step, pd.Timedelta):
        return _season_of_span(step)
    fixed = _fixed(step)
    if isinstance(fixed, pd.Timedelta):
        return _season_of_span(fixed)
    code = step.base.freqstr.partition("-")[0].upper()
    multiple = abs(step.n)
    if code == "D":
        return _season_of_span(pd.Timedelta(days=multiple))
    rows = _SEASONS.get(code, _SEASONS.get(code[:-1], 1))
    return rows // multiple if rows % multiple == 0 else 1


def _season_of_span(step: pd.Timedelta) -> int:
    day, week = pd.Timedelta(days=1), pd.Timedelta(weeks=1)
    if step < pd.Timedelta(seconds=1):
        return 1
    whole = pd.Timedelta(hours=1) if step < pd.Timedelta(minutes=1) else day if step < day else week
    rows = (pd.Timedelta(weeks=52) if step >= week else whole) / step
    return int(rows) if rows == int(rows) else 1


def _attempt(cells: pd.Series, **how: Any) -> pd.DatetimeIndex | None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = pd.DatetimeIndex(pd.to_datetime(cells, errors="raise", **how))
        except (ValueError, TypeError, OverflowError):
            return None
    # A warning tells of a format guessed cell by cell, or of the other order of day and month: no clean reading.
    return None if said else found


def _regularity(stamps: pd.DatetimeIndex) -> float:
    """Share of the commonest difference among all: 1 of a regular clock."""
    if len(stamps) < 2:
        return 1.0
    return float(np.unique(np.diff(_codes(stamps)), return_counts=True)[1].max() / (len(stamps) - 1))


def _inferred(stamps: pd.DatetimeIndex) -> pd.DateOffset | None:
    if len(stamps) < 3:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas 4 gives the offset itself, which is as welcome
        name: Any = pd.infer_freq(stamps)
    return None if name is None else _offset(name)


def _offset(name: Any) -> pd.DateOffset:
    # to_offset gives a BaseOffset, which DateOffset only poses as a base class of.
    return cast(pd.DateOffset, to_offset(name))


def _fixed(offset: pd.DateOffset) -> Step:
    """A Timedelta for offsets that always last the same; days are a calendar's (a zone may have summer time)."""
    if offset.base.freqstr == "D":  # a Tick before pandas 3
        return offset
    return pd.Timedelta(offset) if isinstance(offset, pd.offsets.Tick) else offset


def _codes(stamps: pd.Index) -> Integers:
    return stamps.asi8 if isinstance(stamps, pd.DatetimeIndex) else stamps.to_numpy(np.int64)


def _from_codes(codes: Integers, like: pd.Index) -> pd.Index:
    if not isinstance(like, pd.DatetimeIndex):
        return pd.Index(codes)
    index = pd.DatetimeIndex(codes.view(f"M8[{like.unit}]"))
    return index if like.tz is None else index.tz_localize("UTC").tz_convert(like.tz)


def _span(code: int, like: pd.DatetimeIndex) -> pd.Timedelta:
    return pd.Timedelta(np.timedelta64(code, like.unit))


def _shown_step(code: int, like: pd.Index) -> str:
    return str(_span(code, like)).removeprefix("0 days ") if isinstance(like, pd.DatetimeIndex) else str(code)


def _rule(code: int, like: pd.Index) -> str:
    """The rule for pandas' resample of a step."""
    if not isinstance(like, pd.DatetimeIndex):
        return str(code)
    span = _span(code, like)
    for rule in ("D", "h", "min", "s", "ms", "us"):
        unit = pd.Timedelta(f"1{rule}")
        if span % unit == pd.Timedelta(0):
            return f"{span // unit}{rule}"
    return f"{span.value}ns"
