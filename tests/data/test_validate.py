import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from structmae.data.graphs import Schema
from structmae.data.validate import MAX_DEGREE, Draft, build
from structmae.errors import StructmaeError


def draft(edges: list[tuple[int, int]], n: int, **more: object) -> Draft:
    values: dict[str, object] = {"x": torch.ones(n, 2), **more}
    index = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).t()
    return Draft(name="g", edge_index=index, num_nodes=n, **values)  # type: ignore[arg-type]


@st.composite
def edge_lists(draw: st.DrawFn) -> tuple[list[tuple[int, int]], int]:
    n = draw(st.integers(1, 9))
    node = st.integers(0, n - 1)
    return draw(st.lists(st.tuples(node, node), max_size=30)), n


@given(edge_lists())
def test_undirected_edges_are_the_symmetric_set_in_order(case: tuple[list[tuple[int, int]], int]) -> None:
    edges, n = case
    graphs = build(draft(edges, n))
    wanted = {(a, b) for a, b in edges if a != b} | {(b, a) for a, b in edges if a != b}
    assert graphs.edge_index.t().tolist() == [[a, b] for a, b in sorted(wanted, key=lambda e: (e[1], e[0]))]


@given(edge_lists())
def test_directed_edges_are_kept_as_they_are(case: tuple[list[tuple[int, int]], int]) -> None:
    edges, n = case
    graphs = build(draft(edges, n), undirected=False)
    wanted = {(a, b) for a, b in edges if a != b}
    assert graphs.edge_index.t().tolist() == [[a, b] for a, b in sorted(wanted, key=lambda e: (e[1], e[0]))]


@given(edge_lists(), st.randoms())
def test_the_order_of_the_edges_does_not_matter(case: tuple[list[tuple[int, int]], int], random: object) -> None:
    edges, n = case
    shuffled = list(edges)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert build(draft(edges, n)).fingerprint() == build(draft(shuffled, n)).fingerprint()


def test_edge_attributes_follow_their_edges_and_repeats_are_averaged() -> None:
    attr = torch.tensor([[1.0], [3.0], [9.0], [5.0]])
    given_edges = [(0, 1), (0, 1), (2, 2), (1, 2)]
    both = build(draft(given_edges, 3, edge_attr=attr))
    found = dict(zip(map(tuple, both.edge_index.t().tolist()), both.edge_attr.flatten().tolist(), strict=True))
    assert found == {(0, 1): 2.0, (1, 0): 2.0, (1, 2): 5.0, (2, 1): 5.0}
    assert both.schema.edge_width == 1
    assert both.notes[:3] == (
        "1 self-loop removed (the encoder adds its own)",
        "1 repeated edge merged",
        "edges made undirected (2 -> 4)",
    )


def test_no_note_where_nothing_changed() -> None:
    assert build(draft([(0, 1), (1, 0)], 2)).notes == ()


def test_averaging_over_directions_is_told() -> None:
    graphs = build(draft([(0, 1), (1, 0)], 2, edge_attr=torch.tensor([[1.0], [2.0]])))
    assert graphs.edge_attr is not None
    assert graphs.edge_attr.flatten().tolist() == [1.5, 1.5]
    assert graphs.notes == ("edge columns averaged over the two directions",)


@pytest.mark.parametrize("edge", [(0, 3), (-1, 0), (7, 1)])
def test_an_edge_to_no_node_is_named(edge: tuple[int, int]) -> None:
    with pytest.raises(StructmaeError, match=rf"edge 1 is {edge[0]} -> {edge[1]}, but nodes run from 0 to 2"):
        build(draft([(0, 1), edge], 3))


def test_an_edge_between_two_graphs_is_refused() -> None:
    with pytest.raises(StructmaeError, match=r"edge 0 \(1 -> 2\) joins graphs 0 and 1"):
        build(draft([(1, 2)], 4, ptr=torch.tensor([0, 2, 4]), level="graph"))


@pytest.mark.parametrize(("edges", "n"), [([], 0), ([(0, 1)], 0)])
def test_no_node_is_refused(edges: list[tuple[int, int]], n: int) -> None:
    with pytest.raises(StructmaeError, match="no node"):
        build(draft(edges, n))


def test_an_empty_graph_of_a_set_is_refused() -> None:
    with pytest.raises(StructmaeError, match="graph 1 has no node"):
        build(draft([], 2, ptr=torch.tensor([0, 2, 2]), level="graph"))


