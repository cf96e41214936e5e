"""Feature columns: which are categories, and their codes, for matrices and for tables."""

import difflib
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from structmae.data.graphs import Schema
from structmae.errors import StructmaeError, UsageError

Floats = NDArray[np.float32]

#: Most values that a column of whole numbers in a matrix may have as categories.
MAX_CODES = 10_000
#: Most distinct values of a text column of a table.
MAX_TEXT = 1000


def matrix(x: Tensor, schema: Schema | None, name: str) -> tuple[Tensor, Schema, list[str]]:
    """Codes, schema and notes of a feature matrix x (N, F): whole-number columns are categories.

    A matrix of floats or bools is taken as it is. Of whole numbers, every column is categorical, with the values 0..max
    in code order. With `schema`, its categories hold instead.

    Raises:
        StructmaeError: a negative whole number, more than 10,000 values, or one that the schema does not know.
    """
    if schema is not None:
        return _matrix_like(x, schema, name)
    if x.dtype == torch.bool or x.dtype.is_floating_point:
        return x.float(), Schema(width=x.size(1)), []
    if x.numel() and int(x.min()) < 0:
        row, column = (x < 0).nonzero()[0].tolist()
        raise StructmaeError(
            f"{name}: feature column {column} of node {row} is {int(x[row, column])}. Whole numbers are categories "
            "0, 1, 2, ...: shift them, or use x.float() for plain numbers."
        )
    tops = [int(top) for top in x.max(dim=0).values] if x.numel() else []
    wide = next((column for column, top in enumerate(tops) if top >= MAX_CODES), None)
    if wide is not None:
        raise StructmaeError(
            f"{name}: feature column {wide} reaches {tops[wide]}. Whole numbers are categories, at most {MAX_CODES} a "
            "column: use x.float() for plain numbers, or drop a column of ids."
        )
    own = Schema(width=x.size(1), categories={column: tuple(range(top + 1)) for column, top in enumerate(tops)})
    return x.float(), own, [f"columns: {len(tops)} of whole numbers, read as categories"]


def _matrix_like(x: Tensor, schema: Schema, name: str) -> tuple[Tensor, Schema, list[str]]:
    if schema.source == "degree" or x.size(1) != schema.width:
        # Nothing to code: validate.build ignores or refuses such features, with the message that fits.
        return x.float(), Schema(width=x.size(1)), []
    coded = x.float().clone()
    for column, values in schema.categories.items():
        # Columns of a table have codes that stand for words; a matrix that follows it already holds codes.
        numbers = [value for value in values if isinstance(value, int)]
        known = numbers if len(numbers) == len(values) else list(range(len(values)))
        position = {value: code for code, value in enumerate(known)}
        present, inverse = torch.unique(coded[:, column], return_inverse=True)
        codes = []
        for value in present.tolist():
            if not math.isfinite(value):
                codes.append(value)  # refused by validate.build, which names the cell
                continue
            if value not in position:
                row = int((coded[:, column] == value).nonzero()[0])
                raise StructmaeError(
                    f"{name}: feature column {schema.column(column)} of node {row} is {value:g}, a category that the "
                    f"model was not trained with (it knows {len(known)}: {_some(known)})."
                )
            codes.append(float(position[value]))
        coded[:, column] = torch.tensor(codes)[inverse]
    return coded, schema, []


def _some(values: list[int] | list[str]) -> str:
    return ", ".join(str(v) for v in values[:8]) + (", ..." if len(values) > 8 else "")


def table(
    frame: pd.DataFrame, ids: list[str], categorical: str | Sequence[str], schema: Schema | None, where: str
) -> tuple[Tensor | None, Schema | None, list[str]]:
    """Codes x (N, F), schema and notes of the feature columns of a node table; None, None without a column.

    Text and bool columns are categories, whole-number columns as `categorical` says (see `load`). With `schema`, its
    columns are picked by name and coded as it says. A missing cell is NaN, which `validate.build` refuses.

    Raises:
        UsageError: `categorical` names a column that does not exist.
        StructmaeError: a column that is missing, of another type, or with a category that the schema does not know.
    """
    if schema is not None:
        return _table_like(frame, ids, schema, where)
    names = [str(name) for name in frame.columns]
    chosen = None if categorical in ("auto", "none") else named(categorical, names, where)
    if not names:
        return None, None, []
    x: list[Floats] = []
    categories: dict[int, tuple[str | int, ...]] = {}
    for index, name in enumerate(names):
        column = frame[name]
        wanted = name in chosen if chosen is not None else _is_category(column, categorical == "auto")
        if not wanted:
            x.append(_numbers(column, ids, name, where))
            continue
        cells = _cells(column, name, where)
        limit = MAX_TEXT if _is_text(column) else MAX_CODES
        distinct = {cell for cell in cells if cell is not None}
        if len(distinct) > limit:
            raise StructmaeError(
                f"{where}: column '{name}' has {len(distinct)} distinct values, more than {limit} categories. "
                "Drop it if it is a name or a comment, or code it as numbers."
            )
        # Whole numbers in their order, words in that of the alphabet.
        whole = all(isinstance(cell, int) for cell in distinct)
        values: list[str | int] = [*sorted(distinct)] if whole else [*sorted(str(cell) for cell in distinct)]
        categories[index] = tuple(values)
        x.append(_codes(cells, values, ids, name, where))
    shown = ", ".join(f"{names[index]}: {len(values)} values" for index, values in categories.items())
    note = f"columns: {len(names) - len(categories)} numeric, {len(categories)} categorical"
    return _stack(x), Schema(len(names), tuple(names), categories), [f"{note} ({shown})" if shown else note]


