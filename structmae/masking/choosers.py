"""The compiled part: choosers that look at where units lie. Spans on a path, balls on an adjacency (walks.py: walks;
rectangles.py: rectangles on a grid).

Arguments and rules are those of kernels.py; an adjacency comes as the arrays of adjacency.Topology.
"""
# mypy: allow-untyped-defs

import numpy as np
from numba import njit

from structmae.masking.kernels import _fill, largest, mark, threshold, unit_ranks


@njit(nogil=True, cache=True)
def _upto(rank, t, out):
    """out <- positions, ascending, where rank (n,) is at most t; out has room for one more."""
    c = np.uint64(0)  # unsigned, or each index is looked at for its sign
    for j in range(len(rank)):
        out[c] = j
        c += np.uint64(rank[j] <= t)


@njit(nogil=True, cache=True)
def _smallest(rank, k, out):
    """out[:k] int32 <- positions, ascending, of the k smallest (rank, position) of rank (n,).

    out (n + 1,) or more is written beyond k.
    """
    n = len(rank)
    if k <= 0 or k >= n:
        for j in range(n if k > 0 else 0):
            out[j] = j
        return
    t, found = threshold(rank, k)
    _upto(rank, t, out)
    if found > k:  # equal ranks: the first positions stay
        equal = np.int64(k)
        for j in range(n):
            equal -= rank[j] < t
        c = 0
        for q in range(found):
            if rank[out[q]] < t or equal > 0:
                equal -= rank[out[q]] == t
                out[c] = out[q]
                c += 1


