from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structmae.data import load
from structmae.data.graphs import Graphs
from structmae.errors import StructmaeError, UsageError

EDGES = "src,dst\na,b\nb,c\n"
NODES = "id,size,kind,label,split\na,1.5,x,red,train\nb,2.5,y,blue,val\nc,3.5,x,red,test\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "edges.csv").write_text(EDGES)
    (tmp_path / "nodes.csv").write_text(NODES)
    return tmp_path


def read(folder: Path, edges: str | None = None, nodes: str | None = None, **more: object) -> Graphs:
    if edges is not None:
        (folder / "edges.csv").write_text(edges)
    if nodes is not None:
        (folder / "nodes.csv").write_text(nodes)
    return load(folder, **more)  # type: ignore[arg-type]


def test_a_folder_of_two_tables(folder: Path) -> None:
    graphs = load(folder)
    assert graphs.ids == ("a", "b", "c")
    assert graphs.x.tolist() == [[1.5, 0.0], [2.5, 1.0], [3.5, 0.0]]
    assert graphs.schema.names == ("size", "kind")
    assert graphs.schema.categories == {1: ("x", "y")}
    assert graphs.classes == ("blue", "red")
    assert graphs.y is not None
    assert graphs.y.tolist() == [1, 0, 1]
    assert graphs.split is not None
    assert [index.tolist() for index in graphs.split.values()] == [[0], [1], [2]]
    assert graphs.split_source == "column split"
    assert graphs.notes == ("columns: 1 numeric, 1 categorical (kind: 2 values)", "edges made undirected (2 -> 4)")
    assert load(**graphs.spec).fingerprint() == graphs.fingerprint()
    assert graphs.spec == {"data": str(folder), "nodes": None}


def test_two_files_are_the_same_as_a_folder(folder: Path) -> None:
    graphs = load(folder / "edges.csv", nodes=folder / "nodes.csv")
    assert graphs.fingerprint() == load(folder).fingerprint()
    assert graphs.spec == {"data": str(folder / "edges.csv"), "nodes": str(folder / "nodes.csv")}


def test_parquet_is_the_same_as_csv(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "parquet"
    other.mkdir()
    for name in ("edges", "nodes"):
        pd.read_csv(folder / f"{name}.csv").to_parquet(other / f"{name}.parquet")
    assert load(other).fingerprint() == load(folder).fingerprint()


def test_source_and_target_in_any_case(folder: Path) -> None:
    assert read(folder, "Source,TARGET\na,b\nb,c\n").fingerprint() == read(folder, EDGES).fingerprint()


def test_without_a_node_table_the_ids_are_sorted(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("src,dst\n10,9\n9,2\n")
    graphs = load(tmp_path)
    assert graphs.ids == (2, 9, 10)
    assert graphs.schema.source == "degree"
    assert graphs.x.flatten().tolist() == [1, 2, 1]
    (tmp_path / "edges.csv").write_text("src,dst\n10,9\n9,02\n")
    assert load(tmp_path / "edges.csv").ids == ("02", "10", "9")


def test_ids_are_compared_as_text_with_whole_numbers_alike(folder: Path) -> None:
    graphs = read(folder, "src,dst\n1.0,2\n2,3.0\n", "id,size\n3,1\n2,1\n1,1\n")
    assert graphs.ids == (3, 2, 1)
    assert graphs.edge_index.t().tolist() == [[1, 0], [0, 1], [2, 1], [1, 2]]


def test_a_node_may_be_called_na(folder: Path) -> None:
    graphs = read(folder, "src,dst\nNA,null\n", "id,size\nNA,1\nnull,2\n")
    assert graphs.ids == ("NA", "null")


@settings(max_examples=30)
@given(
    names=st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6),
        min_size=2,
        max_size=8,
        unique=True,
    ),
    data=st.data(),
)
def test_csv_round_trip(tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("csv")
    n = len(names)
    ends = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=12))
    values = data.draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=n, max_size=n))
    pd.DataFrame({"id": names, "v": values}).to_csv(folder / "nodes.csv", index=False)
    pd.DataFrame(
        {"src": [names[a] for a, _ in ends], "dst": [names[b] for _, b in ends]}, columns=["src", "dst"]
    ).to_csv(folder / "edges.csv", index=False)
    graphs = load(folder, categorical="none")
    assert graphs.ids is not None
    if not all(name.isdigit() for name in names):
        assert list(graphs.ids) == names
    assert graphs.x.flatten().tolist() == pytest.approx(values)
    wanted = {(a, b) for a, b in ends if a != b} | {(b, a) for a, b in ends if a != b}
    assert set(map(tuple, graphs.edge_index.t().tolist())) == wanted


