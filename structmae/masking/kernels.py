"""The compiled part: arrays and key words in, arrays out. No globals, no torch, and no chance but Philox.

Each kernel is compiled at its first call and kept in Numba's disk cache. A signature in the decorator would compile at
import instead; without one, each new dtype compiles again. So the callers (layout.py, plan.py) pass one dtype always:
int64 positions, uint32 ranks, uint8 codes, uint64 key words, all C-contiguous and writable (a read-only array is
another type to Numba).

The serial kernels release the GIL and may run on any thread. The two parallel ones are for the main thread: Numba's
workqueue layer is not thread-safe. They are functions of their own, so that serial work never pays for compiling them.
"""
# mypy: allow-untyped-defs

import numpy as np
from numba import njit, prange

from structmae.masking.rng import HALF, LOW, philox

CHUNK = 1 << 16  # tokens a parallel task ranks: 256 KB of ranks, in cache, and thousands of tasks at 1e8
_BINS = 11  # bits a radix pass looks at, at most: 2048 counters stay in the first-level cache
_FEW = 24  # ranks sorted by insertion rather than by another pass


@njit(nogil=True, cache=True)
def _rank(item, local, visit, seed, stream):
    """The rank of one token, as uint64."""
    i = np.uint64(item)
    block = np.uint64(local >> 2)
    w0, w1, w2, w3 = philox(i & LOW, i >> HALF, visit, block & LOW, seed, stream)
    j = local & 3
    if j < 2:
        return w0 if j == 0 else w1
    return w2 if j == 2 else w3


@njit(nogil=True, cache=True)
def _fill(out, lo, item, visit, seed, stream):
    """out (n,) <- ranks of local positions lo .. lo + n of one item."""
    n = len(out)
    i = np.uint64(item)
    head = min(n, (4 - (lo & 3)) & 3)
    for p in range(head):
        out[p] = _rank(item, lo + p, visit, seed, stream)
    blocks = (n - head) >> 2
    first = np.uint64((lo + head) >> 2)
    body = out[head : head + 4 * blocks]
    for b in range(blocks):
        w0, w1, w2, w3 = philox(i & LOW, i >> HALF, visit, (first + np.uint64(b)) & LOW, seed, stream)
        body[4 * b] = w0
        body[4 * b + 1] = w1
        body[4 * b + 2] = w2
        body[4 * b + 3] = w3
    for p in range(head + 4 * blocks, n):
        out[p] = _rank(item, lo + p, visit, seed, stream)


@njit(nogil=True, cache=True)
def ranks(ptr, item_id, visit, seed, stream):
    """Ranks (M,) uint32 of all tokens of items ptr (I+1,) int64 with ids item_id (I,) int64."""
    out = np.empty(ptr[-1], np.uint32)
    for i in range(len(item_id)):
        _fill(out[ptr[i] : ptr[i + 1]], 0, item_id[i], visit, seed, stream)
    return out