def named(categorical: str | Sequence[str], names: list[str], where: str) -> set[str]:
    """The columns that `categorical` names.

    Raises:
        UsageError: one does not exist.
    """
    parts = categorical.split(",") if isinstance(categorical, str) else categorical
    chosen = {part.strip() for part in parts if part.strip()}
    for name in sorted(chosen - set(names)):
        near = difflib.get_close_matches(name, names, n=2)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(
            f"categorical: {where} has no feature column '{name}'.{hint} Use auto, none, or names with commas."
        )
    return chosen


def _table_like(
    frame: pd.DataFrame, ids: list[str], schema: Schema, where: str
) -> tuple[Tensor | None, Schema | None, list[str]]:
    names = [str(name) for name in frame.columns]
    notes: list[str] = []
    if schema.source == "degree":
        return None, None, [f"columns ignored: {', '.join(names)} (the model reads node degrees)"] if names else []
    if schema.names is not None:
        for name in schema.names:
            if name not in names:
                raise StructmaeError(f"{where}: no column '{name}', which the model was trained with. Add it.")
        extra = [name for name in names if name not in schema.names]
        if extra:
            notes.append(f"columns ignored: {', '.join(extra)} (the model was not trained with them)")
        names = list(schema.names)
    elif len(names) != schema.width:
        raise StructmaeError(
            f"{where}: nodes have {len(names)} feature columns, the model was trained with {schema.width}. "
            "Give the same columns in the same order."
        )
    x = []
    for index, name in enumerate(names):
        if index in schema.categories:
            x.append(_codes(_cells(frame[name], name, where), schema.categories[index], ids, name, where))
        else:
            x.append(_numbers(frame[name], ids, name, where))
    return _stack(x), schema, notes


def _stack(x: list[Floats]) -> Tensor:
    return torch.from_numpy(np.stack(x, axis=1))


def _is_text(column: pd.Series) -> bool:
    return not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column))


def _is_category(column: pd.Series, auto: bool) -> bool:
    if _is_text(column) or pd.api.types.is_bool_dtype(column):
        return True
    return auto and pd.api.types.is_integer_dtype(column) and 3 <= column.nunique() <= 32


def _numbers(column: pd.Series, ids: list[str], name: str, where: str) -> Floats:
    if _is_text(column):
        row = int(np.flatnonzero(column.notna().to_numpy())[0])
        raise StructmaeError(
            f"{where}: column '{name}' of node '{ids[row]}' is '{column.iloc[row]}'; the column must hold numbers. "
            "Code it as numbers, or name it in categorical."
        )
    numbers: Floats = column.to_numpy(dtype=np.float32, na_value=np.nan)
    return numbers


def _cells(column: pd.Series, name: str, where: str) -> list[str | int | None]:
    """The values of a categorical column: whole numbers as int, the rest as text, None where missing."""
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise StructmaeError(f"{where}: column '{name}' holds dates. Code it as numbers, or drop it.")
    cells: list[str | int | None] = []
    for value, missing in zip(column.tolist(), column.isna().tolist(), strict=True):
        if missing:
            cells.append(None)
        elif isinstance(value, bool):
            cells.append(str(value))
        elif isinstance(value, int):
            cells.append(value)
        elif isinstance(value, float):
            if not value.is_integer():
                raise StructmaeError(
                    f"{where}: column '{name}' holds {value:g}. Categories are whole numbers or words: leave it out of "
                    "categorical, or round it."
                )
            cells.append(int(value))
        else:
            cells.append(str(value).strip())
    return cells


def _codes(cells: list[str | int | None], values: Sequence[str | int], ids: list[str], name: str, where: str) -> Floats:
    # Compared as text: a second table may hold 3 where the first held "3" beside words.
    position = {str(value): code for code, value in enumerate(values)}
    codes = np.full(len(cells), np.nan, np.float32)
    for row, cell in enumerate(cells):
        if cell is None:
            continue
        if str(cell) not in position:
            raise StructmaeError(
                f"{where}: column '{name}' of node '{ids[row]}' is '{cell}', a category that the model was not trained "
                f"with (it knows {len(values)}: {_some([str(value) for value in values])})."
            )
        codes[row] = position[str(cell)]
    return codes
