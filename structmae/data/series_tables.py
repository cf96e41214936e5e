"""Series from tables: wide (a column a channel) or long (a row a value), in a file or a DataFrame."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from structmae.data.calendar import Grid, on_grid
from structmae.data.cells import numbers
from structmae.data.series import Integers, SeriesSchema
from structmae.data.series_build import SeriesDraft
from structmae.data.stamps import Roles, find_roles
from structmae.data.tablefile import TableFile
from structmae.errors import StructmaeError, UsageError

Values = NDArray[np.float32]


@dataclass
class _Table:
    """A table on its way: how messages name it and its rows, and the notes so far."""

    frame: pd.DataFrame
    where: str
    place: Callable[[int], str]
    notes: list[str] = field(default_factory=list)


def from_file(path: Path, roles: Roles, only: Sequence[str] | None = None) -> SeriesDraft:
    """The draft of a CSV or Parquet table. See `from_frame`."""
    special = "unique_id" if roles.id == "auto" else roles.id.strip().lower()
    table = TableFile.read(path, (special,))
    names = [str(name) for name in table.frame.columns]
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise StructmaeError(f"{path}: one column, {names[0]!r}: save the table with commas between the cells.")
    if names and all(re.fullmatch(r"-?\d*\.\d+([eE][-+]?\d+)?(\.\d+)?", name.strip()) for name in names):
        raise StructmaeError(f"{path}: the first line is {', '.join(names[:4])}: add a line of column names above it.")
    draft = from_frame(table.frame, roles, only, where=str(path), place=table.place)
    draft.name = slug(path.name.removesuffix(".gz").rpartition(".")[0])
    return draft


def from_frame(
    frame: pd.DataFrame,
    roles: Roles,
    only: Sequence[str] | None = None,
    *,
    where: str = "the table",
    place: Callable[[int], str] = lambda row: f"row {row}",
) -> SeriesDraft:
    """The draft of a table.

    Rows are put in time order, identical ones merged, and gaps in the stamps filled with rows that are not observed.

    Arguments:
        frame: wide (each numeric column a channel; stamps in the index or a column, or none), or long (columns of id,
            stamp and value; each id a channel).
        roles: which columns hold stamps, ids and values.
        only: read these channels of a wide table, and no cell of another.

    Raises:
        UsageError: a column that is named and does not exist.
        StructmaeError: an empty table, no numeric column, cells that are no numbers among numbers, infinite values,
            stamps that are missing, repeated with other values, or on no grid.
    """
    head = frame.iloc[:0].copy()
    frame = _plain(frame, where)
    found = find_roles(frame, roles, where, place)
    table = _Table(found.frame, where, place, list(found.notes))
    if found.id is not None:
        assert found.value is not None
        assert found.stamps is not None
        draft = _long(table, found.stamps, found.time, found.id, found.value)
    else:
        draft = _wide(table, found.stamps, found.time, only)
        if found.stamps is None and roles.time == "auto":
            draft.notes.append("no column of stamps: rows are read in their order, one step apart")
    draft.head = head
    return draft


def slug(name: str) -> str:
    """A name that a folder can have."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "series"


