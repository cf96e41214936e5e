from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from structmae.data import load
from structmae.data.catalog import Card
from structmae.data.raw import read_planetoid, read_tu
from structmae.data.validate import build
from structmae.errors import StructmaeError

Writer = Callable[..., Path]


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_planetoid_has_its_public_split_and_order(planetoid: Callable[..., tuple[Path, Card]], data_root: Path) -> None:
    planetoid(data_root)
    before = tree(data_root)
    graphs = load("Cora")
    assert (graphs.num_nodes, graphs.x.shape[1], graphs.classes) == (620, 6, ("0", "1", "2"))
    assert graphs.y is not None
    assert torch.equal(graphs.y, torch.arange(620) % 3)  # the shuffled test rows are back in their places
    assert graphs.split is not None
    assert graphs.split["train"].tolist() == list(range(9))
    assert graphs.split["validation"].tolist() == list(range(9, 509))
    assert graphs.split["test"].tolist() == list(range(600, 620))
    assert graphs.split_source == "public"
    assert graphs.num_edges == 2 * (600 + 20)
    assert graphs.spec == {"data": "cora", "nodes": None}
    assert graphs.card == "cora"
    assert tree(data_root) == before


def test_a_node_missing_from_the_files_has_no_label(
    planetoid: Callable[..., tuple[Path, Card]], tmp_path: Path
) -> None:
    folder, _ = planetoid(tmp_path, "CiteSeer")
    draft = read_planetoid(folder, "CiteSeer", "citeseer")
    assert draft.y is not None
    assert draft.x is not None
    assert (draft.y < 0).nonzero().flatten().tolist() == [610]
    assert draft.x[610].abs().sum() == 0


def test_tu_labels_become_one_categorical_column(tu: Writer, tmp_path: Path) -> None:
    edge_labels = "0\n0\n0\n1\n1\n2\n2\n0\n0\n"
    folder = tu(
        tmp_path, node_labels="5\n7\n5\n6\n6\n5\n", edge_labels=edge_labels, node_attributes="1\n2\n3\n4\n5\n6\n"
    )
    graphs = build(read_tu(folder, "AIDS", "aids"))
    assert graphs.x.flatten().tolist() == [0, 2, 0, 1, 1, 0]
    assert graphs.schema.categories == {0: (5, 6, 7)}
    assert graphs.ptr.tolist() == [0, 3, 5, 6]
    assert graphs.num_edges == 8
    assert graphs.edge_attr is not None
    found = dict(zip(map(tuple, graphs.edge_index.t().tolist()), graphs.edge_attr.argmax(1).tolist(), strict=True))
    assert found[(0, 1)] == 0
    assert found[(1, 2)] == 1
    assert found[(0, 2)] == 2
    assert graphs.classes == ("-1", "1")
    assert graphs.y is not None
    assert graphs.y.tolist() == [1, 0, 1]
    assert (graphs.level, graphs.split) == ("graph", None)
    assert "1 repeated edge merged" in graphs.notes


def test_tu_packs_as_torch_geometric_does(tu: Writer, tmp_path: Path) -> None:
    from torch_geometric.io import read_tu_data

    folder = tu(tmp_path, node_labels="5\n7\n5\n6\n6\n5\n")
    data, slices, _ = read_tu_data(str(folder), "AIDS")
    graphs = build(read_tu(folder, "AIDS", "aids"))
    assert torch.equal(data.x.argmax(1), graphs.x.flatten().long())
    assert torch.equal(data.y, graphs.y)
    assert slices["x"].tolist() == graphs.ptr.tolist()
    item = torch.bucketize(torch.arange(data.edge_index.size(1)), slices["edge_index"][1:], right=True)
    packed = data.edge_index + graphs.ptr[item]
    assert set(map(tuple, packed.t().tolist())) == set(map(tuple, graphs.edge_index.t().tolist()))


def test_tu_attributes_only_without_labels_and_degree_without_both(tu: Writer, tmp_path: Path) -> None:
    rows = "0.5, 1\n1, 2\n2, 3\n3, 4\n4, 5\n5, 6\n"
    attributes = build(read_tu(tu(tmp_path / "a", node_attributes=rows), "AIDS", "aids"))
    assert attributes.x[0].tolist() == [0.5, 1.0]
    assert attributes.schema.categories == {}
    degree = build(read_tu(tu(tmp_path / "d"), "AIDS", "aids"))
    assert degree.schema.source == "degree"
    assert degree.x.flatten().tolist() == [2, 2, 2, 1, 1, 0]


def test_a_second_tu_set_is_read_with_the_labels_of_the_first(tu: Writer, tmp_path: Path) -> None:
    first = build(read_tu(tu(tmp_path / "1", node_labels="5\n7\n5\n6\n6\n5\n"), "AIDS", "aids"))
    again = build(read_tu(tu(tmp_path / "2", node_labels="7\n7\n7\n6\n6\n6\n"), "AIDS", "aids", first.schema))
    assert again.x.flatten().tolist() == [2, 2, 2, 1, 1, 1]
    with pytest.raises(
        StructmaeError, match=r"column 0 of node 1 is 8, a category that the model was not trained with"
    ):
        read_tu(tu(tmp_path / "3", node_labels="7\n8\n7\n6\n6\n6\n"), "AIDS", "aids", first.schema)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"A": None}, "no file AIDS_A.txt"),
        ({"A": ""}, "AIDS_A.txt is empty"),
        ({"A": "1, 2\n2"}, "AIDS_A.txt"),
        ({"A": "1, 2, 3\n"}, "3 columns, not 2"),
        ({"A": "1, x\n"}, "AIDS_A.txt"),
        ({"graph_indicator": "1\n1\n3\n"}, "does not count the graphs"),
        ({"graph_labels": "1\n"}, "1 rows for 3 graphs"),
        ({"node_labels": "1\n"}, "1 rows, not 6"),
    ],
)
def test_damaged_tu_folders_are_one_error(
    tu: Writer, tmp_path: Path, files: dict[str, str | None], message: str
) -> None:
    folder = tu(tmp_path, **files)
    with pytest.raises(StructmaeError, match=message) as raised:
        read_tu(folder, "AIDS", "aids")
    assert str(folder) in str(raised.value)


def test_a_truncated_edge_list_that_parses_is_refused_by_the_checks(tu: Writer, tmp_path: Path) -> None:
    folder = tu(tmp_path, A="1, 2\n2, 5\n")
    with pytest.raises(StructmaeError, match="joins graphs 0 and 1"):
        build(read_tu(folder, "AIDS", "aids"))


def test_regression_targets_are_not_used(tu: Writer, tmp_path: Path) -> None:
    graphs = build(read_tu(tu(tmp_path, graph_labels=None, graph_attributes="0.1\n0.2\n0.3\n"), "AIDS", "aids"))
    assert graphs.y is None
    assert "numbers to regress on" in graphs.notes[0]


def test_a_tu_set_without_a_card_loads_by_name(tu: Writer, data_root: Path) -> None:
    tu(data_root, "ENZYMES", node_labels="0\n1\n0\n1\n1\n0\n")
    graphs = load("enzymes")
    assert (graphs.name, graphs.card, graphs.num_items) == ("enzymes", "enzymes", 3)
    assert load(**graphs.spec).fingerprint() == graphs.fingerprint()
