"""Which units are chosen, and what stands there: the code of every token, by any strategy. Python around kernels."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structmae.masking import budgets, choosers, codes, kernels, memory, rectangles, walks
from structmae.masking.layout import Ints, Layout, Units
from structmae.masking.parallel import balanced, each, even, threads
from structmae.masking.rng import Purpose, stream
from structmae.masking.strategies import ABSENT, UNTOUCHED, Act, Spec, count, to_act

Codes = NDArray[np.uint8]
LARGE = 1 << 18  # units of one stratum from which on several threads share it
NO = np.uint8(UNTOUCHED)


@dataclass(frozen=True)
class Key:
    """The key of a draw, in the kernels' dtypes."""

    seed: int
    visit: int
    view: int
    token_set: int
    draw: int
    purpose: Purpose

    def words(self, purpose: Purpose) -> tuple[np.uint64, np.uint64, np.uint64]:
        """visit, seed, stream: the key words of a kernel."""
        # Shares, swaps, sources and budgets of a re-mask are its own: they have the upper half of the draw numbers.
        upper = self.purpose is Purpose.REMASK and purpose is not Purpose.REMASK
        which = stream(self.view, self.token_set, purpose, self.draw | upper << 15)
        return np.uint64(self.visit), np.uint64(self.seed), np.uint64(which)


def tokens(at: Layout, ids: Ints, spec: Spec, key: Key) -> Codes:
    """Codes (M,) of one draw over the items of `at`, whose names in it are `ids` (I,)."""
    units = at.units
    act = np.uint8(to_act(spec.act))
    if spec.ratio in (0.0, 1.0):  # nothing to choose
        code = np.full(int(units.ptr[-1]), act if spec.ratio else NO, np.uint8)
    else:
        code = memory.empty(int(units.ptr[-1]), np.uint8)
        if spec.strategy == "dirichlet":
            k = budgets.hidden(units, ids, spec, key.words(Purpose.BUDGET))
        else:
            k = count(spec.ratio, np.diff(units.ptr))
        _CHOOSERS[spec.strategy](code, at, ids, k, spec, act, key.words(key.purpose))
    if spec.random or spec.keep:
        names = ids[units.item]
        first = kernels.ranks_at(names, units.first_local, *key.words(Purpose.SHARE))
        acts = np.array([act, Act.KEEP, Act.RANDOM], np.uint8)
        words = key.words(Purpose.SWAP)
        shares = spec.random, spec.random + spec.keep
        _over_strata(
            units,
            lambda lo, hi: codes.swap(
                code, units.ptr, units.leads, units.start, names, first, *shares, acts, *words, lo, hi
            ),
        )
    return _spread(code, units, at.size)


def _over_strata(units: Units, kernel: Callable[[int, int], None]) -> None:
    each(kernel, balanced(units.ptr, threads(int(units.ptr[-1]))))


def _uniform(code: Codes, at: Layout, ids: Ints, k: Ints, spec: Spec, act: np.uint8, words: Any) -> None:
    units = at.units
    names = ids[units.item]
    large = np.flatnonzero(np.diff(units.ptr) >= LARGE) if units.lead is None else ()
    if not len(large):
        _over_strata(
            units,
            lambda lo, hi: kernels.uniform(
                code, units.ptr, units.leads, units.start, names, k, act, NO, *words, lo, hi
            ),
        )
        return
    lo = 0
    for s in (*large, len(k)):  # what lies between large strata is one run
        kernels.uniform(code, units.ptr, units.leads, units.start, names, k, act, NO, *words, lo, s)
        if s < len(k):
            _one_large(code[units.ptr[s] : units.ptr[s + 1]], names[s], int(k[s]), act, words)
        lo = s + 1


def _one_large(code: Codes, item: np.int64, k: int, act: np.uint8, words: Any) -> None:
    """One large stratum, on all threads: find the threshold in a narrow window around where it must be, then mark.

    Ranks are made twice and never stored. The window holds the k-th smallest but once in 1e9 draws; then it is wider.
    """
    n = len(code)
    borders = even(n, threads(n))
    middle, deviation = k / n, (k / n * (1 - k / n) / n) ** 0.5
    width = 6.0
    while True:
        low = max(0, int((middle - width * deviation) * 2**32))
        high = min(2**32 - 1, int((middle + width * deviation) * 2**32) + 1)
        room = int((high - low + 1) / 2**32 * n + 8 * width * (n * deviation) ** 0.5 + 64)
        found: dict[int, tuple[int, int, NDArray[np.uint32]]] = {}

        def look(lo: int, hi: int, low: int = low, high: int = high, room: int = room, found: Any = found) -> None:
            found[lo] = kernels.window(item, lo, hi, np.uint32(low), np.uint32(high), room, *words)

        each(look, borders)
        below = sum(part[0] for part in found.values())
        inside = np.concatenate([part[2][: part[1]] for part in found.values()])
        if below < k <= below + len(inside) and all(part[1] <= room for part in found.values()):
            break
        width *= 2
    threshold = np.partition(inside, k - below - 1)[k - below - 1]
    each(lambda lo, hi: kernels.mark_window(code, item, lo, hi, threshold, act, NO, *words), borders)
    extra = below + int(np.count_nonzero(inside <= threshold)) - k
    if extra:
        kernels.unmark_last(code, item, threshold, extra, NO, *words)


