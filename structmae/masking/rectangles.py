"""The compiled part: rectangles on the grid of an item (strategy "rectangle").

Arguments and rules are those of kernels.py. A grid is (T, H, W): a rectangle lies on the last two axes and reaches
through all of the first. It covers places; a unit is chosen where its lead's place is covered.

Rectangle r of an item, of which n units are in strata that want more, `left` in all:

    area     uniform from min(area, m) to m, where m = ceil(left H W / n): so many places hold `left` units on average
    ratio    of height to width, log-uniform from aspect to 1 / aspect
    height   half-up(sqrt(area x ratio)), within 1..min(area, H)
    width    ceil(area / height), at most W, where the height grows to ceil(area / W)
    corner   uniform, inside the grid

Its four words (area, ratio, row, column) are those of local positions 2**31 + 4 r .. + 3 of the item, beyond the ranks
of any token: one Philox block. Sides are the same on any machine up to last-bit ties of exp and sqrt.

Where a rectangle covers more units of a stratum than that wants, those of smallest rank are chosen: the first ones by
position would leave a corner. After _IDLE rectangles in a row that cover nothing new what is left is chosen by rank
(choosers.finish): so there are _IDLE (k + 1) at most for k units, and few of them in practice.
"""
# mypy: allow-untyped-defs

import numpy as np
from numba import njit

from structmae.masking.choosers import _smallest
from structmae.masking.kernels import _rank
from structmae.masking.rng import HALF, LOW, philox

_FIRST = np.uint64(1 << 29)  # the Philox block of local position 2**31
_IDLE = 10


@njit(nogil=True, cache=True)
def sides(number, most, area, log_aspect, high, wide, item, visit, seed, stream):
    """Row, column, height and width of rectangle `number` of an item, of `most` places at most."""
    i = np.uint64(item)
    block = _FIRST + np.uint64(number)
    w0, w1, w2, w3 = philox(i & LOW, i >> HALF, visit, block, seed, stream)
    least = min(area, most)
    places = least + np.int64((w0 * np.uint64(most - least + 1)) >> HALF)
    ratio = np.exp(log_aspect * (1.0 - 2.0 * ((np.float64(w1) + 0.5) / 4294967296.0)))
    h = np.int64(np.floor(np.sqrt(places * ratio) + 0.5))
    h = min(max(h, np.int64(1)), min(places, high))
    w = min((places + h - 1) // h, wide)
    h = max(h, (places + w - 1) // w)
    row = np.int64((w2 * np.uint64(high - h + 1)) >> HALF)
    column = np.int64((w3 * np.uint64(wide - w + 1)) >> HALF)
    return row, column, h, w


@njit(nogil=True, cache=True)
def rectangles(
    code, quota, ptr, lead, stratum, item_strata, items, ids, shape, area, log_aspect, yes, no, visit, seed, stream, lo,
    hi,
):  # fmt: skip
    """code (U,), all `no` <- `yes` in rectangles, for quota[s] units of each stratum; `quota` is counted down.

    For items lo .. hi: item i has strata item_strata[i]:item_strata[i + 1] and starts at items[i]; shape (3,); stratum
    (U,) int32 of each unit, empty where each item is one. What the rectangles do not reach is left in `quota`.
    """
    frames, high, wide = shape
    places = high * wide
    strata = np.int64(0)
    for i in range(lo, hi):
        strata = max(strata, item_strata[i + 1] - item_strata[i])
    size = frames * places if hi > lo else np.int64(0)
    unit_at, new = np.empty(size, np.int64), np.empty(size, np.int64)
    rank, at, picked = np.empty(size, np.uint32), np.empty(size, np.int64), np.empty(size + 1, np.int32)
    fresh = np.zeros(strata, np.int64)
    one = len(stratum) == 0
    for i in range(lo, hi):
        a, b = item_strata[i], item_strata[i + 1]
        start = items[i]
        unit_at[:] = -1
        for u in range(ptr[a], ptr[b]):
            unit_at[(u if len(lead) == 0 else lead[u]) - start] = u
        left, n = np.int64(0), np.int64(0)
        for j in range(a, b):
            left += quota[j]
            n += ptr[j + 1] - ptr[j] if quota[j] > 0 else 0
        number, idle = np.int64(0), np.int64(0)
        while left > 0 and idle < _IDLE:
            most = min(places, (left * places + n - 1) // n)
            row, column, h, w = sides(number, most, area, log_aspect, high, wide, ids[i], visit, seed, stream)
            number += 1
            c = np.int64(0)  # what it covers of the units that may be chosen, by local position
            for t in range(frames):
                for y in range(row, row + h):
                    first = (t * high + y) * wide + column
                    for p in range(first, first + w):
                        u = unit_at[p]
                        if u >= 0 and code[u] == no:
                            s = a if one else np.int64(stratum[u])
                            if quota[s] > 0:
                                new[c] = p
                                c += 1
                                fresh[s - a] += 1
            idle = idle + 1 if c == 0 else np.int64(0)
            for q in range(c):
                u = unit_at[new[q]]
                s = a if one else np.int64(stratum[u])
                if fresh[s - a] <= quota[s]:
                    code[u] = yes
            for q in range(c):
                s = a if one else np.int64(stratum[unit_at[new[q]]])
                got = fresh[s - a]
                fresh[s - a] = 0
                if got == 0:  # this stratum has had its turn
                    continue
                if got > quota[s]:
                    got = np.int64(0)
                    for r in range(q, c):
                        u = unit_at[new[r]]
                        if one or stratum[u] == s:
                            rank[got] = _rank(ids[i], new[r], visit, seed, stream)
                            at[got] = u
                            got += 1
                    _smallest(rank[:got], quota[s], picked)
                    got = quota[s]
                    for r in range(got):
                        code[at[picked[r]]] = yes
                left -= got
                quota[s] -= got
                if quota[s] == 0:
                    n -= ptr[s + 1] - ptr[s]
