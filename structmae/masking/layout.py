"""Where tokens are: items, groups, strata, worked out once for a token set and used by every draw on it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structmae.errors import UsageError
from structmae.masking import checks
from structmae.masking.adjacency import Adjacency, Topology, topology

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Units:
    """What is chosen among: the eligible groups, ordered by stratum and then by position.

    A group is eligible where it has a valid token. Its lead, the first of them, gives its rank, position and stratum.
    """

    ptr: Ints  # (S+1,) borders of the strata
    lead: Ints | None  # (U,) flat position of each unit's lead; None: unit u is token u
    of: Ints | None  # (M,) unit of each token, -1 where not valid; None: a unit is its lead alone
    item: Ints  # (S,) the item of each stratum (0 where a stratum is empty)
    start: Ints  # (S,) where that item starts
    first_local: Ints  # (S,) the local position of its first lead
    item_strata: Ints  # (I+1,) borders of the items' strata

    @cached_property
    def leads(self) -> Ints:
        """As `lead`, but empty where unit u is token u: the kernels' form."""
        return np.zeros(0, np.int64) if self.lead is None else self.lead

    @cached_property
    def stratum(self) -> NDArray[np.int32]:
        """(U,) the stratum of each unit."""
        return np.repeat(np.arange(len(self.ptr) - 1, dtype=np.int32), np.diff(self.ptr))

    def of_tokens(self, size: int) -> Ints:
        """(M,) the unit of each token, -1 where not valid."""
        if self.of is not None:
            return self.of
        if self.lead is None:
            return np.arange(size)
        of = np.full(size, -1, np.int64)
        of[self.lead] = np.arange(len(self.lead))
        return of