def test_no_edges_and_isolated_nodes_work() -> None:
    empty = build(draft([], 3))
    assert (empty.num_edges, empty.notes) == (0, ("the graph has no edges",))
    assert "1 node without an edge" in build(draft([(0, 1)], 3)).notes


@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "missing"), (float("inf"), "inf")])
def test_a_feature_that_is_not_finite_is_named(value: float, shown: str) -> None:
    x = torch.ones(3, 2)
    x[2, 1] = value
    with pytest.raises(StructmaeError, match=rf"feature column 1 of node 2 is {shown} \(1 such cell\)"):
        build(draft([(0, 1)], 3, x=x))
    named = {"schema": Schema(2, ("a", "b")), "ids": ("p", "q", "r")}
    with pytest.raises(StructmaeError, match=rf"feature column 'b' of node 'r' is {shown}"):
        build(draft([(0, 1)], 3, x=x, **named))


def test_an_edge_column_that_is_not_finite_is_named() -> None:
    with pytest.raises(StructmaeError, match="edge 1 -> 0 has nan in edge column 0"):
        build(draft([(0, 1)], 2, edge_attr=torch.tensor([[float("nan")]])))


def star(n: int) -> list[tuple[int, int]]:
    return [(0, leaf) for leaf in range(1, n)]


def test_the_degree_stands_in_for_missing_features() -> None:
    graphs = build(draft(star(5), 6, x=None))
    assert graphs.x.flatten().tolist() == [4, 1, 1, 1, 1, 0]
    assert graphs.schema == Schema(1, None, {0: (0, 1, 2, 3, 4)}, "degree")


def test_degrees_are_capped() -> None:
    graphs = build(draft(star(MAX_DEGREE + 50), MAX_DEGREE + 50, x=None))
    assert graphs.x.max() == MAX_DEGREE
    assert len(graphs.schema.categories[0]) == MAX_DEGREE + 1


def test_a_second_graph_has_the_degrees_of_the_first() -> None:
    schema = build(draft(star(4), 4, x=None)).schema
    second = build(draft(star(9), 9, x=None), schema=schema)
    assert second.x[0].item() == 3
    assert second.schema == schema


def schema_of(width: int, edge_width: int = 0) -> Schema:
    return Schema(width=width, edge_width=edge_width)


def test_widths_have_to_agree_with_the_schema() -> None:
    with pytest.raises(StructmaeError, match=r"nodes have 2 feature columns, the model was trained with 3"):
        build(draft([(0, 1)], 2), schema=schema_of(3))
    with pytest.raises(StructmaeError, match=r"edges have 0 columns, the model was trained with 4"):
        build(draft([(0, 1)], 2), schema=schema_of(2, 4))
    with pytest.raises(StructmaeError, match=r"no features, the model was trained with 2 columns"):
        build(draft([(0, 1)], 2, x=None), schema=schema_of(2))


def test_a_split_is_made_and_named() -> None:
    y = torch.arange(30) % 3
    graphs = build(draft([(0, 1)], 30, y=y, classes=("0", "1", "2")))
    assert graphs.split is not None
    assert graphs.split_source == "made: stratified 10/10/80, seed 0"
    assert sum(map(len, graphs.split.values())) == 30


def test_too_few_labels_make_no_split_and_say_so() -> None:
    graphs = build(draft([(0, 1)], 3, y=torch.tensor([0, 1, -1]), classes=("0", "1")))
    assert graphs.split is None
    assert "no split: 2 labelled nodes of 2 classes are too few for one" in graphs.notes


def test_labels_that_are_all_unlabelled_are_none() -> None:
    graphs = build(draft([(0, 1)], 2, y=torch.tensor([-1, -1]), classes=("a",)))
    assert (graphs.y, graphs.classes, graphs.split) == (None, (), None)


def split_of(train: list[int], validation: list[int], test: list[int]) -> dict[str, Tensor]:
    return {
        "train": torch.tensor(train),
        "validation": torch.tensor(validation),
        "test": torch.tensor(test),
    }


def test_a_node_in_two_parts_is_refused() -> None:
    with pytest.raises(StructmaeError, match="node 1 is in train and in test"):
        build(draft([(0, 1)], 4, y=torch.tensor([0, 1, 0, 1]), split=split_of([0, 1], [2], [1, 3])))


def test_unlabelled_nodes_leave_the_split() -> None:
    graphs = build(draft([(0, 1)], 5, y=torch.tensor([0, 1, 0, 1, -1]), split=split_of([0, 4], [1], [2, 3])))
    assert graphs.split is not None
    assert graphs.split["train"].tolist() == [0]
    assert "1 nodes of the split have no label and are left out of it" in graphs.notes
