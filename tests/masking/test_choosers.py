"""What each strategy promises, found from plans alone; the oracle is test_plan's."""

from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masking_cases import cases, cycle, items, layout_of, on_threads

from structmae.errors import UsageError
from structmae.masking import Act, Spec, count, draw, layout, walks
from structmae.masking.adjacency import adjacency, grid
from structmae.masking.edge_tokens import edges
from structmae.masking.strategies import STRATEGIES

ONCE = settings(max_examples=100, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("strategy", STRATEGIES)
@ONCE
@given(st.data(), SEEDS)
def test_sets_of_a_plan_fit_together(strategy, data, seed):
    made, spec = data.draw(cases([strategy]))
    plan = draw(layout_of(made), spec, seed=seed, visit=0, step=0)
    valid = np.flatnonzero([v for item in made for v in item["valid"]])
    assert np.array_equal(np.sort(np.append(plan.hidden, plan.visible)), valid)
    assert np.array_equal(plan.hidden, plan.scored[plan.act != Act.KEEP])
    assert np.array_equal(np.sort(np.append(plan.kept, plan.with_act(Act.DROP))), valid)
    assert np.isin(plan.visible, plan.kept).all()
    assert np.array_equal(plan.restore[plan.kept], np.arange(len(plan.kept)))
    assert (np.delete(plan.restore, plan.kept) == -1).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
@ONCE
@given(st.data(), SEEDS)
def test_what_was_not_observed_is_left_out(strategy, data, seed):
    """It is neither hidden nor scored, and counts for nothing."""
    made, spec = data.draw(cases([strategy], scopes=["item"], grouped=False))
    ptr = layout_of(made).ptr
    size = int(ptr[-1])
    seen = np.random.default_rng(seed).random((size, 2, 2)) < 0.3
    any_ = seen.any((1, 2))
    fields = {"weight": np.ones(size), "adjacency": grid((size,)) if len(made) == 1 else chain(ptr)}
    fields |= {"shape": made[0]["shape"] if made else (1,)}
    plan = draw(layout(ptr, observed=seen, **fields), spec, seed=seed, visit=0)
    assert (plan.code[~any_] == 6).all()
    assert any_[plan.scored].all()
    for a, b in pairwise(ptr):
        assert (plan.code[a:b] <= 4).sum() == count(spec.ratio, int(any_[a:b].sum()))
    assert plan.code.tolist() == draw(layout(ptr, valid=any_, **fields), spec, seed=seed, visit=0).code.tolist()


def chain(ptr):
    at = grid((int(ptr[-1]),))
    return adjacency(at.ptr, at.place, ptr)


def seen(at, *spec, seed=0, visit=0, **fields):
    return draw(at, Spec(*spec, **fields), seed=seed, visit=visit).code < 5


RATIO = st.floats(0.01, 0.99)


@ONCE
@given(items(layered=None), RATIO, SEEDS, st.sampled_from([0.25, 3.0, 1e-200]), st.floats(-16, 16))
def test_equal_weights_are_uniform(made, ratio, seed, weight, power):
    for item in made:
        item["weight"] = [weight] * len(item["valid"])
    at = layout_of(made)
    assert seen(at, "weighted", ratio, seed=seed, power=power).tolist() == seen(at, ratio=ratio, seed=seed).tolist()


@ONCE
@given(items(), RATIO, SEEDS)
def test_power_zero_is_uniform(made, ratio, seed):
    """Weights of 0 among them."""
    at = layout_of(made)
    assert seen(at, "weighted", ratio, seed=seed, power=0).tolist() == seen(at, ratio=ratio, seed=seed).tolist()


@pytest.mark.parametrize("power", [1, 0.5, 40, 1e300, -1e300])
def test_weights_far_apart(power):
    """No key overflows: the count is exact, heavy goes before light and 0 last, the other way round below power 0."""
    weight = np.array([0, 1e300, 1e-300, 0, 1e300, 1e-300, 5e-324, 0])
    for k, first in ((2, [1, 4]), (5, [1, 2, 4, 5, 6]), (6, [1, 2, 4, 5, 6])):
        chosen = np.flatnonzero(seen(layout([0, 8], weight=weight), "weighted", k / 8, power=power, seed=k))
        assert len(chosen) == k
        if k > 2:
            assert set(first if power > 0 else [0, 3, 7]) <= set(chosen)
        elif power > 0:
            assert chosen.tolist() == first
        else:
            assert not set(first) & set(chosen)
    assert seen(layout([0, 8], weight=np.zeros(8)), "weighted").tolist() == seen(layout([0, 8])).tolist()
    at = layout([0, 5], weight=weight[weight > 0])
    assert seen(at, "weighted", power=0).tolist() == seen(layout([0, 5])).tolist()


@ONCE
@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), RATIO, st.integers(1, 12), SEEDS)
def test_spans_do_not_touch(sizes, ratio, length, seed):
    """So there are as many runs as were to be, in every item."""
    ptr = np.cumsum([0, *sizes])
    chosen = seen(layout(ptr), "span", ratio, length=length, seed=seed).astype(int)
    for a, b in pairwise(ptr):
        n, k = int(b - a), count(ratio, int(b - a))
        runs = (np.diff(chosen[a:b], prepend=0) == 1).sum()
        wanted = min(max((2 * k + length) // (2 * length), 1), k, n - k + 1)
        assert chosen[a:b].sum() == k
        assert runs == (wanted if k < n else 1)


@ONCE
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=2, max_size=60), RATIO, SEEDS)
def test_spans_are_runs_of_units(tokens, ratio, seed):
    """In the order of position, what is not valid or of another stratum left out."""
    valid, stratum = ([t[i] for t in tokens] for i in (0, 1))
    chosen = seen(layout([0, len(tokens)], valid=valid, stratum=stratum), "span", ratio, length=100, seed=seed)
    for s in range(4):
        at = [p for p, token in enumerate(tokens) if token == (True, s)]
        assert (np.diff(chosen[at].astype(int), prepend=0) == 1).sum() == (count(ratio, len(at)) > 0)


