import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from structmae.data import catalog
from structmae.data.catalog import Card
from structmae.errors import UsageError

NAMES = [
    "basicmotions",
    "citations",
    "citeseer",
    "cora",
    "digits",
    "digits-images",
    "digits-maps",
    "etth1",
    "exchange_rate",
    "imdb-binary",
    "imdb-multi",
    "japanesevowels",
    "karate",
    "lorenz96",
    "los-loop",
    "mutag",
    "nci1",
    "proteins",
    "pubmed",
    "pydoc-topics",
    "sbm",
]
LEVELS = {"graph": ("node", "graph"), "series": ("panel", "sample"), "image": ("image",), "text": ("text",)}
HERE = ("simulated", "bundled")


def test_every_card_is_complete() -> None:
    cards = catalog.cards()
    assert sorted(cards) == sorted(NAMES)
    for name, card in cards.items():
        assert card.name == name
        assert card.level in LEVELS[card.kind]
        assert card.loader in ("planetoid", "tu", *HERE, "series", "uea")
        assert (name in catalog.NO_DOWNLOAD) == (card.loader in HERE)
        assert all((card.title, card.source, card.licence, card.split, card.citation, card.statistics)), name
        assert bool(card.files) == (card.loader not in HERE)
        fetched = card.loader in ("planetoid", "tu") or all("url" in entry for entry in card.files.values())
        assert card.download == (fetched and card.loader not in HERE)
        for entry in card.files.values():
            assert re.fullmatch("[0-9a-f]{64}", entry["sha256"])
            assert entry["bytes"] > 0


def test_listing_needs_neither_torch_nor_torch_geometric() -> None:
    code = (
        "import sys, structmae.data.catalog as c; c.cards(); print([m for m in sys.modules if m.startswith('torch')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["cora", "CORA", "Cora", "sbm:n=100", "SBM:seed=3"])
def test_names_are_found_without_regard_to_case(name: str) -> None:
    assert catalog.is_known(name)
    assert catalog.resolve(name).name == name.partition(":")[0].lower()


def test_a_tu_set_without_a_card_has_its_own_spelling() -> None:
    card = catalog.resolve("enzymes")
    assert (card.name, card.folder, card.prefix, card.loader) == ("enzymes", "tu/ENZYMES/raw", "ENZYMES", "tu")
    assert catalog.needed_files(card) == ("ENZYMES_A.txt", "ENZYMES_graph_indicator.txt")


@pytest.mark.parametrize(("name", "near"), [("coar", "cora"), ("PROTIENS", "proteins"), ("enzyme", "ENZYMES")])
def test_an_unknown_name_has_near_misses(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=rf"unknown data set '{name}'\. Did you mean .*{near}.*`structmae data` lists"):
        catalog.resolve(name)


@pytest.mark.usefixtures("no_data_root")
def test_where_a_set_is(
    planetoid: Callable[..., tuple[Path, Card]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert catalog.where("citations") == "simulated"
    assert catalog.where("Digits-Images") == "bundled"
    assert catalog.where("cora") is None
    cached, _ = planetoid(catalog.cache_root())
    assert catalog.where("Cora") == str(cached)
    given, card = planetoid(tmp_path / "given")
    monkeypatch.setenv("STRUCTMAE_DATA", str(tmp_path / "given"))
    assert catalog.where("cora") == "$STRUCTMAE_DATA/planetoid/Cora/raw"
    # A folder that lacks a file does not hide the whole one in the cache.
    (given / next(iter(card.files))).unlink()
    assert catalog.where("cora") == str(cached)


def test_describe_is_plain() -> None:
    import json

    described = catalog.describe("karate")
    assert json.loads(json.dumps(described)) == described
    assert described["where"] == "simulated"
    assert described["statistics"]["nodes"] == 34
