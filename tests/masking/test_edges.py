"""Edges as tokens, against plain Python sets, and against PyTorch Geometric."""

import os
import subprocess
import sys
from itertools import combinations, pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from masking_oracle import philox
from scipy.stats import chisquare
from torch_geometric.utils import dropout_edge
from torch_geometric.utils import subgraph as pyg_subgraph

from structmae.errors import UsageError
from structmae.masking import Purpose, Spec, count, draw, layout, parallel
from structmae.masking.edge_tokens import edges, subgraph


@st.composite
def graphs(draw, most=4, nodes=7):
    """Packed graphs: node borders and edges, with repeats, self-loops, empty graphs, in any order."""
    ptr, made = [0], []
    for _ in range(draw(st.integers(0, most))):
        n = draw(st.integers(0, nodes))
        if n:
            node = st.integers(ptr[-1], ptr[-1] + n - 1)
            made += draw(st.lists(st.tuples(node, node), max_size=20))
        ptr.append(ptr[-1] + n)
    return ptr, draw(st.permutations(made)) if draw(st.booleans()) else made


def index_of(pairs):
    return np.array(pairs, np.int64).reshape(-1, 2).T


def tokens_of(ptr, made, undirected):
    """The tokens in order. Nodes of a graph are together, so the graph needs no say."""
    return sorted({(min(e), max(e)) if undirected else e for e in made if e[0] != e[1]})


def listed(array):
    return list(zip(*array.tolist(), strict=True))


@given(graphs(), st.booleans(), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.sampled_from([0.0, 0.4]))
def test_against_plain_sets(case, undirected, ratio, keep):
    ptr, made = case
    found = edges(index_of(made), ptr=ptr, undirected=undirected)
    tokens = tokens_of(ptr, made, undirected)
    assert listed(found.pairs) == tokens
    assert [tokens[t] if t >= 0 else None for t in found.of.tolist()] == [
        None if u == v else (min(u, v), max(u, v)) if undirected else (u, v) for u, v in made
    ]
    per_graph = [sum(a <= u < b for u, _ in tokens) for a, b in pairwise(ptr)]
    assert np.diff(found.layout.ptr).tolist() == per_graph

    plan = draw(found.layout, Spec(ratio=ratio, keep=keep), seed=1, visit=2)
    chosen, hidden = plan.scored.tolist(), [tokens[t] for t in plan.hidden.tolist()]
    assert np.diff(np.searchsorted(chosen, found.layout.ptr)).tolist() == [count(ratio, n) for n in per_graph]
    assert listed(found.hidden(plan)) == hidden

    gone = {*hidden, *((v, u) for u, v in hidden)} if undirected else set(hidden)
    stay = [e for e, edge in enumerate(made) if edge not in gone]
    assert found.visible_index(plan).tolist() == stay
    there = [t for t in tokens if t not in gone]
    loops = sorted({e for e in made if e[0] == e[1]})
    assert listed(found.visible(plan)) == there + [(v, u) for u, v in there if undirected] + loops
    assert {tuple(sorted(made[e])) for e in stay} == {tuple(sorted(e)) for e in listed(found.visible(plan))}

    indptr, source = found.csr(plan)
    rows = sorted((v, u) for u, v in listed(found.visible(plan)))
    assert listed(np.stack([np.repeat(np.arange(ptr[-1]), np.diff(indptr)), source])) == rows
    for array in (found.hidden(plan), found.visible(plan), found.visible_index(plan), indptr, source):
        assert array.dtype == np.int64
        assert array.flags.c_contiguous


@given(graphs(), st.booleans())
def test_adjacency(case, undirected):
    ptr, made = case
    found = edges(index_of(made), ptr=ptr, undirected=undirected)
    at = found.layout.adjacency
    tokens = tokens_of(ptr, made, undirected)
    steps = [(u, v, t) for t, (u, v) in enumerate(tokens)]
    steps += [(v, u, t) for u, v, t in steps if undirected]
    start = np.repeat(np.arange(ptr[-1]), np.diff(at.ptr))
    assert listed(np.stack([start, at.place, at.token])) == sorted(steps)
    assert at.items.tolist() == ptr
    plan = draw(found.layout, Spec("walk", ratio=0.5), seed=0, visit=0)
    assert len(plan.hidden) == sum(count(0.5, n) for n in np.diff(found.layout.ptr).tolist())