@dataclass(frozen=True, eq=False)
class Layout:
    """Made by `layout`. What a draw needs beyond these arrays is made at first use and kept."""

    ptr: Ints  # (I+1,) borders of the items
    item_id: Ints  # (I,)
    valid: NDArray[np.bool_] | None  # (M,)
    group: Ints | None  # (M,)
    stratum: Ints | None  # (M,)
    set_id: Ints | None  # (I,)
    weight: NDArray[np.float64] | None = None  # (M,)
    neighbours: Adjacency | Callable[[], Adjacency] | None = None
    shape: tuple[int, ...] | None = None  # the grid of each item

    @property
    def size(self) -> int:
        """How many tokens, M."""
        return int(self.ptr[-1])

    @property
    def items(self) -> int:
        """How many items, I."""
        return len(self.item_id)

    def __repr__(self) -> str:
        names = ("valid", "group", "stratum", "set_id", "weight", "neighbours", "shape")
        parts = [n for n in names if getattr(self, n) is not None]
        return f"Layout({self.size} tokens in {self.items} items{', with ' + ', '.join(parts) if parts else ''})"

    @cached_property
    def units(self) -> Units:
        """The groups that can be chosen. With groups or strata this sorts: about 0.2 s for 1e6 tokens."""
        if self.group is None and self.stratum is None:
            if self.valid is None:
                return _units(self.ptr, self.ptr, None, None)
            lead = np.flatnonzero(self.valid)
            return _units(self.ptr, np.searchsorted(lead, self.ptr), lead, None)
        lead = np.arange(self.size) if self.valid is None else np.flatnonzero(self.valid)
        item = np.repeat(np.arange(self.items), np.diff(self.ptr))
        of: Ints | None = None
        if self.group is not None:
            members = lead
            order = np.lexsort((self.group[members], item[members]))  # stable: a group's first member comes first
            starts = _changes(item[members][order], self.group[members][order])
            lead = members[order[starts]]
            of = np.full(self.size, -1, np.int64)
            of[members[order]] = np.cumsum(starts) - 1
        key = () if self.stratum is None else (self.stratum[lead],)
        order = np.lexsort((lead, *key, item[lead]))
        lead = lead[order]
        if of is not None:
            rank_of = np.empty(len(lead) + 1, np.int64)
            rank_of[order] = np.arange(len(lead))
            rank_of[-1] = -1
            of = rank_of[of]
        if self.stratum is None:
            return _units(self.ptr, np.searchsorted(lead, self.ptr), lead, of)
        ptr = np.append(np.flatnonzero(_changes(item[lead], self.stratum[lead])), len(lead))
        return _units(self.ptr, ptr, lead, of, plain=False)

    @cached_property
    def unit_weight(self) -> NDArray[np.float64]:
        """(U,) the mean weight of each unit's valid tokens. Raises UsageError without `weight`."""
        if self.weight is None:
            raise UsageError("strategy = 'weighted': needs a weight for each token; give layout(..., weight=...)")
        units = self.units
        if units.of is None:
            return self.weight if units.lead is None else self.weight[units.lead]
        inside = units.of >= 0
        of, number = units.of[inside], int(units.ptr[-1])
        return np.bincount(of, self.weight[inside], number) / np.bincount(of, minlength=number)

    @cached_property
    def adjacency(self) -> Adjacency:
        """Steps between the tokens. Raises UsageError where none were given, or they do not fit."""
        if self.neighbours is None:
            raise UsageError("strategies 'block' and 'walk' need neighbours; give layout(..., adjacency=...)")
        at = self.neighbours() if callable(self.neighbours) else self.neighbours
        fits = np.array_equal(at.items, self.ptr) if at.places_are_tokens else len(at.items) == len(self.ptr)
        if not fits or (len(at.token) and at.token.max() >= self.size):
            raise UsageError(f"{at!r}: must be over the {self.size} tokens in {self.items} items of the layout")
        return at

    @property
    def planes(self) -> tuple[int, int, int]:
        """`shape` as (T, H, W): axes before the last two are one, a path is a row. Raises UsageError without it."""
        if self.shape is None:
            raise UsageError("strategy = 'rectangle': needs the grid of an item; give layout(..., shape=(H, W))")
        high, wide = (1, *self.shape)[-2:]
        return math.prod(self.shape[:-2]), high, wide

    @cached_property
    def topology(self) -> Topology:
        """`adjacency` between units."""
        return topology(self.adjacency, self.units.of_tokens(self.size), int(self.units.ptr[-1]))

    @cached_property
    def batch(self) -> "Shared":
        """One draw for all items, over positions of the longest."""
        return self._shared(np.zeros(min(1, self.items), np.int64), np.zeros(self.items, np.int64))

    @cached_property
    def sets(self) -> "Shared":
        """One draw for all items of a set, over positions of its longest. Raises UsageError without set_id."""
        if self.set_id is None:
            raise UsageError("scope = 'set': needs the set of each item; give layout(..., set_id=...)")
        ids, which = np.unique(self.set_id, return_inverse=True)
        return self._shared(ids, which.astype(np.int64))

    def _shared(self, ids: Ints, which: Ints) -> "Shared":
        lens = np.diff(self.ptr)
        # The longest item of each set, the first of them where several are, stands for it.
        order = np.lexsort((np.arange(self.items), -lens, which))
        model = order[_changes(which[order])]
        ptr = np.append(0, np.cumsum(lens[model]))
        take = np.arange(ptr[-1]) + np.repeat(self.ptr[model] - ptr[:-1], lens[model])
        parts = [None if a is None else a[take] for a in (self.group, self.stratum)]
        at = np.arange(self.size) + np.repeat(ptr[which] - self.ptr[:-1], lens)
        weight = None if self.weight is None else self.weight[take]
        near = None if self.neighbours is None else lambda: self.adjacency.take(model, ptr[:-1] - self.ptr[model])
        return Shared(Layout(ptr, ids, None, parts[0], parts[1], None, weight, near, self.shape), which, at)


@dataclass(frozen=True, eq=False)
class Shared:
    """One draw for several items: over a model item for each set, then read off by local position."""

    model: Layout  # one item a set; no token of it is invalid
    which: Ints  # (I,) model item of each item
    at: Ints  # (M,) position in the model of each token


