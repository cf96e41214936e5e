"""Fused sums over edges are what sums over a dense matrix of edges are, gradients too, on any number of threads."""

from unittest import mock

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from structmae.fast.dropout import draw_key, masked, threshold
from structmae.fast.edges import Edges, attended, gathered
from structmae.masking import parallel
from structmae.tokens import Relation


def drawn(seed, most=9):
    """A relation with edges in any number, none for some tokens, and some of its tokens."""
    generator = np.random.default_rng(seed)
    size = int(generator.integers(1, most))
    links = generator.random((size, size)) < generator.random()
    source, target = torch.from_numpy(np.stack(links.nonzero()))
    relation = Relation.of(torch.stack([source, target]), size)
    rows = torch.from_numpy(np.sort(generator.permutation(size)[: int(generator.integers(0, size + 1))]))
    return relation, rows, generator


def matrix(relation, rows):
    """(T, M): 1 where an edge leads from a token to one of the rows."""
    size = len(relation.indptr) - 1
    every = torch.zeros(size, size)
    source, target = relation.edge_index
    every[target, source] = 1.0
    return every[rows]


def tensor(generator, *shape):
    return torch.from_numpy(generator.normal(size=shape).astype(np.float32)).requires_grad_()


def gradients(out, *inputs):
    weights = torch.linspace(-1, 2, out.numel()).reshape(out.shape)
    return torch.autograd.grad((out * weights).sum(), inputs, allow_unused=True)


@pytest.mark.parametrize("scaled", [False, True])
@given(seed=st.integers(0, 10**6))
def test_a_sum_is_a_product_with_the_adjacency(scaled, seed):
    relation, rows, generator = drawn(seed)
    links, z = matrix(relation, rows), tensor(generator, len(relation.indptr) - 1, 5)
    if scaled:
        links = links * relation.roots[rows][:, None] * relation.roots
    found = gathered(z, relation.onto(rows), relation.roots if scaled else None, own=1.5).dense()
    links = links + 1.5 * torch.eye(len(z))[rows]
    torch.testing.assert_close(found, links @ z, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(found, z), gradients(links @ z, z), rtol=1e-5, atol=1e-6)


def plain(z, logits, relation, rows, heads, shared, factors):
    """Attention by a dense softmax. `factors` (T, M, H) are what dropout multiplies weights by."""
    links = matrix(relation, rows)[..., None]
    scores = F.leaky_relu(logits[rows, None, heads:] + logits[None, :, :heads], 0.2)
    weights = scores.masked_fill(links == 0, -torch.inf).softmax(1).nan_to_num(0.0) * factors
    if shared:
        return torch.einsum("tmh,mc->thc", weights, z).flatten(1)
    return torch.einsum("tmh,mhc->thc", weights, z.view(len(z), heads, -1)).flatten(1)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.4])
@given(seed=st.integers(0, 10**6), heads=st.integers(1, 3))
def test_attention_is_a_softmax_over_incoming_edges(shared, p, seed, heads):
    relation, rows, generator = drawn(seed)
    size, edges = len(relation.indptr) - 1, relation.onto(rows)
    z, logits = tensor(generator, size, 3 if shared else 3 * heads), tensor(generator, size, 2 * heads)
    torch.manual_seed(seed)
    found = attended(z, logits, edges, heads, slope=0.2, p=p, shared=shared)
    factors = torch.ones(len(rows), size, heads)
    if p and len(edges.source):
        torch.manual_seed(seed)
        mask = masked(torch.ones(len(edges.source), heads), draw_key(), threshold(p))
        target = np.repeat(np.arange(len(rows)), np.diff(edges.indptr))
        factors[torch.from_numpy(target), torch.from_numpy(edges.source)] = mask
    expected = plain(z, logits, relation, rows, heads, shared, factors)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(gradients(found, z, logits), gradients(expected, z, logits), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_threads_change_no_bit():
    generator = np.random.default_rng(0)
    relation, rows = drawn(1, 60)[0], torch.arange(0, 20)
    while len(relation.indptr) < 40:
        relation = drawn(int(generator.integers(1000)), 60)[0]
    size = len(relation.indptr) - 1
    z, logits = tensor(generator, size, 8), tensor(generator, size, 4)
    results = []
    for threads in (1, 2, 3):
        with (
            mock.patch.object(numba, "get_num_threads", return_value=threads),
            mock.patch.object(parallel.threads, "__defaults__", (0,)),
        ):
            torch.manual_seed(0)
            found = attended(z, logits, relation.onto(rows), 2, slope=0.2, p=0.3)
            summed = gathered(z, relation.onto(rows), relation.roots).dense()
            results.append((found, summed, *gradients(found, z, logits), *gradients(summed, z)))
    for other in results[1:]:
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(results[0], other, strict=True))


@given(seed=st.integers(0, 10**6))
def test_edges_by_source_are_the_same_edges(seed):
    relation, rows, _ = drawn(seed)
    edges = relation.onto(rows)
    assert isinstance(edges, Edges)
    borders, edge, target = edges.outgoing
    source = np.repeat(np.arange(edges.size), np.diff(borders))
    assert sorted(edge) == list(range(len(edges.source)))
    assert (edges.source[edge] == source).all()
    assert (np.repeat(np.arange(len(rows)), np.diff(edges.indptr))[edge] == target).all()
