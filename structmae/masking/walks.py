"""The compiled part: random walks, and the adjacency between units that they and balls go along.

Arguments and rules are those of kernels.py; an adjacency comes as the arrays of adjacency.Topology.
"""
# mypy: allow-untyped-defs

import numpy as np
from numba import njit

from structmae.masking.kernels import _fill
from structmae.masking.rng import HALF, LOW

_LANES = 64  # walks that go side by side, so that the memory one waits for is fetched while the others go on


@njit(nogil=True, cache=True)
def unit_steps(ptr, place, token, unit_of, item_of, own, places_are_tokens, out_ptr, out):
    """out (E+1, 2) int32, out_ptr (P+2,) int32 <- place and unit of each step inside its item that passes a unit.

    Then one step more, to place P, which has none, passing unit -1: where walks without a branch go from a dead end.
    """
    n = 0
    for p in range(len(ptr) - 1):
        out_ptr[p] = n
        if places_are_tokens and own[p] < 0:
            continue
        for e in range(ptr[p], ptr[p + 1]):
            u = unit_of[token[e]]
            if u >= 0 and item_of[p] == item_of[place[e]]:
                out[n, 0] = place[e]
                out[n, 1] = u
                n += 1
    out_ptr[len(ptr) - 1 :] = n
    out[n, 0] = len(ptr) - 1
    out[n, 1] = -1
    return n


@njit(nogil=True, cache=True)
def places_of_units(steps_ptr, steps, own, units, places_are_tokens):
    """Where one steps out of a unit: borders (units + 1,) int32 and places int32. A unit that is a place is left from
    there; one that is passed on a step, from both its ends."""
    ptr = np.zeros(units + 2, np.int32)
    if places_are_tokens:
        for u in own:
            if u >= 0:
                ptr[u + 2] += 1
    else:
        for e in range(len(steps)):
            ptr[steps[e, 1] + 2] += 2
    for u in range(2, units + 2):
        ptr[u] += ptr[u - 1]
    out = np.empty(ptr[units + 1], np.int32)
    for p in range(len(own)):
        if places_are_tokens:
            if own[p] >= 0:
                out[ptr[own[p] + 1]] = p
                ptr[own[p] + 1] += 1
        else:
            for e in range(steps_ptr[p], steps_ptr[p + 1]):
                u = steps[e, 1] + 1
                out[ptr[u]] = p
                out[ptr[u] + 1] = steps[e, 0]
                ptr[u] += 2
    return ptr[: units + 1], out


@njit(nogil=True, cache=True)
def paths(out, first, length, by_edge, places, edges, steps_ptr, steps, own, item, visit, seed, stream, lo, hi):
    """out[lo:hi] (W, length + 1) int32 <- the units that walks first + lo .. first + hi of one item pass, -1 for none.

    Walk w has the words of local positions w * b .. of its item, where b is length + 1 rounded up to a multiple of 4.
    The first names where it starts: a place of the item (whose own unit, if it is one, comes first), or with `by_edge`
    a step that it then takes; each other one the step, of those out of where it is. A walk ends where there is none.
    places and edges (2,): the item's range of places and of steps; steps (E+1,) uint64: unit and place in one word.
    """
    per = (length + 4) // 4 * 4
    words = np.empty(_LANES * per, np.uint32)
    at, step = np.empty(_LANES, np.uint32), np.empty(_LANES, np.uint32)
    first_place, count = np.uint64(places[0]), np.uint64(places[1] - places[0])
    first_edge, edge_count = np.uint64(edges[0]), np.uint64(edges[1] - edges[0])
    nowhere = np.uint64(len(steps) - 1)
    taken = length if by_edge else length + 1
    while lo < hi:
        lanes = min(hi - lo, np.int64(_LANES))
        _fill(words[: lanes * per], (first + lo) * per, item, visit, seed, stream)
        for j in range(lanes):
            w = np.uint64(words[j * per])
            if by_edge:
                s = steps[first_edge + ((w * edge_count) >> HALF)]
                at[j] = s & LOW
                out[lo + j, 0] = np.int32(s >> HALF)
                out[lo + j, length] = -1
            else:
                at[j] = first_place + ((w * count) >> HALF)
                out[lo + j, 0] = own[at[j]]
        # Two loops, so that no load waits for another lane's; unsigned, so that no index is looked at for its sign.
        for t in range(1, taken):
            for j in range(lanes):
                p = np.uint64(at[j])
                e = np.uint64(steps_ptr[p])
                degree = np.uint64(steps_ptr[p + np.uint64(1)]) - e
                e += (np.uint64(words[j * per + t]) * degree) >> HALF
                step[j] = e if degree > 0 else nowhere
            for j in range(lanes):
                s = steps[np.uint64(step[j])]
                at[j] = s & LOW
                out[lo + j, t] = np.int32(s >> HALF)
        lo += lanes


@njit(nogil=True, cache=True)
def follow(code, passed, yes, no, quota, only, stratum, left):
    """Chooses the units in passed (W, n), in order, until each stratum's quota is used up; what is left of all quotas.

    quota (S,) is counted down; left is its sum before. A unit's stratum is `only` where that is not -1, else in stratum
    (U,).
    """
    width = passed.shape[1]
    for w in range(passed.shape[0]):
        if only >= 0 and left > width:  # nothing can be used up yet: no branch but for dead ends
            for t in range(width):
                u = passed[w, t]
                if u >= 0:
                    new = np.int64(code[u] == no)
                    code[u] = yes
                    quota[only] -= new
                    left -= new
            continue
        for t in range(width):
            u = passed[w, t]
            if u >= 0 and code[u] == no:
                s = only if only >= 0 else np.int64(stratum[u])
                if quota[s] > 0:
                    code[u] = yes
                    quota[s] -= 1
                    left -= 1
        if left == 0:
            break
    return left


@njit(nogil=True, cache=True)
def walks(
    code, quota, length, by_edge, item_strata, items, item_ids, steps_ptr, steps, own, stratum, cap, yes, no, visit,
    seed, stream, lo, hi,
):  # fmt: skip
    """code (U,), all `no` <- `yes` along walks, for quota[s] units of each stratum; `quota` is counted down.

    For items lo .. hi: item i has strata item_strata[i]:item_strata[i + 1] and places items[i]:items[i + 1], and takes
    at most cap[i] walks. What they do not reach is left in `quota`.
    """
    lanes = np.int64(_LANES)
    passed = np.empty((lanes, length + 1), np.int32)
    for i in range(lo, hi):
        a, b = item_strata[i], item_strata[i + 1]
        only = a if b - a == 1 else np.int64(-1)
        left = quota[a:b].sum()
        places = (items[i], items[i + 1])
        edges = (np.int64(steps_ptr[items[i]]), np.int64(steps_ptr[items[i + 1]]))
        if places[0] == places[1] or (by_edge and edges[0] == edges[1]):
            continue
        first = np.int64(0)
        while left > 0 and first < cap[i]:
            n = min(lanes, cap[i] - first)
            paths(
                passed, first, length, by_edge, places, edges, steps_ptr, steps, own, item_ids[i], visit, seed, stream,
                np.int64(0), n,  # a literal 0 is a type of its own: `paths` would be compiled twice
            )  # fmt: skip
            first += n
            left = follow(code, passed[:n], yes, no, quota, only, stratum, left)
