import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structmae import load_data, resolve
from structmae.errors import StructmaeError
from structmae.tokens.graph import GraphSource, NodeTokenizer


def tokenizer(**changes):
    options = {"categories": {}, "columns": 3, "normalize": "none", "undirected": True, "edge_width": 0}
    return NodeTokenizer(**{**options, **changes})


def test_rows_sum_to_one_and_zero_rows_stay():
    x = torch.tensor([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.equal(tokenizer(normalize="row").values(x), torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 0.0]]))


def test_standard_takes_the_statistics_of_fit(karate):
    graphs = load_data_with(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) * 5 + 2)
    made = NodeTokenizer.fit(graphs, resolve("graphmae"))
    assert made.normalize == "standard"
    values = made.values(graphs.x)
    torch.testing.assert_close(values.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.std(0, correction=0), torch.ones(3))
    assert torch.equal(made.values(graphs.x + 1), (graphs.x + 1 - made.mean) / made.deviation)


def load_data_with(x):
    from torch_geometric.data import Data

    return load_data(Data(x=x, edge_index=torch.tensor([[0, 1], [1, 2]])))


def test_a_constant_column_is_zero():
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 7.0
    graphs = load_data_with(x)
    assert torch.equal(NodeTokenizer.fit(graphs, resolve("graphmae")).values(x)[:, 1], torch.zeros(20))


def test_auto_takes_row_for_sparse_counts(karate):
    assert NodeTokenizer.fit(karate, resolve("graphmae")).normalize == "row"


def test_categories_become_one_hot_beside_numbers():
    made = tokenizer(categories={1: 4})
    values = made.values(torch.tensor([[0.5, 3.0, -2.0]]))
    assert made.width == 6
    assert values.tolist() == [[0.5, -2.0, 0.0, 0.0, 0.0, 1.0]]
    for bad in (4.0, -1.0):
        with pytest.raises(StructmaeError, match=f"category {int(bad)}"):
            made.values(torch.tensor([[0.5, bad, 0.0]]))
    with pytest.raises(StructmaeError, match=r"reads \(nodes, 3\)"):
        made.values(torch.zeros(1, 4))


@given(st.integers(0, 10**6), st.integers(1, 10), st.integers(0, 30), st.booleans())
def test_relation_is_the_dense_matrix_with_a_diagonal(seed, nodes, count, undirected):
    edges = torch.randint(0, nodes, (2, count), generator=torch.Generator().manual_seed(seed))
    relation = tokenizer(undirected=undirected).relation(edges, nodes)
    dense = torch.eye(nodes)
    dense[edges[1], edges[0]] = 1
    if undirected:
        dense = torch.maximum(dense, dense.t())
    found = torch.zeros(nodes, nodes)
    found[relation.edge_index[1], relation.edge_index[0]] += 1
    assert torch.equal(found, dense)
    assert relation.source.numel() == int(dense.sum())  # no repeats


def test_edge_attributes_are_asked_for_and_checked():
    made = tokenizer(edge_width=2)
    edges = torch.tensor([[0, 1], [1, 2]])
    with pytest.raises(StructmaeError, match="give edge_attr"):
        made.relation(edges, 3)
    with pytest.raises(StructmaeError, match=r"\(edges, 2\)"):
        made.relation(edges, 3, torch.zeros(2, 3))
    relation = made.relation(edges, 3, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    table = {tuple(e): a for e, a in zip(relation.edge_index.t().tolist(), relation.attributes.tolist(), strict=True)}
    assert table[(0, 1)] == table[(1, 0)] == [1.0, 2.0]
    assert table[(1, 1)] == [2.0, 3.0]  # a self-loop has the mean of those that end there


def test_edge_features_without_attributes_are_refused(karate):
    with pytest.raises(StructmaeError, match="no edge attributes"):
        NodeTokenizer.fit(karate, resolve("graphmae", {"encoder.edge_features": True}))


@given(st.permutations(range(6)), st.integers(1, 6))
def test_a_batch_is_its_graphs_one_by_one(molecules, order, size):
    recipe = resolve("graphmae", {"encoder.edge_features": True}, level="graph")
    source = GraphSource(molecules, NodeTokenizer.fit(molecules, recipe))
    batch = source.batch(torch.tensor(order[:size]))["node"]
    for place, item in enumerate(order[:size]):
        alone = source.batch(torch.tensor([item]))["node"]
        rows = slice(int(batch.ptr[place]), int(batch.ptr[place + 1]))
        assert torch.equal(batch.values[rows], alone.values)
        assert batch.item_id[place] == item == alone.item_id[0]
        relation = batch.relations["edges"]
        ends = slice(int(relation.indptr[rows.start]), int(relation.indptr[rows.stop]))
        assert torch.equal(relation.edge_index[:, ends] - rows.start, alone.relations["edges"].edge_index)
        assert torch.equal(relation.attributes[ends], alone.relations["edges"].attributes)
        assert bool((batch.batch[rows] == place).all())
