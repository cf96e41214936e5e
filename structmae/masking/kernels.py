"""The compiled part, first half: ranks, and the choice of those of smallest rank. Arrays and key words in, arrays out.
No globals, no torch, and no chance but Philox.

Each kernel is compiled at its first call and kept in Numba's disk cache. A signature in the decorator would compile at
import instead; without one, each new dtype compiles again. So the callers (layout.py, plan.py) pass one dtype always:
int64 positions, uint32 ranks, uint8 codes, uint64 key words, all C-contiguous and writable (a read-only array is
another type to Numba). All release the GIL and may run on any thread; `lo` and `hi` are the run of strata, items or
tokens that one thread does (parallel.py).

A stratum's units are `ptr[s]:ptr[s + 1]`; unit u has its lead at flat position `lead[u]` (`lead` is empty where unit u
is token u), in the item that starts at `start[s]` and is called `ids[s]`.
"""
# mypy: allow-untyped-defs

import numpy as np
from numba import njit

from structmae.masking.rng import HALF, LOW, philox

_BINS = 11  # bits a radix pass looks at, at most: 2048 counters stay in the first-level cache
_FEW = 24  # ranks sorted by insertion rather than by another pass
_SEARCHED = 1 << 14  # ranks among which the threshold is searched by counting: 64 KB, read several times
_BLOCK = 1 << 12  # ranks made at a time inside a large stratum


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
def ranks(out, lo, item, visit, seed, stream):
    """out (n,) uint32 <- ranks of local positions lo .. lo + n of the item with id `item`."""
    _fill(out, lo, item, visit, seed, stream)


@njit(nogil=True, cache=True)
def ranks_at(item, local, visit, seed, stream):
    """Ranks (n,) uint32 of single tokens: position local (n,) int64 of the item with id item (n,) int64."""
    out = np.empty(len(item), np.uint32)
    for j in range(len(item)):
        out[j] = _rank(item[j], local[j], visit, seed, stream)
    return out


@njit(nogil=True, cache=True)
def unit_ranks(out, lead, a, b, start, item, near, visit, seed, stream):
    """out (b - a,) <- ranks of units a .. b of one stratum. `near` (64,) uint32 is scratch: leads come in ascending
    order, so most find their rank in the last 64 that were made."""
    if len(lead) == 0:
        _fill(out[: b - a], a - start, item, visit, seed, stream)
        return
    base = np.int64(-64)
    for j in range(b - a):
        local = lead[a + j] - start
        if local >= base + 64:
            base = local & ~3
            _fill(near, base, item, visit, seed, stream)
        out[j] = near[local - base]


@njit(nogil=True, cache=True)
def _below(rank, t):
    """How many are <= t."""
    n = np.int32(0)
    for j in range(len(rank)):  # by index and with 32 bits: otherwise SIMD has half the lanes, or is none
        n = np.int32(n + np.int32(rank[j] <= t))
    return np.int64(n)


@njit(nogil=True, cache=True)
def _next_above(rank, t):
    """The smallest rank above t."""
    least = np.uint32(0xFFFFFFFF)
    for j in range(len(rank)):
        least = min(least, rank[j] if rank[j] > t else np.uint32(0xFFFFFFFF))
    return least


@njit(nogil=True, cache=True)
def _largest_upto(rank, t):
    """The largest rank that is at most t."""
    most = np.uint32(0)
    for j in range(len(rank)):
        most = max(most, rank[j] if rank[j] <= t else np.uint32(0))
    return most


@njit(nogil=True, cache=True)
def _search(rank, k):
    """A threshold t with k of rank (n,) at most t, 0 < k < n, and how many that are: more than k where several are t.

    By counting: a count is SIMD and some 30 cycles for 200 ranks. The first guess is where uniform ranks would have it,
    each next one corrects by their density, and one too many or too few is a look for the rank next to it; some three
    are needed. Bisection bounds it for any ranks.
    """
    n = len(rank)
    width = 4294967296.0 / n
    lo, below = np.int64(-1), np.int64(0)
    hi, upto = np.int64(0xFFFFFFFF), np.int64(n)
    t = np.int64((k + 0.5) * width * n / (n + 1))
    tries = 0
    while True:
        c = _below(rank, np.uint32(t))
        if c == k:
            return np.uint32(t), c
        if c < k:
            lo, below = t, c
        else:
            hi, upto = t, c
        if hi - lo <= 1:
            return np.uint32(hi), upto
        if c == k - 1:
            t = np.int64(_next_above(rank, np.uint32(t)))
            return np.uint32(t), _below(rank, np.uint32(t))
        if c == k + 1:
            top = _largest_upto(rank, np.uint32(t))
            c = _below(rank, np.uint32(top - np.uint32(1))) if top > 0 else np.int64(0)
            return (np.uint32(top - np.uint32(1)), c) if c == k else (top, np.int64(k + 1))
        tries += 1
        t += np.int64((k - c) * width)
        if tries > 16:
            t = (lo + hi) >> 1
        elif tries > 8 or t <= lo or t >= hi:
            t = lo + np.int64((hi - lo) * ((k - below + 0.5) / (upto - below + 1)))
            t = min(max(t, lo + 1), hi - 1)


