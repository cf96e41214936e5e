from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData, InMemoryDataset

from structmae.data import load
from structmae.errors import StructmaeError, UsageError

PAIRS = torch.tensor([[0, 1], [1, 2]])


def data(**more: object) -> Data:
    return Data(**{"x": torch.ones(3, 2), "edge_index": PAIRS, **more})


class Held(InMemoryDataset):
    def __init__(self, graphs: list[Data]) -> None:
        super().__init__()
        self.data, self.slices = self.collate(graphs)


def test_a_data_is_one_graph() -> None:
    graphs = load(data(y=torch.tensor([3, 3, 5])))
    assert (graphs.level, graphs.num_items, graphs.num_edges, graphs.spec, graphs.name) == ("node", 1, 4, {}, "graph")
    assert graphs.classes == ("3", "5")


def test_graphs_pass_through() -> None:
    graphs = load(data())
    assert load(graphs) is graphs


def test_whole_numbers_are_categories_and_bools_are_numbers() -> None:
    graphs = load(data(x=torch.tensor([[0, 4], [1, 0], [0, 2]])))
    assert graphs.schema.categories == {0: (0, 1), 1: (0, 1, 2, 3, 4)}
    assert graphs.x.dtype == torch.float32
    assert load(data(x=torch.tensor([True, False, True]))).x.tolist() == [[1.0], [0.0], [1.0]]


@pytest.mark.parametrize(("value", "message"), [(-1, "column 0 of node 1 is -1"), (10_000, "column 0 reaches 10000")])
def test_whole_numbers_out_of_range_are_refused(value: int, message: str) -> None:
    with pytest.raises(StructmaeError, match=message):
        load(data(x=torch.tensor([0, value, 0])))


def test_a_second_data_keeps_the_categories_of_the_first() -> None:
    schema = load(data(x=torch.tensor([0, 4, 1]))).schema
    assert load(data(x=torch.tensor([1, 1, 0])), schema=schema).schema == schema
    with pytest.raises(StructmaeError, match=r"column 0 of node 2 is 5, a category .* \(it knows 5: 0, 1, 2, 3, 4\)"):
        load(data(x=torch.tensor([1, 1, 5])), schema=schema)
    with pytest.raises(StructmaeError, match="column 0 of node 0 is missing"):
        load(data(x=torch.tensor([float("nan"), 1, 1])), schema=schema)


def test_no_features_mean_degrees() -> None:
    graphs = load(Data(edge_index=PAIRS, y=torch.tensor([0, 1, 0, 1])))
    assert graphs.num_nodes == 4  # the labels count the nodes
    assert graphs.x.flatten().tolist() == [1, 2, 1, 0]


@pytest.mark.parametrize(
    ("y", "kept", "note"),
    [
        (torch.tensor([0.0, 1.0, float("nan")]), [0, 1, -1], None),
        (torch.tensor([[1], [0], [1]]), [1, 0, 1], None),
        (torch.tensor([0.5, 1.0, 2.0]), None, "regression"),
        (torch.zeros(3, 4), None, "several labels"),
        (torch.tensor([1]), None, "one label for the whole graph"),
    ],
)
def test_labels(y: torch.Tensor, kept: list[int] | None, note: str | None) -> None:
    graphs = load(data(y=y))
    assert (None if graphs.y is None else graphs.y.tolist()) == kept
    assert note is None or any(note in line for line in graphs.notes)


def test_labels_of_the_wrong_number_are_refused() -> None:
    with pytest.raises(StructmaeError, match=r"y has shape \(2,\); it must have one label a node, \(3,\)"):
        load(data(y=torch.tensor([0, 1])))


def masks(*parts: list[bool]) -> dict[str, torch.Tensor]:
    return dict(zip(("train_mask", "val_mask", "test_mask"), map(torch.tensor, parts), strict=False))


def test_masks_are_the_split() -> None:
    y = torch.tensor([0, 1, 0])
    graphs = load(data(y=y, **masks([True, False, False], [False, True, False], [False, False, True])))
    assert graphs.split is not None
    assert {key: index.tolist() for key, index in graphs.split.items()} == {
        "train": [0],
        "validation": [1],
        "test": [2],
    }
    assert graphs.split_source == "masks of the data"


def test_masks_of_several_splits_use_the_first() -> None:
    columns = [torch.stack([m, ~m], 1) for m in torch.eye(3, dtype=torch.bool)]
    names = ("train_mask", "val_mask", "test_mask")
    graphs = load(data(y=torch.tensor([0, 1, 0]), **dict(zip(names, columns, strict=True))))
    assert graphs.split is not None
    assert graphs.split["test"].tolist() == [2]
    assert "masks of 2 splits: the first is used" in graphs.notes


def test_a_train_mask_alone_makes_a_split() -> None:
    n = 30
    graphs = load(
        Data(
            x=torch.ones(n, 1),
            edge_index=PAIRS,
            y=torch.arange(n) % 2,
            train_mask=torch.ones(n, dtype=torch.bool),
        )
    )
    assert graphs.split_source.startswith("made:")
    assert "no val_mask and no test_mask: a split is made, train_mask not used" in graphs.notes


