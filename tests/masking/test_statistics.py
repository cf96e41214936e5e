"""Hiding as statistics: over subsets, positions, pairs; shares and sources; what each strategy makes likely.

Keys are fixed, so results are.
"""

from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest
from masking_cases import cycle
from scipy import stats

from structmae.masking import Act, Spec, draw, layout, permutation
from structmae.masking.adjacency import adjacency, grid
from structmae.masking.edge_tokens import edges

ITEMS = 20_000


def codes(n, spec, seed=0, visit=0):
    """(ITEMS, n) codes of as many items of n tokens."""
    return draw(layout(np.arange(ITEMS + 1) * n), spec, seed=seed, visit=visit).code.reshape(ITEMS, n)


def subsets(at, n, spec, seed=0):
    """How often each set of an item's n tokens is chosen, by its bits."""
    bits = (draw(at, spec, seed=seed, visit=0).code < 5).reshape(-1, n) @ (1 << np.arange(n))
    return np.bincount(bits, minlength=1 << n)


def p_uniform(table):
    return stats.chisquare(np.asarray(table).ravel()).pvalue


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("n", "k"), [(6, 3), (5, 1), (7, 5)])
def test_every_subset_is_as_likely(n, k, seed):
    chosen = codes(n, Spec(ratio=k / n), seed) < 5
    seen, times = np.unique(chosen @ (1 << np.arange(n)), return_counts=True)
    assert len(seen) == comb(n, k)
    assert p_uniform(times) > 1e-3


def test_subsets_over_visits():
    """One item over many epochs, not many items in one."""
    at = layout([0, 6])
    bits = 1 << np.arange(6)
    seen = [int((draw(at, Spec(), seed=0, visit=v).code < 5) @ bits) for v in range(4000)]
    times = np.unique(seen, return_counts=True)[1]
    assert len(times) == 20
    assert p_uniform(times) > 1e-3


def test_every_position_and_pair_is_as_likely():
    """Not the plain chi-square: counts within a draw exclude each other, which the expected variances below know."""
    n, k = 30, 9
    chosen = (codes(n, Spec(ratio=k / n)) < 5).astype(float)
    p1 = k / n
    position = (chosen.sum(0) - ITEMS * p1) ** 2 / (ITEMS * p1 * (1 - p1)) * (n - 1) / n
    assert stats.chi2.sf(position.sum(), n - 1) > 1e-3
    assert stats.chi2.cdf(position.sum(), n - 1) > 1e-3  # nor too even
    p2 = p1 * (k - 1) / (n - 1)
    pairs = np.array([(chosen[:, a] * chosen[:, b]).sum() for a, b in combinations(range(n), 2)])
    z = (pairs - ITEMS * p2) / np.sqrt(ITEMS * p2 * (1 - p2))
    assert np.abs(z).max() < 4.5  # of 435
    assert abs(z.std() - 1) < 0.15


def test_neighbouring_keys_are_independent():
    """Seeds, visits and purposes one apart overlap as chance has it."""
    a = codes(20, Spec()) < 5
    for b in (codes(20, Spec(), seed=1) < 5, codes(20, Spec(), visit=1) < 5):
        both = (a & b).sum()  # mean 5 an item, hypergeometric variance 25/19
        assert abs(both - 5 * ITEMS) < 4 * np.sqrt(ITEMS * 25 / 19)
    assert (np.roll(a, 1, axis=0) == a).all(axis=1).mean() < 0.001


@pytest.mark.parametrize(("random", "keep"), [(0.1, 0.1), (0.05, 0.15), (1 / 3, 1 / 3)])
def test_shares_are_unbiased_on_small_items(random, keep):
    """3 of 7 are chosen: 10% of 3 is none by rounding, and would never be given."""
    got = codes(7, Spec(ratio=3 / 7, random=random, keep=keep))
    for act, portion in ((Act.RANDOM, random), (Act.KEEP, keep), (Act.TOKEN, 1 - random - keep)):
        per_item = (got == act).sum(1)
        mean = 3 * portion
        low = np.floor(mean + 1e-9)
        assert per_item.min() >= low
        assert per_item.max() <= np.ceil(mean - 1e-9)
        part = mean - low
        sigma = np.sqrt(max(part * (1 - part), 1e-12) / ITEMS)
        assert abs(per_item.mean() - mean) < 4 * sigma + 1e-9
        assert p_uniform((got == act).sum(0)) > 1e-4  # no position is preferred