@njit(nogil=True, cache=True)
def kth(rank, k):
    """The k-th smallest (k from 1 to n) of rank (n,), uint32 or uint64.

    Radix selection from the high bits: count, then go on with the bin where the k-th falls, until few are left.
    Exact for any ranks; for uniform ones a second pass sees n / 2048 of them.
    """
    hist, pool = np.empty(1 << _BINS, np.int64), np.empty(len(rank), rank.dtype)
    m = len(rank)
    left = 8 * rank.itemsize  # low bits not looked at yet
    first = True
    live = rank
    while m > _FEW and left > 0:
        bits = 4
        while bits < _BINS and (1 << bits) < m:
            bits += 1
        bits = min(bits, left)
        shift = np.uint64(left - bits)
        mask = np.uint64((1 << bits) - 1)
        hist[: 1 << bits] = 0
        for j in range(m):
            hist[np.int64((np.uint64(live[j]) >> shift) & mask)] += 1
        b = 0
        while hist[b] < k:
            k -= hist[b]
            b += 1
        kept = 0
        for j in range(m):  # from the second pass on this is in place: kept <= j
            r = live[j]
            if np.int64((np.uint64(r) >> shift) & mask) == b:
                pool[kept] = r
                kept += 1
        live = pool
        first = False
        m = kept
        left -= bits
    if first:
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
def threshold(rank, k):
    """t and c: c of rank (n,) uint32 are at most t, and c = k but for ties at t. 0 < k < n."""
    if len(rank) <= _SEARCHED:
        return _search(rank, k)
    t = kth(rank, k)
    return t, _below(rank, t)


@njit(nogil=True, cache=True)
def _compare(code, rank, t, yes, no):
    """code (n,) <- yes where rank (n,) is at most t, else no. SIMD as long as it is a function of its own."""
    for j in range(len(rank)):
        code[j] = yes if rank[j] <= t else no


@njit(nogil=True, cache=True)
def mark(rank, k, yes, no, code):
    """code (n,) <- yes for the k smallest (rank, position), no for the others."""
    n = len(rank)
    if k <= 0 or k >= n:
        code[:n] = no if k <= 0 else yes
        return
    t, marked = threshold(rank, k)
    _compare(code, rank, t, yes, no)
    j = n - 1
    while marked > k:  # equal ranks: the last positions go
        if rank[j] == t:
            code[j] = no
            marked -= 1
        j -= 1


@njit(nogil=True, cache=True)
def largest(ptr, lo, hi):
    """The size of the largest of strata lo .. hi."""
    n = np.int64(0)
    for s in range(lo, hi):
        n = max(n, ptr[s + 1] - ptr[s])
    return n


@njit(nogil=True, cache=True)
def uniform(code, ptr, lead, start, ids, k, yes, no, visit, seed, stream, lo, hi):
    """code (U,) uint8 <- `yes` for the k[s] units of smallest rank in each stratum s, ties by position; else `no`."""
    n = largest(ptr, lo, hi)
    rank, near = np.empty(n, np.uint32), np.empty(64, np.uint32)
    plain = len(lead) == 0
    for s in range(lo, hi):
        a, b = ptr[s], ptr[s + 1]
        row, out = rank[: b - a], code[a:b]  # each slice costs an atomic count, which small strata feel
        if plain:
            _fill(row, a - start[s], ids[s], visit, seed, stream)
        else:
            unit_ranks(row, lead, a, b, start[s], ids[s], near, visit, seed, stream)
        if 0 < k[s] < b - a <= _SEARCHED:
            t, marked = _search(row, k[s])
            _compare(out, row, t, yes, no)
            if marked == k[s]:
                continue
        mark(row, k[s], yes, no, out)


