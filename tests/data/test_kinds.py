from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from structmae.data import kind_of
from structmae.data.folders import below
from structmae.data.image_loading import load_images
from structmae.data.text_loading import load_texts
from structmae.errors import StructmaeError


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("Digits-Images", "image"),
        ("digits-maps", "image"),
        ("pydoc-topics", "text"),
        (np.zeros((2, 1, 4, 4)), "image"),
        (np.zeros((2, 4, 4)), "series"),
        (torch.zeros(2, 1, 4, 4), "image"),
        ((torch.zeros(2, 1, 4, 4), [0, 1]), "image"),
        ((np.zeros((2, 1, 4)), [0, 1]), "series"),
        (["a", "b"], "text"),
        (("a", "b"), "text"),
        (load_texts(["a"]), "text"),
        (load_images(np.zeros((1, 1, 2, 2))), "image"),
    ],
)
def test_names_and_objects(data: Any, kind: str) -> None:
    assert kind_of(data) == kind
    assert kind_of(data, "graph") == "graph"


def test_files_and_folders(tmp_path: Path) -> None:
    """Of a folder those below count, but for hidden ones. That of a graph may have images beside it."""
    np.save(tmp_path / "images.npy", np.zeros((2, 1, 4, 4)))
    np.save(tmp_path / "series.npy", np.zeros((2, 4, 4)))
    (tmp_path / "broken.npy").write_text("no array")
    (tmp_path / "book.txt").write_text("text")
    files = {
        "photos": ["cats/1.PNG", "dogs/2.jpg"], "books": ["inner/a.txt", ".x/p.png"], "graph": ["edges.csv", "p.png"],
        "raw": ["MUTAG_A.txt"], "none": ["a.xyz"], "uea": ["A_TRAIN.ts", "readme.txt"],
    }  # fmt: skip
    for folder, names in files.items():
        for name in names:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).touch()
    kinds = {
        "images.npy": "image", "series.npy": "series", "broken.npy": "series", "book.txt": "text", "photos": "image",
        "books": "text", "graph": "graph", "raw": "graph", "none": "graph", "uea": "series",
    }  # fmt: skip
    assert {name: kind_of(tmp_path / name) for name in kinds} == kinds
    (tmp_path / "photos" / "readme.txt").touch()
    with pytest.raises(StructmaeError, match=r"kind unclear: it holds images \(1.PNG\) and text \(readme.txt\)"):
        kind_of(tmp_path / "photos")
    assert kind_of(tmp_path / "photos", "image") == "image"


def test_files_below_a_folder_in_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a.TXT", "z/a.txt", "c/b.txt", "c.csv", ".a.txt", ".git/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in below(tmp_path, (".txt",))]
    assert found == ["a.TXT", "b.txt", "c/b.txt", "z/a.txt"]