@njit(nogil=True, cache=True)
def spans(code, ptr, lead, start, ids, k, length, yes, no, visit, seed, stream, lo, hi):
    """code <- `yes` for k[s] units of each stratum, in c = half-up(k / length) runs, as near as k and n let it.

    Every arrangement of c runs that do not touch is as likely: c of the n - k + 1 slots between unchosen units take a
    run (those of smallest rank, of the first n - k + 1 ranks), and c - 1 of the k - 1 places inside the chosen are cut
    (likewise, of the other ranks). This is the two-state chain of Zerveas et al. (KDD 2021, section 3.2), whose runs
    have geometric lengths, given its number of runs and of hidden steps.
    """
    n = largest(ptr, lo, hi)
    rank, near = np.empty(n, np.uint32), np.empty(64, np.uint32)
    slots, cuts = np.empty(n + 2, np.int32), np.empty(n + 2, np.int32)
    words = np.zeros(n // 8 + 1, np.uint64)
    turns = words.view(np.uint8)  # 1 where a run starts, and where it has ended
    plain = len(lead) == 0
    for s in range(lo, hi):
        a, b = ptr[s], ptr[s + 1]
        n = b - a
        out = code[a:b]
        hide = k[s]
        if hide <= 0 or hide >= n:
            out[:] = no if hide <= 0 else yes
            continue
        if plain:
            _fill(rank[:n], a - start[s], ids[s], visit, seed, stream)
        else:
            unit_ranks(rank, lead, a, b, start[s], ids[s], near, visit, seed, stream)
        room = n - hide + 1
        runs = min(max(np.int64(1), (2 * hide + length) // (2 * length)), min(hide, room))
        _smallest(rank[:room], runs, slots)
        _smallest(rank[room:n], runs - 1, cuts)
        cuts[runs - 1] = hide - 1
        before = np.uint64(0)  # chosen units in the runs so far
        for r in range(runs):
            slot = np.uint64(slots[r])
            turns[slot + before] = 1
            before = np.uint64(cuts[r]) + np.uint64(1)
            turns[slot + before] = 1
        _between_turns(words[: n // 8 + 1], yes, no)
        for j in range(n):
            out[j] = turns[j]
        words[: n // 8 + 1] = 0


@njit(nogil=True, cache=True)
def _between_turns(words, yes, no):
    """Bytes of 0 and 1, eight a word <- `yes` from each odd 1 to before the next, else `no`: a running exclusive or."""
    ones, top, zero = np.uint64(0x0101010101010101), np.uint64(56), np.uint64(0)
    state = zero
    base, change = np.uint64(no) * ones, np.uint64(no ^ yes)
    for w in range(len(words)):
        x = words[w]
        odd = ((x * ones) >> top) & np.uint64(1)  # so that words wait for one another by a single operation
        x ^= x << np.uint64(8)
        x ^= x << np.uint64(16)
        x ^= x << np.uint64(32)
        x ^= (zero - state) & ones
        state ^= odd
        words[w] = base ^ (x * change)


@njit(nogil=True, cache=True)
def balls(
    code,
    ptr,
    lead,
    start,
    ids,
    k,
    blocks,
    steps_ptr,
    steps,
    unit_ptr,
    unit_places,
    yes,
    no,
    visit,
    seed,
    stream,
    lo,
    hi,
):
    """code <- `yes` for k[s] units of each stratum, in `blocks` balls.

    The balls grow from the units of smallest rank, a step at a time and all together; where the last step reaches more
    units than are wanted, those of smallest rank stay. Balls that can't grow are joined by new ones from the unchosen
    units of smallest rank: one, then two, four, ..., so that a graph of many parts costs no more than a few passes.
    """
    n = largest(ptr, lo, hi)
    rank, near = np.empty(n, np.uint32), np.empty(64, np.uint32)
    queue, picked = np.empty(n + 1, np.int64), np.empty(n + 1, np.int32)
    live, shell = np.empty(n, np.uint32), np.empty(n, np.uint8)
    seen = np.zeros(n, np.uint8)
    left = np.full(len(steps_ptr) - 1, -1, np.int64)  # the stratum for which a place's steps were taken
    for s in range(lo, hi):
        a, b = ptr[s], ptr[s + 1]
        n = b - a
        code[a:b] = no if k[s] < n else yes
        if k[s] <= 0 or k[s] >= n:
            continue
        unit_ranks(rank, lead, a, b, start[s], ids[s], near, visit, seed, stream)
        seen[:n] = 0
        wanted, seeds = k[s], np.int64(blocks)
        head, tail = np.int64(0), np.int64(0)
        while True:
            if head == tail:
                c = np.int64(0)
                for j in range(n):
                    if seen[j] == 0:
                        live[c] = rank[j]
                        queue[tail + c] = j
                        c += 1
                seeds = min(seeds, wanted)
                _smallest(live[:c], seeds, picked)
                for q in range(seeds):
                    queue[tail + q] = queue[tail + picked[q]]
                    seen[queue[tail + q]] = 1
                tail += seeds
                seeds = np.int64(1) if head == 0 else 2 * seeds
            size = tail - head
            if size >= wanted:
                c = np.int64(0)
                for j in range(n):  # the shell, by position: seen and not chosen yet
                    if seen[j] == 1 and code[a + j] == no:
                        live[c] = rank[j]
                        queue[c] = j
                        c += 1
                mark(live[:c], wanted, yes, no, shell)
                for q in range(c):
                    code[a + queue[q]] = shell[q]
                break
            wanted -= size
            end = tail
            for q in range(head, tail):
                u = a + queue[q]
                code[u] = yes
                for x in range(unit_ptr[u], unit_ptr[u + 1]):
                    p = unit_places[x]
                    if left[p] != s:
                        left[p] = s
                        for e in range(steps_ptr[p], steps_ptr[p + 1]):
                            v = steps[e, 1] - a
                            if 0 <= v < n and seen[v] == 0:
                                seen[v] = 1
                                queue[end] = v
                                end += 1
            head, tail = tail, end


@njit(nogil=True, cache=True)
def finish(code, ptr, lead, start, ids, quota, yes, no, visit, seed, stream, lo, hi):
    """Chooses quota[s] more units of each stratum: of those not chosen yet, the ones of smallest rank."""
    n = largest(ptr, lo, hi)
    rank, near = np.empty(n, np.uint32), np.empty(64, np.uint32)
    at, picked = np.empty(n, np.int64), np.empty(n + 1, np.int32)
    live = np.empty(n, np.uint32)
    for s in range(lo, hi):
        if quota[s] > 0:
            a, b = ptr[s], ptr[s + 1]
            unit_ranks(rank, lead, a, b, start[s], ids[s], near, visit, seed, stream)
            c = np.int64(0)
            for j in range(b - a):
                if code[a + j] == no:
                    live[c] = rank[j]
                    at[c] = a + j
                    c += 1
            _smallest(live[:c], quota[s], picked)
            for q in range(quota[s]):
                code[at[picked[q]]] = yes
