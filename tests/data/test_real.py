"""The public sets, where $STRUCTMAE_DATA has them: what is loaded agrees with the cards."""

import os
from pathlib import Path

import pytest
import torch

from structmae.data import cards, load, where
from structmae.data.catalog import find

pytestmark = pytest.mark.skipif("STRUCTMAE_DATA" not in os.environ, reason="STRUCTMAE_DATA is not set")
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
