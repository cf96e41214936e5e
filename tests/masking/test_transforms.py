"""The PyTorch Geometric transforms: as the plan by hand, exact in each graph, attributes with their nodes and edges."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torch_geometric.transforms as T
from torch.utils.data import DataLoader
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.utils import is_undirected, to_undirected

from structmae.errors import UsageError
from structmae.masking import Spec, count, draw, layout
from structmae.masking.edge_tokens import edges
from structmae.masking.transforms import HideEdges, HideNodes, HidePaths
from structmae.masking.weights import degree, pagerank


def graph(nodes, seed=0, links=3, **more):
    """Undirected, with node ids as features and end sums as edge attributes, so that each can be told again."""
    generator = torch.Generator().manual_seed(seed)
    index = to_undirected(torch.randint(0, nodes, (2, links * nodes), generator=generator), num_nodes=nodes)
    x = torch.arange(1.0, nodes + 1)[:, None].repeat(1, 2)
    return Data(
        x=x,
        edge_index=index,
        edge_attr=(1000 * index[0] + index[1]).float()[:, None],
        mark=torch.arange(nodes),
        y=torch.tensor([nodes]),
        **more,
    )


def batch_of(*sizes):
    return Batch.from_data_list([graph(n, seed, item_id=10 + seed) for seed, n in enumerate(sizes)])


def test_nodes_as_the_plan_by_hand():
    data = graph(20)
    before = data.clone()
    hidden = HideNodes(0.4, random=0.25, keep=0.25, seed=5)(data)
    plan = draw(layout([0, 20]), Spec(ratio=0.4, random=0.25, keep=0.25), seed=5, visit=0)
    assert hidden.hidden.nonzero()[:, 0].tolist() == plan.hidden.tolist()
    assert hidden.scored.nonzero()[:, 0].tolist() == plan.scored.tolist()
    x = before.x.clone()
    x[plan.scored[plan.act == 1]] = 0
    x[plan.scored[plan.act == 2]] = before.x[plan.source[plan.act == 2]]
    assert (plan.act == 2).any()
    assert torch.equal(hidden.x, x)
    assert torch.equal(hidden.edge_index, before.edge_index)
    assert "hidden" not in data
    assert torch.equal(data.x, before.x)


def test_dropped_nodes_leave_with_their_edges():
    data = graph(20)
    seen = HideNodes(0.5, act="drop", keep=0.2, seed=1)(data)
    plan = draw(layout([0, 20]), Spec(ratio=0.5, act="drop", keep=0.2), seed=1, visit=0)
    assert seen.kept.tolist() == plan.visible.tolist() == seen.mark.tolist()
    assert seen.num_nodes == len(plan.visible)
    assert torch.equal(seen.x, data.x[seen.kept])
    assert torch.equal(seen.y, data.y)
    assert not seen.hidden.any()
    assert int(seen.scored.sum()) == len(plan.scored) - len(plan.hidden) > 0
    expected = data.subgraph(torch.from_numpy(plan.visible))
    assert torch.equal(seen.edge_index, expected.edge_index)
    assert torch.equal(seen.edge_attr, expected.edge_attr)


def test_a_swapped_node_stays_where_others_drop():
    seen = HideNodes(0.5, act="drop", random=0.5, seed=1)(graph(20))
    assert int(seen.hidden.sum()) == 5
    assert seen.num_nodes == 15
    assert not torch.equal(seen.x[seen.hidden, 0].long(), seen.mark[seen.hidden] + 1)


def ends(pairs):
    return list(zip(*pairs.tolist(), strict=True))


@pytest.mark.parametrize("make", [HideEdges, HidePaths])
def test_edges_as_the_plan_by_hand(make):
    data = graph(20)
    hidden = make(0.3, seed=5)(data)
    found = edges(data.edge_index, 20)
    spec = Spec("walk", ratio=0.3, length=3) if make is HidePaths else Spec(ratio=0.3)
    plan = draw(found.layout, spec, seed=5, visit=0)
    assert np.array_equal(hidden.hidden_edge_index.numpy(), found.hidden(plan))
    assert np.array_equal(hidden.negative_edge_index.numpy(), found.negatives(plan, seed=5, visit=0))
    assert np.array_equal(hidden.edge_index.numpy(), data.edge_index[:, found.visible_index(plan)].numpy())
    assert torch.equal(hidden.edge_attr[:, 0], (1000 * hidden.edge_index[0] + hidden.edge_index[1]).float())
    assert is_undirected(hidden.edge_index)
    assert torch.equal(hidden.x, data.x)
    assert hidden.num_nodes == 20
    assert not set(ends(hidden.hidden_edge_index)) & set(ends(hidden.edge_index))
    assert not set(ends(hidden.negative_edge_index)) & set(ends(data.edge_index))


@pytest.mark.parametrize(
    "transform",
    [
        HideNodes(0.5),
        HideNodes(0.5, random=0.3, act="zero", seed=2),
        HideNodes(0.5, act="drop"),
        HideNodes(0.3, strategy="block", blocks=2),
        HideNodes(0.3, strategy="walk", act="drop"),
        HideNodes(0.5, strategy="weighted", weights="pagerank", act="drop"),
        HideNodes(0.5, strategy="weighted", weights="degree", power=0.5),
        HideEdges(0.5),
        HideEdges(0.5, strategy="weighted", weights="degree"),
        HidePaths(0.5, start="edge"),
        T.Compose([HideEdges(0.5), HideNodes(0.4, act="drop"), HidePaths(0.3, 2)]),
    ],
    ids=str,
)
def test_a_batch_is_its_graphs(transform):
    """The same as graph by graph, whole and taken apart again."""
    batch = batch_of(9, 2, 30, 3, 12)
    alone = [copy.deepcopy(transform)(part) for part in batch.to_data_list()]
    together = transform(batch)
    expected = Batch.from_data_list(alone)
    parts = together.to_data_list()
    assert set(together.keys()) == set(expected.keys())
    for key in expected.keys():  # noqa: SIM118
        if key != "kept":  # the numbers are those in the batch
            assert torch.equal(together[key], expected[key]), key
        if key not in ("batch", "ptr"):
            for one, part in zip(alone, parts, strict=True):
                assert torch.equal(torch.as_tensor(one[key]).reshape(-1), part[key].reshape(-1)), key


def test_counts_are_exact_in_each_graph():
    batch = batch_of(9, 30, 12)
    hidden = HideNodes(0.3)(batch).hidden
    assert [int(hidden[batch.batch == g].sum()) for g in range(3)] == [count(0.3, n) for n in (9, 30, 12)]
    pairs = [edges(part.edge_index).layout.size for part in batch.to_data_list()]
    gone = [part.hidden_edge_index.shape[1] for part in HideEdges(0.3)(batch).to_data_list()]
    assert gone == [count(0.3, n) for n in pairs]


def test_batches_made_by_hand():
    whole = batch_of(9, 30, 12)
    bare = Data(x=whole.x, edge_index=whole.edge_index, batch=whole.batch, item_id=whole.item_id)
    for transform in (HideNodes(0.3, act="drop"), HideEdges(0.3)):
        expected, got = copy.deepcopy(transform)(whole), transform(bare)
        assert torch.equal(got.edge_index, expected.edge_index)
        assert torch.equal(got.batch, expected.batch)
    bare.batch = bare.batch.flip(0)
    with pytest.raises(UsageError, match="the nodes of a graph must be together"):
        HideNodes()(bare)


def test_labels_of_graphs_are_not_taken_for_attributes():
    """By their length alone, two labels could be those of two edges, or three of three nodes."""

    def small(nodes, index, y):
        return Data(
            x=torch.ones(nodes, 1), edge_index=torch.tensor(index), y=torch.tensor([y]), item_id=torch.tensor([y])
        )

    batch = Batch.from_data_list([small(1, [[], []], 3), small(3, [[0, 1], [1, 2]], 5)])
    batch.edge_index = batch.edge_index.long()
    assert HideEdges(1.0, undirected=True)(batch).y.tolist() == [3, 5]
    three = Batch.from_data_list([small(1, [[0], [0]], 3), small(2, [[0], [1]], 5), small(0, [[], []], 4)])
    three.edge_index = three.edge_index.long()
    less = HideNodes(1.0, act="drop")(three)
    assert less.y.tolist() == less.item_id.tolist() == [3, 5, 4]
    assert less.ptr.tolist() == [0, 0, 0, 0]


def test_visits_and_seeds():
    data = graph(40)
    transform = HideNodes(0.5, seed=3)
    first, second = transform(data).hidden, transform(data).hidden
    assert transform.visit == 2
    assert not torch.equal(first, second)
    transform.visit = 0
    assert torch.equal(transform(data).hidden, first)
    assert torch.equal(transform(data).hidden, second)
    assert not torch.equal(HideNodes(0.5, seed=4)(data).hidden, first)
    data.item_id = 8
    assert not torch.equal(HideNodes(0.5, seed=3)(data).hidden, first)


def test_no_global_generator_is_touched():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    state, other = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    T.Compose([HideNodes(act="random"), HideEdges(), HidePaths()])(graph(30))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], other[1])  # noqa: NPY002


def test_set_up_is_kept_for_the_same_edges_only():
    data = graph(30)
    transform = HideEdges(0.5)
    transform(data)
    made = transform._last[-1]
    transform(copy.copy(data))
    assert transform._last[-1] is made
    data.edge_index[:, 0] = data.edge_index[:, 1]
    transform(data)
    assert transform._last[-1] is not made
    made = transform._last[-1]
    data.edge_index.numpy()[:, 0] = 3, 4  # PyTorch does not see it
    transform(data)
    assert transform._last[-1] is not made
    again = pickle.loads(pickle.dumps(transform))
    assert torch.equal(again(data).edge_index, transform(data).edge_index)


def test_weights():
    data = graph(30)
    index = data.edge_index
    for name, score in (("degree", degree(index, 30)), ("pagerank", pagerank(index, 30))):
        spec = Spec("weighted", power=2.0)
        plan = draw(layout([0, 30], weight=score), spec, seed=0, visit=0)
        hidden = HideNodes(strategy="weighted", weights=name, power=2.0)(data).hidden
        assert hidden.nonzero()[:, 0].tolist() == plan.hidden.tolist()
        weight = score[edges(index).pairs].mean(0)
        found = edges(index, weight=weight)
        plan = draw(found.layout, spec, seed=0, visit=0)
        gone = HideEdges(strategy="weighted", weights=name, power=2.0)(data).hidden_edge_index
        assert np.array_equal(gone.numpy(), found.hidden(plan))


def test_directed_edges():
    data = Data(x=torch.ones(5, 1), edge_index=torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]))
    hidden = HideEdges(0.5)(data)
    assert hidden.hidden_edge_index.shape == (2, 2)
    assert hidden.edge_index.shape == (2, 2)
    both = Data(x=torch.ones(5, 1), edge_index=to_undirected(data.edge_index))
    assert HideEdges(0.5)(both).edge_index.shape == (2, 4)
    one_way = HideEdges(0.5, undirected=False)(both)
    assert one_way.hidden_edge_index.shape == (2, 4)


@pytest.mark.parametrize("make", [HideEdges, HidePaths])
def test_repeated_edges_do_not_leak(make):
    """Listed unequally often in the two directions, a pair is hidden all the same."""
    data = graph(12)
    more = torch.cat([data.edge_index, data.edge_index[:, :5], data.edge_index[:, :2]], 1)
    hidden = make(0.5)(Data(x=data.x, edge_index=more))
    left, gone = set(ends(hidden.edge_index)), ends(hidden.hidden_edge_index)
    assert gone == ends(make(0.5)(data).hidden_edge_index)
    assert not left & {*gone, *((v, u) for u, v in gone)}


def test_direction_does_not_depend_on_the_batch():
    both, empty = graph(6), Data(x=torch.ones(3, 2), edge_index=torch.zeros(2, 0, dtype=torch.long))
    one_way = Data(x=torch.ones(6, 2), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]))
    for one in (both, one_way):
        one = Data(x=one.x, edge_index=one.edge_index)
        batch = Batch.from_data_list([one, empty])
        assert torch.equal(HideEdges(0.5)(batch)[0].edge_index, HideEdges(0.5)(one).edge_index)
    mixed = Batch.from_data_list([Data(x=both.x, edge_index=both.edge_index), empty, one_way])
    with pytest.raises(UsageError, match=r"1 of 2 graphs with edges are directed: .* give undirected=True or"):
        HideEdges(0.5)(mixed)
    for undirected in (True, False, np.False_):
        parts = HideEdges(0.5, undirected=undirected)(mixed).to_data_list()
        assert torch.equal(parts[0].edge_index, HideEdges(0.5, undirected=undirected)(both).edge_index)


def epoch(graphs, transform, **more):
    """The masks of an epoch of a loader that hides in its workers, one graph at a time."""
    loader = DataLoader(graphs, batch_size=None, collate_fn=transform, **more)
    return loader, [data.hidden.tolist() for data in loader]


def test_in_the_workers_of_a_loader():
    graphs = [graph(20, seed, item_id=seed) for seed in range(4)]
    transform = HideNodes(0.5)
    with pytest.raises(UsageError, match="in a data loader's worker, no visit set: masks"):
        epoch(graphs, transform, num_workers=1)
    transform.visit = 3
    with pytest.raises(UsageError, match=r"in a data loader's worker, no data\.item_id: masks"):
        epoch([graph(20)], transform, num_workers=1)
    _, masks = epoch(graphs, transform, num_workers=1)
    assert len(set(map(tuple, masks))) == 4
    assert epoch(graphs, transform, num_workers=2)[1] == masks
    again = HideNodes(0.5)
    again.visit = 3
    assert again(Batch.from_data_list(graphs)).hidden.reshape(4, 20).tolist() == masks
    transform.visit = 4
    loader, others = epoch(graphs, transform, num_workers=1, persistent_workers=True)
    assert all(a != b for a, b in zip(masks, others, strict=True))
    with pytest.raises(UsageError, match="in a data loader's worker, an item_id twice at visit 4: masks"):
        list(loader)


def test_without_features():
    """The number of nodes must not shrink with the edges."""
    data = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=4)
    hidden = HideEdges(1.0)(data)
    assert (hidden.num_nodes, hidden.num_edges) == (4, 0)
    dropped = HideNodes(0.5, act="drop")(data)
    assert dropped.num_nodes == 2
    batch = HideNodes(0.5, act="drop")(Batch.from_data_list([data, data]))
    assert [part.num_nodes for part in batch.to_data_list()] == [2, 2]


def test_composes_with_others():
    chain = T.Compose([T.NormalizeFeatures(), HideEdges(0.3), HideNodes(0.5, act="drop"), T.AddSelfLoops()])
    data = chain(graph(20))
    assert data.num_nodes == 10
    assert int(data.hidden_edge_index.max()) < 10
    assert torch.allclose(data.x.sum(1), torch.ones(10))


def test_repr():
    transform = HideNodes(0.3, act="drop", strategy="weighted", weights="degree", seed=4)
    assert repr(transform) == "HideNodes(strategy=weighted, ratio=0.3, act=DROP, weights=degree, seed=4, visit=0)"
    assert repr(HidePaths()) == "HidePaths(strategy=walk, ratio=0.7, seed=0, visit=0)"


@pytest.mark.parametrize("make", [HideNodes, HideEdges, HidePaths])
def test_what_cannot_be(make):
    with pytest.raises(UsageError, match=r"HeteroData: Hide.* takes Data"):
        make()(HeteroData())
    with pytest.raises(UsageError, match=r"needs data.edge_index"):
        make()(Data(x=torch.ones(3, 1)))
    with pytest.raises(UsageError, match="colour = 'red': no option of Hide"):
        make(colour="red")
    with pytest.raises(UsageError, match="ratio = 2"):
        make(2)
    with pytest.raises(UsageError, match="weights = 'degree' with strategy"):
        make(weights="degree")
    with pytest.raises(UsageError, match="seed = -1"):
        make(seed=-1)
    with pytest.raises(UsageError, match="random_from = 'vocabulary': graphs have none; choose"):
        make(random=0.5, random_from="vocabulary")
    for strategy, lack in (("dirichlet", "strata"), ("rectangle", "grid")) if make is not HidePaths else ():
        with pytest.raises(UsageError, match=f"strategy = '{strategy}': graphs have no {lack}; choose another"):
            make(strategy=strategy)
    with pytest.raises(UsageError, match="visit = -1"):
        make().visit = -1
    for node in (7, -1):
        with pytest.raises(UsageError, match=rf"edge_index has nodes .*{node}.*, of 2: must be 0 to 1"):
            make(0.5, act="drop")(Data(x=torch.ones(2, 1), edge_index=torch.tensor([[0], [node]])))
