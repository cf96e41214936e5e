"""Scores, against plain Python and networkx."""

import statistics

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structmae.errors import UsageError
from structmae.masking.weights import degree, pagerank, variance


@st.composite
def graphs(draw, most=12):
    """A count of nodes and edges (2, E) among them: none, loops, repeats, nodes without targets."""
    n = draw(st.integers(0, most))
    node = st.integers(0, n - 1)
    pairs = draw(st.lists(st.tuples(node, node), max_size=3 * n)) if n else []
    return n, np.array(pairs, np.int64).reshape(-1, 2).T


def packed(parts):
    ptr = np.cumsum([0, *(n for n, _ in parts)])
    edges = [e + at for (_, e), at in zip(parts, ptr[:-1], strict=True)]
    return np.concatenate([np.zeros((2, 0), np.int64), *edges], axis=1), ptr


@given(graphs())
def test_degree_counts_the_edges_that_end(graph):
    n, edges = graph
    got = degree(edges, n)
    assert got.dtype == np.float64
    assert got.tolist() == [edges[1].tolist().count(node) for node in range(n)]


@settings(max_examples=50)
@given(graphs(), st.sampled_from([0.0, 0.5, 0.85, 0.9]))
def test_pagerank_is_networkx(graph, damping):
    n, edges = graph
    theirs = networkx.MultiDiGraph()
    theirs.add_nodes_from(range(n))
    theirs.add_edges_from(edges.T.tolist())
    expected = networkx.pagerank(theirs, alpha=damping, tol=1e-13, max_iter=1000)
    got = pagerank(edges, n, damping=damping, tolerance=0.0, iterations=400)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, [expected[i] for i in range(n)], rtol=0, atol=1e-10)


@given(graphs())
def test_pagerank_as_given_is_within_its_bound(graph):
    n, edges = graph
    exact = pagerank(edges, n, tolerance=0.0, iterations=400)
    assert np.abs(pagerank(edges, n) - exact).sum() < 1e-6


@given(st.lists(graphs(), max_size=4))
def test_packed_graphs_rank_as_alone(parts):
    edges, ptr = packed(parts)
    alone = [pagerank(e, n).tolist() for n, e in parts]
    got = pagerank(edges, int(ptr[-1]), ptr=ptr)
    assert got.tolist() == [
        score for one in alone for score in one
    ]  # to the bit: what is packed together is an accident of loading
    for one, (n, _) in zip(alone, parts, strict=True):
        assert sum(one) == pytest.approx(1.0 if n else 0.0)


def test_an_even_cycle_stops_at_its_iterations():
    """A star swings between hub and leaves, and takes longest."""
    star = np.array([[0] * 5 + [1, 2, 3, 4, 5], [1, 2, 3, 4, 5] + [0] * 5])
    hub = (0.15 / 6 + 0.85 * 0.15 * 5 / 6) / (1 - 0.85**2)
    assert pagerank(star, 6)[0] == pytest.approx(hub, abs=1e-6)
    assert pagerank(star, 6, iterations=0).tolist() == [1 / 6] * 6
    assert pagerank(star, 6, iterations=1)[0] == pytest.approx(0.15 / 6 + 0.85 * 5 / 6)


def test_without_nodes():
    for ptr in (None, [0], [0, 0], [0, 0, 0]):
        assert pagerank(torch.zeros(2, 0), 0, ptr=ptr).tolist() == []
    assert degree([[], []], 0).tolist() == []
    assert degree(torch.zeros(2, 0), 2).tolist() == [0.0, 0.0]


ENTRY = st.floats(-1e6, 1e6, width=32)


