"""`load_images`: a name, a folder, a file or an array becomes `Images`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from structmae.data import bundled, catalog
from structmae.data.images import Images, ImageSchema, split_images
from structmae.data.labels import encode_names
from structmae.data.series_tables import slug
from structmae.errors import StructmaeError

_BLOCK = 1 << 24  # values that are looked at together


def load_images(data: Any, *, schema: ImageSchema | None = None) -> Images:
    """Images of one size from a name, a path or an object.

    Arguments:
        data: a name of the catalog (`structmae data` lists them), without regard to case; a `.npy` array (N, C, H, W),
            of float32 mapped into memory, with labels (N,) in a NAME_y.npy beside it where there is one; a folder of
            image files, where the folders in it are classes (or train, validation and test, with classes in them); an
            array or tensor (N, C, H, W), or (x, y) with labels; or `Images`. Whole numbers of 8 bits become 0..1,
            others stay as they are; NaN is what was not observed.
        schema: read the data as earlier images with this schema were read: their size, channels and maps.

    Returns:
        The images. Without a split of their own 70 % train, 10 % validate and 20 % test, by seed 0, spread evenly over
        the classes. Of an object in memory the `spec` is empty.

    Raises:
        UsageError: an unknown name.
        StructmaeError: data that is missing, damaged, of several sizes or of another size than the schema's.
    """
    if isinstance(data, Images):
        return _like(data, schema)
    if isinstance(data, (str, os.PathLike)):
        text = os.fspath(data)
        if isinstance(data, str) and catalog.is_known(text):
            return _like(_by_name(text), schema)
        if isinstance(data, str) and not catalog.looks_like_a_path(text):
            catalog.resolve(text)  # raises, with the near misses
        return _like(_by_path(Path(text).expanduser(), schema), schema)
    x, y = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    return _like(_images("images", _array(x, "the array"), y, "the array", {}), schema)


def _like(images: Images, schema: ImageSchema | None) -> Images:
    """The images with the maps of an earlier schema, whose shape they must have."""
    if schema is None or schema == images.schema:
        return images
    if replace(schema, maps=()) != replace(images.schema, maps=()):
        raise StructmaeError(f"{images.name} has images of {images.schema}, and {schema} are needed: convert them")
    if len(images.maps) > 1:
        has, needs = (", ".join(name for name, _ in maps) for maps in (images.maps, schema.maps))
        raise StructmaeError(f"{images.name} has the maps {has}, and {needs} are needed, in this order")
    return replace(images, maps=schema.maps)


def _by_name(name: str) -> Images:
    card = catalog.resolve(name)
    if card.kind != "image":
        raise StructmaeError(f"'{card.name}' is a set of kind {card.kind}, no images. `structmae data` lists them.")
    return bundled.digits_images(maps=card.name == "digits-maps")


def _by_path(path: Path, schema: ImageSchema | None) -> Images:
    if not path.exists():
        raise StructmaeError(
            f"{path}: no such file. Give a folder of images, an array .npy, or a name of `structmae data`."
        )
    spec = {"data": str(path.resolve())}
    if path.is_dir():
        from structmae.data.image_files import read_folder

        found = read_folder(path, None if schema is None else schema.channels)
        made = _images(slug(path.resolve().name), found.x, found.labels, str(path), spec)
        made = replace(made, notes=(*found.notes, *made.notes))
        return made if found.split is None else replace(made, split=found.split, split_source="given: by folders")
    if path.suffix.lower() != ".npy":
        raise StructmaeError(f"{path}: images are read from a folder, or from an array (N, C, H, W) in a .npy file.")
    beside = path.with_name(f"{path.stem}_y.npy")
    labels = _read(beside) if beside.is_file() else None
    return _images(slug(path.stem), _array(_read(path), str(path)), labels, str(path), spec)


def _read(path: Path) -> NDArray[Any]:
    try:
        # Copy on write: nothing is read yet, and torch takes no array that can't be written to.
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StructmaeError(f"{path}: not a .npy array that can be read: {error}.") from None
    return array


def _array(data: Any, where: str) -> Tensor:
    """(N, C, H, W) float32, checked; float32 is not copied."""
    if isinstance(data, Tensor):
        data = data.detach().cpu().numpy() if data.dtype != torch.bfloat16 else data.detach().cpu().float().numpy()
    if not isinstance(data, np.ndarray):
        raise StructmaeError(
            f"{where} is of type {type(data).__name__}; give an array (N, C, H, W), (x, y) with labels, a folder of "
            "images, or a name of `structmae data`."
        )
    if data.dtype.kind not in "fiub":
        raise StructmaeError(f"{where} has the type {data.dtype}; give numbers.")
    if data.ndim != 4 or 0 in data.shape:
        hint = "; write x[:, None] for images of one channel" if data.ndim == 3 else ""
        raise StructmaeError(
            f"{where} has shape {data.shape}; images have (images, channels, height, width), none of them 0{hint}."
        )
    if data.shape[3] in (1, 3, 4) and data.shape[1] == data.shape[2] > 4:
        raise StructmaeError(
            f"{where} has shape {data.shape}, with channels last; they come first: x.transpose(0, 3, 1, 2)."
        )
    if data.dtype == np.uint8:
        return torch.from_numpy(data.astype(np.float32) / 255)
    # Big-endian arrays, and views with negative steps, are none of torch's.
    x = torch.from_numpy(np.require(data, np.float32, ["C", "W"]))
    step = max(1, _BLOCK // max(1, x[0].numel()))
    for first in range(0, len(x), step):
        infinite = x[first : first + step].isinf()
        if bool(infinite.any()):
            number = first + int(infinite.flatten(1).any(1).nonzero()[0])
            raise StructmaeError(f"{where}: image {number} has an infinite value. Use NaN for what was not observed.")
    return x


def _images(name: str, x: Tensor, labels: Any, where: str, spec: dict[str, Any]) -> Images:
    y: Tensor | None = None
    classes: tuple[str, ...] = ()
    notes: list[str] = []
    if labels is not None:
        values = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels, dtype=None)
        if values.shape != (len(x),):
            raise StructmaeError(
                f"{where}: {len(x)} images and labels of shape {values.shape}; give one label an image, ({len(x)},)."
            )
        missing = [value is None or value != value for value in values.tolist()]
        cells = [None if gone else str(value) for gone, value in zip(missing, values.tolist(), strict=True)]
        y, classes, notes = encode_names(cells, where)
    if not bool((~x[:1].isnan()).any()) and bool(x.isnan().all()):
        raise StructmaeError(f"{where}: no value is observed. Give some.")
    source = "made: 70/10/20 %, " + ("stratified, seed 0" if y is not None else "seed 0")
    split = split_images(y, len(x))
    return Images(name, x, (("image", x.shape[1]),), y, split, source, classes, spec, tuple(notes))
