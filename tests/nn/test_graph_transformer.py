from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from structmae import resolve
from structmae.nn import graph_transformer
from structmae.nn.graph_transformer import places
from structmae.nn.transformer import Attention
from structmae.planning import Planner
from structmae.run import build
from structmae.tokens.graph import GraphSource, NodeTokenizer

BASE = {
    "encoder.kind": "graph_transformer",
    "encoder.hidden": 8,
    "encoder.heads": 2,
    "encoder.feed_forward": 12,
    "encoder.walks": 4,
    "encoder.laplacian": 2,
}


def tokenizer(width=4, **changes):
    options = {"categories": {}, "columns": width, "normalize": "none", "undirected": True, "edge_width": 0}
    return NodeTokenizer(**{**options, **changes})


def encoder_of(**changes):
    recipe = resolve("graphmae", {**BASE, **changes})
    made = build(recipe, tokenizer()).encoder.eval()
    generator = torch.Generator().manual_seed(0)
    for weight in made.body.parameters():  # no part that starts near zero, or alike, goes unseen
        torch.nn.init.normal_(weight, std=0.5, generator=generator)
    return made


def graph(seed, nodes=9, edges=14, width=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(nodes, width, generator=generator), torch.randint(0, nodes, (2, edges), generator=generator)


def relation_of(edges, nodes, undirected=True):
    return tokenizer(undirected=undirected).relation(edges, nodes)


def matrix(relation):
    """The dense adjacency (target, source), self-loops left out."""
    size = len(relation.indptr) - 1
    dense = np.zeros((size, size))
    source, target = relation.edge_index.numpy()
    dense[target, source] = 1.0
    np.fill_diagonal(dense, 0.0)
    return dense


def components(dense):
    """Groups of nodes that are connected, either way."""
    reach = np.linalg.matrix_power(np.eye(len(dense)) + dense + dense.T, len(dense)) > 0
    return [np.flatnonzero(row) for row in np.unique(reach, axis=0)]


def spectrum(dense):
    """Eigenvalues of the normalised Laplacian of both directions, ascending."""
    both = np.maximum(dense, dense.T)
    degree = both.sum(1)
    root = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1)), 0)
    laplacian = np.eye(len(both)) - root[:, None] * both * root
    return laplacian, np.linalg.eigvalsh(laplacian)


def check_places(relation, walks, laplacian):
    found = places(relation, walks, laplacian)
    dense = matrix(relation)
    degree = dense.sum(1)
    assert np.array_equal(found[:, 0], degree.astype(np.float32))
    step = dense / np.maximum(degree, 1)[:, None]
    for k in range(1, walks + 1):
        expected = np.diag(np.linalg.matrix_power(step, k))
        np.testing.assert_allclose(found[:, k], expected, rtol=1e-5, atol=1e-6)
    for rows in components(dense):
        vectors = found[rows][:, 1 + walks :].astype(np.float64)
        matrix_of, values = spectrum(dense[np.ix_(rows, rows)])
        there = min(laplacian, len(rows) - 1)
        assert not vectors[:, there:].any()
        expected = vectors[:, :there] * values[1 : 1 + there]
        np.testing.assert_allclose(matrix_of @ vectors[:, :there], expected, rtol=1e-3, atol=2e-4)
        inner = vectors[:, :there].T @ vectors[:, :there] / len(rows)
        np.testing.assert_allclose(inner, np.eye(there), atol=1e-5)


@pytest.mark.parametrize("undirected", [True, False])
@given(seed=st.integers(0, 10**6), nodes=st.integers(1, 14), edges=st.integers(0, 30))
def test_places_are_those_of_dense_matrices(undirected, seed, nodes, edges):
    check_places(relation_of(graph(seed, nodes, edges)[1], nodes, undirected), 5, 3)


@pytest.mark.parametrize("undirected", [True, False])
def test_large_components_have_the_same_places(undirected, monkeypatch):
    relation = relation_of(graph(3, 90, 150)[1], 90, undirected)
    small = places(relation, 5, 3)
    monkeypatch.setattr(graph_transformer, "DENSE", 8)
    monkeypatch.setattr(graph_transformer, "BLOCK", 900)  # ten columns at a time
    check_places(relation, 5, 3)
    np.testing.assert_allclose(places(relation, 5, 3)[:, :6], small[:, :6], rtol=1e-6)


