"""The public sets, where $STRUCTMAE_DATA has them: what is loaded agrees with the cards."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from structmae.data import cards, load, load_series, where
from structmae.data.catalog import find

pytestmark = pytest.mark.skipif("STRUCTMAE_DATA" not in os.environ, reason="STRUCTMAE_DATA is not set")
SERIES = [name for name, card in cards().items() if card.kind == "series"]
GRAPHS = [name for name, card in cards().items() if card.loader in ("planetoid", "tu")]


def listing(root: str) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in Path(root).rglob("*"))


@pytest.mark.parametrize("name", GRAPHS)
def test_statistics_are_those_of_the_card(name: str) -> None:
    card = cards()[name]
    if find(card) is None:
        pytest.skip(f"$STRUCTMAE_DATA has no {name}")
    before = listing(os.environ["STRUCTMAE_DATA"])
    graphs = load(name)
    statistics = card.statistics
    assert graphs.num_items == statistics["graphs"]
    assert graphs.num_nodes == statistics["nodes"]
    assert graphs.num_edges == 2 * statistics["edges"]
    assert graphs.x.size(1) == statistics["features"]
    assert len(graphs.classes) == statistics["classes"]
    assert graphs.y is not None
    if card.level == "graph":
        assert torch.bincount(graphs.y).tolist() == statistics["class_sizes"]
        assert graphs.schema.edge_width == statistics["edge_labels"]
        labels = statistics["node_labels"]
        assert graphs.schema.source == ("given" if labels else "degree")
        assert not labels or len(graphs.schema.categories[0]) == labels
    else:
        assert graphs.split is not None
        assert {key: len(index) for key, index in graphs.split.items()} == {
            key: statistics[key] for key in ("train", "validation", "test")
        }
        degree = torch.bincount(graphs.edge_index[1], minlength=graphs.num_nodes)
        assert int((degree == 0).sum()) == statistics["isolated"]
        per_class = statistics["train"] // statistics["classes"]
        assert torch.bincount(graphs.y[graphs.split["train"]]).tolist() == [per_class] * statistics["classes"]
    assert where(name) == f"$STRUCTMAE_DATA/{card.folder}"
    assert listing(os.environ["STRUCTMAE_DATA"]) == before


def test_citeseer_has_fifteen_nodes_without_a_label() -> None:
    graphs = load("citeseer")
    assert graphs.y is not None
    assert int((graphs.y < 0).sum()) == 15
    assert int((graphs.x[graphs.y < 0].abs().sum(1) > 0).sum()) == 0


@pytest.mark.parametrize("name", SERIES)
def test_series_are_those_of_the_card(name: str) -> None:
    card = cards()[name]
    if where(name) is None:
        pytest.skip(f"$STRUCTMAE_DATA has no {name}")
    before = listing(os.environ["STRUCTMAE_DATA"])
    series = load_series(name)
    statistics = card.statistics
    assert (series.level, series.num_channels) == (card.level, statistics["channels"])
    if card.level == "panel":
        assert series.num_rows == statistics["rows"]
        sizes = {key: int(border[1] - border[0]) for key, border in series.split.items()}
        assert series.horizons == tuple(card.series["horizons"])
        assert series.period == card.series["period"]
    else:
        lengths = np.diff(series.ptr)
        assert (series.num_items, len(series.classes)) == (statistics["recordings"], statistics["classes"])
        assert [lengths.min(), lengths.max()] == statistics["steps"]
        sizes = {key: len(index) for key, index in series.split.items()}
    assert sizes == {key: statistics[key] for key in ("train", "validation", "test")}
    assert not np.isnan(series.values).any()
    assert listing(os.environ["STRUCTMAE_DATA"]) == before


def test_etth1_as_the_field_reads_it() -> None:
    if where("etth1") is None:
        pytest.skip("$STRUCTMAE_DATA has no etth1")
    series = load_series("etth1")
    assert series.channels == ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    assert [part.tolist() for part in series.split.values()] == [[0, 8640], [8640, 11520], [11520, 14400]]
    assert series.stamps is not None
    assert [str(series.stamps[at]) for at in (0, -1)] == ["2016-07-01 00:00:00", "2018-06-26 19:00:00"]
    assert str(series.following(1)[0]) == "2018-06-26 20:00:00"
    # Mean and deviation of OT in the first 8,640 rows, by numpy from the file.
    table = np.loadtxt(
        Path(os.environ["STRUCTMAE_DATA"]) / "series" / "ETTh1.csv", delimiter=",", skiprows=1, usecols=7
    )
    mean, deviation = series.scale()
    np.testing.assert_allclose([mean[6], deviation[6]], [table[:8640].mean(), table[:8640].std()], rtol=1e-6)
