"""`Images`: images of one size, or several aligned maps of each; and `ImageSchema`: their layout."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from structmae.data.splits import KEYS, Split

#: Shares of training, validation and test images where the data brings none.
SHARES = (0.7, 0.1, 0.2)


@dataclass(frozen=True)
class ImageSchema:
    """What images are like, so that others are read as they were: `maps` names those that each is made of."""

    channels: int
    height: int
    width: int
    maps: tuple[tuple[str, int], ...]

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values; `from_json` gives the schema back."""
        maps = [list(entry) for entry in self.maps]
        return {"channels": self.channels, "height": self.height, "width": self.width, "maps": maps}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ImageSchema":
        """The schema that `to_json` wrote."""
        maps = tuple((name, channels) for name, channels in value["maps"])
        return cls(value["channels"], value["height"], value["width"], maps)

    def __str__(self) -> str:
        """As a message says it: "3 channels of 32 x 32 pixels"."""
        return f"{self.channels} channel{'s' * (self.channels > 1)} of {self.height} x {self.width} pixels"


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one size.

    Shapes:
        x (N, C, H, W) float32, as the data has it, NaN where not observed. A .npy file of float32 stays mapped.
        y (N,) int64 or None: codes into `classes`, -1 where unlabelled.
        split: sorted int64 indices of images under the keys train, validation, test; the latter two may be empty.

    `maps` has the name and the channels of each of several aligned maps (an image, its depth), in the order of C; in
    the plain case it is the one map "image".
    """

    name: str
    x: Tensor
    maps: tuple[tuple[str, int], ...]
    y: Tensor | None
    split: dict[str, Tensor]
    split_source: str
    classes: tuple[str, ...]
    spec: dict[str, Any]
    notes: tuple[str, ...] = ()
    card: str | None = None
    level: Literal["image"] = "image"

    @property
    def schema(self) -> ImageSchema:
        """Channels, height, width and maps."""
        channels, height, width = self.x.shape[1:]
        return ImageSchema(channels, height, width, self.maps)

    @property
    def num_items(self) -> int:
        """Images: N."""
        return len(self.x)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over dtype, shape and bytes of x, the maps, y and the split.

        Two loads of the same data have the same fingerprint; names, notes and paths do not count.
        """
        digest = hashlib.sha256(repr(self.maps).encode())
        parts = [("x", self.x), ("y", self.y), *((f"split.{key}", self.split[key]) for key in KEYS)]
        for key, tensor in parts:
            if tensor is None:
                digest.update(f"{key}:none;".encode())
                continue
            digest.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).data)
        return digest.hexdigest()


def split_images(y: Tensor | None, count: int, sizes: Sequence[int] | None = None, seed: int = 0) -> Split:
    """Training, validation and test images at random, each class (and those without a label) spread evenly over them.

    `sizes`: how many of each; without them 70/10/20 %, of three or more images at least one in each part.
    """
    if sizes is None:
        few = int(count >= 3)
        test, validation = (max(few, int(share * count + 0.5)) for share in (SHARES[2], SHARES[1] * few))
        sizes = (count - validation - test, validation, test) if count >= 3 else (count, 0, 0)
    rng = np.random.default_rng(seed)
    labels: NDArray[np.int64] = np.zeros(count, np.int64) if y is None else y.numpy()
    # Each class at even distances from 0 to 1, in an order and from a place of its own: any cut has its share of all.
    key = np.empty(count)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        key[members] = (np.arange(len(members)) + rng.random()) / len(members)
    order = np.argsort(key, kind="stable")
    parts = np.split(order[: sum(sizes)], np.cumsum(sizes)[:-1])
    return {name: torch.from_numpy(np.sort(part).astype(np.int64)) for name, part in zip(KEYS, parts, strict=True)}
