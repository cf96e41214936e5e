"""Checks of what describes a token set (layout.py): arrays of the right dtype, shape and range, or a UsageError."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structmae.errors import UsageError
from structmae.masking.groups import Ints, wholes


def shape(value: Any, ptr: Ints) -> tuple[int, ...]:
    """`value` as the grid of each item ptr (I+1,). Raises UsageError where an item has another number of tokens."""
    grid = wholes("shape", value, 1)
    if not grid:
        raise UsageError("shape = (): must have an axis or more; give the grid of an item, as (H, W)")
    sizes = np.diff(ptr)
    wrong = np.flatnonzero(sizes != math.prod(grid))
    if len(wrong):
        raise UsageError(
            f"shape = {grid}: has {math.prod(grid)} places, item {wrong[0]} has {sizes[wrong[0]]} tokens; "
            "give the grid of an item, on which each token has its place"
        )
    return grid


def short(a: NDArray[Any]) -> str:
    """An array in a line, its middle left out."""
    return np.array2string(a, threshold=6, edgeitems=2, separator=", ").replace("\n", "")


def ints(name: str, value: Any, size: int | None = None) -> Ints:
    """`value` as int64 in one dimension, of `size`. Raises UsageError."""
    a = np.asarray(value)
    if a.size == 0 and a.ndim == 1:
        a = a.astype(np.int64)
    if a.dtype.kind not in "iu" or a.ndim != 1:
        raise UsageError(
            f"{name} has dtype {a.dtype} and shape {a.shape}: must be integers in one dimension; convert it"
        )
    if size is not None and len(a) != size:
        raise UsageError(f"{name} has {len(a)} entries: must be {size}, by ptr; give one each")
    # A copy, for what the caller writes to later was never checked; and writable, or it is another type to Numba.
    return np.array(a, np.int64, order="C")


def ids(name: str, value: Any, size: int) -> Ints:
    """`value` (size,) as names of items: 0 or more. Raises UsageError."""
    a = ints(name, value, size)
    if (a < 0).any():
        raise UsageError(f"{name} = {a.min()}: must be 0 or more; number them from 0")
    return a


def valid(value: Any, observed: Any, size: int) -> NDArray[np.bool_] | None:
    """(size,) which tokens are: those of `value` of which any value is observed (size, ...). Raises UsageError."""
    given = None if value is None else bools("valid", value, (size,))
    if observed is None:
        return given
    rows = np.asarray(observed)
    axes = tuple(range(1, rows.ndim))
    seen: NDArray[np.bool_] = np.any(bools("observed", rows, (size, *rows.shape[1:])), axis=axes)
    return seen if given is None else seen & given


def bools(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """`value` as an array of bool of this shape. Raises UsageError."""
    a = np.asarray(value)
    if a.size == 0 and a.ndim == 1:
        a = a.astype(bool)
    if a.dtype != bool or a.shape != shape:
        raise UsageError(
            f"{name} has dtype {a.dtype} and shape {a.shape}: must be bool and {shape}, by ptr; convert it"
        )
    return np.array(a, order="C")


def weight(value: Any, size: int) -> NDArray[np.float64]:
    """`value` (size,) as float64, finite and 0 or more. Raises UsageError."""
    a = np.asarray(value)
    if a.dtype.kind not in "fiu" or a.shape != (size,):
        raise UsageError(f"weight has dtype {a.dtype} and shape {a.shape}: must be numbers and ({size},), by ptr")
    a = np.array(a, np.float64, order="C")
    if len(a) and not (np.isfinite(a).all() and a.min() >= 0):
        bad = a[~np.isfinite(a) | (a < 0)][0]
        raise UsageError(f"weight = {bad}: must be finite and 0 or more; shift or clip the scores")
    return a