def _plain(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """One level of text names in the columns, and of stamps or numbers in the index."""
    if isinstance(frame.index, pd.MultiIndex) or not (
        isinstance(frame.index, (pd.DatetimeIndex, pd.PeriodIndex)) or pd.api.types.is_numeric_dtype(frame.index)
    ):
        frame = frame.reset_index()  # ids and text stamps are columns that pandas had put aside
    if isinstance(frame.columns, pd.MultiIndex):
        names = ["/".join(str(part) for part in name) for name in frame.columns]
    else:
        names = [str(name) for name in frame.columns]
    repeated = next((name for position, name in enumerate(names) if name in names[:position]), None)
    if repeated is not None:
        raise StructmaeError(f"{where}: two columns are named '{repeated}'. Rename one.")
    if not names or len(frame) == 0:
        raise StructmaeError(f"{where}: no {'rows' if names else 'columns'}: it is empty. Give rows at several times.")
    return frame.set_axis(names, axis=1)


def _wide(table: _Table, stamps: pd.Index | None, time: str | None, only: Sequence[str] | None) -> SeriesDraft:
    for name in only or ():
        if name not in table.frame.columns:
            shown = ", ".join(f"'{each}'" for each in table.frame.columns[:12])
            raise UsageError(f"{table.where}: no channel '{name}'; columns are {shown}.")
    names, columns = [], []
    skipped: list[str] = []
    for name in table.frame.columns:
        if only is not None and name not in only:
            skipped.append(name)
            continue
        cells, reason = numbers(table.frame[name], name, table.where, table.place)
        if cells is None:
            if only is not None:
                raise StructmaeError(f"{table.where}: column '{name}' is {reason}; a channel holds numbers.")
            table.notes.append(f"left out: column '{name}' is {reason}")
            continue
        names.append(name)
        columns.append(cells)
    if not columns and not skipped:
        shown = ", ".join(str(name) for name in table.frame.columns[:8])
        raise StructmaeError(
            f"{table.where}: no numeric column for a series: columns are {shown or 'stamps alone'}. A wide table has a "
            "column a channel, a long one unique_id,ds,y; a graph's edge table has src,dst, or say --kind graph."
        )
    values = np.zeros((len(table.frame), 0), np.float32)
    if columns:
        values = np.stack(columns, axis=1).astype(np.float32)
        _note_steps(table, names, columns)
    if len(values) < 2:
        raise StructmaeError(f"{table.where}: one row. Give rows at several times.")
    channels = tuple(names)
    schema = SeriesSchema(channels, "wide", time)
    draft = SeriesDraft("table", table.where, values, channels, schema, notes=table.notes)
    if stamps is None:
        return draft
    order = _sorted(stamps, table)
    order = _merged(stamps, values, order, table)
    grid = on_grid(stamps[order], table.where, lambda row: table.place(int(order[row])))
    _lay_out(draft, grid, values[order])
    return draft


def _note_steps(table: _Table, names: Sequence[str], columns: Sequence[NDArray[np.float64]]) -> None:
    """Says where float32 is coarse for how little a channel varies."""
    for name, cells in zip(names, columns, strict=True):
        seen = cells[np.isfinite(cells)]
        spread = float(seen.std()) if seen.size else 0.0
        step = float(np.spacing(np.float32(np.abs(seen).max()))) if seen.size else 0.0
        if spread > 1e-6 * step and step > 0.01 * spread:  # below that it is the rounding of a constant
            table.notes.append(
                f"'{name}' varies by {spread:.2g} about {seen.mean():.6g} and is read in steps of {step:.2g} "
                "(float32): take off its mean first"
            )


def _long(table: _Table, stamps: pd.Index, time: str | None, id: str, value: str) -> SeriesDraft:
    cells, reason = numbers(table.frame[value], value, table.where, table.place)
    if cells is None:
        raise StructmaeError(
            f"{table.where}: column '{value}' is {reason}; the value column of a long table is numbers."
        )
    channel, channels = _ids(table, id)
    others = [name for name in table.frame.columns if name not in (id, value)]
    if others:
        table.notes.append(f"left out: {', '.join(others[:8])} (a long table is read by {id}, {time}, {value})")
    distinct, rows = np.unique(stamps.asi8 if isinstance(stamps, pd.DatetimeIndex) else stamps, return_inverse=True)
    _refuse_repeats(table, stamps, rows, channel, channels, id)
    if bool((np.diff(rows * len(channels) + channel) < 0).any() and (np.diff(rows)[np.diff(channel) == 0] < 0).any()):
        table.notes.append("rows sorted by time")
    source = np.zeros(distinct.size, np.int64)
    source[rows[::-1]] = np.arange(rows.size)[::-1]  # the first row that has the stamp
    values = np.full((distinct.size, len(channels)), np.nan, np.float32)
    values[rows, channel] = cells
    schema = SeriesSchema(channels, "long", time, id, value)
    draft = SeriesDraft("table", table.where, values, channels, schema, notes=table.notes)
    grid = on_grid(stamps[source], table.where, lambda row: table.place(int(source[row])))
    _note_lengths(draft, rows, channel, distinct.size)
    _lay_out(draft, grid, values)
    return draft


def _ids(table: _Table, id: str) -> tuple[Integers, tuple[str, ...]]:
    """Codes (n,) of the channels by first appearance, and their names."""
    column = table.frame[id]
    blank = column.isna() | (column.astype(str).str.strip() == "")
    if bool(blank.any()):
        row = int(np.flatnonzero(blank)[0])
        raise StructmaeError(f"{table.where}: {table.place(row)} has no {id}. Fill it, or drop the line.")
    text = column.astype(str).str.strip().str.replace(r"^([+-]?\d+)\.0*$", r"\1", regex=True)
    codes, names = pd.factorize(text)
    return codes.astype(np.int64), tuple(str(name) for name in names)


def _refuse_repeats(
    table: _Table, stamps: pd.Index, rows: Integers, channel: Integers, channels: tuple[str, ...], id: str
) -> None:
    keys = rows * len(channels) + channel
    order = np.argsort(keys, kind="stable")
    again = np.flatnonzero(np.diff(keys[order]) == 0)
    if again.size:
        one, two = int(order[again[0]]), int(order[again[0] + 1])
        raise StructmaeError(
            f"{table.where}: {id} '{channels[channel[one]]}' has the stamp {stamps[one]} on {table.place(one)} and on "
            f"{table.place(two)}. Each has one row; drop or average the repeats."
        )


def _note_lengths(draft: SeriesDraft, rows: Integers, channel: Integers, total: int) -> None:
    first, last = np.full(len(draft.channels), total), np.full(len(draft.channels), -1)
    np.minimum.at(first, channel, rows)
    np.maximum.at(last, channel, rows)
    lengths = last - first + 1
    if bool((lengths < total).any()):
        short = int(np.argmin(lengths))
        draft.notes.append(
            f"channels of different length: not observed outside their span (the shortest, '{draft.channels[short]}': "
            f"{lengths[short]:,} of {total:,} rows)"
        )


def _sorted(stamps: pd.Index, table: _Table) -> Integers:
    """Rows in time order."""
    if stamps.is_monotonic_increasing:
        return np.arange(len(stamps))
    table.notes.append("rows sorted by time")
    return np.asarray(stamps.argsort(kind="stable"), dtype=np.int64)


def _merged(stamps: pd.Index, values: Values, order: Integers, table: _Table) -> Integers:
    """The order without rows that repeat the one before them."""
    again = np.flatnonzero(np.asarray(stamps[order][1:] == stamps[order][:-1]))
    if not again.size:
        return order
    one, two = values[order[again]], values[order[again + 1]]
    same = ((one == two) | (np.isnan(one) & np.isnan(two))).all(1)
    if not bool(same.all()):
        at = again[np.argmin(same)]
        first, second = sorted((int(order[at]), int(order[at + 1])))
        raise StructmaeError(
            f"{table.where}: the stamp {stamps[first]} is on {table.place(first)} and on {table.place(second)}, with "
            "different values. Each stamp has one row; drop one, average them, or name the id column of a long table."
        )
    table.notes.append(f"{again.size:,} repeated {'row' if again.size == 1 else 'rows'} merged")
    return np.delete(order, again + 1)


def _lay_out(draft: SeriesDraft, grid: Grid, values: Values) -> None:
    """Values (n, C) onto the rows of the grid."""
    draft.stamps, draft.step = grid.index, grid.step
    draft.notes += grid.notes
    if grid.take.size == len(values) and bool((grid.take == np.arange(len(values))).all()):
        draft.values = values
        return
    draft.values = np.where((grid.take >= 0)[:, None], values[grid.take], np.float32(np.nan))