def test_further_edge_columns_are_attributes(folder: Path) -> None:
    graphs = read(folder, "src,dst,weight,strong\na,b,0.5,1\nb,c,2,0\n")
    assert graphs.edge_attr is not None
    found = dict(zip(map(tuple, graphs.edge_index.t().tolist()), graphs.edge_attr.tolist(), strict=True))
    assert found == {(0, 1): [0.5, 1.0], (1, 0): [0.5, 1.0], (1, 2): [2.0, 0.0], (2, 1): [2.0, 0.0]}


def test_a_header_alone_is_a_graph_without_edges(folder: Path) -> None:
    graphs = read(folder, "src,dst\n")
    assert (graphs.num_nodes, graphs.num_edges) == (3, 0)
    assert "the graph has no edges" in graphs.notes
    assert read(folder, "src,dst,weight\n").num_edges == 0


def test_blank_lines_do_not_shift_line_numbers(folder: Path) -> None:
    with pytest.raises(StructmaeError, match=r"edges\.csv: line 5 has node 'q'"):
        read(folder, "src,dst\na,b\n\n\nb,q\n\n")


def test_an_unknown_node_is_named_with_its_line(folder: Path) -> None:
    with pytest.raises(StructmaeError) as raised:
        read(folder, "src,dst\na,b\nb,q\nz,a\n")
    assert "line 3 has node 'q', which is not an id in nodes.csv, and so on for 2 edges" in str(raised.value)
    assert "Add the node there, or drop the edge." in str(raised.value)


@pytest.mark.parametrize(
    ("edges", "nodes", "message"),
    [
        ("src,dst\na,\n", None, r"edges\.csv: line 2 has no dst"),
        (None, NODES + "a,1,x,red,\n", r"id 'a' is on line 2 and on line 5"),
        (None, NODES.replace("2.5", ""), r"nodes\.csv: feature column 'size' of node 'b' is missing \(1 such cell\)"),
        (None, NODES.replace("2.5,y", "2.5,"), r"feature column 'kind' of node 'b' is missing"),
        (None, NODES.replace("2.5", "inf"), r"feature column 'size' of node 'b' is inf"),
        (None, NODES.replace("blue,val", "blue,dev"), r"line 3 has split 'dev'; it must be train, validation, test"),
        (None, NODES.replace("red", "1").replace("blue", "0.5"), "label 0.5 is not a whole number"),
        (None, NODES.replace("id,", "node,"), "a node table has a column id"),
        (None, "id,Id,v\na,a,1\n", "columns 'id' and 'Id' are both id"),
        (None, "id,v\na,1,2\nb,3,4\n", r"nodes\.csv: not a CSV table"),
        (None, 'id,v\na,"1\nb,2\n', r"nodes\.csv: not a CSV table"),
        ("src,dst,why\na,b,friend\n", None, "column 'why' holds 'friend'.*numbers"),
        ("src,dst,w\na,b,\n", None, "edge 'b' -> 'a' has nan in edge column 0"),
        ("", None, "the file is empty"),
        ("from,to\na,b\n", None, r"kind unclear: columns are from, to; a graph's edge table has src,dst"),
        ("date,value\n2020-01-01,1\n", None, "looks like time series, no graph: give the table itself"),
        ("unique_id,ds,y\n1,2020-01-01,1\n", None, "looks like time series"),
    ],
)
def test_what_is_wrong_is_named_in_one_message(
    folder: Path, edges: str | None, nodes: str | None, message: str
) -> None:
    with pytest.raises(StructmaeError, match=message) as raised:
        read(folder, edges, nodes)
    assert len(str(raised.value).splitlines()) <= 3


def test_bytes_that_are_no_table(folder: Path) -> None:
    (folder / "edges.csv").write_bytes(b"\xff\xfe\x00\x81binary\x00")
    with pytest.raises(StructmaeError, match=r"edges\.csv"):
        load(folder)
    (folder / "e.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(StructmaeError, match=r"e\.parquet: not a Parquet table"):
        load(folder / "e.parquet")


def test_no_edge_table_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StructmaeError, match=r"no edges\.csv or edges\.parquet"):
        load(tmp_path)


def test_blank_labels_and_splits_are_unlabelled_and_unused(folder: Path) -> None:
    rows = "".join(f"n{i},1,{'red' if i % 2 else 'blue'},{('train', 'validation', 'test')[i % 3]}\n" for i in range(6))
    graphs = read(folder, "src,dst\nn0,n1\n", "id,v,label,split\n" + rows + "n6,1,,\n")
    assert graphs.y is not None
    assert graphs.y.tolist() == [0, 1, 0, 1, 0, 1, -1]
    assert graphs.split is not None
    assert sum(map(len, graphs.split.values())) == 6


