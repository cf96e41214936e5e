import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from structmae.data import load, load_images
from structmae.data.image_files import read_folder
from structmae.errors import StructmaeError

Image = pytest.importorskip("PIL.Image")


def save(path: Path, values: np.ndarray, mode: str | None = None) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    (image if mode is None else image.convert(mode)).save(path)
    return values


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_folders_are_classes(tmp_path: Path) -> None:
    """Files in no folder have none; a class may have folders of its own; hidden files are left alone."""
    first = save(tmp_path / "dog" / "2.png", random(0, 4, 6, 3))
    second = save(tmp_path / "cat" / "deep" / "1.PNG", random(1, 4, 6, 3))
    third = save(tmp_path / "loose.png", random(2, 4, 6, 3))
    (tmp_path / "cat" / "._1.png").write_text("not an image")
    images = load(tmp_path)
    assert images.x.shape == (3, 3, 4, 6)
    for found, values in zip(images.x, (third, second, first), strict=True):
        assert torch.allclose(found, torch.from_numpy(values.transpose(2, 0, 1) / 255).float())
    assert images.classes == ("cat", "dog")
    assert images.y.tolist() == [-1, 0, 1]
    assert images.split_source == "made: 70/10/20 %, stratified, seed 0"
    assert load(**images.spec).fingerprint() == images.fingerprint()


def test_folders_may_be_the_split(tmp_path: Path) -> None:
    for number, name in enumerate(("train/a", "train/b", "Test/a", "val/b", "train/a")):
        save(tmp_path / name / f"{number}.png", random(number, 2, 2))
    images = load(tmp_path)
    assert images.classes == ("a", "b")
    assert {key: images.y[rows].tolist() for key, rows in images.split.items()} == {
        "train": [0, 0, 1], "validation": [1], "test": [0],
    }  # fmt: skip
    assert images.split_source == "given: by folders"
    save(tmp_path / "other" / "9.png", random(9, 2, 2))  # then they are classes
    assert set(load(tmp_path).classes) == {"train", "Test", "val", "other"}


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_modes(mode: str, channels: int, tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.full((2, 3, 3), 255, np.uint8), mode)
    found = read_folder(tmp_path)
    assert found.x.shape == (1, channels, 2, 3)
    assert torch.allclose(found.x, torch.ones(()))
    assert found.notes == (["transparency is not read"] if mode in ("LA", "RGBA") else [])
    assert found.labels is found.split is None


def test_sixteen_bits(tmp_path: Path) -> None:
    values = np.array([[0, 65535, 257]], np.uint16)
    save(tmp_path / "a.png", values)
    assert torch.allclose(read_folder(tmp_path).x, torch.tensor([[[[0, 1, 257 / 65535]]]]))
    assert read_folder(tmp_path, 3).x.shape == (1, 3, 1, 3)


def test_grey_among_colours_and_what_an_earlier_schema_asks_for(tmp_path: Path) -> None:
    grey = save(tmp_path / "c" / "a.png", random(0, 2, 2))
    images = load(tmp_path)
    assert (images.schema.channels, images.notes) == (1, ())
    save(tmp_path / "b.png", random(1, 2, 2, 3))
    both = load_images(tmp_path)
    assert both.notes == ("some images are grey: they are read as colours",)
    assert torch.allclose(both.x[1], torch.from_numpy(grey / 255).float().expand(3, 2, 2))
    assert load_images(tmp_path, schema=images.schema).x.shape == (2, 1, 2, 2)


def test_one_of_another_size_is_named(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png", random(number, 4, 6))
    save(tmp_path / "0odd.png", random(9, 5, 6))
    with pytest.raises(StructmaeError, match=r"0odd\.png: 5 x 6 pixels, where most images of the folder have 4 x 6"):
        load_images(tmp_path)


@pytest.mark.parametrize("whole", [False, True])
def test_a_damaged_image_is_named(whole: bool, tmp_path: Path) -> None:
    save(tmp_path / "a.png", random(0, 40, 40))
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(b"nothing" if whole else content[: len(content) // 2])
    with pytest.raises(StructmaeError, match=r"b\.png: not an image that can be read"):
        load_images(tmp_path)


def test_no_images_and_no_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StructmaeError, match="no image files"):
        load_images(tmp_path)
    save(tmp_path / "a.png", random(0, 2, 2))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(StructmaeError, match=r'pip install "structmae\[images\]"'):
        load_images(tmp_path)
