import gzip
import hashlib
import json
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import Data

from structmae.data import catalog, describe, fetch, kind_of, load, load_series, where
from structmae.data.catalog import Card
from structmae.errors import StructmaeError, UsageError

TS = "@classLabel true a b\n@data\n1,2,3:4,5,6:a\n3,2:1,0:b\n"


@pytest.fixture
def series_card(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Card]:
    """`series_card("exchange_rate", {"exchange_rate.txt.gz": bytes})` gives the card the checksums of these files."""

    def change(name: str, files: dict[str, bytes]) -> Card:
        known = catalog.cards()
        sums = {
            file: {**known[name].files[file], "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for file, data in files.items()
        }
        card = Card(**{**vars(known[name]), "files": sums})
        monkeypatch.setattr(catalog, "cards", lambda: {**known, name: card})
        return card

    return change


def exchange(rows: int = 4000) -> bytes:
    lines = (",".join(f"{row + channel / 10:.6f}" for channel in range(8)) for row in range(rows))
    return gzip.compress("\n".join(lines).encode())


def toy(folder: Path, name: str) -> dict[str, bytes]:
    """A pair of .ts files for the card of BasicMotions or JapaneseVowels."""
    folder.mkdir(parents=True)
    files = {f"{name}_{part}.ts": TS.encode() for part in ("TRAIN", "TEST")}
    for file, data in files.items():
        (folder / file).write_bytes(data)
    return files


@pytest.mark.usefixtures("no_data_root")
def test_a_simulation_needs_no_file() -> None:
    assert where("lorenz96") == "simulated"
    assert load("lorenz96").card == "lorenz96"
    described = describe("lorenz96")
    assert json.loads(json.dumps(described)) == described


def test_a_table_without_names(data_root: Path, series_card: Callable[..., Card]) -> None:
    (data_root / "series").mkdir()
    (data_root / "series" / "exchange_rate.txt.gz").write_bytes(exchange())
    series_card("exchange_rate", {"exchange_rate.txt.gz": exchange()})
    series = load("Exchange_Rate")
    assert (series.name, series.card, series.level) == ("exchange_rate", "exchange_rate", "panel")
    assert series.values.shape == (4000, 8)
    assert series.values[3].tolist() == np.float32([3 + c / 10 for c in range(8)]).tolist()
    assert (series.stamps, series.period, series.horizons) == (None, 1, (96, 192, 336))
    assert series.spec == {"data": "exchange_rate"}
    assert where("exchange_rate") == "$STRUCTMAE_DATA/series"


def test_fixed_borders(data_root: Path, series_card: Callable[..., Card]) -> None:
    hours = pd.date_range("2016-07-01", periods=15_000, freq="h").astype(str)
    frame = pd.DataFrame({"date": hours, "HUFL": np.arange(15_000) / 7, "OT": 1.0})
    data = frame.to_csv(index=False).encode()
    (data_root / "series").mkdir()
    (data_root / "series" / "ETTh1.csv").write_bytes(data)
    series_card("etth1", {"ETTh1.csv": data})
    series = load("etth1")
    assert [part.tolist() for part in series.split.values()] == [[0, 8640], [8640, 11520], [11520, 14400]]
    assert (series.num_rows, series.period, series.horizons) == (15_000, 24, (96, 192, 336, 720))
    assert str(series.following(1)[0]) == str(pd.Timestamp(hours[-1]) + pd.Timedelta(hours=1))
    other = load("etth1", split="0.6/0.2/0.2", channels="OT", kind="series")
    assert other.spec == {"data": "etth1", "split": "0.6/0.2/0.2", "channels": "OT", "kind": "series"}
    assert load(**other.spec).fingerprint() == other.fingerprint()


def test_a_changed_file_is_refused(data_root: Path) -> None:
    (data_root / "series").mkdir()
    (data_root / "series" / "ETTh1.csv").write_text("date,OT\n2016-07-01,1\n")
    with pytest.raises(StructmaeError, match=r"ETTh1\.csv: truncated or changed"):
        load("etth1")


@pytest.mark.usefixtures("no_data_root")
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("etth1", r"ETTh1\.csv into \$STRUCTMAE_DATA/series/ \(not set\)\. No download is needed for .*lorenz96"),
        ("los-loop", r"los-loop: no file of it is here, and it is not downloaded\.\nPut los_speed\.csv, los_adj\.csv"),
        ("basicmotions", r"BasicMotions_TEST\.ts into \$STRUCTMAE_DATA/uea/BasicMotions/.* or install sktime"),
    ],
)
def test_nothing_here_and_no_network(name: str, place: str) -> None:
    with pytest.raises(StructmaeError, match=place):
        load(name)