def test_a_split_column_without_a_part_makes_a_split(folder: Path) -> None:
    rows = "".join(f"n{i},1,{i % 2},train\n" for i in range(20))
    graphs = read(folder, "src,dst\nn0,n1\n", "id,v,label,split\n" + rows)
    assert graphs.split_source.startswith("made: stratified")
    assert "split column has no validation and no test node: a split is made" in graphs.notes


def many(n: int = 40) -> str:
    return "id,few,two,lots,flag,real,word\n" + "".join(
        f"n{i},{i % 3},{i % 2},{i},{i % 2 == 0},{i / 7},w{i % 4}\n" for i in range(n)
    )


def categories(graphs: Graphs) -> set[str]:
    assert graphs.schema.names is not None
    return {graphs.schema.names[index] for index in graphs.schema.categories}


def test_which_columns_are_categories(folder: Path) -> None:
    edges = "src,dst\nn0,n1\n"
    assert categories(read(folder, edges, many())) == {"few", "flag", "word"}
    assert categories(load(folder, categorical="none")) == {"flag", "word"}
    assert categories(load(folder, categorical="two,word")) == {"two", "word"}
    chosen = load(folder, categorical=["lots", "word"])
    assert categories(chosen) == {"lots", "word"}
    assert load(**chosen.spec).fingerprint() == chosen.fingerprint()
    assert chosen.x[:, 3].tolist()[:2] == [1.0, 0.0]  # a bool that is not named is a number
    with pytest.raises(UsageError, match=r"no feature column 'wrod'\. Did you mean word\?"):
        load(folder, categorical="wrod")
    with pytest.raises(StructmaeError, match="column 'word' of node 'n0' is 'w0'; the column must hold numbers"):
        load(folder, categorical="few")
    with pytest.raises(StructmaeError, match=r"column 'real' holds 0\.142857"):
        load(folder, categorical="real,word")


def test_a_column_of_comments_is_refused(folder: Path) -> None:
    rows = "".join(f"n{i},text {i}\n" for i in range(1001))
    with pytest.raises(StructmaeError, match=r"column 'note' has 1001 distinct values.*Drop it"):
        read(folder, "src,dst\nn0,n1\n", "id,note\n" + rows)


def test_a_second_table_is_read_by_the_columns_of_the_first(folder: Path) -> None:
    schema = load(folder).schema
    again = read(folder, nodes="kind,extra,id,size\ny,7,c,1\nx,7,b,2\ny,7,a,3\n", schema=schema)
    assert again.x.tolist() == [[1.0, 1.0], [2.0, 0.0], [3.0, 1.0]]
    assert again.schema == schema
    assert "columns ignored: extra (the model was not trained with them)" in again.notes
    with pytest.raises(StructmaeError, match="no column 'size', which the model was trained with"):
        read(folder, nodes="id,kind\na,x\nb,x\nc,x\n", schema=schema)
    with pytest.raises(StructmaeError, match=r"column 'kind' of node 'b' is 'z', a category .* \(it knows 2: x, y\)"):
        read(folder, nodes="id,size,kind\na,1,x\nb,1,z\nc,1,x\n", schema=schema)
    with pytest.raises(StructmaeError, match="column 'size' of node 'a' is 'big'; the column must hold numbers"):
        read(folder, nodes="id,size,kind\na,big,x\nb,1,x\nc,1,x\n", schema=schema)
    weighted = read(folder, "src,dst,w\na,b,1\n", NODES, schema=schema)
    assert "edge columns ignored: the model reads none" in weighted.notes
    assert weighted.edge_attr is None


def test_whole_numbers_keep_their_codes_in_a_second_table(folder: Path) -> None:
    first = read(folder, "src,dst\na,b\n", "id,k\na,5\nb,7\nc,9\n")
    assert first.schema.categories == {0: (5, 7, 9)}
    second = read(folder, nodes="id,k\na,9\nb,9\nc,5\n", schema=first.schema)
    assert second.x.flatten().tolist() == [2.0, 2.0, 0.0]


def test_a_model_of_degrees_ignores_columns(folder: Path) -> None:
    schema = load(folder / "edges.csv").schema
    graphs = load(folder, schema=schema)
    assert torch.equal(graphs.x, load(folder / "edges.csv").x)
    assert "columns ignored: size, kind (the model reads node degrees)" in graphs.notes