def reach(links, start, allowed):
    """The part of `allowed` that is connected to start. links: of each node."""
    found, queue = {start}, [start]
    for p in queue:
        new = [q for q in links[p] if q in allowed and q not in found]
        found.update(new)
        queue += new
    return found


@ONCE
@given(st.integers(0, 2**32), st.integers(1, 50), RATIO, SEEDS)
def test_one_ball_is_connected(chance, n, ratio, seed):
    """On a random connected graph: over its nodes, and over its edges, by the nodes they share."""
    chance = Random(chance)
    pairs = {(chance.randrange(p), p) for p in range(1, n)}
    pairs |= {tuple(sorted(chance.sample(range(n), 2))) for _ in range(chance.choice([0, n])) if n > 1}
    links = [sorted({a + b - p for a, b in pairs if p in (a, b)}) for p in range(n)]
    near = adjacency(np.cumsum([0, *map(len, links)]), [q for row in links for q in row])
    chosen = np.flatnonzero(seen(layout([0, n], adjacency=near), "block", ratio, seed=seed))
    assert not len(chosen) or reach(links, chosen[0], set(chosen)) == set(chosen)

    graph = edges(np.array(sorted(pairs), int).reshape(-1, 2).T, n)
    meet = [[q for q in range(len(pairs)) if set(graph.pairs[:, q]) & set(pair)] for pair in graph.pairs.T]
    chosen = np.flatnonzero(seen(graph.layout, "block", ratio, seed=seed))
    assert not len(chosen) or reach(meet, chosen[0], set(chosen)) == set(chosen)


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
def test_balls_are_as_many_as_asked(blocks):
    """Until they meet: on a large ring with few hidden, in nearly all draws."""
    at = layout(1000 * np.arange(101), adjacency=cycle(1000, 100))
    chosen = seen(at, "block", 0.02, blocks=blocks).reshape(100, 1000).astype(int)
    balls = (chosen - np.roll(chosen, 1, 1) == 1).sum(1)
    assert balls.max() == blocks
    assert (balls == blocks).mean() > 0.7


def test_balls_that_can_not_grow_are_joined_by_others():
    """Islands of two places: one is full, then another, two, four, ...; and the last ones are half."""
    at = layout([0, 100], adjacency=adjacency(np.arange(101), np.arange(100) ^ 1))
    for k, full, half in ((1, 0, 1), (2, 1, 0), (5, 2, 1), (6, 2, 2), (7, 3, 1), (8, 4, 0), (19, 8, 3)):
        chosen = seen(at, "block", k / 100, seed=k).reshape(50, 2).sum(1)
        assert np.bincount(chosen, minlength=3).tolist() == [50 - full - half, half, full]
    assert seen(layout([0, 50], adjacency=adjacency(np.zeros(51, int), [])), "block").sum() == 25