def test_a_list_is_a_set_of_graphs() -> None:
    graphs = load([data(y=torch.tensor([1])), data(y=torch.tensor([0])), data(y=torch.tensor([1]))])
    assert (graphs.level, graphs.num_items, graphs.ptr.tolist()) == ("graph", 3, [0, 3, 6, 9])
    assert graphs.y is not None
    assert graphs.y.tolist() == [1, 0, 1]
    assert int(graphs.edge_index.max()) == 8


def test_a_graph_without_a_label_among_others_is_unlabelled() -> None:
    graphs = load([data(y=torch.tensor([4])), data(), data(y=torch.tensor(6))])
    assert graphs.y is not None
    assert graphs.y.tolist() == [0, -1, 1]
    assert graphs.classes == ("4", "6")


def test_equivalent_inputs_give_equal_graphs(tmp_path: Path) -> None:
    many = [data(y=torch.tensor([i % 2]), edge_attr=torch.rand(2, 2)) for i in range(4)]
    wanted = load(many).fingerprint()
    assert load(Held(many)).fingerprint() == wanted
    assert load(tuple(many)).fingerprint() == wanted
    assert load(Batch.from_data_list(many)).fingerprint() == wanted
    torch.save(many, tmp_path / "list.pt")
    graphs = load(tmp_path / "list.pt")
    assert (graphs.fingerprint(), graphs.name) == (wanted, "list")
    assert graphs.spec == {"data": str(tmp_path / "list.pt"), "nodes": None}
    torch.save(many[0], tmp_path / "one.pt")
    assert load(tmp_path / "one.pt").fingerprint() == load(many[0]).fingerprint()


def test_a_dataset_of_one_graph_is_a_single_graph() -> None:
    one = data(y=torch.tensor([0, 1, 1]))
    assert load(Held([one])).level == "node"
    assert load([one]).fingerprint() == load(one).fingerprint()
    assert load([data(y=torch.tensor([1]))]).level == "graph"
    assert load(Held([one])).name == "held"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (HeteroData(), "HeteroData has .*to_homogeneous"),
        ([HeteroData()], "item 0 is a HeteroData"),
        ([], "the list is empty"),
        ([data(), 3], "item 1 is a int"),
        (3, "is a int; structmae reads a PyG Data"),
        (Data(), "neither x nor edge_index"),
        (data(edge_index=PAIRS.t()[:1]), r"edge_index is torch.int64 \(1, 2\)"),
        (data(edge_index=PAIRS.float()), "edge_index is torch.float32"),
        (data(edge_attr=torch.ones(5, 1)), r"edge_attr is torch.float32 \(5, 1\); .* 2 rows"),
        (data(x=torch.ones(3, 2, 2)), "x is torch.float32"),
        (data(x=[1, 2, 3]), "x is a list"),
        ([data(), data(x=torch.ones(3, 5))], "graph 1 has 5 columns in x, others have 2"),
        ([data(), data(edge_attr=torch.ones(2, 1))], "graph 1 has 1 columns in edge_attr|graph 0 has 0 columns"),
        ([data(), data(edge_index=PAIRS + 1)], "graph 1: edge 1 is 2 -> 3, but its nodes run from 0 to 2"),
        (
            data(
                train_mask=torch.ones(2).bool(),
                val_mask=torch.ones(3).bool(),
                test_mask=torch.ones(3).bool(),
                y=torch.tensor([0, 1, 1]),
            ),
            r"train_mask is torch.bool \(2,\)",
        ),
    ],
)
def test_what_is_no_graph_is_refused(value: object, message: str) -> None:
    with pytest.raises(StructmaeError, match=message):
        load(value)  # type: ignore[arg-type]


class Custom:
    pass


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    torch.save(Custom(), tmp_path / "custom.pt")
    with pytest.raises(StructmaeError, match="Custom, which could run code of its own"):
        load(tmp_path / "custom.pt")
    torch.save(Batch.from_data_list([data(), data()]), tmp_path / "batch.pt")
    with pytest.raises(StructmaeError, match=r"holds a PyG Batch.*Save batch\.to_data_list\(\)"):
        load(tmp_path / "batch.pt")
    torch.save({"weights": torch.ones(2)}, tmp_path / "weights.pt")
    with pytest.raises(StructmaeError, match=r"weights\.pt: is a dict; structmae reads a PyG Data"):
        load(tmp_path / "weights.pt")


@pytest.mark.parametrize("cut", [0, 1, 10, 400, -1, -30])
def test_a_truncated_file_is_one_error(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.pt"
    torch.save(data(), path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(StructmaeError, match=r"cut\.pt: not a file that torch\.save wrote, or truncated"):
        load(path)


def test_text_is_no_pt_file(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_text("src,dst\n1,2\n")
    with pytest.raises(StructmaeError, match="not a file that torch"):
        load(tmp_path / "a.pt")


def test_nodes_do_not_go_with_objects(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nodes= goes with an edge table"):
        load(data(), nodes=tmp_path / "n.csv")
