import torch

from structmae import resolve
from structmae.evaluate.arms import propagate
from structmae.tokens.graph import GraphSource, NodeTokenizer


def test_propagated_features_are_the_dense_product(karate):
    source = GraphSource(karate, NodeTokenizer.fit(karate, resolve("graphmae")))
    adjacency = torch.eye(34)
    adjacency[karate.edge_index[0], karate.edge_index[1]] = 1
    scale = adjacency.sum(1).rsqrt()
    smooth = scale[:, None] * adjacency * scale
    torch.testing.assert_close(propagate(source.all["node"]), smooth @ smooth @ source.all["node"].values)


def test_a_directed_graph_propagates_along_its_edges():
    from torch_geometric.data import Data

    import structmae

    graphs = structmae.load_data(Data(x=torch.eye(2), edge_index=torch.tensor([[0], [1]])), undirected=False)
    recipe = resolve("graphmae", {"data.undirected": False, "tokens.normalize": "none"})
    source = GraphSource(graphs, NodeTokenizer.fit(graphs, recipe))
    once = propagate(source.all["node"], 1)
    assert once[0].tolist() == [1.0, 0.0]  # nothing arrives at node 0
    assert once[1, 0] > 0