@njit(nogil=True, cache=True, parallel=True)
def ranks_parallel(ptr, item_id, visit, seed, stream):
    """As `ranks`, on all threads: tasks are runs of CHUNK tokens, so one large item is parallel too."""
    size = ptr[-1]
    out = np.empty(size, np.uint32)
    for c in prange((size + CHUNK - 1) // CHUNK):
        lo = c * CHUNK
        hi = min(size, lo + CHUNK)
        i = np.searchsorted(ptr, lo, side="right") - 1
        while lo < hi:
            end = min(hi, ptr[i + 1])
            if end > lo:
                _fill(out[lo:end], lo - ptr[i], item_id[i], visit, seed, stream)
                lo = end
            i += 1
    return out


@njit(nogil=True, cache=True)
def ranks_at(item, local, visit, seed, stream):
    """Ranks (n,) uint32 of single tokens: position local (n,) int64 of the item with id item (n,) int64."""
    out = np.empty(len(item), np.uint32)
    for j in range(len(item)):
        out[j] = _rank(item[j], local[j], visit, seed, stream)
    return out


@njit(nogil=True, cache=True)
def _kth(rank, k, hist, pool):
    """The k-th smallest (k from 1 to n) of rank (n,) uint32.

    Radix selection from the high bits: count, then go on with the bin where the k-th falls, until few are left.
    `hist` (2**_BINS,) int64 and `pool` (>= n,) uint32 are scratch. Exact for any ranks; for uniform ones a second pass
    sees n / 2048 of them.
    """
    m = len(rank)
    left = 32  # low bits not looked at yet
    live = rank
    while m > _FEW and left > 0:
        bits = 4
        while bits < _BINS and (1 << bits) < m:
            bits += 1
        bits = min(bits, left)
        shift = np.uint32(left - bits)
        mask = np.uint32((1 << bits) - 1)
        hist[: 1 << bits] = 0
        for j in range(m):
            hist[(live[j] >> shift) & mask] += 1
        b = 0
        while hist[b] < k:
            k -= hist[b]
            b += 1
        kept = 0
        for j in range(m):  # from the second pass on this is in place: kept <= j
            r = live[j]
            if np.int64((r >> shift) & mask) == b:
                pool[kept] = r
                kept += 1
        live = pool
        m = kept
        left -= bits
    if left == 32:
        for j in range(m):  # not pool[:m] = rank, whose error message takes 2 s to compile
            pool[j] = rank[j]
    if left > 0:
        for j in range(1, m):
            r = pool[j]
            q = j - 1
            while q >= 0 and pool[q] > r:
                pool[q + 1] = pool[q]
                q -= 1
            pool[q + 1] = r
    return pool[k - 1]


@njit(nogil=True, cache=True)
def _mark(rank, k, yes, no, code, hist, pool):
    """code (n,) <- yes for the k smallest (rank, position), no for the others."""
    n = len(rank)
    if k <= 0 or k >= n:
        code[:n] = no if k <= 0 else yes
        return
    t = _kth(rank, k, hist, pool)
    marked = 0
    for j in range(n):
        low = rank[j] <= t
        code[j] = yes if low else no
        marked += low
    j = n - 1
    while marked > k:  # equal ranks: the last positions go
        if rank[j] == t:
            code[j] = no
            marked -= 1
        j -= 1


@njit(nogil=True, cache=True)
def _largest(ptr):
    n = 0
    for s in range(len(ptr) - 1):
        n = max(n, ptr[s + 1] - ptr[s])
    return n


@njit(nogil=True, cache=True)
def _select(rank, ptr, k, yes, no, code):
    hist = np.empty(1 << _BINS, np.int64)
    pool = np.empty(_largest(ptr), np.uint32)
    for s in range(len(k)):
        a, b = ptr[s], ptr[s + 1]
        _mark(rank[a:b], k[s], yes, no, code[a:b], hist, pool)


@njit(nogil=True, cache=True)
def select(rank, ptr, k, yes, no):
    """Codes (U,) uint8: `yes` for the k[s] units of smallest rank in each stratum s, ties by position; `no` for others.

    rank (U,) uint32; ptr (S+1,) int64, the strata's borders; k (S,) int64; yes, no uint8.
    """
    code = np.empty(len(rank), np.uint8)
    _select(rank, ptr, k, yes, no, code)
    return code


@njit(nogil=True, cache=True, parallel=True)
def select_parallel(rank, ptr, k, yes, no, run):
    """As `select`, on all threads: a task is `run` strata, with scratch of its own."""
    code = np.empty(len(rank), np.uint8)
    strata = len(k)
    for c in prange((strata + run - 1) // run):
        a = c * run
        b = min(strata, a + run)
        _select(rank, ptr[a : b + 1], k[a:b], yes, no, code)
    return code


@njit(nogil=True, cache=True)
def swap(code, rank, ptr, first, random, both, acts):
    """Share the chosen out over acts, in place: systematic rounding for how many, smallest rank for which.

    code (U,) uint8, where a code <= 4 is chosen; rank (U,) uint32; ptr (S+1,) int64; first (S,) uint32, the rank that
    rounds each stratum; random and both (float64): the share of RANDOM, and of RANDOM and KEEP together; acts (3,)
    uint8: the rest, KEEP, RANDOM.
    """
    n = _largest(ptr)
    hist = np.empty(1 << _BINS, np.int64)
    pool = np.empty(n, np.uint32)
    live = np.empty(n + 1, np.uint32)  # one more, so that writing needs no branch
    at = np.empty(n + 1, np.int64)
    inner = np.empty(n, np.uint8)
    outer = np.empty(n, np.uint8)
    no, yes = np.uint8(0), np.uint8(1)
    for s in range(len(first)):
        c = np.int64(0)  # a literal 0 is a type of its own, and _rounded would be compiled twice
        for j in range(ptr[s], ptr[s + 1]):
            live[c] = rank[j]
            at[c] = j
            c += code[j] <= 4
        u = first[s] / 4294967296.0
        _mark(live[:c], _rounded(c * random, c, u), yes, no, inner, hist, pool)
        _mark(live[:c], _rounded(c * both, c, u), yes, no, outer, hist, pool)
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
def sources(code, ptr, item_id, visible_only, visit, seed, stream, source):
    """Whose content each RANDOM token gets.

    source (K,) int64, one entry a scored token (code <= 4), is written where the code is 2 (RANDOM). Candidates are the
    item's visible tokens (4, 5) or its other valid ones (< 6), in position order; the one at (rank x candidates) >> 32
    is taken. Where there is none, the code becomes 1 (TOKEN) and the source stays.
    """
    pool = np.empty(_largest(ptr) + 1, np.int64)  # one more, so that writing needs no branch
    j = 0
    lowest = 4 if visible_only else 0
    for i in range(len(item_id)):
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


@njit(nogil=True, cache=True)
def indices(code, lo, hi):
    """Positions (n,) int64, ascending, where lo <= code <= hi. code (M,), lo and hi uint8."""
    n = 0
    for c in code:
        n += (c >= lo) & (c <= hi)
    out = np.empty(n + 1, np.int64)  # one more, so that writing needs no branch
    j = 0
    for i in range(len(code)):
        out[j] = i
        j += (code[i] >= lo) & (code[i] <= hi)
    return out[:n]


@njit(nogil=True, cache=True)
def places(code, lo, hi):
    """(M,) int64: each token's place among those with lo <= code <= hi, or -1. The inverse of `indices`."""
    out = np.empty(len(code), np.int64)
    j = 0
    for i in range(len(code)):
        inside = (code[i] >= lo) & (code[i] <= hi)
        out[i] = j if inside else -1
        j += inside
    return out
