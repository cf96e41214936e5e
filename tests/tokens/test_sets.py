import torch
from hypothesis import given
from hypothesis import strategies as st

from structmae.tokens import Relation


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
