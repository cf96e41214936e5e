"""Group ids, or stratum ids, for the tokens of a layout: `layout(ptr, group=tube((8, 14, 14), items=4))`.

Tokens of an item lie row-major on its grid. Ids are unique in an item and the same in each, for a layout compares ids
within an item only. All arrays are int64.
"""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structmae.errors import UsageError

Ints = NDArray[np.int64]


def cells(shape: Sequence[int], size: Sequence[int], items: int = 1) -> Ints:
    """(items x prod(shape),) the cell of each token, where a cell has extent `size` on the axes of the grid `shape`.

    Cells are numbered row-major; those at an edge are smaller where `size` does not divide `shape`. Raises UsageError
    for extents below 1, or of another number of axes.

        >>> cells((2, 4), (1, 2)).tolist()
        [0, 0, 1, 1, 2, 2, 3, 3]
    """
    shape, size = _extents("shape", shape), _extents("size", size)
    if len(shape) != len(size):
        raise UsageError(f"size = {size}: has {len(size)} axes, must have {len(shape)}, as shape; give one extent each")
    item = np.zeros(shape, np.int64)
    for axis, (n, step) in enumerate(zip(shape, size, strict=True)):
        place = np.arange(n) // step
        item = item * -(-n // step) + place.reshape(-1, *[1] * (len(shape) - axis - 1))
    return np.tile(item.ravel(), whole("items", items, 0))


def tube(shape: Sequence[int], items: int = 1) -> Ints:
    """(items x prod(shape),) one group a place, over all of axis 0: a patch of a video through time, shape (T, H, W).

    Raises UsageError for extents below 1, or fewer than two axes.
    """
    shape = _extents("shape", shape, 2)
    return cells(shape, (shape[0], *[1] * (len(shape) - 1)), items)


def strip(shape: Sequence[int], axis: int, items: int = 1) -> Ints:
    """(items x prod(shape),) one group a coordinate on `axis`: a row of a spectrogram (frequency, time) by axis 0, a
    column by axis 1; a sensor of a panel (sensors, segments) by axis 0, a segment by axis 1.

    A negative axis counts from the last. Raises UsageError for extents below 1, or an axis that is not there.

        >>> strip((2, 3), axis=1).tolist()
        [0, 1, 2, 0, 1, 2]
    """
    shape = _extents("shape", shape)
    at = whole("axis", axis, None)
    if not -len(shape) <= at < len(shape):
        raise UsageError(
            f"axis = {axis}: must be from {-len(shape)} to {len(shape) - 1}, by shape = {shape}; choose one of these"
        )
    at %= len(shape)
    return cells(shape, [1 if a == at else n for a, n in enumerate(shape)], items)


def cell(shape: Sequence[int], size: int | Sequence[int] = 2, items: int = 1) -> Ints:
    """(items x prod(shape),) one group a block of `size` tokens, a number or (height, width), on the last two axes.

    Blocks do not reach over other axes: each frame of (T, H, W) has its own. Raises UsageError for extents below 1,
    or fewer than two axes.
    """
    shape = _extents("shape", shape, 2)
    last = _extents("size", size if np.ndim(size) else [size] * 2)
    if len(last) != 2:
        raise UsageError(f"size = {last}: must be one number or two, on the last two axes; give (height, width)")
    return cells(shape, (*[1] * (len(shape) - 2), *last), items)


def modality(counts: Sequence[int], items: int = 1) -> Ints:
    """(items x sum(counts),) the modality of each token, where an item holds `counts[m]` tokens of modality m in turn.

    Raises UsageError for counts below 0.

        >>> modality([2, 3]).tolist()
        [0, 0, 1, 1, 1]
    """
    each = wholes("counts", counts, 0)
    return np.tile(np.repeat(np.arange(len(each)), each), whole("items", items, 0))


def undirected(edge_index: Any) -> Ints:
    """(E,) one id for both directions of an edge, and for its repeats: the rank of its pair (lesser, greater node).

    edge_index (2, E) int, >= 0. Ids are dense from 0. Raises UsageError for another shape, dtype or sign.

        >>> undirected([[0, 1, 2, 0], [1, 0, 1, 0]]).tolist()
        [1, 1, 2, 0]
    """
    ends = endpoints(edge_index)
    low, high = ends.min(axis=0), ends.max(axis=0)
    order = np.lexsort((high, low))
    low, high = low[order], high[order]
    ids = np.zeros(len(order), np.int64)
    ids[order[1:]] = np.cumsum((low[1:] != low[:-1]) | (high[1:] != high[:-1]))
    return ids


def endpoints(edge_index: Any, num_nodes: int | None = None) -> Ints:
    """edge_index as (2, E) int64. Raises UsageError for another shape or dtype, or a node outside 0..num_nodes-1."""
    a = np.asarray(edge_index)
    if a.size == 0 and a.ndim == 2:
        a = a.astype(np.int64)
    if a.dtype.kind not in "iu" or a.ndim != 2 or len(a) != 2:
        raise UsageError(
            f"edge_index has dtype {a.dtype} and shape {a.shape}: must be integers and (2, E); convert it, "
            "sources in the first row and targets in the second"
        )
    if a.size and a.min() < 0:
        raise UsageError(f"edge_index = {a.min()}: a node must be 0 or more; number nodes from 0")
    if num_nodes is not None and a.size and a.max() >= num_nodes:
        raise UsageError(f"edge_index = {a.max()}: must be below num_nodes = {num_nodes}; give the count of all nodes")
    return a.astype(np.int64, copy=False)


def whole(name: str, value: Any, least: int | None) -> int:
    """`value` as an int, `least` or more. Raises UsageError."""
    number = None
    if not isinstance(value, bool | np.bool_):
        try:
            number = operator.index(value)  # an int, NumPy's or torch's
        except TypeError:
            number = None
    if number is None or (least is not None and number < least):
        bound = "" if least is None else f", {least} or more"
        raise UsageError(f"{name} = {value!r}: must be a whole number{bound}; give one")
    return number


def wholes(name: str, values: Any, least: int) -> tuple[int, ...]:
    """`values` as ints, each `least` or more. Raises UsageError."""
    try:
        each = list(values)
    except TypeError:
        raise UsageError(
            f"{name} = {values!r}: must be a list of whole numbers, {least} or more; give one for each, as [4, 2]"
        ) from None
    return tuple(whole(f"{name}[{i}]", value, least) for i, value in enumerate(each))


def _extents(name: str, values: Any, axes: int = 1) -> tuple[int, ...]:
    found = wholes(name, values, 1)
    if len(found) < axes:
        raise UsageError(f"{name} = {found}: must have {axes} axes or more; give the whole grid of an item")
    return found