def test_sources_are_uniform():
    """Over the visible others; and over all others, hidden or not, with `any`."""
    n = 6
    for random_from, candidates in (("visible", 3), ("any", 5)):
        at = layout(np.arange(ITEMS + 1) * n)
        plan = draw(at, Spec(random=1.0, random_from=random_from), seed=0, visit=0)
        if random_from == "visible":
            row = plan.visible.reshape(ITEMS, 3)
            place = (row[plan.scored // n] < plan.source[:, None]).sum(1)
        else:
            place = plan.source % n - (plan.source > plan.scored)
        times = np.bincount(place, minlength=candidates)
        assert len(times) == candidates
        assert p_uniform(times) > 1e-3


def test_permutations_are_uniform():
    orders = [tuple(permutation(4, seed=0, visit=v)) for v in range(6000)]
    times = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(times) == 24
    assert p_uniform(times) > 1e-3


def runs(bits, n):
    chosen = [bits >> p & 1 for p in range(n)]
    return sum(a > b for a, b in zip(chosen, [0, *chosen], strict=False))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("n", "k", "length", "wanted"), [(8, 4, 2, 2), (9, 5, 3, 2), (7, 3, 1, 3), (6, 3, 9, 1)])
def test_every_arrangement_of_spans_is_as_likely(n, k, length, wanted, seed):
    times = subsets(layout(np.arange(ITEMS + 1) * n), n, Spec("span", k / n, length=length), seed)
    possible = [b for b in range(1 << n) if b.bit_count() == k and runs(b, n) == wanted]
    assert times.sum() == times[possible].sum() == ITEMS
    assert len(possible) == comb(n - k + 1, wanted) * comb(k - 1, wanted - 1)
    assert len(possible) == 1 or p_uniform(times[possible]) > 1e-3


@pytest.mark.parametrize(("ratio", "length"), [(0.15, 3), (0.5, 8), (0.6, 2)])
def test_lengths_of_spans_are_geometric(ratio, length):
    """As in the two-state chain of Zerveas et al.: mean `length`, and each step ends a run with probability 1 / length;
    so it is for the runs between them, with the mean that the ratio asks for."""
    n, most = 200_000, 12
    chosen = (draw(layout([0, n]), Spec("span", ratio, length=length), seed=0, visit=0).code < 5).astype(int)
    turns = np.flatnonzero(np.diff(chosen, prepend=0, append=0))
    long = turns[1::2] - turns[::2]
    assert long.mean() == pytest.approx(length, rel=1e-3)
    for lengths, mean in ((long, length), (turns[2::2] - turns[1:-1:2], length * (1 - ratio) / ratio)):
        times = np.bincount(np.minimum(lengths, most), minlength=most + 1)[1:]
        on = (1 - 1 / mean) ** np.arange(most)
        expected = len(lengths) * np.append(on[:-1] / mean, on[-1])
        enough = expected > 5
        assert enough.sum() > 5
        assert np.abs((times - expected)[enough] / np.sqrt(expected[enough])).max() < 4
        assert abs(lengths.mean() - mean) < 4 * mean / np.sqrt(len(lengths))


@pytest.mark.parametrize("power", [1.0, 0.5, -1.0])
@pytest.mark.parametrize(("weight", "k"), [([1, 2, 3, 4], 2), ([1, 1, 5, 0.5, 2], 3), ([8, 1, 0.1], 1), ([3, 3, 1], 2)])
def test_weighted_draws_one_by_one(weight, k, power):
    """Without replacement, each time in proportion to the weights: all orders enumerated."""
    n, chance = len(weight), {}
    for order in permutations(range(n), k):
        w, p = np.array(weight, float) ** power, 1.0
        for i in order:
            p *= w[i] / w.sum()
            w[i] = 0
        bits = sum(1 << i for i in order)
        chance[bits] = chance.get(bits, 0) + p
    at = layout(np.arange(ITEMS + 1) * n, weight=np.tile(weight, ITEMS))
    times = subsets(at, n, Spec("weighted", k / n, power=power))
    assert times[list(chance)].sum() == ITEMS
    assert stats.chisquare(times[list(chance)], ITEMS * np.array(list(chance.values()))).pvalue > 1e-3


def test_weight_zero_comes_last_and_uniformly():
    n = 6
    at = layout(np.arange(ITEMS + 1) * n, weight=np.tile([0, 2, 0, 0, 7, 0], ITEMS))
    chosen = (draw(at, Spec("weighted", 3 / 6), seed=0, visit=0).code < 5).reshape(ITEMS, n)
    assert chosen[:, [1, 4]].all()
    assert p_uniform(chosen[:, [0, 2, 3, 5]].sum(0)) > 1e-3


@pytest.mark.parametrize("k", [1, 5, 9])
def test_balls_begin_anywhere_on_a_ring(k):
    """Of odd size they are all whole: the middle is the seed."""
    n = 16
    times = subsets(layout(np.arange(ITEMS + 1) * n, adjacency=cycle(n, ITEMS)), n, Spec("block", k / n))
    arcs = [sum(1 << (a + j) % n for j in range(k)) for a in range(n)]
    assert times[arcs].sum() == ITEMS
    assert p_uniform(times[arcs]) > 1e-3


@pytest.mark.parametrize(("k", "shell"), [(1, 0), (5, 4), (4, 4), (2, 4)])
def test_balls_begin_anywhere_on_a_torus(k, shell):
    """All of the first shell are as likely where it is not whole."""
    w, items = 5, ITEMS // 4
    y, x = np.divmod(np.arange(w * w), w)
    near = np.stack([(y - 1) % w * w + x, (y + 1) % w * w + x, y * w + (x - 1) % w, y * w + (x + 1) % w], 1)
    at = adjacency(
        4 * np.arange(items * w * w + 1),
        (near.ravel() + w * w * np.arange(items)[:, None]).ravel(),
        w * w * np.arange(items + 1),
    )
    code = draw(layout(at.items, adjacency=at), Spec("block", k / w**2), seed=0, visit=0).code
    chosen = (code < 5).reshape(items, w * w).astype(int)
    if k == 2:  # either may be the seed: 50 pairs of neighbours
        a, b = np.nonzero(chosen)[1].reshape(-1, 2).T
        assert (near[a] == b[:, None]).any(1).all()
        assert p_uniform(np.unique(a * w * w + b, return_counts=True)[1]) > 1e-3
        return
    inside = chosen + chosen[:, near].sum(2) * chosen  # of each place: itself and its neighbours, if chosen
    assert ((inside == k).sum(1) == 1).all()  # the middle has all
    middle = (inside == k).argmax(1)
    assert p_uniform(np.bincount(middle, minlength=w * w)) > 1e-3
    if shell:
        around = chosen[np.arange(items)[:, None], near[middle]]
        assert (around.sum(1) == k - 1).all()
        assert k == 5 or p_uniform(around.sum(0)) > 1e-3


def graph_of(pairs, nodes):
    """Edge tokens of ITEMS graphs alike."""
    index = np.tile(np.array(pairs).T, ITEMS) + nodes * np.repeat(np.arange(ITEMS), len(pairs))
    return edges(index, ptr=nodes * np.arange(ITEMS + 1)).layout


def once(pairs, nodes, **fields):
    """How often each edge is the first that a walk takes."""
    chosen = draw(graph_of(pairs, nodes), Spec("walk", 1 / len(pairs), **fields), seed=0, visit=0).code < 5
    times = chosen.reshape(ITEMS, -1).sum(0)
    assert times.sum() == ITEMS
    return times


COMPLETE = list(combinations(range(5), 2))
PATH = [(0, 1), (1, 2), (2, 3)]
STAR = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2)]


