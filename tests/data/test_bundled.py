import numpy as np
import torch

from structmae.data import catalog, load


def test_digits() -> None:
    graphs = load("digits")
    card = catalog.resolve("digits").statistics
    assert graphs.x.shape == (1797, 64)
    assert (graphs.x.min().item(), graphs.x.max().item()) == (0.0, 1.0)
    assert graphs.num_edges == 2 * card["edges"]
    assert graphs.split is not None
    assert [len(index) for index in graphs.split.values()] == [200, 500, 1000]
    degree = torch.bincount(graphs.edge_index[1], minlength=1797)
    assert degree.min() >= 5
    # An edge joins two digits one of which is among the other's five nearest.
    x = graphs.x[:].numpy()
    near = np.argsort(((x[:1] - x) ** 2).sum(1))[1:6]
    assert set(near.tolist()) <= set(graphs.edge_index[0][graphs.edge_index[1] == 0].tolist())
    assert graphs.notes == ()


def test_karate() -> None:
    graphs = load("Karate")
    assert (graphs.num_nodes, graphs.num_edges, len(graphs.classes)) == (34, 156, 4)
    assert torch.equal(graphs.x, torch.eye(34))
    assert graphs.split is not None
    assert [len(index) for index in graphs.split.values()] == [11, 11, 12]
    assert graphs.y is not None
    assert all(graphs.y[index].unique().numel() == 4 for index in graphs.split.values())
