"""Tiny raw folders in the formats of the public collections, and a wall around the network and the real cache."""

import hashlib
import pickle
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from structmae.data import catalog
from structmae.data.catalog import Card


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in a test")

    monkeypatch.setenv("STRUCTMAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty $STRUCTMAE_DATA."""
    root = tmp_path / "given"
    root.mkdir()
    monkeypatch.setenv("STRUCTMAE_DATA", str(root))
    return root


@pytest.fixture
def no_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRUCTMAE_DATA", raising=False)


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }


@pytest.fixture
def planetoid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Path, Card]]:
    """`planetoid(root, "Cora")` writes a set of 620 nodes, 3 classes and 6 words below root, and gives it a card.

    "CiteSeer" has a gap in its test indices: node 610 is in no file.
    """

    def write(root: Path, name: str = "Cora") -> tuple[Path, Card]:
        folder = root / "planetoid" / name / "raw"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        train, everything, total = 9, 600, 620
        gap = name == "CiteSeer"
        test = np.array([index for index in range(everything, total) if not (gap and index == 610)])
        shuffled = rng.permutation(test)
        x = (rng.random((total, 6)) < 0.4).astype(np.float32)
        y = np.eye(3, dtype=np.int32)[np.arange(total) % 3]
        pieces: dict[str, Any] = {
            "x": sp.csr_matrix(x[:train]),
            "allx": sp.csr_matrix(x[:everything]),
            "tx": sp.csr_matrix(x[shuffled]),
            "y": y[:train],
            "ally": y[:everything],
            "ty": y[shuffled],
            "graph": {i: [(i + 1) % everything, (i - 1) % everything] for i in range(everything)}
            | {int(i): [0] for i in test},
        }
        pieces["graph"][0] = [*pieces["graph"][0], *(int(i) for i in test), 0]  # a self-loop among them
        for part, value in pieces.items():
            (folder / f"ind.{name.lower()}.{part}").write_bytes(pickle.dumps(value, protocol=2))
        (folder / f"ind.{name.lower()}.test.index").write_text("".join(f"{index}\n" for index in shuffled))
        known = catalog.cards()
        card = Card(**{**vars(known[name.lower()]), "files": _files(folder)})
        monkeypatch.setattr(catalog, "cards", lambda: {**known, card.name: card})
        return folder, card

    return write


@pytest.fixture
def tu(tmp_path: Path) -> Callable[..., Path]:
    """`tu(root, "AIDS", node_labels=...)` writes three graphs of 3, 2 and 1 nodes; keywords replace or add files.

    A triangle, an edge and a lone node; each edge in both directions, the triangle's first edge listed twice.
    """

    def write(root: Path, name: str = "AIDS", **files: str | None) -> Path:
        folder = root / "tu" / name / "raw"
        folder.mkdir(parents=True)
        content: dict[str, str | None] = {
            "A": "1, 2\n2, 1\n1, 2\n2, 3\n3, 2\n1, 3\n3, 1\n4, 5\n5, 4\n",
            "graph_indicator": "1\n1\n1\n2\n2\n3\n",
            "graph_labels": "1\n-1\n1\n",
            **files,
        }
        for part, text in content.items():
            if text is not None:
                (folder / f"{name}_{part}.txt").write_text(text)
        return folder

    return write