def test_edges_of_walks():
    """From a node: as likely as its ends are to be begun at and to lead there; from an edge: all as likely."""
    assert p_uniform(once(COMPLETE, 5)) > 1e-3
    assert stats.chisquare(once(PATH, 4), ITEMS * np.array([3, 2, 3]) / 8).pvalue > 1e-3
    expected = np.array([1 / 4 + 1 / 2, 1 / 4 + 1 / 2, 1 / 4 + 1, 1 / 4 + 1, 1 / 2 + 1 / 2]) / 5
    order = [STAR.index(pair) for pair in sorted(STAR)]
    assert stats.chisquare(once(STAR, 5), ITEMS * expected[order]).pvalue > 1e-3
    for pairs, nodes in ((COMPLETE, 5), (PATH, 4), (STAR, 5)):
        assert p_uniform(once(pairs, nodes, start="edge")) > 1e-3


@pytest.mark.parametrize("start", ["node", "edge"])
def test_a_walk_goes_on_to_any_neighbour(start):
    """Two of a complete graph's edges: the second is one of those at the end of the first."""
    at = graph_of(COMPLETE, 5)
    chosen = (draw(at, Spec("walk", 2 / 10, length=99, start=start), seed=0, visit=0).code < 5).reshape(ITEMS, 10)
    assert (chosen.sum(1) == 2).all()
    pairs, times = np.unique(np.nonzero(chosen)[1].reshape(-1, 2), axis=0, return_counts=True)
    assert all(set(COMPLETE[a]) & set(COMPLETE[b]) for a, b in pairs)
    assert len(pairs) == 30
    assert p_uniform(times) > 1e-3


def test_walks_begin_at_any_node():
    n = 12
    at = grid((3, 4), ITEMS)
    times = subsets(layout(at.items, adjacency=at), n, Spec("walk", 1 / n))[1 << np.arange(n)]
    assert times.sum() == ITEMS
    assert p_uniform(times) > 1e-3
    # With an edge: where one leads is in proportion to the degree.
    times = subsets(layout(at.items, adjacency=at), n, Spec("walk", 1 / n, start="edge"))[1 << np.arange(n)]
    degree = np.diff(at.ptr)[:n]
    assert stats.chisquare(times, ITEMS * degree / degree.sum()).pvalue > 1e-3