@pytest.mark.usefixtures("no_data_root")
def test_a_download_leaves_the_other_sets_of_the_folder(
    series_card: Callable[..., Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = {"exchange_rate.txt.gz": exchange()}
    card = series_card("exchange_rate", served)
    folder = catalog.cache_root() / "series"
    folder.mkdir(parents=True)
    (folder / "ETTh1.csv").write_text("mine")
    addresses = []

    def download(url: str, path: Path, _: Card) -> None:
        addresses.append(url)
        path.write_bytes(served[path.name])

    monkeypatch.setattr(fetch, "_download", download)
    assert load("exchange_rate").num_rows == 4000
    assert addresses == [card.files["exchange_rate.txt.gz"]["url"]]
    assert (folder / "ETTh1.csv").read_text() == "mine"
    assert sorted(file.name for file in catalog.cache_root().iterdir()) == ["series"]
    load("exchange_rate")
    assert len(addresses) == 1


@pytest.mark.parametrize("root", ["given", "cache", "sktime"])
def test_where_a_set_of_the_archive_is_found(
    root: str, data_root: Path, tmp_path: Path, series_card: Callable[..., Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {
        "given": data_root / "uea" / "BasicMotions",
        "cache": catalog.cache_root() / "uea" / "BasicMotions",
        "sktime": tmp_path / "site" / "sktime" / "datasets" / "data" / "BasicMotions",
    }
    files = toy(places[root], "BasicMotions")
    series_card("basicmotions", files)
    spec = ModuleSpec("sktime", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "site" / "sktime")]
    monkeypatch.setattr(catalog.importlib.util, "find_spec", lambda name: spec if name == "sktime" else None)
    series = load("BasicMotions")
    assert "sktime" not in sys.modules
    assert (series.name, series.num_items, series.classes) == ("basicmotions", 4, ("a", "b"))
    assert np.diff(series.ptr).tolist() == [3, 2, 3, 2]
    assert [part.tolist() for part in series.split.values()] == [[0, 1], [], [2, 3]]
    assert series.notes == ("recordings of 2 to 3 steps",)
    expected = "$STRUCTMAE_DATA/uea/BasicMotions" if root == "given" else str(places[root])
    assert where("basicmotions") == expected


def test_a_folder_and_a_file_of_ones_own(tmp_path: Path) -> None:
    toy(tmp_path / "Mine", "Mine")
    series = load(tmp_path / "Mine")
    assert (series.name, series.num_items) == ("Mine", 4)
    assert load(**series.spec).fingerprint() == series.fingerprint()
    one = load(str(tmp_path / "Mine" / "Mine_TRAIN.ts"))
    assert one.num_items == 2
    assert one.split_source.startswith("made: stratified 70 / 0 / 30 %")


def test_options_are_kept_in_the_spec(tmp_path: Path) -> None:
    frame = pd.DataFrame({"when": pd.date_range("2024-01-01", periods=60).repeat(2), "sensor": ["a", "b"] * 60})
    frame["reading"] = np.arange(120.0)
    frame.to_csv(tmp_path / "t.csv", index=False)
    options: dict[str, Any] = {"time": "when", "id": "sensor", "value": "reading", "split": "30/10/10"}
    series = load(tmp_path / "t.csv", channels=["b", "a"], **options)
    assert series.spec == {"data": str(tmp_path / "t.csv"), **options, "channels": ["b", "a"]}
    again = load(**json.loads(json.dumps(series.spec)))
    assert again.fingerprint() == series.fingerprint()
    assert again.channels == ("b", "a")


def test_objects_have_no_spec_and_series_pass_through() -> None:
    series = load(pd.DataFrame({"a": np.arange(50.0)}))
    assert series.spec == load(np.zeros((50, 2)), kind="series").spec == {}
    assert load(series) is series
    assert load_series(series) is series
    assert load_series(pd.Series(np.arange(50.0))).channels == ("y",)


GRAPH = Data(x=torch.zeros(2, 1), edge_index=torch.tensor([[0, 1], [1, 0]]))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("cora", "graph"),
        ("enzymes", "graph"),
        ("sbm:n=100", "graph"),
        ("ETTh1", "series"),
        ("lorenz96", "series"),
        (GRAPH, "graph"),
        ([GRAPH], "graph"),
        ((GRAPH, GRAPH), "graph"),
        (np.zeros((4, 2)), "series"),
        (torch.zeros(4, 2), "series"),
        ((np.zeros((4, 2, 3)), np.zeros(4)), "series"),
        ((torch.zeros(4, 2, 3), None, ([0], [1])), "series"),
        (pd.DataFrame({"Source": [1], "target": [2]}), "graph"),
        (pd.DataFrame({"date": ["2024-01-01"], "x": [2]}), "series"),
        (pd.DataFrame({"date": ["2024-01-01"], "from": [2], "to": [3]}), "series"),
        (pd.Series([1.0]), "series"),
    ],
)
def test_the_kind_of_names_and_objects(data: Any, kind: str) -> None:
    assert kind_of(data) == kind
    assert kind_of(data, "graph") == "graph"
    assert kind_of(data, "series") == "series"


def test_the_kind_of_files(tmp_path: Path) -> None:
    texts = {"src.csv": "SRC,dst,w\n1,2,3\n", "st.csv": "source,target\n1,2\n", "wide.csv": "date,x\n2024-01-01,2\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "z.csv.gz").write_bytes(gzip.compress(b"src,dst\n1,2\n"))
    pd.DataFrame({"src": [1], "dst": [2]}).to_parquet(tmp_path / "g.parquet")
    pd.DataFrame({"a": [1.0]}, index=pd.DatetimeIndex(["2024-01-01"])).to_parquet(tmp_path / "s.parquet")
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    (tmp_path / "x.ts").write_text(TS)
    torch.save(GRAPH, tmp_path / "g.pt")
    toy(tmp_path / "uea", "Mine")
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "edges.csv").write_text("src,dst\n1,2\n")
    kinds = {
        "src.csv": "graph", "st.csv": "graph", "wide.csv": "series", "z.csv.gz": "graph", "g.parquet": "graph",
        "s.parquet": "series", "a.npy": "series", "x.ts": "series", "g.pt": "graph", "uea": "series", "graph": "graph",
    }  # fmt: skip
    assert {name: kind_of(tmp_path / name) for name in kinds} == kinds
    assert load(str(tmp_path / "z.csv.gz")).num_nodes == 2


def test_a_table_that_may_be_a_graph_is_asked_about(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("from,to\n" + "1,2\n3,4\n" * 20)
    with pytest.raises(StructmaeError, match=r"kind unclear: columns are from, to.*--kind graph.*--kind series"):
        load(tmp_path / "t.csv")
    assert load(tmp_path / "t.csv", kind="graph").num_nodes == 4
    assert load(tmp_path / "t.csv", kind="series").channels == ("from", "to")
    assert load(tmp_path / "t.csv", kind="series").spec["kind"] == "series"


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("karate", {"split": "0.6/0.2/0.2"}, "split= is for series, and this is a graph"),
        ("karate", {"channels": "a"}, "channels= is for series"),
        ("lorenz96", {"undirected": False}, "undirected= is for graphs, and this is a series"),
        ("lorenz96", {"nodes": "nodes.csv"}, "nodes= is for graphs"),
        ("karate", {"kind": "series"}, "'karate' is a set of graph data, no series"),
        ("lorenz96", {"kind": "graph"}, "'lorenz96' is a series, no graph"),
        ("etth2", {}, "unknown data set 'etth2'. Did you mean etth1"),
        ("lorenz96", {"channels": "x0,y0"}, "no channel 'y0'; there are 'x0', 'x1'"),
        ("lorenz96", {"time": " "}, "time=' ' is no column name"),
    ],
)
def test_what_does_not_go_together(data: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(StructmaeError, match=message):
        load(data, **options)


def test_schemas_go_with_their_kind() -> None:
    graph, series = load("karate"), load("lorenz96")
    with pytest.raises(UsageError, match="the schema is one of a series, and this is a graph"):
        load("karate", schema=series.schema)
    with pytest.raises(UsageError, match="the schema is one of a graph"):
        load("lorenz96", schema=graph.schema)


def test_a_missing_file(tmp_path: Path) -> None:
    for path in ("missing.csv", tmp_path / "missing.npy", "a/b"):
        with pytest.raises(StructmaeError, match="no such file"):
            load_series(path)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(StructmaeError, match=r"unknown kind of file '\.json'"):
        load_series(tmp_path / "x.json")
