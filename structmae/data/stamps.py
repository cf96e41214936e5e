"""Which columns of a table hold stamps, ids and values; and the stamps read from theirs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from structmae.data.calendar import first_bad_date, parse_dates
from structmae.data.series import Floats, Integers
from structmae.errors import StructmaeError, UsageError

_TIMES = ("date", "ds", "time", "timestamp", "datetime")


@dataclass(frozen=True)
class Roles:
    """What a person says of the columns: names, or "auto"; of time also "none"."""

    time: str = "auto"
    id: str = "auto"
    value: str = "auto"


@dataclass(frozen=True)
class Found:
    """The stamps (n,), the names of the columns of structure, and the frame without the column of stamps."""

    frame: pd.DataFrame
    stamps: pd.Index | None
    time: str | None
    id: str | None
    value: str | None
    notes: tuple[str, ...]


def find_roles(frame: pd.DataFrame, roles: Roles, where: str, place: Callable[[int], str]) -> Found:
    """What each column is. A table with a column unique_id, or with an id that is named, is long.

    Raises:
        UsageError: a named column that does not exist.
        StructmaeError: stamps that are missing or no dates; a long table without stamps or with no clear value.
    """
    id = _named(frame, roles.id, ("unique_id",), "id", where)
    if roles.id == "auto" and roles.value != "auto" and id is None:
        raise UsageError(f"{where}: value '{roles.value}' without an id: name the column of ids too (data.id).")
    notes: list[str] = []
    stamps, time = _stamps(frame, roles.time, where, place, notes, id)
    if time in frame.columns:
        frame = frame.drop(columns=str(time))
    value = None
    if id is not None:
        if stamps is None:
            raise StructmaeError(f"{where}: a long table (id '{id}') needs stamps: name their column (data.time).")
        value = _value(frame, roles.value, id, where)
    return Found(frame, stamps, time, id, value, tuple(notes))


def _named(frame: pd.DataFrame, asked: str, usual: tuple[str, ...], role: str, where: str) -> str | None:
    """The column that is asked for, or with "auto" the first with a usual name."""
    wanted = usual if asked == "auto" else (asked,)
    if asked in frame.columns:
        return asked
    for name in frame.columns:
        if str(name).strip().lower() in [each.strip().lower() for each in wanted]:
            return str(name)
    if asked == "auto":
        return None
    shown = ", ".join(str(name) for name in frame.columns[:12])
    raise UsageError(f"{where}: no column '{asked}' for data.{role}; columns are {shown}.")


def _value(frame: pd.DataFrame, asked: str, id: str, where: str) -> str:
    name = _named(frame, asked, ("y",), "value", where)
    if name is not None:
        return name
    numeric = [str(n) for n in frame.columns if n != id and pd.api.types.is_numeric_dtype(frame[n])]
    if len(numeric) == 1:
        return numeric[0]
    raise StructmaeError(
        f"{where}: which column holds the values of the long table: {', '.join(numeric) or 'none is numeric'}? "
        "Name one (data.value)."
    )


def _stamps(
    frame: pd.DataFrame, asked: str, where: str, place: Callable[[int], str], notes: list[str], id: str | None
) -> tuple[pd.Index | None, str | None]:
    """Stamps (n,) and the name of their column, or None twice."""
    index = frame.index
    if asked == "none":
        return None, None
    if asked != "auto" and asked == index.name and asked not in frame.columns:
        return _of_index(index, where, place, notes), asked
    name = _named(frame, asked, _TIMES, "time", where)
    if asked == "auto" and isinstance(index, (pd.DatetimeIndex, pd.PeriodIndex)):
        name = None
    if name is not None:
        return _of_column(frame[name], name, where, place, notes), name
    plain = isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1
    if not plain:
        return _of_index(index, where, place, notes), "time" if index.name is None else str(index.name)
    for name in frame.columns:
        column = frame[name]
        if name == id or not (_is_text(column) or pd.api.types.is_datetime64_any_dtype(column)):
            continue
        if pd.api.types.is_datetime64_any_dtype(column):
            return _of_column(column, name, where, place, notes), name
        found = parse_dates(column, guess=True)
        if found is not None and not found[0].hasnans:
            notes += found[1]
            return found[0], name
    return None, None


def _of_index(index: pd.Index, where: str, place: Callable[[int], str], notes: list[str]) -> pd.Index:
    if isinstance(index, pd.PeriodIndex):
        return index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex):
        if index.hasnans:
            raise _missing(where, place, int(np.argmax(index.isna())), "the index")
        return index
    return _of_column(pd.Series(index.to_numpy()), "the index", where, place, notes)


def _of_column(column: pd.Series, name: str, where: str, place: Callable[[int], str], notes: list[str]) -> pd.Index:
    blank = (
        (column.isna() | (column.astype(str).str.strip() == "")).to_numpy()
        if _is_text(column)
        else column.isna().to_numpy()
    )
    if blank.any():
        raise _missing(where, place, int(np.argmax(blank)), f"column '{name}'")
    if isinstance(column.dtype, pd.PeriodDtype):
        return pd.PeriodIndex(column).to_timestamp()
    if pd.api.types.is_datetime64_any_dtype(column):
        return pd.DatetimeIndex(column)
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return _of_numbers(column.to_numpy(dtype=np.float64), column, name, where, place, notes)
    found = parse_dates(column)
    if found is None:
        row = first_bad_date(column)
        raise StructmaeError(
            f"{where}: column '{name}' holds '{column.iloc[row]}' in {place(row)}, which is no date that can be read "
            "with the others. Write stamps as 2024-01-31 18:00, or say --set data.time=none."
        )
    notes += found[1]
    return found[0]


def _of_numbers(
    values: Floats, column: pd.Series, name: str, where: str, place: Callable[[int], str], notes: list[str]
) -> pd.Index:
    """Whole numbers as they are, 20240131 as a date; regular fractions of a clock as the numbers of their rows."""
    if not np.isfinite(values).all():
        raise _missing(where, place, int(np.argmin(np.isfinite(values))), f"column '{name}'")
    if bool((values == np.floor(values)).all()):
        # Nanoseconds since 1970 are too long for float64.
        whole: Integers = (
            column.to_numpy(np.int64) if pd.api.types.is_integer_dtype(column) else values.astype(np.int64)
        )
        if name.strip().lower() in _TIMES and bool(((whole > 18000000) & (whole < 22000000)).all()):
            found = parse_dates(pd.Series(whole).astype(str))
            if found is not None:
                return found[0]
        return pd.Index(np.asarray(whole))
    order = np.argsort(values, kind="stable")
    steps = np.diff(values[order])
    step = float(np.median(steps))
    if step <= 0 or bool((np.abs(steps - step) > 0.01 * step).any()):
        row = int(order[int(np.argmax(np.abs(steps - step))) + 1])
        raise StructmaeError(
            f"{where}: stamps are irregular: column '{name}' goes on by {step:g}, but not at {values[row]:g} "
            f"({place(row)}). Resample the table first, or leave the stamps out (--set data.time=none)."
        )
    notes.append(f"column '{name}' holds fractions, {step:g} apart: rows are numbered instead")
    ranks = np.empty(values.size, np.int64)
    ranks[order] = np.arange(values.size)
    return pd.Index(ranks)


def _missing(where: str, place: Callable[[int], str], row: int, source: str) -> StructmaeError:
    return StructmaeError(f"{where}: {place(row)} has no stamp in {source}. Fill it, or drop the line.")


def _is_text(column: pd.Series) -> bool:
    return pd.api.types.is_string_dtype(column.dtype) or pd.api.types.is_object_dtype(column.dtype)