@njit(nogil=True, cache=True)
def weighted(code, ptr, lead, start, ids, k, weight, power, yes, no, visit, seed, stream, lo, hi):
    """As `uniform`, but of the smallest -log(1 - u) / weight ** power, where u is the rank in (0, 1).

    That is drawing one by one without replacement, each time in proportion to the weights (Efraimidis and Spirakis
    2006). Equal weights, and power 0, give the uniform draw. Those of weight 0 come last, or first where the power is
    below 0, uniformly.
    """
    n = largest(ptr, lo, hi)
    rank, near = np.empty(n, np.uint32), np.empty(64, np.uint32)
    keys = np.empty(n, np.float64)
    for s in range(lo, hi):
        a, b = ptr[s], ptr[s + 1]
        if k[s] <= 0 or k[s] >= b - a:
            code[a:b] = no if k[s] <= 0 else yes
            continue
        unit_ranks(rank, lead, a, b, start[s], ids[s], near, visit, seed, stream)
        top = 0.0
        for j in range(a, b):
            top = max(top, weight[j])
        for j in range(b - a):
            w = -500.0 if power > 0.0 else 500.0  # weight 0: beyond all others, and no key of it overflows
            if power == 0.0:
                w = 0.0
            elif weight[a + j] > 0.0:
                light = max(weight[a + j] / top, 5e-324)  # else 0 is possible, and 0 x log 0 is no number
                w = min(max(power * np.log(light), -460.0), 460.0)
            keys[j] = -np.log1p(-(rank[j] + 0.5) / 4294967296.0) * np.exp(-w)
        order = keys[: b - a].view(np.uint64)  # positive doubles are ordered as their bits
        t = kth(order, k[s])
        marked = np.int64(0)
        for j in range(b - a):
            low = order[j] <= t
            code[a + j] = yes if low else no
            marked += low
        j = b - 1
        while marked > k[s]:
            if order[j - a] == t:
                code[j] = no
                marked -= 1
            j -= 1


@njit(nogil=True, cache=True)
def window(item, lo, hi, low, high, room, visit, seed, stream):
    """Of local positions lo .. hi of a large item: how many ranks are below `low`, and the list of those from `low` to
    `high` (int64), of which at most `room`."""
    rank = np.empty(_BLOCK, np.uint32)
    found = np.empty(room + 1, np.uint32)
    below, inside = np.int64(0), np.int64(0)
    width = np.uint32(high - low)
    floor = np.uint32(low)
    while lo < hi:
        n = min(hi - lo, np.int64(_BLOCK))
        _fill(rank[:n], lo, item, visit, seed, stream)
        for a in range(0, n, 64):  # few hold any of the window
            b = min(n, a + 64)
            near = np.int32(0)
            under = np.int32(0)
            for j in range(a, b):
                under = np.int32(under + np.int32(rank[j] < floor))
                near = np.int32(near + np.int32(rank[j] <= high))
            below += np.int64(under)
            if near > under:
                for j in range(a, b):
                    if rank[j] >= floor and rank[j] - floor <= width:
                        found[min(inside, room)] = rank[j]
                        inside += 1
        lo += n
    return below, inside, found


@njit(nogil=True, cache=True)
def mark_window(code, item, lo, hi, t, yes, no, visit, seed, stream):
    """code[lo:hi] of a large item's code (n,) <- yes where the rank is at most t. Makes the ranks once more: that is
    faster than writing 4 bytes each and reading them back."""
    rank = np.empty(_BLOCK, np.uint32)
    while lo < hi:
        n = min(hi - lo, np.int64(_BLOCK))
        _fill(rank[:n], lo, item, visit, seed, stream)
        _compare(code[lo : lo + n], rank[:n], t, yes, no)
        lo += n


@njit(nogil=True, cache=True)
def unmark_last(code, item, t, extra, no, visit, seed, stream):
    """Takes the mark off the last `extra` of a large item's tokens whose rank is t."""
    rank = np.empty(_BLOCK, np.uint32)
    hi = len(code)
    while extra > 0:
        lo = max(hi - _BLOCK, 0)
        _fill(rank[: hi - lo], lo, item, visit, seed, stream)
        for j in range(hi - lo - 1, -1, -1):
            if extra > 0 and rank[j] == t:
                code[lo + j] = no
                extra -= 1
        hi = lo
