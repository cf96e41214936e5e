"""The compiled part of neighbourhoods: which nodes are within some steps of a node, and the edges between them.

Rules are those of kernels.py; edges that end at node i come from source[indptr[i]:indptr[i + 1]], int64.
"""
# mypy: allow-untyped-defs

import numpy as np
from numba import njit

from structmae.masking.kernels import _rank, kth
from structmae.masking.rng import HALF


@njit(nogil=True, cache=True)
def within(indptr, source, seeds, hops, most, visit, seed, stream):
    """The nodes at most `hops` steps against the edges from each of seeds (B,): members (M,) and borders (B+1,).

    Each begins with its own node, and the others ascend. There are `most` at most: of the first ring that does not fit,
    those of smallest rank (that of position `node` in the item called after the seed node), ties by node.
    """
    size = len(indptr) - 1
    members, borders = np.empty(len(seeds) * most, np.int64), np.zeros(len(seeds) + 1, np.int64)
    met, ring = np.full(size, -1, np.int64), np.empty(size, np.int64)
    stop = 0
    for b in range(len(seeds)):
        begin, near, centre = stop, stop, seeds[b]
        members[stop] = centre
        met[centre] = b
        stop += 1
        for _ in range(hops):
            count = 0
            for j in range(near, stop):
                for e in range(indptr[members[j]], indptr[members[j] + 1]):
                    if met[source[e]] != b:
                        met[source[e]] = b
                        ring[count] = source[e]
                        count += 1
            near, room = stop, most - (stop - begin)
            limit = np.uint64(0xFFFFFFFFFFFFFFFF)
            ranks = np.empty(0, np.uint64)
            if count > room:
                ranks = np.empty(count, np.uint64)
                for j in range(count):
                    ranks[j] = _rank(centre, ring[j], visit, seed, stream) << HALF | np.uint64(ring[j])
                if room == 0:
                    break
                limit = kth(ranks, room)
            for j in range(count):
                if len(ranks) == 0 or ranks[j] <= limit:
                    members[stop] = ring[j]
                    stop += 1
        members[begin + 1 : stop].sort()
        borders[b + 1] = stop
    return members[:stop].copy(), borders


@njit(nogil=True, cache=True)
def between(indptr, source, members, borders):
    """The edges between members of one neighbourhood: which (E,), and in compressed rows over all members: indptr
    (M+1,) and source (E,), ascending in each row."""
    rows = np.zeros(len(members) + 1, np.int64)
    place = np.full(len(indptr) - 1, -1, np.int64)  # of a node among the members; below `begin` it is another item's
    for write in range(2):  # count, then fill
        if write == 0:
            which, ends = np.empty(0, np.int64), np.empty(0, np.int64)
        else:
            which, ends = np.empty(rows[-1], np.int64), np.empty(rows[-1], np.int64)
            place[:] = -1
        at = 0
        for b in range(len(borders) - 1):
            begin = borders[b]
            for j in range(begin, borders[b + 1]):
                place[members[j]] = j
            for j in range(begin, borders[b + 1]):
                first = at
                for e in range(indptr[members[j]], indptr[members[j] + 1]):
                    where = place[source[e]]
                    if where < begin:
                        continue
                    if write == 1:
                        q = at
                        if where == begin:  # the seed stands before all others
                            while q > first:
                                which[q], ends[q] = which[q - 1], ends[q - 1]
                                q -= 1
                        which[q], ends[q] = e, where
                    at += 1
                rows[j + 1] = at
    return which, rows, ends