@given(st.data(), st.integers(0, 6), st.integers(0, 5))
def test_variance_is_of_the_observed(data, tokens, entries):
    values = np.array([[data.draw(ENTRY) for _ in range(entries)] for _ in range(tokens)]).reshape(tokens, entries)
    seen = np.array([[data.draw(st.booleans()) for _ in range(entries)] for _ in range(tokens)], bool)
    seen = seen.reshape(tokens, entries)
    lists = [row[s].tolist() for row, s in zip(values, seen, strict=True)]
    expected = [statistics.pvariance(one) if len(one) > 1 else 0.0 for one in lists]
    values[~seen] = data.draw(st.sampled_from([np.nan, np.inf, 0.0, 1e308]))
    got = variance(values, seen)
    assert got.dtype == np.float64
    assert (got >= 0).all()
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_variance_of_all():
    values = np.array([[1, 3], [5, 5]])
    assert variance(values).tolist() == [1.0, 0.0]
    assert variance(values.tolist()).tolist() == [1.0, 0.0]
    assert variance(torch.tensor(values, dtype=torch.float32), torch.ones(2, 2, dtype=bool)).tolist() == [1.0, 0.0]
    assert variance(np.array([[1e9, 1e9 + 1]])).tolist() == [0.25]  # far from 0
    assert variance(np.ones((3, 1))).tolist() == [0.0] * 3
    assert variance(np.ones((2, 0))).tolist() == [0.0] * 2


TWO = [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: degree(TWO, 3), "edge_index = 3: must be below num_nodes = 3"),
        (lambda: degree(TWO, -1), "num_nodes = -1"),
        (lambda: degree([[0.5], [1.0]], 3), "edge_index has dtype float64"),
        (lambda: pagerank(TWO, 3), "edge_index = 3: must be below num_nodes = 3"),
        (lambda: pagerank(TWO, 4, damping=1.0), "damping = 1.0: must be at least 0 and below 1"),
        (lambda: pagerank(TWO, 4, damping=-0.1), "damping = -0.1"),
        (lambda: pagerank(TWO, 4, damping=float("nan")), "damping = nan"),
        (lambda: pagerank(TWO, 4, damping="0.85"), "damping = '0.85'"),
        (lambda: pagerank(TWO, 4, damping=False), "damping = False"),
        (lambda: pagerank(TWO, 4, tolerance=-1e-9), "tolerance = -1e-09: must be a number, 0 or more"),
        (lambda: pagerank(TWO, 4, tolerance=None), "tolerance = None"),
        (lambda: pagerank(TWO, 4, iterations=1.5), "iterations = 1.5: must be a whole number, 0 or more"),
        (lambda: pagerank(TWO, 4, ptr=[0, 3, 4]), "edge 2 -> 3: joins two graphs, by ptr"),
        (lambda: pagerank(TWO, 4, ptr=[0, 2]), r"ptr = \[0, 2\]: must rise from 0 to num_nodes = 4"),
        (lambda: pagerank(TWO, 4, ptr=[1, 4]), r"ptr = \[1, 4\]"),
        (lambda: pagerank(TWO, 4, ptr=[0, 3, 2, 4]), r"ptr = \[0, 3, 2, 4\]"),
        (lambda: pagerank(TWO, 4, ptr=np.zeros(0, int)), r"ptr = \[\]"),
        (lambda: pagerank(TWO, 4, ptr=[0.0, 4.0]), r"ptr has dtype float64 and shape \(2,\)"),
        (lambda: pagerank(TWO, 4, ptr=4), r"ptr has dtype int64 and shape \(\)"),
        (lambda: variance([1.0, 2.0]), r"values has dtype float64 and shape \(2,\)"),
        (lambda: variance([["a"]]), "values has dtype <U1"),
        (lambda: variance([[1.0, 2.0]], [[1, 0]]), r"observed has dtype int64 and shape \(1, 2\): must be bool"),
        (lambda: variance([[1.0, 2.0]], [True, False]), r"observed has dtype bool and shape \(2,\)"),
        (lambda: variance([[1.0, 2.0], [0.0, np.nan]]), r"values\[1, 1\] = nan: must be finite where observed"),
        (lambda: variance([[np.inf, 2.0]], [[True, False]]), r"values\[0, 0\] = inf"),
    ],
)
def test_refused(call, says):
    with pytest.raises(UsageError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