def _units(items: Ints, ptr: Ints, lead: Ints | None, of: Ints | None, plain: bool = True) -> Units:
    """`plain`: a stratum an item, empty ones too."""
    ptr = ptr.astype(np.int64)
    used = ptr[:-1] < ptr[1:]
    first = np.zeros(len(ptr) - 1, np.int64)
    first[used] = ptr[:-1][used] if lead is None else lead[ptr[:-1][used]]
    item = np.where(used, np.searchsorted(items, first, side="right") - 1, 0)
    start = items[item]
    strata = np.arange(len(items)) if plain else np.searchsorted(item, np.arange(len(items)))
    return Units(ptr, lead, of, item, start, np.where(used, first - start, 0), strata)


def _changes(*keys: Ints) -> NDArray[np.bool_]:
    """True where a run of equal keys starts. keys: sorted arrays (n,)."""
    start = np.ones(len(keys[0]), bool)
    if len(start):
        start[1:] = np.logical_or.reduce([k[1:] != k[:-1] for k in keys])
    return start


def layout(
    ptr: Any,
    item_id: Any = None,
    valid: Any = None,
    group: Any = None,
    stratum: Any = None,
    set_id: Any = None,
    *,
    observed: Any = None,
    weight: Any = None,
    adjacency: Adjacency | Callable[[], Adjacency] | None = None,
    shape: Sequence[int] | None = None,
) -> Layout:
    """Describe a token set: M tokens, in I items one after another.

    ptr (I+1,) int: where items start and end, from 0 to M.
    item_id (I,) int, >= 0: an item's name in the contract of a draw. The default, 0..I-1, ties a plan to the batch.
    valid (M,) bool: tokens that exist. Default all.
    observed (M, P) bool: values that were measured; a token without any is not valid.
    group (M,) int: tokens of an item with one id are chosen together. Default each alone.
    stratum (M,) int: a count is exact in each stratum of each item. Default the item. A group is in the stratum of its
        first valid token.
    set_id (I,) int, >= 0: the set of each item, for scope "set".
    weight (M,) float, >= 0: scores, for strategy "weighted"; a group has the mean of its valid tokens'.
    adjacency: steps between tokens, for strategies "block" and "walk", or a function that makes them when first needed.
    shape: the grid that the tokens of each item lie on, row-major, for strategy "rectangle": (H, W) or (T, H, W); a
        path is (L,) or (1, L).

    Where one draw is shared (scope "batch" or "set"), groups, strata, weights and neighbours are those of the longest
    item of the set, the first of them if several are; counts are over its positions, valid or not, and then only valid
    tokens are hidden.

    Arrays are NumPy, lists or CPU tensors. Raises UsageError for a wrong shape, dtype or order.
    """
    borders = checks.ints("ptr", ptr)
    if len(borders) == 0 or borders[0] != 0 or (borders[1:] < borders[:-1]).any():
        raise UsageError(
            f"ptr = {checks.short(borders)}: must start at 0 and never decrease; "
            "give cumulative token counts of the items"
        )
    items, size = len(borders) - 1, int(borders[-1])
    if not (adjacency is None or isinstance(adjacency, Adjacency) or callable(adjacency)):
        raise UsageError(
            f"adjacency is a {type(adjacency).__name__}: must be an Adjacency; make one by adjacency() or grid()"
        )
    return Layout(
        ptr=borders,
        item_id=np.arange(items) if item_id is None else checks.ids("item_id", item_id, items),
        valid=checks.valid(valid, observed, size),
        group=None if group is None else checks.ints("group", group, size),
        stratum=None if stratum is None else checks.ints("stratum", stratum, size),
        set_id=None if set_id is None else checks.ids("set_id", set_id, items),
        weight=None if weight is None else checks.weight(weight, size),
        neighbours=adjacency,
        shape=None if shape is None else checks.shape(shape, borders),
    )