def negatives_of(ptr, made, undirected, wanted, names, seed, visit):
    """From the definition."""
    found = []
    linked = {*made, *((v, u) for u, v in made)} if undirected else set(made)
    for g, (a, b) in enumerate(pairwise(ptr)):
        pairs = list((combinations if undirected else permutations)(range(a, b), 2))
        free = [e for e in pairs if e not in linked]
        if not undirected:
            free.sort(key=lambda e: (e[1], e[0]))
        key = [seed, Purpose.NEGATIVES * 2**16]
        for j in range(wanted[g] if free else 0):
            block = j
            words = philox([names[g] % 2**32, names[g] // 2**32, visit, block], key)
            if 4 * len(free) < len(pairs):
                found.append(free[words[0] * len(free) // 2**32])
                continue
            while True:
                first, second = [tuple(a + w * (b - a) // 2**32 for w in two) for two in (words[:2], words[2:])]
                good = [e for e in (first, second) if e[0] != e[1] and e not in linked]
                if good:
                    found.append(tuple(sorted(good[0])) if undirected else good[0])
                    break
                block += wanted[g]
                words = philox([names[g] % 2**32, names[g] // 2**32, visit, block], key)
    return found


@given(graphs(), st.booleans(), st.integers(0, 6), st.integers(0, 2**32 - 1), st.data())
def test_negatives_by_the_definition(case, undirected, wanted, visit, data):
    ptr, made = case
    names = data.draw(st.lists(st.integers(0, 2**63 - 1), min_size=len(ptr) - 1, max_size=len(ptr) - 1))
    found = edges(index_of(made), ptr=ptr, item_id=names, undirected=undirected)
    expected = negatives_of(ptr, made, undirected, [wanted] * len(names), names, 7, visit)
    assert listed(found.negatives(wanted, seed=7, visit=visit)) == expected
    plan = draw(found.layout, Spec(), seed=7, visit=visit)
    hidden = [count(0.5, n) for n in np.diff(found.layout.ptr).tolist()]
    expected = negatives_of(ptr, made, undirected, hidden, names, 7, visit)
    assert listed(found.negatives(plan, seed=7, visit=visit)) == expected


def test_negatives_do_not_depend_on_batch_mates():
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, n, (2, 3 * n)) for n in (5, 9, 30)]
    ptr = np.cumsum([0, 5, 9, 30])
    packed = edges(np.concatenate([p + a for p, a in zip(parts, ptr, strict=False)], 1), ptr=ptr, item_id=[4, 9, 2])
    together = packed.negatives([3, 4, 5], seed=0, visit=0)
    alone = [
        edges(p, n, item_id=[i]).negatives(k, seed=0, visit=0)
        for p, n, i, k in zip(parts, (5, 9, 30), (4, 9, 2), (3, 4, 5), strict=True)
    ]
    alone = [a + start for a, start in zip(alone, ptr, strict=False)]
    assert np.array_equal(together, np.concatenate(alone, 1))
    assert not np.array_equal(together, packed.negatives([3, 4, 5], seed=0, visit=1))
    assert not np.array_equal(together, packed.negatives([3, 4, 5], seed=0, visit=0, draw=1))


@pytest.mark.parametrize("undirected", [True, False])
@pytest.mark.parametrize("dense", [True, False])
def test_negatives_are_uniform(undirected, dense):
    pairs = list(permutations(range(12), 2))
    rng = np.random.default_rng(1)
    size = {(True, True): 58, (True, False): 30, (False, True): 118, (False, False): 60}[undirected, dense]
    both = list(combinations(range(12), 2)) if undirected else pairs
    linked = [both[i] for i in rng.permutation(len(both))[:size]]
    found = edges(index_of(linked), 12, undirected=undirected)
    got = listed(found.negatives(20_000, seed=3, visit=0))
    free = sorted(set(both) - set(linked))
    assert set(got) == set(free)
    assert chisquare([got.count(e) for e in free]).pvalue > 1e-3


def test_a_complete_graph_has_no_negatives():
    complete = list(combinations(range(5), 2))
    found = edges(index_of([*complete, (5, 6)]), ptr=[0, 5, 8, 8, 9])
    got = listed(found.negatives(4, seed=0, visit=0))
    assert len(got) == 4
    assert set(got) <= {(5, 7), (6, 7)}


@given(graphs(), st.sampled_from([0.0, 0.4, 1.0]))
def test_subgraph_as_pyg(case, ratio):
    ptr, made = case
    plan = draw(layout(ptr), Spec(ratio=ratio, act="drop", keep=0.3), seed=0, visit=0)
    index = torch.from_numpy(index_of(made))
    seen = torch.zeros(ptr[-1], dtype=torch.bool)
    seen[plan.visible] = True
    expected, _, mask = pyg_subgraph(seen, index, num_nodes=ptr[-1], return_edge_mask=True)
    assert np.array_equal(subgraph(index, plan), expected.numpy())
    got, where = subgraph(index, plan, return_index=True)
    assert np.array_equal(got, expected.numpy())
    assert np.array_equal(where, mask.nonzero()[:, 0].numpy())
    assert got.flags.c_contiguous


def test_visible_has_the_order_of_dropout_edge(monkeypatch):
    rng = np.random.default_rng(0)
    found = edges(rng.integers(0, 50, (2, 300)), 50)
    index = torch.from_numpy(np.concatenate([found.pairs, found.pairs[::-1]], 1))
    torch.manual_seed(0)
    expected, where = dropout_edge(index, p=0.5, force_undirected=True)
    plan = draw(found.layout, Spec(), seed=0, visit=0)
    code = np.ones(found.layout.size, np.uint8)
    code[where[: len(where) // 2].numpy()] = 5
    loops = np.stack([found.loops] * 2)
    monkeypatch.setitem(plan.__dict__, "code", code)
    assert np.array_equal(found.visible(plan), np.concatenate([expected.numpy(), loops], 1))


def test_threads_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    index = rng.integers(0, 3000, (2, 20_000))
    found = edges(index, 3000)
    plan, over = draw(found.layout, Spec(), seed=0, visit=0), draw(layout([0, 3000]), Spec(), seed=0, visit=0)

    def everything():
        return (
            found.visible(plan),
            found.hidden(plan),
            found.negatives(plan, seed=0, visit=0),
            *subgraph(index, over, return_index=True),
        )

    serial = everything()
    monkeypatch.setattr(parallel, "threads", lambda work: 3)
    for a, b in zip(serial, everything(), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("undirected", [True, False])
def test_sorted_and_shuffled_edges_are_the_same_tokens(undirected):
    rng = np.random.default_rng(0)
    index = np.unique(rng.integers(0, 40, (2, 400)), axis=1)
    order = rng.permutation(index.shape[1])
    a, b = edges(index, 40, undirected=undirected), edges(index[:, order], 40, undirected=undirected)
    assert np.array_equal(a.pairs, b.pairs)
    assert np.array_equal(a.of[order], b.of)


def test_inputs():
    given_lists = edges([[0, 1], [1, 2]])
    tensors = edges(torch.tensor([[0, 1], [1, 2]], dtype=torch.int32), torch.tensor(3).item())
    frozen = np.array([[0, 1], [1, 2]])
    frozen.flags.writeable = False
    for found in (given_lists, tensors, edges(frozen), edges(np.asfortranarray(frozen))):
        assert found.pairs.tolist() == [[0, 1], [1, 2]]
        assert found.num_nodes == 3
    assert edges([[], []]).layout.size == 0
    assert edges([[], []], 4).num_nodes == 4
    assert np.array_equal(edges([[0, 1], [1, 2]], weight=[1.0, 2.0]).layout.weight, [1.0, 2.0])


def test_repr():
    found = edges([[0, 1, 1, 2, 3], [1, 0, 1, 0, 4]], ptr=[0, 3, 6])
    assert repr(found) == "Edges(3 undirected pairs from 5 edges, 6 nodes, 1 with a self-loop, in 2 graphs)"
    one = edges([[0, 1], [1, 0]], undirected=False)
    assert repr(one) == "Edges(2 directed edges from 2 edges, 2 nodes in 1 graph)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.5], [1.0]],), "edge_index has dtype float64"),
        (([[0, 1, 2]],), "edge_index has dtype int64 and shape"),
        (([[0], [3]], 3), "nodes 0 to 3: must be 0 to 2"),
        (([[-1], [1]],), "nodes -1 to 1: must be 0"),
        (([[0], [1]], -2), "num_nodes = -2"),
        (([[0], [1]], 2**31), "num_nodes = 2147483648"),
    ],
)
def test_what_cannot_be_edges(arguments, message):
    with pytest.raises(UsageError, match=message):
        edges(*arguments)


def test_what_does_not_fit():
    with pytest.raises(UsageError, match="edge 1-2 leads from one graph to another"):
        edges([[0, 1], [1, 2]], ptr=[0, 2, 4])
    with pytest.raises(UsageError, match="num_nodes = 3, but ptr ends at 4"):
        edges([[0], [1]], 3, ptr=[0, 2, 4])
    found = edges([[0, 1], [1, 2]])
    other = draw(layout([0, 3]), Spec(), seed=0, visit=0)
    for use in (found.visible, found.hidden, found.visible_index, found.csr):
        with pytest.raises(UsageError, match=r"a plan of 3 tokens .* draw it over edges.layout"):
            use(other)
    with pytest.raises(UsageError, match="a plan of 3 tokens"):
        found.negatives(other, seed=0, visit=0)
    for wrong in (-1, [1, 2], 1.5):
        with pytest.raises(UsageError, match="count = "):
            found.negatives(wrong, seed=0, visit=0)
    with pytest.raises(UsageError, match="seed = -1"):
        found.negatives(1, seed=-1, visit=0)
    for edge in ([[0], [3]], [[-1], [0]]):
        with pytest.raises(UsageError, match="the plan 3: must be fewer"):
            subgraph(edge, other)


BOUNDS = """
import numpy as np
from structmae.masking import Spec, draw, edge_kernels, layout
from structmae.masking.edge_tokens import edges, subgraph
rng = np.random.default_rng(0)
for n, e in [(0, 0), (1, 3), (4, 0), (4, 3), (4, 40), (50, 5000)]:
    index = rng.integers(0, max(n, 1), (2, e))
    for undirected in (True, False):
        found = edges(index, n, undirected=undirected)
        found.layout.adjacency
        for ratio in (0, 0.5, 1):
            plan = draw(found.layout, Spec(ratio=ratio), seed=0, visit=0)
            found.visible(plan), found.hidden(plan), found.visible_index(plan), found.csr(plan)
            found.negatives(plan, seed=0, visit=0), found.negatives(3, seed=0, visit=0)
            subgraph(index, draw(layout([0, n]), Spec(ratio=ratio), seed=0, visit=0), return_index=True)
compiled = {name: len(k.signatures) for name, k in vars(edge_kernels).items() if hasattr(k, "signatures")}
assert max(compiled.values()) == 1, compiled
print("done")
"""


def test_no_kernel_leaves_its_arrays(tmp_path):
    """With bounds checks, and a cache folder of its own; and each kernel is compiled once."""
    done = subprocess.run(
        [sys.executable, "-c", BOUNDS],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "NUMBA_BOUNDSCHECK": "1",
            "NUMBA_CACHE_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "done\n", done.stderr