@pytest.mark.parametrize("dense", [256, 4])
def test_a_graph_has_the_same_places_in_any_pack(dense, monkeypatch):
    monkeypatch.setattr(graph_transformer, "DENSE", dense)
    parts = [graph(seed, 4 + seed % 3, 6)[1] % (4 + seed % 3) for seed in range(7)]
    sizes = [4 + seed % 3 for seed in range(7)]
    starts = np.cumsum([0, *sizes])
    packed = torch.cat([edges + int(start) for edges, start in zip(parts, starts, strict=False)], 1)
    together = places(relation_of(packed, int(starts[-1])), 4, 2)
    alone = [places(relation_of(edges, size), 4, 2) for edges, size in zip(parts, sizes, strict=True)]
    assert np.array_equal(together, np.concatenate(alone))


def test_places_are_found_once_for_a_relation(monkeypatch):
    _, edges = graph(0)
    one, other = encoder_of(), encoder_of(**{"train.seed": 1})
    relation, ptr = relation_of(edges, 9), torch.tensor([0, 9])
    first = one.body.structure(relation, ptr)
    monkeypatch.setattr(graph_transformer, "places", None)
    assert one.body.structure(relation, ptr) is first
    assert other.body.structure(relation, ptr) is first


@pytest.mark.parametrize("attention", ["full", "adjacency"])
@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_permuting_nodes_permutes_embeddings(attention, seed):
    """Wherever eigenvectors are settled up to their sign."""
    encoder = encoder_of(**{"encoder.attention": attention})
    x, edges = graph(seed)
    dense = matrix(relation_of(edges, 9))
    for rows in components(dense):
        values = spectrum(dense[np.ix_(rows, rows)])[1]
        assume((np.diff(values[1:4]) > 1e-3).all())
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed + 1))
    place = torch.argsort(order)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x[order], place[edges])[place], encoder(x, edges), rtol=1e-3, atol=1e-3)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_the_sign_of_eigenvectors_changes_no_bit(seed):
    encoder = encoder_of()
    x, edges = graph(seed, edges=24)
    relation, ptr = relation_of(edges, 9), torch.tensor([0, 9])
    structure = encoder.body.structure(relation, ptr)
    flipped, doubled = structure.clone(), structure.clone()
    flipped[:, 5:] *= torch.randn(9, 2, generator=torch.Generator().manual_seed(seed + 1)).sign()
    doubled[:, 5:] *= 2
    with torch.no_grad():
        outs = [encoder.body(x, places, relation, ptr) for places in (structure, flipped, doubled)]
    assert torch.equal(outs[0], outs[1])
    assert not torch.allclose(outs[0], outs[2], atol=1e-5)


PARTS = {"degrees": slice(0, 1), "walks": slice(1, 5), "laplacian": slice(5, 7)}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_the_structure_is_read_or_left_out(part):
    x, edges = graph(1, edges=24)
    relation, ptr = relation_of(edges, 9), torch.tensor([0, 9])
    encoder = encoder_of()
    structure = encoder.body.structure(relation, ptr)
    assert structure.shape == (9, 7)
    other = structure.clone()
    other[0, PARTS[part]] += 1.0
    without = encoder_of(**{f"encoder.{part}": False if part == "degrees" else 0})
    left = structure if part == "degrees" else without.body.structure(relation, ptr)
    assert len(list(without.parameters())) < len(list(encoder.parameters()))
    with torch.no_grad():
        read = [encoder.body(x, places, relation, ptr) for places in (structure, other)]
        assert not torch.allclose(*read, atol=1e-5)
        if part == "degrees":  # the column stays, and nobody reads it
            assert torch.equal(*(without.body(x, places, relation, ptr) for places in (structure, other)))
        else:
            kept = [column for column in range(7) if column not in range(7)[PARTS[part]]]
            assert torch.equal(left, structure[:, kept])
            assert torch.isfinite(without.body(x, left, relation, ptr)).all()


