"""A folder of image files, by Pillow: classes, and perhaps the split, are the folders in it."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from structmae.data.folders import IMAGES, below
from structmae.data.splits import KEYS, Split
from structmae.errors import StructmaeError

_GREY = {"1", "L", "LA", "I;16", "I;16B", "I;16L", "I"}
_PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True, eq=False)
class Folder:
    """What a folder holds: x (N, C, H, W) in 0..1, labels (None where there are no folders), a split if it has one."""

    x: Tensor
    labels: list[str | None] | None
    split: Split | None
    notes: list[str] = field(default_factory=list)


def read_folder(folder: Path, channels: int | None = None) -> Folder:
    """The images below a folder: of one channel where all are grey, else of three; or of as many as asked for.

    Raises:
        StructmaeError: Pillow is missing; no image, one that cannot be read, or images of several sizes.
    """
    pillow = _pillow()
    paths = list(below(folder, IMAGES))
    if not paths:
        raise StructmaeError(f"{folder}: no image files ({', '.join(IMAGES[:3])}, ...) in this folder. Put them there.")
    inside = [path.relative_to(folder).parts[:-1] for path in paths]
    split, inside = _split(inside)
    labels = [parts[0] if parts else None for parts in inside]
    heads = [_head(pillow, path) for path in paths]
    usual = Counter(size for size, _, _ in heads).most_common(1)[0][0]
    for path, (size, _, _) in zip(paths, heads, strict=True):
        if size != usual:
            raise StructmaeError(
                f"{path}: {size[1]} x {size[0]} pixels, where most images of the folder have {usual[1]} x {usual[0]}. "
                "All need one size: resize it, or leave it out."
            )
    grey = all(mode in _GREY for _, mode, _ in heads)
    wanted = channels if channels in (1, 3) else 1 if grey else 3
    x = np.empty((len(paths), wanted, usual[1], usual[0]), np.float32)
    for row, path in enumerate(paths):
        x[row] = _pixels(pillow, path, wanted)
    notes = []
    if wanted == 3 and any(mode in _GREY for _, mode, _ in heads):
        notes.append("some images are grey: they are read as colours")
    if any(clear for _, _, clear in heads):
        notes.append("transparency is not read")
    return Folder(torch.from_numpy(x), labels if any(labels) else None, split, notes)


def _split(inside: list[tuple[str, ...]]) -> tuple[Split | None, list[tuple[str, ...]]]:
    """The split where the outermost folders are its parts, and the folders within those; else no split."""
    tops = [_PARTS.get(parts[0].lower()) if parts else None for parts in inside]
    if None in tops or "train" not in tops:
        return None, inside
    numbers = {key: [row for row, top in enumerate(tops) if top == key] for key in KEYS}
    return {key: torch.tensor(rows, dtype=torch.int64) for key, rows in numbers.items()}, [p[1:] for p in inside]


def _head(pillow: Any, path: Path) -> tuple[tuple[int, int], str, bool]:
    """Width and height, mode, and whether it has transparency; without reading the pixels."""
    with _opened(pillow, path) as image:
        mode = image.mode
        if mode == "P":
            mode = "RGB"
        return image.size, mode, "A" in mode or "transparency" in image.info


def _pixels(pillow: Any, path: Path, channels: int) -> NDArray[np.float32]:
    """(channels, H, W) in 0..1."""
    with _opened(pillow, path) as image:
        try:
            image.load()
        except (OSError, SyntaxError, ValueError) as error:
            raise _damaged(path, error) from None
        if image.mode.startswith("I"):  # 16 bits
            return np.repeat(np.asarray(image, np.float32)[None] / np.float32(65535), channels, 0)
        values = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.float32) / np.float32(255)
    return values[None] if channels == 1 else values.transpose(2, 0, 1)


def _opened(pillow: Any, path: Path) -> Any:
    try:
        return pillow.open(path)
    except (OSError, SyntaxError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> StructmaeError:
    return StructmaeError(f"{path}: not an image that can be read ({error}). Mend it, or leave it out.")


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise StructmaeError('image files need Pillow, which is missing: pip install "structmae[images]"') from None
    return Image
