"""The compiled part of edges.py. As in kernels.py: arrays and key words in, arrays out, one dtype signature each.

Node ids and tokens are int32 inside, half the memory to read, and int64 where they are handed out. Results are written
to arrays that the caller made: NumPy asks for huge pages, Numba does not, and page faults cost much of the time.
"""
# mypy: allow-untyped-defs

import numpy as np
from numba import njit

from structmae.masking.rng import HALF, LOW, philox

_BLOCK = 2048  # tokens compacted at a time: their places stay in the first-level cache


@njit(nogil=True, cache=True)
def keys(row, col, undirected, key):
    """key (E,) int64 <- a number that orders the edges by (min, max) or (source, target), -1 for a self-loop.

    row, col (E,) int64, below 2**31. Returns whether the edges are in order; self-loops may be anywhere.
    """
    ordered = True
    last = np.int64(-1)
    for e in range(len(row)):
        u, v = row[e], col[e]
        if u == v:
            key[e] = -1
        else:
            now = v << 32 | u if undirected and u > v else u << 32 | v
            ordered &= now >= last
            last = now
            key[e] = now
    return ordered


@njit(nogil=True, cache=True)
def number(key, order, of, low, high):
    """Numbers the distinct keys >= 0 in the order (E,) int64 that sorts them; returns how many there are.

    of (E,) int32 <- the number of each edge, or -1; low, high (E,) int32 <- the halves of each distinct key.
    """
    m = 0
    last = np.int64(-1)
    for e in order:
        now = key[e]
        if now != last and now >= 0:
            low[m] = now >> 32
            high[m] = now & np.int64(0xFFFFFFFF)
            m += 1
            last = now
        of[e] = m - 1 if now >= 0 else -1
    return m


@njit(nogil=True, cache=True)
def rows(low, high, loops, n, undirected, source, token):
    """Compressed rows by target of tokens low, high (M,) int32, in token order, and self-loops (L,) int64; returns ptr.

    source, token (M or 2 M, + L) int32 <- where each entry comes from, ascending within a row, and its token, -1 for a
    self-loop. No sort: in token order the sources of a row ascend, those below the row's node first.
    """
    ptr = np.zeros(n + 1, np.int64)
    for t in range(len(low)):
        ptr[high[t] + 1] += 1
        if undirected:
            ptr[low[t] + 1] += 1
    for p in loops:
        ptr[p + 1] += 1
    for p in range(n):
        ptr[p + 1] += ptr[p]
    end = ptr[:-1].copy()
    for t in range(len(low)):
        if low[t] < high[t]:
            _put(high[t], low[t], t, end, source, token)
    for p in loops:
        _put(np.int32(p), np.int32(p), np.int64(-1), end, source, token)
    for t in range(len(low)):
        if undirected:
            _put(low[t], high[t], t, end, source, token)
        elif low[t] > high[t]:
            _put(high[t], low[t], t, end, source, token)
    return ptr


@njit(nogil=True, cache=True)
def _put(row, s, t, end, source, token):
    source[end[row]] = s
    token[end[row]] = t
    end[row] += 1


@njit(nogil=True, cache=True)
def count(code, lo, hi):
    """How many of code (M,) are lo..hi, all uint8."""
    n = 0
    for c in code:
        n += (c >= lo) & (c <= hi)
    return n


@njit(nogil=True, cache=True)
def pairs(code, lo, hi, low, high, out_low, out_high, j, back):
    """The ends of the tokens with lo <= code <= hi, from out[j] on, and the other way round from out[j + back] on.

    code (m,), lo, hi uint8; low, high (m,) int32; out_low, out_high (n,) int64; back 0: one way alone.
    """
    at = np.empty(_BLOCK + 1, np.int32)  # one more, so that writing needs no branch
    for a in range(0, len(code), _BLOCK):
        k = np.int64(0)
        for t in range(a, min(len(code), a + _BLOCK)):
            at[k] = t
            k += (code[t] >= lo) & (code[t] <= hi)
        if back > 0:
            for q in range(k):
                u, v = low[at[q]], high[at[q]]
                out_low[j + q] = u
                out_high[j + q] = v
                out_low[j + back + q] = v
                out_high[j + back + q] = u
        else:
            for q in range(k):
                out_low[j + q] = low[at[q]]
                out_high[j + q] = high[at[q]]
        j += k


@njit(nogil=True, cache=True)
def staying(code, of, out):
    """out (E + 1,) int64 <- where of (E,) int32 is -1 or has a visible code (4, 5); returns how many. code (>= 1,)."""
    j = 0
    for e in range(len(of)):
        t = of[e]
        c = code[max(t, 0)]
        out[j] = e
        j += (t < 0) | (c == 4) | (c == 5)
    return j