@pytest.mark.parametrize("attention", ["full", "adjacency"])
def test_a_packed_graph_is_as_it_is_alone(attention):
    encoder = encoder_of(**{"encoder.attention": attention, "encoder.pool": "mean"})
    parts = [graph(seed, nodes=3 + seed) for seed in range(3)]
    x = torch.cat([part[0] for part in parts])
    edges = torch.cat([part[1] % len(part[0]) + start for part, start in zip(parts, (0, 3, 7), strict=True)], 1)
    batch = torch.repeat_interleave(torch.arange(3), torch.tensor([3, 4, 5]))
    with torch.no_grad():
        together = encoder(x, edges, batch=batch)
        alone = torch.cat([encoder(part[0], part[1] % len(part[0])) for part in parts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_attention_over_edges_is_dense_attention_with_a_mask(monkeypatch):
    encoder = encoder_of(**{"encoder.attention": "adjacency"})
    x, edges = graph(5)

    def dense(self, projected, relation):
        q, k, v = projected.view(len(projected), 3, self.heads, -1).permute(1, 2, 0, 3)
        source, target = relation.edge_index
        allowed = torch.zeros(len(projected), len(projected), dtype=torch.bool)
        allowed[target, source] = True
        scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf)
        return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)

    with torch.no_grad():
        sparse = encoder(x, edges)
        monkeypatch.setattr(Attention, "_along", dense)
        torch.testing.assert_close(sparse, encoder(x, edges), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(sparse, encoder_of()(x, edges), atol=1e-2)  # of full attention it is another


def hiding(graphs, recipe="graphmae", **changes):
    recipe = resolve(recipe, {**BASE, **changes}, level=graphs.level)
    made = NodeTokenizer.fit(graphs, recipe)
    return recipe, build(recipe, made).eval(), GraphSource(graphs, made)


@pytest.mark.parametrize("attention", ["full", "adjacency"])
@pytest.mark.parametrize("act", ["token", "zero", "drop"])
@pytest.mark.parametrize("data", ["karate", "molecules"])
def test_hidden_features_cannot_reach_the_encoder(data, act, attention, request):
    graphs = request.getfixturevalue(data)
    changes = {"mask.act": act, "mask.random": 0.2 if act == "token" else 0.0, "mask.random_from": "visible"}
    changes |= {"encoder.attention": attention, "heads.features.remask": "none"}
    recipe, model, source = hiding(graphs, **changes)
    tokens = source.batch(torch.arange(source.num_items))
    plans = Planner.of(recipe).draw(tokens, visit=3, step=0)
    hidden, visible = plans["node"].hidden, plans["node"].visible
    values = tokens["node"].values.clone().requires_grad_()
    other = values.detach().clone()
    other[hidden] = torch.randn(len(hidden), other.shape[1])
    first, second = (
        model.encode({"node": replace(tokens["node"], values=given_values)}, plans).latent["node"]
        for given_values in (values, other)
    )
    assert len(first) == (len(visible) if act == "drop" else len(values))
    assert torch.equal(first, second)
    (gradient,) = torch.autograd.grad((first * torch.randn(first.shape)).sum(), values)
    assert not gradient[hidden].any()
    assert gradient[visible].any(1).all()


def test_hidden_edges_reach_neither_layers_nor_places(karate):
    """The latents are those of the graph without them."""
    recipe, model, source = hiding(karate, "maskgae_edge", **{"encoder.attention": "adjacency"})
    tokens = source.everything()
    plans = Planner.of(recipe).draw(tokens, visit=0, step=0)
    stays = torch.ones(len(tokens["edge"]), dtype=torch.bool)
    stays[plans["edge"].hidden] = False
    assert 0 < int(stays.sum()) < len(stays)
    with torch.no_grad():
        hidden = model.encode(tokens, plans).latent["node"]
        torch.testing.assert_close(hidden, model.encoder(karate.x, tokens["edge"].ends[:, stays]), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(hidden, model.encoder(karate.x, karate.edge_index), atol=1e-3)


def test_isolated_nodes_and_no_edges_work():
    encoder = encoder_of(**{"encoder.attention": "adjacency"})
    out = encoder(torch.randn(3, 4), torch.zeros(2, 0, dtype=torch.long))
    assert out.shape == (3, 8)
    assert torch.isfinite(out).all()


def test_high_degrees_share_the_last_vector():
    encoder = encoder_of(**{"encoder.walks": 0, "encoder.laplacian": 0})
    relation, ptr = relation_of(torch.zeros(2, 0, dtype=torch.long), 3), torch.arange(4)
    with torch.no_grad():
        below, last, beyond = encoder.body(torch.ones(3, 4), torch.tensor([[62.0], [63.0], [500.0]]), relation, ptr)
    torch.testing.assert_close(last, beyond)
    assert not torch.allclose(below, last, atol=1e-3)
