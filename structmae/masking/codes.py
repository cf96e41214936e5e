"""The compiled part, second half: from the code of each token to shares, sources and index arrays.

Arguments and rules are those of kernels.py. Results are written to arrays that are handed in, and not made here: memory
that is used again (memory.py) need not be mapped first.
"""
# mypy: allow-untyped-defs

import numpy as np
from numba import njit

from structmae.masking.kernels import _rank, largest, mark, unit_ranks
from structmae.masking.rng import HALF


@njit(nogil=True, cache=True)
def swap(code, ptr, lead, start, ids, first, random, both, acts, visit, seed, stream, lo, hi):
    """Share the chosen out over acts, in place: systematic rounding for how many, smallest rank for which.

    code (U,) uint8, where a code <= 4 is chosen; first (S,) uint32, the rank that rounds each stratum; random and both
    (float64): the share of RANDOM, and of RANDOM and KEEP together; acts (3,) uint8: the rest, KEEP, RANDOM.
    """
    n = largest(ptr, lo, hi)
    rank, near = np.empty(n, np.uint32), np.empty(64, np.uint32)
    live = np.empty(n + 1, np.uint32)  # one more, so that writing needs no branch
    at = np.empty(n + 1, np.int64)
    inner = np.empty(n, np.uint8)
    outer = np.empty(n, np.uint8)
    no, yes = np.uint8(0), np.uint8(1)
    for s in range(lo, hi):
        a, b = ptr[s], ptr[s + 1]
        unit_ranks(rank, lead, a, b, start[s], ids[s], near, visit, seed, stream)
        c = np.int64(0)  # a literal 0 is a type of its own, and _rounded would be compiled twice
        for j in range(a, b):
            live[c] = rank[j - a]
            at[c] = j
            c += code[j] <= 4
        u = first[s] / 4294967296.0
        mark(live[:c], _rounded(c * random, c, u), yes, no, inner)
        mark(live[:c], _rounded(c * both, c, u), yes, no, outer)
        for q in range(c):
            code[at[q]] = acts[inner[q] + outer[q]]


@njit(nogil=True, cache=True)
def _rounded(x, n, u):
    """floor(x + u), at most n. An x within rounding error of an integer is that integer: 10 x (0.1 + 0.2) is 3."""
    near = np.floor(x + 0.5)
    if abs(x - near) <= 1e-9 * max(1.0, near):
        x = near
    return min(n, np.int64(np.floor(x + u)))


@njit(nogil=True, cache=True)
def sources(code, ptr, item_id, visible_only, visit, seed, stream, source, j, lo, hi):
    """Whose content each RANDOM token gets, for items lo .. hi.

    source (K,) int64, one entry a scored token (code <= 4), j of them before item lo, is written where the code is 2
    (RANDOM). Candidates are the item's visible tokens (4, 5) or its other valid ones (< 6), in position order; the one
    at (rank x candidates) >> 32 is taken. Where there is none, the code becomes 1 (TOKEN) and the source stays.
    """
    pool = np.empty(largest(ptr, lo, hi) + 1, np.int64)  # one more, so that writing needs no branch
    lowest = 4 if visible_only else 0
    for i in range(lo, hi):
        a, b = ptr[i], ptr[i + 1]
        wanted = False
        n = 0
        for p in range(a, b):
            c = code[p]
            wanted |= c == 2
            pool[n] = p
            n += (c >= lowest) & (c < 6)
        before = 0  # valid tokens before p: p's own place among the candidates of "any"
        for p in range(a, b):
            c = code[p]
            if wanted and c == 2:
                m = n if visible_only else n - 1
                if m == 0:
                    code[p] = 1
                else:
                    r = _rank(item_id[i], p - a, visit, seed, stream)
                    q = np.int64((r * np.uint64(m)) >> HALF)
                    if not visible_only and q >= before:
                        q += 1
                    source[j] = pool[q]
            before += c < 6
            j += c <= 4


_ONES = np.uint64(0x0101010101010101)


@njit(nogil=True, cache=True)
def tally(code, lo, hi):
    """How many of code[lo:hi] are 0, at most 3, at most 4 and at most 5 (4,) int64: every set of a plan is a difference
    of two. Eight codes at a time: adding 127 - c to a byte sets its high bit where it is above c."""
    out = np.zeros(4, np.int64)
    while lo < hi and (lo & 7 or hi - lo < 8):
        c = code[lo]
        out[0] += c == 0
        out[1] += c <= 3
        out[2] += c <= 4
        out[3] += c <= 5
        lo += 1
    words = code[lo : lo + (hi - lo) // 8 * 8].view(np.uint64)
    high = np.uint64(0x80) * _ONES
    a = b = c = d = np.uint64(0)
    seven, top = np.uint64(7), np.uint64(56)
    for i in range(len(words)):
        x = words[i]
        a += ((((x + np.uint64(127) * _ONES) & high) >> seven) * _ONES) >> top
        b += ((((x + np.uint64(124) * _ONES) & high) >> seven) * _ONES) >> top
        c += ((((x + np.uint64(123) * _ONES) & high) >> seven) * _ONES) >> top
        d += ((((x + np.uint64(122) * _ONES) & high) >> seven) * _ONES) >> top
    n = np.int64(8 * len(words))
    out[0] += n - np.int64(a)
    out[1] += n - np.int64(b)
    out[2] += n - np.int64(c)
    out[3] += n - np.int64(d)
    for p in range(lo + n, hi):
        c8 = code[p]
        out[0] += c8 == 0
        out[1] += c8 <= 3
        out[2] += c8 <= 4
        out[3] += c8 <= 5
    return out


@njit(nogil=True, cache=True)
def indices(out, j, code, first, last, lo, hi):
    """out[j:] <- positions, ascending, of lo .. hi where first <= code <= last."""
    base, width = np.uint64(first), np.uint64(last - first)
    while hi > lo and np.uint64(code[hi - 1]) - base > width:
        hi -= 1  # writing without a branch goes one further than the last, which may be another thread's
    at = np.uint64(j)  # unsigned, or each index is looked at for its sign
    for p in range(lo, hi):
        out[at] = p
        at += np.uint64(np.uint64(code[p]) - base <= width)


@njit(nogil=True, cache=True)
def places(out, j, code, first, last, lo, hi):
    """out[lo:hi] <- each token's place among those with first <= code <= last, j of them before lo, or -1."""
    base, width = np.uint64(first), np.uint64(last - first)
    for p in range(lo, hi):
        inside = np.int64(np.uint64(code[p]) - base <= width)
        out[p] = j | (inside - 1)  # without a branch: -1 where outside
        j += inside


@njit(nogil=True, cache=True)
def rows(out, x, index, lo, hi):
    """out[lo:hi] (n, D) <- the rows index[lo:hi] of x (M, D)."""
    for j in range(lo, hi):
        i = index[j]
        for d in range(x.shape[1]):
            out[j, d] = x[i, d]


@njit(nogil=True, cache=True)
def replace(out, x, code, source, j, token, lo, hi):
    """out[lo:hi] (M, D) <- x[lo:hi] with the plan carried out: code 1 is the row `token` (D,), 2 the row of x that its
    source names, 0 and 3 are zeros. source (K,) is that of the scored (code <= 4), j of them before lo."""
    for p in range(lo, hi):
        c = code[p]
        if c == 1:
            for d in range(x.shape[1]):
                out[p, d] = token[d]
        elif c == 0 or c == 3:
            for d in range(x.shape[1]):
                out[p, d] = 0
        else:
            i = source[j] if c == 2 else p
            for d in range(x.shape[1]):
                out[p, d] = x[i, d]
        j += c <= 4
