from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from structmae.data import ImageSchema, load, load_images
from structmae.errors import StructmaeError, UsageError


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int32, np.float16, np.float64, ">f4"])
def test_any_number_type_becomes_float32(dtype: Any, tmp_path: Path) -> None:
    """Of 8 bits 0..1, the rest as it is; a file, an array, a view and a tensor alike."""
    values = np.random.default_rng(0).integers(0, 256, (5, 2, 3, 4)).astype(dtype)
    expected = torch.from_numpy(values.astype(np.float32) / (255 if dtype is np.uint8 else 1))
    np.save(tmp_path / "x.npy", values)
    found = [load(tmp_path / "x.npy").x, load(values).x, load(values[:, :, ::-1]).x.flip(2)]
    if dtype != ">f4":
        found.append(load(torch.from_numpy(values)).x)
    for x in found:
        assert x.dtype == torch.float32
        assert torch.equal(x, expected)


def test_a_file_of_float32_is_mapped_with_labels_beside_it(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(20, 1, 3, 4)).astype(np.float32)
    np.save(tmp_path / "set.npy", values)
    plain = load(tmp_path / "set.npy")
    assert (plain.y, plain.classes, plain.name, plain.maps) == (None, (), "set", (("image", 1),))
    np.save(tmp_path / "set_y.npy", np.arange(20) % 2 + 7)
    images = load(tmp_path / "set.npy")
    assert images.classes == ("7", "8")
    assert images.y.tolist() == [0, 1] * 10
    assert [len(rows) for rows in images.split.values()] == [14, 2, 4]
    assert all(images.y[rows].float().mean() == 0.5 for rows in images.split.values())
    assert load(**images.spec).fingerprint() == images.fingerprint()
    # The file is where the numbers are: a change of it shows, and one of ours does not reach it.
    content = bytearray((tmp_path / "set.npy").read_bytes())
    content[-4:] = np.float32(5).tobytes()
    with (tmp_path / "set.npy").open("r+b") as file:
        file.write(content)
    assert plain.x[-1, -1, -1, -1] == 5
    plain.x[0] = 0
    assert torch.equal(load(tmp_path / "set.npy").x[0], torch.from_numpy(values[0]))


def test_an_array_is_not_copied_and_labels_may_be_missing() -> None:
    values = np.zeros((4, 1, 2, 2), np.float32)
    images = load((values, np.array([1.0, np.nan, 3.0, 1.0])))
    assert images.y.tolist() == [0, -1, 1, 0]
    assert images.classes == ("1", "3")
    assert images.spec == {}
    values[0, 0, 0, 0] = 9
    assert images.x[0, 0, 0, 0] == 9
    assert load((torch.zeros(3, 1, 2, 2), ["b", "a", None])).y.tolist() == [1, 0, -1]
    assert load_images(images) is images


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((3, 4, 4)), r"shape \(3, 4, 4\).*write x\[:, None\] for images of one channel"),
        (np.zeros((3, 1, 0, 4)), "none of them 0"),
        (np.zeros((3, 16, 16, 3)), r"channels last.*x\.transpose\(0, 3, 1, 2\)"),
        (np.full((3, 1, 2, 2), np.nan), "no value is observed"),
        (np.array([[[["a"]]]]), "has the type <U1; give numbers"),
        ([1, 2], "is of type list"),
        ((np.zeros((3, 1, 2, 2)), [0, 1]), r"3 images and labels of shape \(2,\)"),
        ((np.zeros((3, 1, 2, 2)), [0.5, 1, 2]), "label 0.5 is not a whole number"),
        ("missing.npy", "no such file"),
        ("broken.npy", "not a .npy array that can be read"),
        ("some.csv", "images are read from a folder, or from an array"),
        (np.pad(np.full((1, 1, 1, 1), np.inf), ((7, 0), (0, 0), (1, 1), (1, 1))), "image 7 has an infinite value"),
    ],
)
def test_what_is_no_images(data: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.npy").write_text("nothing")
    (tmp_path / "some.csv").write_text("a\n1\n")
    with pytest.raises(StructmaeError, match=message) as raised:
        load_images(data)
    assert raised.value.exit_code == 1


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="Did you mean digits-images"):
        load_images("digits-image")


def test_others_are_read_as_an_earlier_schema_says() -> None:
    """The same maps where there is but one; another size or another number of channels is refused."""
    maps = load_images("digits-maps")
    assert load_images("digits-maps", schema=maps.schema).maps == maps.maps
    assert load_images(np.zeros((1, 3, 8, 8)), schema=maps.schema).maps == maps.maps
    with pytest.raises(StructmaeError, match="1 channel of 8 x 8 pixels, and 3 channels of 8 x 8 pixels are needed"):
        load_images("digits-images", schema=maps.schema)
    with pytest.raises(StructmaeError, match="1 channel of 8 x 4 pixels, and 1 channel of 8 x 8 pixels are needed"):
        load_images(np.zeros((1, 1, 8, 4)), schema=ImageSchema(1, 8, 8, (("image", 1),)))
    other = replace(maps, maps=(("image", 1), ("depth", 2)))
    with pytest.raises(StructmaeError, match="has the maps image, depth, and image, gradient, threshold are needed"):
        load_images(other, schema=maps.schema)


def test_few_images_all_train() -> None:
    assert [len(rows) for rows in load(np.zeros((2, 1, 2, 2))).split.values()] == [2, 0, 0]
    assert [len(rows) for rows in load(np.zeros((3, 1, 2, 2))).split.values()] == [1, 1, 1]