def _weighted(code: Codes, at: Layout, ids: Ints, k: Ints, spec: Spec, act: np.uint8, words: Any) -> None:
    units, weight = at.units, at.unit_weight
    names = ids[units.item]
    _over_strata(
        units,
        lambda lo, hi: kernels.weighted(
            code, units.ptr, units.leads, units.start, names, k, weight, float(spec.power), act, NO, *words, lo, hi
        ),
    )


def _span(code: Codes, at: Layout, ids: Ints, k: Ints, spec: Spec, act: np.uint8, words: Any) -> None:
    units = at.units
    names = ids[units.item]
    _over_strata(
        units,
        lambda lo, hi: choosers.spans(
            code, units.ptr, units.leads, units.start, names, k, spec.length, act, NO, *words, lo, hi
        ),
    )


def _block(code: Codes, at: Layout, ids: Ints, k: Ints, spec: Spec, act: np.uint8, words: Any) -> None:
    units, near = at.units, at.topology
    names = ids[units.item]
    steps = near.ptr, near.steps, *near.places
    _over_strata(
        units,
        lambda lo, hi: choosers.balls(
            code, units.ptr, units.leads, units.start, names, k, spec.blocks, *steps, act, NO, *words, lo, hi
        ),
    )


def _walk(code: Codes, at: Layout, ids: Ints, k: Ints, spec: Spec, act: np.uint8, words: Any) -> None:
    units, near = at.units, at.topology
    code[:] = NO
    quota = k.copy()
    # What a walk passes is new ever more rarely: what this many do not reach is chosen by rank.
    cap = 4 * np.diff(units.ptr[units.item_strata]) // spec.length + 64
    by_edge = spec.start == "edge"
    names = ids[units.item]
    stratum = np.zeros(0, np.int32) if at.stratum is None else units.stratum
    several = threads(int(units.ptr[-1])) > 1
    steps = near.ptr, near.packed, near.own
    if several and at.items == 1:
        only = 0 if len(k) == 1 else -1
        _long_walk(code, quota, int(cap[0]), at, ids[0], spec, act, words, only, stratum)
    else:
        strata = units.item_strata
        args = code, quota, spec.length, by_edge, strata, near.items, ids, *steps, stratum, cap, act, NO, *words
        each(lambda lo, hi: walks.walks(*args, lo, hi), balanced(units.ptr[strata], threads(len(code))))
    _finish(code, units, names, quota, act, words)


def _finish(code: Codes, units: Units, names: Ints, quota: Ints, act: np.uint8, words: Any) -> None:
    """What is left of the quotas, by rank."""
    if quota.any():
        _over_strata(
            units,
            lambda lo, hi: choosers.finish(
                code, units.ptr, units.leads, units.start, names, quota, act, NO, *words, lo, hi
            ),
        )


def _rectangle(code: Codes, at: Layout, ids: Ints, k: Ints, spec: Spec, act: np.uint8, words: Any) -> None:
    units, strata = at.units, at.units.item_strata
    code[:] = NO
    quota = k.copy()
    stratum = np.zeros(0, np.int32) if at.stratum is None else units.stratum
    form = at.planes, spec.area, math.log(spec.aspect)
    args = code, quota, units.ptr, units.leads, stratum, strata, at.ptr, ids, *form, act, NO, *words
    each(lambda lo, hi: rectangles.rectangles(*args, lo, hi), balanced(units.ptr[strata], threads(len(code))))
    _finish(code, units, ids[units.item], quota, act, words)


def _long_walk(
    code: Codes, quota: Ints, cap: int, at: Layout, item: np.int64, spec: Spec, act: np.uint8, words: Any,
    only: int, stratum: NDArray[np.int32],
) -> None:  # fmt: skip
    """The walks of one item, made on all threads, followed in order on one."""
    near, by_edge = at.topology, spec.start == "edge"
    places = (int(near.items[0]), int(near.items[1]))
    edges = (int(near.ptr[0]), int(near.ptr[-1]))
    if places[0] == places[1] or (by_edge and edges[0] == edges[1]):
        return
    left, first = int(quota.sum()), 0
    passed = np.empty((min(1 << 16, 2 * left // spec.length + 64), spec.length + 1), np.int32)
    while left > 0 and first < cap:
        n = min(len(passed), cap - first, 2 * left // spec.length + 64)
        args = passed, first, spec.length, by_edge, places, edges, near.ptr, near.packed, near.own, item, *words
        each(partial(walks.paths, *args), even(n, threads(n * spec.length)))
        first += n
        left = walks.follow(code, passed[:n], act, NO, quota, only, stratum, left)


_CHOOSERS: dict[str, Callable[..., None]] = {
    "uniform": _uniform,
    "weighted": _weighted,
    "span": _span,
    "block": _block,
    "walk": _walk,
    "dirichlet": _uniform,  # of counts that are drawn too
    "rectangle": _rectangle,
}


def _spread(code: Codes, units: Units, size: int) -> Codes:
    """Codes of units (U,) to codes of tokens (M,)."""
    if units.of is not None:
        return np.append(code, np.uint8(ABSENT))[units.of]  # -1 takes the last
    if units.lead is None:
        return code
    out = np.full(size, ABSENT, np.uint8)
    out[units.lead] = code
    return out
