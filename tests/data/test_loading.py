from pathlib import Path
from typing import Any

import pytest

from structmae.data import Images, ImageSchema, Schema, Texts, load, load_graphs
from structmae.errors import StructmaeError, UsageError


def test_unknown_kinds_and_names() -> None:
    with pytest.raises(UsageError, match="kind 'video' does not exist; there are graph, series, image and text"):
        load("karate", kind="video")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"unknown data set 'karat'\. Did you mean karate"):
        load("karat")
    with pytest.raises(UsageError, match="set of the catalog"):
        load("karate", nodes="nodes.csv")


@pytest.mark.parametrize("text", ["missing.csv", "./missing", "a/b", "missing.pt", "x.PARQUET"])
def test_a_missing_file_is_no_unknown_name(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StructmaeError, match="no such file") as raised:
        load(text)
    assert raised.value.exit_code == 1


def test_missing_node_tables_and_unknown_suffixes(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("src,dst\n1,2\n")
    with pytest.raises(StructmaeError, match=r"nodes\.csv: no such file"):
        load(tmp_path / "edges.csv", nodes=tmp_path / "nodes.csv")
    (tmp_path / "edges.json").write_text("{}")
    with pytest.raises(StructmaeError, match=r"unknown kind of file '\.json'"):
        load(tmp_path / "edges.json")


def test_a_name_of_the_catalog_wins_over_a_folder_and_a_path_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "karate").mkdir()
    (tmp_path / "karate" / "edges.csv").write_text("src,dst\n1,2\n")
    assert load("karate").num_nodes == 34
    assert load("./karate").num_nodes == 2
    assert load("./karate").spec["data"] == str(tmp_path / "karate")


def test_directed_graphs_say_so_in_their_spec(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("src,dst\n1,2\n")
    graphs = load(tmp_path, undirected=False)
    assert graphs.num_edges == 1
    assert graphs.spec["undirected"] is False
    assert load(**graphs.spec).fingerprint() == graphs.fingerprint()


@pytest.mark.usefixtures("no_data_root")
def test_nothing_here_and_no_network() -> None:
    with pytest.raises(StructmaeError, match=r"MUTAG_A\.txt.*\$STRUCTMAE_DATA/tu/MUTAG/raw"):
        load("mutag")


@pytest.mark.parametrize(
    ("data", "kind"),
    [("digits-images", Images), ("Digits-Maps", Images), ("pydoc-topics", Texts), (["a text", "another"], Texts)],
)
def test_images_and_texts(data: Any, kind: type) -> None:
    """Of a name, read again by the spec."""
    found = load(data)
    assert type(found) is kind
    assert (load(**found.spec).fingerprint() == found.fingerprint()) if found.spec else isinstance(data, list)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("digits-images", {"split": "0.6/0.2/0.2"}, "split= is for series, and this is a set of images"),
        ("digits-images", {"nodes": "nodes.csv"}, "nodes= is for graphs, and this is a set of images"),
        ("pydoc-topics", {"undirected": False}, "undirected= is for graphs, and this is a text"),
        ("digits-images", {"schema": Schema(3)}, "the schema is one of a graph, and this is a set of images"),
        (
            "karate",
            {"schema": ImageSchema(1, 8, 8, (("image", 1),))},
            "the schema is one of a set of images, and this is a graph",
        ),
        ("digits-images", {"kind": "graph"}, "'digits-images' is a set of images, no graph"),
        ("digits-images", {"kind": "text"}, "'digits-images' is a set of kind image, no text"),
        ("pydoc-topics", {"kind": "image"}, "'pydoc-topics' is a set of kind text, no images"),
    ],
)
def test_options_and_kinds_that_do_not_fit(data: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(StructmaeError, match=message):
        load(data, **options)


@pytest.mark.parametrize("kind", ["series", "image", "text"])
def test_load_graphs_is_for_graphs(kind: Any) -> None:
    with pytest.raises(UsageError, match=f"kind '{kind}' is not read as graphs. Use load or load_"):
        load_graphs("karate", kind=kind)