@st.composite
def graphs(draw):
    chance = Random(draw(st.integers(0, 2**32)))
    n = draw(st.integers(2, 25))
    pairs = [chance.sample(range(n), 2) for _ in range(draw(st.integers(1, 60)))]
    return edges(np.array(pairs).T, n, undirected=draw(st.booleans()))


@ONCE
@given(graphs(), RATIO, st.integers(1, 6), st.sampled_from(["node", "edge"]), SEEDS)
def test_hidden_edges_are_on_walks(graph, ratio, length, start, seed):
    """All that is hidden before ranks decide is a union of walks, the last one up to where the quota ends; and a walk
    goes along edges that meet."""
    at, near = graph.layout, graph.layout.topology
    by_edge, quota = start == "edge", np.array([count(ratio, at.size)])
    words = np.uint64(0), np.uint64(seed), np.uint64(0)
    steps = near.ptr, near.packed, near.own
    edge_range, places = (0, int(near.ptr[-1])), (0, graph.num_nodes)
    cap = 4 * at.size // length + 64
    passed = np.empty((cap, length + 1), np.int32)
    walks.paths(passed, 0, length, by_edge, places, edge_range, *steps, 0, *words, 0, cap)
    for path in passed[:20]:
        there = path[path >= 0]
        assert len(there) <= length
        assert (path[len(there) + (not by_edge) :] == -1).all()
        for a, b in pairwise(graph.pairs[:, there].T.tolist()):
            assert set(a) & set(b) if graph.undirected else a[1] == b[0]
    wanted = []
    for unit in passed.ravel().tolist():
        if unit >= 0 and unit not in wanted and len(wanted) < quota[0]:
            wanted.append(unit)
    code = np.full(at.size, 5, np.uint8)
    left = quota.copy()
    args = np.array([0, 1]), near.items, np.array([0]), *steps, np.zeros(0, np.int32), np.array([cap])
    walks.walks(code, left, length, by_edge, *args, np.uint8(1), np.uint8(5), *words, 0, 1)
    assert np.flatnonzero(code < 5).tolist() == sorted(wanted)
    assert left[0] == quota[0] - len(wanted)
    chosen = seen(at, "walk", ratio, length=length, start=start, seed=seed)
    assert chosen[wanted].all()
    assert chosen.sum() == quota[0]


@pytest.mark.parametrize("start", ["node", "edge"])
@pytest.mark.parametrize("strata", [1, 3])
@pytest.mark.parametrize("ratio", [0.3, 0.95])
def test_one_long_walk_on_several_threads(start, strata, ratio):
    """Over more than parallel.BIG units, where walks do not reach all that is wanted."""
    n = 120_000
    near = [cycle(n), adjacency(np.minimum(2 * np.arange(n + 1), n), np.arange(n) ^ 1)]
    for at in near:
        at = layout([0, n], stratum=np.arange(n) % 7 % strata if strata > 1 else None, adjacency=at)
        one, *others = [walked(at, threads, ratio, start) for threads in (1, 2, 3)]
        assert all(np.array_equal(one, other) for other in others)
        assert one.sum() == count(ratio, np.diff(at.units.ptr)).sum()


def walked(at, threads, ratio, start):
    with on_threads(threads):
        return seen(at, "walk", ratio, length=5, start=start)


def test_the_longest_walk():
    with on_threads(2):
        assert seen(layout([0, 3000], adjacency=cycle(3000)), "walk", length=1 << 16).sum() == 1500


def test_what_a_strategy_needs():
    for strategy, says in (
        ("weighted", "needs a weight"),
        ("block", "need neighbours"),
        ("walk", "need neighbours"),
        ("rectangle", "shape=\\(H, W\\)"),
    ):
        for scope in ("item", "batch", "set"):
            with pytest.raises(UsageError, match=says):
                draw(layout([0, 4], set_id=[0]), Spec(strategy, scope=scope), seed=0, visit=0, step=0)
