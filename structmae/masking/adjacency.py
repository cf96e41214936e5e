"""Where one can step from a token: the graph that blocks grow on and walks go along."""

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structmae.errors import UsageError
from structmae.masking.groups import whole, wholes

Ints = NDArray[np.int64]
MOST = np.iinfo(np.int32).max  # entries: the kernels hold them as int32, half the memory a random step has to touch


@dataclass(frozen=True, eq=False)
class Adjacency:
    """Steps between places. Tokens are the places themselves (nodes, pixels) or what is passed on a step (edges)."""

    ptr: Ints  # (P+1,) the steps out of place p are ptr[p]:ptr[p + 1]
    place: Ints  # (E,) where each leads
    token: Ints  # (E,) the token it passes; `place` itself where places are tokens
    items: Ints  # (I+1,) borders of the items' places
    places_are_tokens: bool = False

    def take(self, items: Ints, shift: Ints) -> "Adjacency":
        """The part on some `items` (m,), in that order, each item's token numbers moved by its `shift` (m,). Steps
        that leave an item are left out."""
        counts = np.diff(self.items)[items]
        borders = np.append(0, np.cumsum(counts))
        moved = borders[:-1] - self.items[items]
        rows = np.arange(borders[-1]) - np.repeat(moved, counts)
        steps = np.diff(self.ptr)[rows]
        ptr = np.append(0, np.cumsum(steps))
        at = np.arange(ptr[-1]) + np.repeat(self.ptr[rows] - ptr[:-1], steps)
        which = np.repeat(np.repeat(np.arange(len(items)), counts), steps)
        place, token = self.place[at] + moved[which], self.token[at] + shift[which]
        inside = (borders[which] <= place) & (place < borders[which + 1])
        ptr = np.append(0, np.cumsum(inside))[ptr]
        return Adjacency(ptr, place[inside], token[inside], borders, self.places_are_tokens)

    def __repr__(self) -> str:
        what = "tokens" if self.places_are_tokens else "places"
        return f"Adjacency({len(self.ptr) - 1} {what} in {len(self.items) - 1} items, {len(self.place)} steps)"


def _ints(name: str, value: Any) -> Ints:
    """A copy: what the caller writes to later was never checked."""
    a = np.asarray(value)
    if a.dtype.kind not in "iu" and a.size:
        raise UsageError(f"{name} has dtype {a.dtype}: must be integers; convert it")
    return np.array(a, np.int64, order="C")


def adjacency(indptr: Any, indices: Any, items: Any = None) -> Adjacency:
    """Neighbours of tokens in compressed rows: those of token i are indices[indptr[i]:indptr[i + 1]].

    indptr (M+1,) int; indices (E,) int, below M; items (I+1,) int: the layout's ptr (default one item). Steps from one
    item to another are left out when a layout is made. Raises UsageError for a wrong shape or index.
    """
    rows, columns = _ints("indptr", indptr), _ints("indices", indices)
    borders = np.array([0, rows.size - 1]) if items is None else _ints("items", items)
    flat = rows.ndim == columns.ndim == 1 and len(rows) > 0
    if not flat or rows[0] != 0 or rows[-1] != len(columns) or (np.diff(rows) < 0).any():
        raise UsageError(
            f"indptr of shape {rows.shape} and indices of shape {columns.shape}: indptr must run from 0 to the number "
            "of indices and never decrease; give compressed rows"
        )
    size = len(rows) - 1
    if len(columns) and (columns.min() < 0 or columns.max() >= size):
        raise UsageError(f"indices from {columns.min()} to {columns.max()}: must be tokens 0 to {size - 1}; renumber")
    return Adjacency(rows, columns, columns, borders, places_are_tokens=True)


def grid(shape: tuple[int, ...], items: int = 1) -> Adjacency:
    """The neighbours along each axis of tokens that lie row-major on a grid, in each of `items` items: 2 on a path, 4
    on an image, 6 on a video (fewer at the border). Raises UsageError for sizes below 0."""
    shape, items = wholes("shape", shape, 0), whole("items", items, 0)
    one = int(np.prod(shape))
    at = np.arange(one).reshape(shape)
    ends = []
    for axis in range(len(shape)):
        a = np.take(at, np.arange(shape[axis] - 1), axis).ravel()
        b = np.take(at, np.arange(1, shape[axis]), axis).ravel()
        ends += [np.stack([a, b]), np.stack([b, a])]
    source, target = np.concatenate(ends, 1) if ends else np.zeros((2, 0), np.int64)
    order = np.lexsort((target, source))
    indptr = np.append(0, np.cumsum(np.bincount(source, minlength=one)))
    starts = one * np.arange(items)
    rows = (indptr[:-1] + len(order) * np.arange(items)[:, None]).ravel()
    indices = (target[order] + starts[:, None]).ravel()
    return adjacency(np.append(rows, len(indices)), indices, np.append(starts, one * items))


@dataclass(frozen=True, eq=False)
class Topology:
    """An adjacency between the units of a layout, in the kernels' dtypes."""

    ptr: NDArray[np.int32]  # (P+2,), with a place P that has no steps
    steps: NDArray[np.int32]  # (E+1, 2) place and unit, side by side; the last leads to P and passes no unit
    own: NDArray[np.int32]  # (P,) the unit of a place, or -1
    items: Ints  # (I+1,) borders of the items' places
    units: int
    places_are_tokens: bool

    @property
    def packed(self) -> NDArray[np.uint64]:
        """(E+1,) a step in one word, unit high: one load each."""
        rows = self.steps if sys.byteorder == "little" else np.ascontiguousarray(self.steps[:, ::-1])
        return rows.view(np.uint64).reshape(-1)

    @cached_property
    def places(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The places from which one steps out of each unit: borders (U+1,), and places."""
        from structmae.masking import walks

        rows = self.steps[: self.ptr[-1]]
        found: tuple[NDArray[np.int32], NDArray[np.int32]]
        found = walks.places_of_units(self.ptr, rows, self.own, self.units, self.places_are_tokens)
        return found


def topology(at: Adjacency, unit_of: Ints, units: int) -> Topology:
    """`at` between units: unit_of (M,) is the unit of each token, -1 where not valid. Steps that leave the item, or
    pass or reach what is not valid, are left out. Raises UsageError where it is too large for 32-bit places."""
    from structmae.masking import walks  # here, so that describing tokens does not load Numba

    places = len(at.ptr) - 1
    if max(places, len(at.place), units) > MOST:
        raise UsageError(f"{at!r}: must have at most {MOST} places and steps; split the graph into items")
    item = np.repeat(np.arange(len(at.items) - 1), np.diff(at.items))
    own = unit_of.astype(np.int32) if at.places_are_tokens else np.full(places, -1, np.int32)
    ptr = np.empty(places + 2, np.int32)
    # Not zeros: only `empty` asks for huge pages, and a random step is all page walks without them.
    steps = np.empty((len(at.place) + 1, 2), np.int32)
    n = walks.unit_steps(at.ptr, at.place, at.token, unit_of, item, own, at.places_are_tokens, ptr, steps)
    return Topology(ptr, steps[: n + 1], own, at.items, units, at.places_are_tokens)
