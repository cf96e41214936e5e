from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from structmae import load_data, resolve
from structmae.data.links import hold_out, scored_pairs
from structmae.errors import StructmaeError, UsageError
from structmae.graph import load


def pairs_of(edge_index):
    """As a set of unordered pairs."""
    return {frozenset(pair) for pair in edge_index.T.tolist()}


def graph(nodes, edges, *, seed=0, undirected=True, width=0):
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(nodes * nodes, generator=generator)[:edges]
    index = torch.stack([chosen // nodes, chosen % nodes])
    attributes = torch.rand(edges, width, generator=generator) if width else None
    return load_data(Data(x=torch.eye(nodes), edge_index=index, edge_attr=attributes), undirected=undirected)


@given(nodes=st.integers(12, 60), density=st.floats(0.1, 0.6), undirected=st.booleans(), seed=st.integers(0, 99))
def test_a_held_out_pair_is_in_no_part_twice_and_neither_way_in_what_trains(nodes, density, undirected, seed):
    whole = graph(nodes, int(density * nodes * nodes) + 12, seed=seed, undirected=undirected)
    split = hold_out(whole)
    left, validation, test = (pairs_of(part) for part in (split.edge_index, *split.held_out.values()))
    every = pairs_of(whole.edge_index)
    assert left | validation | test == every
    assert len(left) + len(validation) + len(test) == len(every)
    assert abs(len(validation) - 0.05 * len(every)) <= 0.5 or len(validation) == 1
    assert abs(len(test) - 0.1 * len(every)) <= 0.5
    assert all(part.shape[1] == len(pairs_of(part)) for part in split.held_out.values())
    again = hold_out(whole)
    assert again.fingerprint() == split.fingerprint() != whole.fingerprint()


def test_what_stays_keeps_its_attributes():
    whole = graph(20, 90, width=2)
    split = hold_out(whole)
    known = {tuple(pair): row for pair, row in zip(whole.edge_index.T.tolist(), whole.edge_attr.tolist(), strict=True)}
    assert len(split.edge_attr) == split.num_edges < whole.num_edges
    for pair, row in zip(split.edge_index.T.tolist(), split.edge_attr.tolist(), strict=True):
        assert known[tuple(pair)] == row


def test_degrees_in_place_of_features_are_those_that_are_left():
    edges = graph(20, 90).edge_index
    split = hold_out(load_data(Data(edge_index=edges, num_nodes=20)))
    assert split.schema.source == "degree"
    assert torch.equal(split.x[:, 0], torch.bincount(split.edge_index[1], minlength=20).float())
    assert not torch.equal(split.x[:, 0], torch.bincount(edges[1], minlength=20).float())


def test_the_option_holds_out_and_says_so(karate, molecules):
    options = resolve("maskgae_path", {"data.edges": "train"}).data
    split = load("karate", options)
    assert split.fingerprint() == hold_out(karate).fingerprint()
    assert "held out: 4 for validation and 8 for test" in split.notes[-1]
    assert split.split_source.endswith("; training edges only")
    assert load(split, options) is split  # once is enough
    assert load("karate", resolve("maskgae_path").data).held_out is None
    with pytest.raises(UsageError, match="set of graphs"):
        load(molecules, options)
    with pytest.raises(StructmaeError, match="has 4 edges"):
        hold_out(load_data(Data(x=torch.eye(5), edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]))))


@given(nodes=st.integers(12, 40), density=st.floats(0.1, 0.4), undirected=st.booleans(), seed=st.integers(0, 99))
def test_scored_pairs_are_half_edges_and_half_none_of_the_whole_graph(nodes, density, undirected, seed):
    whole = graph(nodes, int(density * nodes * nodes) + 12, seed=seed, undirected=undirected)
    split = hold_out(whole)
    every, seen = pairs_of(whole.edge_index), set()
    for part, (pairs, labels) in scored_pairs(split).items():
        many = split.held_out[part].shape[1]
        assert torch.equal(pairs[:, labels == 1], split.held_out[part])
        none = pairs_of(pairs[:, labels == 0])
        assert labels.tolist() == [1.0] * many + [0.0] * many
        assert len(none) == many
        assert not none & (every | seen)
        assert all(len(pair) == 2 for pair in none)
        seen |= none
    again = scored_pairs(hold_out(whole))
    assert all(torch.equal(again[part][0], pairs) for part, (pairs, _) in scored_pairs(split).items())


def test_a_graph_with_every_edge_has_none_to_compare_with():
    full = torch.ones(8, 8).nonzero().T
    with pytest.raises(StructmaeError, match="too few pairs of nodes without an edge"):
        scored_pairs(hold_out(load_data(Data(x=torch.eye(8), edge_index=full))))


def test_the_fingerprint_knows_what_is_held_out(karate):
    split = hold_out(karate)
    other = replace(split, held_out={**split.held_out, "test": split.held_out["validation"]})
    assert other.fingerprint() != split.fingerprint()