@njit(nogil=True, cache=True)
def visible_rows(code, ptr, source, token, indptr, out):
    """The visible part of compressed rows (see `rows`): indptr (n+1,) and out (V + 1,), both int64. code (>= 1,)."""
    j = 0
    indptr[0] = 0
    for p in range(len(ptr) - 1):
        for e in range(ptr[p], ptr[p + 1]):
            t = token[e]
            c = code[max(t, 0)]
            out[j] = source[e]
            j += (t < 0) | (c == 4) | (c == 5)
        indptr[p + 1] = j


@njit(nogil=True, cache=True)
def between(seen, row, col, out_row, out_col):
    """Edges with both ends seen, in order; returns how many, or -1 where an end is not below n.

    seen (n,) uint8; row, col (E,) int64; out_row, out_col (E + 1,) int32. One pass: counting first would gather twice.
    """
    n = np.uint64(len(seen))
    none = np.uint64(0)
    j = 0
    wrong = np.int64(0)
    for e in range(len(row)):
        u, v = np.uint64(row[e]), np.uint64(col[e])  # a negative id is a large one
        wrong += (u >= n) | (v >= n)
        u = u if u < n else none
        v = v if v < n else none
        out_row[j] = u
        out_col[j] = v
        j += seen[u] & seen[v]
    return -1 if wrong > 0 else j


@njit(nogil=True, cache=True)
def where_between(seen, row, col, out):
    """out (E + 1,) int64 <- positions of the edges with both ends seen; returns how many. Ends are in range."""
    j = 0
    for e in range(len(row)):
        out[j] = e
        j += seen[row[e]] & seen[col[e]]
    return j


@njit(nogil=True, cache=True)
def gaps(graphs, nodes, ptr, source, undirected, out):
    """out (2, n) int32 <- the pairs that are no edges of the given graphs, row by row; nodes (I+1,), rows as `rows`."""
    j = 0
    for g in graphs:
        for p in range(nodes[g], nodes[g + 1]):
            e = ptr[p]
            for q in range(nodes[g], nodes[g + 1]):
                while e < ptr[p + 1] and source[e] < q:
                    e += 1
                linked = e < ptr[p + 1] and source[e] == q
                if not linked and (q > p if undirected else q != p):
                    out[0, j] = p if undirected else q
                    out[1, j] = q if undirected else p
                    j += 1


@njit(nogil=True, cache=True)
def _words(item, visit, block, seed, stream):
    return philox(item & LOW, item >> HALF, visit, block & LOW, seed, stream)


@njit(nogil=True, cache=True)
def _linked(u, v, ptr, source):
    """Whether there is an edge from u to v."""
    a, b = ptr[v], ptr[v + 1]
    while a < b:
        m = (a + b) >> 1
        if source[m] < u:
            a = m + 1
        else:
            b = m
    return a < ptr[v + 1] and source[a] == u


@njit(nogil=True, cache=True)
def negatives(lo, hi, borders, item_id, nodes, gap_ptr, gap, ptr, source, undirected, visit, seed, stream, out):
    """out (2, n) int64 at lo..hi <- pairs that are no edges; those of graph i lie at borders[i]..borders[i + 1] (I+1,).

    Where graph i has gaps listed, gap (2, K) int32 at gap_ptr[i]..gap_ptr[i + 1], one of them is taken; else pairs of
    nodes are drawn, two a block, until one is no edge.
    """
    i = np.searchsorted(borders, lo, side="right") - 1
    for k in range(lo, hi):
        while k >= borders[i + 1]:
            i += 1
        item = np.uint64(item_id[i])
        step = np.uint64(borders[i + 1] - borders[i])
        block = np.uint64(k - borders[i])
        listed = gap_ptr[i + 1] - gap_ptr[i]
        if listed > 0:
            w0, _, _, _ = _words(item, visit, block, seed, stream)
            at = gap_ptr[i] + np.int64((w0 * np.uint64(listed)) >> HALF)
            out[0, k] = gap[0, at]
            out[1, k] = gap[1, at]
            continue
        size = np.uint64(nodes[i + 1] - nodes[i])
        u = v = nodes[i]
        while u == v or _linked(u, v, ptr, source):
            w0, w1, w2, w3 = _words(item, visit, block, seed, stream)
            u = nodes[i] + np.int64((w0 * size) >> HALF)
            v = nodes[i] + np.int64((w1 * size) >> HALF)
            if u == v or _linked(u, v, ptr, source):
                u = nodes[i] + np.int64((w2 * size) >> HALF)
                v = nodes[i] + np.int64((w3 * size) >> HALF)
            block += step
        swap = undirected and u > v
        out[0, k] = v if swap else u
        out[1, k] = u if swap else v
