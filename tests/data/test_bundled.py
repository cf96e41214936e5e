import sys

import numpy as np
import pytest
import torch

from structmae.data import Images, Texts, catalog, load
from structmae.errors import StructmaeError


def test_digits() -> None:
    graphs = load("digits")
    card = catalog.resolve("digits").statistics
    assert graphs.x.shape == (1797, 64)
    assert (graphs.x.min().item(), graphs.x.max().item()) == (0.0, 1.0)
    assert graphs.num_edges == 2 * card["edges"]
    assert graphs.split is not None
    assert [len(index) for index in graphs.split.values()] == [200, 500, 1000]
    degree = torch.bincount(graphs.edge_index[1], minlength=1797)
    assert degree.min() >= 5
    # An edge joins two digits one of which is among the other's five nearest.
    x = graphs.x[:].numpy()
    near = np.argsort(((x[:1] - x) ** 2).sum(1))[1:6]
    assert set(near.tolist()) <= set(graphs.edge_index[0][graphs.edge_index[1] == 0].tolist())
    assert graphs.notes == ()


def test_karate() -> None:
    graphs = load("Karate")
    assert (graphs.num_nodes, graphs.num_edges, len(graphs.classes)) == (34, 156, 4)
    assert torch.equal(graphs.x, torch.eye(34))
    assert graphs.split is not None
    assert [len(index) for index in graphs.split.values()] == [11, 11, 12]
    assert graphs.y is not None
    assert all(graphs.y[index].unique().numel() == 4 for index in graphs.split.values())


@pytest.mark.parametrize("name", ["digits-images", "digits-maps"])
def test_digits_as_images(name: str) -> None:
    images = load(name)
    assert isinstance(images, Images)
    card = catalog.resolve(name).statistics
    assert images.x.shape == (card["images"], card["channels"], card["height"], card["width"])
    assert [part for part, _ in images.maps] == card.get("maps", ["image"])
    assert {key: len(rows) for key, rows in images.split.items()} == {
        key: card[key] for key in ("train", "validation", "test")
    }
    graph = load("digits")
    assert torch.equal(images.x[:, 0].flatten(1), graph.x)
    assert torch.equal(images.y, graph.y)
    for rows in images.split.values():
        assert (images.y[rows].bincount(minlength=10) / len(rows) - images.y.bincount() / 1797).abs().max() < 0.005


def test_the_maps_of_digits_by_a_loop() -> None:
    """The gradient is half the difference of the two neighbours, at an edge the difference to the one."""
    x = load("digits-maps").x
    for image, gradient, threshold in x[[0, 700]].tolist():
        for i in range(8):
            for j in range(8):
                down = (image[min(i + 1, 7)][j] - image[max(i - 1, 0)][j]) / (2 if 0 < i < 7 else 1)
                across = (image[i][min(j + 1, 7)] - image[i][max(j - 1, 0)]) / (2 if 0 < j < 7 else 1)
                assert gradient[i][j] == pytest.approx((down**2 + across**2) ** 0.5)
                assert threshold[i][j] == (image[i][j] >= 8 / 16)


def test_pydoc_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = load("pydoc-topics")
    assert isinstance(texts, Texts)
    assert "Assert statements" in dict(zip(texts.titles, texts.documents, strict=True))["assert"]
    card = catalog.resolve("pydoc-topics")
    if sys.version.startswith("3.11.7 "):
        assert (texts.num_items, texts.num_characters) == (card.statistics["documents"], card.statistics["characters"])
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(StructmaeError, match=r"this Python has no pydoc_data\.topics"):
        load("pydoc-topics")
