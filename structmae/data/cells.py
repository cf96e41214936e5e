"""Cells of a column as numbers, or what the column holds instead."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from structmae.data.series import Floats
from structmae.data.tablefile import MISSING
from structmae.errors import StructmaeError

_TRUTH = {"true": 1.0, "false": 0.0}


def numbers(
    column: pd.Series, name: str, where: str, place: Callable[[int], str]
) -> tuple[Floats, None] | tuple[None, str]:
    """The cells (n,) float64, NaN where blank; or None and what the column is ("text", "dates").

    Bool cells are 0 and 1. A column is text where fewer than half of its cells are numbers.

    Raises:
        StructmaeError: a few cells of a numeric column are no numbers, or one is infinite in float32.
    """
    kind = column.dtype
    if pd.api.types.is_datetime64_any_dtype(kind) or isinstance(kind, pd.PeriodDtype):
        return None, "dates"
    if pd.api.types.is_timedelta64_dtype(kind):
        return None, "durations"
    if pd.api.types.is_complex_dtype(kind):
        return None, "complex numbers"
    if pd.api.types.is_bool_dtype(kind) or pd.api.types.is_numeric_dtype(kind):
        cells = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        read = _from_text(column, name, where, place)
        if read is None:
            return None, "text"
        cells = read
    with np.errstate(over="ignore"):
        infinite = np.isinf(cells.astype(np.float32))
    if bool(infinite.any()):
        row = int(np.argmax(infinite))
        raise StructmaeError(
            f"{where}: column '{name}' holds {cells[row]:g} in {place(row)}. Values must be finite and fit float32; "
            "leave a missing one blank."
        )
    return cells, None


def _from_text(column: pd.Series, name: str, where: str, place: Callable[[int], str]) -> Floats | None:
    cells = [cell.strip() if isinstance(cell, str) else cell for cell in column.tolist()]
    text = pd.Series([None if _blank(cell) else cell for cell in cells], dtype=object)
    given = text.notna()
    truth = text[given].map(lambda cell: _TRUTH.get(str(cell).lower()))
    if given.any() and truth.notna().all():
        out = np.full(len(text), np.nan)
        out[given.to_numpy()] = truth.to_numpy(dtype=np.float64)
        return out
    plain = text.map(lambda cell: cell if isinstance(cell, (int, float)) else str(cell), na_action="ignore")
    # Objects that are no text (Decimal, Fraction) are numbers by their text.
    read = pd.to_numeric(
        plain,
        errors="coerce",
    )
    bad = (given & read.isna()).to_numpy()
    if bad.any():
        if int(read.notna().sum()) < int(bad.sum()):
            return None
        row = int(np.argmax(bad))
        more = f" ({int(bad.sum())} such cells)" if bad.sum() > 1 else ""
        raise StructmaeError(
            f"{where}: column '{name}' holds '{text.iloc[row]}' in {place(row)}, which is no number{more}. "
            "Correct the cell, or leave it blank."
        )
    return read.to_numpy(dtype=np.float64, na_value=np.nan)


def _blank(cell: Any) -> bool:
    return bool(pd.api.types.is_scalar(cell) and pd.isna(cell)) or (isinstance(cell, str) and cell in MISSING)
