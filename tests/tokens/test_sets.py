from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structmae.tokens import Relation, TokenSet

few = settings(max_examples=30)


def edges_of(seed: int, nodes: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randperm(nodes * nodes, generator=generator)[:count]
    return torch.stack([keys // nodes, keys % nodes])


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 60))
def test_one_relation_however_edges_are_listed(seed, nodes, count):
    edges = edges_of(seed, nodes, count)
    attributes = edges.t().float()
    order = torch.randperm(edges.shape[1], generator=torch.Generator().manual_seed(seed + 1))
    one, other = Relation.of(edges, nodes, attributes), Relation.of(edges[:, order], nodes, attributes[order])
    assert torch.equal(one.edge_index, other.edge_index)
    assert torch.equal(one.attributes, other.attributes)
    assert torch.equal(one.attributes, one.edge_index.t().float())  # attributes stay with their edge
    dense = torch.zeros(nodes, nodes, dtype=torch.bool)
    dense[edges[1], edges[0]] = True
    for node in range(nodes):  # compressed rows against the dense matrix
        assert one.source[one.indptr[node] : one.indptr[node + 1]].tolist() == dense[node].nonzero().flatten().tolist()


def pairs(seed, nodes):
    """A graph in both directions with self-loops: its relation, whose edges are tokens with attributes, and for each
    edge (source, target, token, attributes)."""
    generator = torch.Generator().manual_seed(seed)
    upper = (torch.rand(nodes, nodes, generator=generator) < 0.4).triu(1).nonzero()
    rows = [(a, b, token) for token, (a, b) in enumerate(upper.tolist())]
    rows += [(b, a, token) for a, b, token in rows] + [(node, node, -1) for node in range(nodes)]
    listed = sorted(rows, key=lambda row: (row[1], row[0]))
    edges = torch.tensor([row[:2] for row in listed]).T
    attributes = torch.randn(len(listed), 2, generator=generator)
    relation = replace(Relation.of(edges, nodes, attributes), token=torch.tensor([row[2] for row in listed]))
    return relation, [(*row, tuple(about)) for row, about in zip(listed, attributes.tolist(), strict=True)], len(upper)


def listed(relation):
    tokens = relation.token.tolist()
    return [
        (*edge, token, tuple(about))
        for edge, token, about in zip(relation.edge_index.T.tolist(), tokens, relation.attributes.tolist(), strict=True)
    ]


@few
@given(seed=st.integers(0, 10**6), nodes=st.integers(1, 8))
def test_edges_among_some_tokens_are_those_with_both_ends_there(seed, nodes):
    """Numbered anew, in order, with their tokens and attributes: the graph that these induce."""
    relation, edges, _ = pairs(seed, nodes)
    chosen = torch.rand(nodes, generator=torch.Generator().manual_seed(seed + 1)) < 0.6
    index = chosen.nonzero()[:, 0]
    place = {int(node): at for at, node in enumerate(index)}
    expected = [(place[a], place[b], *rest) for a, b, *rest in edges if a in place and b in place]
    found = relation.among(index)
    assert listed(found) == expected
    assert len(found.indptr) == len(index) + 1
    assert int(found.indptr[-1]) == len(expected)


@few
@given(seed=st.integers(0, 10**6), nodes=st.integers(1, 8))
def test_without_some_edges_both_directions_are_gone_and_self_loops_stay(seed, nodes):
    relation, edges, count = pairs(seed, nodes)
    gone = torch.rand(count, generator=torch.Generator().manual_seed(seed + 1)) < 0.5
    if not count:
        gone = torch.zeros(1, dtype=torch.bool)  # no edge names it
    found = relation.without(gone)
    assert listed(found) == [edge for edge in edges if edge[2] < 0 or not gone[edge[2]]]
    assert len(found.indptr) == nodes + 1


def test_some_tokens_take_along_all_that_is_said_of_them():
    relation, _, _ = pairs(3, 7)
    part = TokenSet(
        torch.randn(7, 2), torch.tensor([0, 4, 4, 7]), torch.tensor([5, 6, 9]), {"edges": relation},
        valid=torch.tensor([True] * 6 + [False]), observed=torch.rand(7, 2) < 0.5, position=torch.arange(7) % 4,
        ids=torch.tensor([3, -1, 2, 0, 8, 1, 5]), kind=torch.tensor([0, 1, 1, 0, 2, 2, 0]), structure=torch.rand(7, 3),
    )  # fmt: skip
    index = torch.tensor([0, 2, 3, 5])
    found = part.only(index)
    assert found.ids.tolist() == [3, 2, 0, 1]
    assert found.kind.tolist() == [0, 1, 0, 2]
    assert found.ptr.tolist() == [0, 3, 3, 4]
    assert found.batch.tolist() == [0, 0, 0, 2]
    assert found.valid is None
    for name in ("values", "observed", "position", "structure"):
        assert torch.equal(getattr(found, name), getattr(part, name)[index])
    assert torch.equal(found.relations["edges"].indptr, relation.among(index).indptr)
    assert torch.equal(found.item_id, part.item_id)
    nothing = part.only(index[:0])
    assert (len(nothing), nothing.ptr.tolist()) == (0, [0, 0, 0, 0])


def test_moving_a_set_moves_all_of_it():
    """To a device that holds no memory; where it is already, it is the same object."""
    relation, _, _ = pairs(3, 4)
    part = TokenSet(
        torch.randn(4, 2), torch.tensor([0, 4]), torch.tensor([5]), {"edges": relation},
        ids=torch.arange(4), kind=torch.arange(4), position=torch.arange(4), structure=torch.rand(4, 3),
    )  # fmt: skip
    assert part.to(torch.device("cpu")) is part
    moved = part.to(torch.device("meta"))
    for name in ("values", "ptr", "item_id", "ids", "kind", "position", "structure"):
        assert getattr(moved, name).device.type == "meta", name
    assert moved.relations["edges"].token.device.type == "meta"
    assert moved.valid is None
