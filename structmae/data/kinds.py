"""`kind_of`: whether what a person has is a graph, series, images or text."""

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from structmae.data import catalog
from structmae.data.folders import IMAGES, below
from structmae.data.tablefile import column_names
from structmae.errors import StructmaeError, UsageError

Kind = Literal["graph", "series", "image", "text"]


class Words(NamedTuple):
    """What messages call a kind, its schema's class, and the function that reads it."""

    words: str
    several: str
    schema: str
    loader: str


KINDS: dict[Kind, Words] = {
    "graph": Words("a graph", "graphs", "Schema", "load_graphs"),
    "series": Words("a series", "series", "SeriesSchema", "load_series"),
    "image": Words("a set of images", "images", "ImageSchema", "load_images"),
    "text": Words("a text", "texts", "TextSchema", "load_texts"),
}
#: Column names of an edge table, and such as may be one: a table with them is not read as a series by mistake.
_EDGES = ({"src", "dst"}, {"source", "target"})
_MAYBE_EDGES = {"from", "to"}


def kind_of(data: Any, kind: str | None = None) -> Kind:
    """Whether data is a graph, series, images or text: by `kind` where it is given, else by the data.

    A name of the catalog is what its card says. A table is a graph if it has columns src,dst or source,target, else a
    series. Arrays and .npy with four dimensions are images, others series; .ts is series, .txt text; .pt and PyG
    objects graphs; a list of str is text. A folder is what it holds: edges.csv a graph, NAME_TRAIN.ts series, image
    files images, .txt files text.

    Raises:
        UsageError: a kind that does not exist, or an unknown name.
        StructmaeError: no such file, a table that cannot be read, or data that may be of two kinds.
    """
    if kind is not None:
        for known in KINDS:
            if kind == known:
                return known
        raise UsageError(f"kind '{kind}' does not exist; there are graph, series, image and text.")
    if isinstance(data, (str, os.PathLike)):
        text = os.fspath(data)
        if isinstance(data, str):
            if catalog.is_known(text):
                return catalog.resolve(text).kind
            if not catalog.looks_like_a_path(text):
                catalog.resolve(text)  # raises, with the near misses
        return _of_path(Path(text).expanduser())
    module = type(data).__module__
    own: dict[str, Kind] = {"graphs": "graph", "series": "series", "images": "image", "texts": "text"}
    if module.startswith("structmae.data."):
        return own.get(module.rpartition(".")[2], "graph")
    if module.partition(".")[0] == "pandas":
        return _of_columns([str(name) for name in data.columns], "the table") if hasattr(data, "columns") else "series"
    if isinstance(data, (list, tuple)) and data and all(isinstance(document, str) for document in data):
        return "text"
    # tsai's (X, y, splits) and (x, y) of images begin with an array; a tuple of PyG objects is a set of graphs.
    first = data[0] if isinstance(data, tuple) and data else data
    if isinstance(first, np.ndarray) or hasattr(first, "__array__"):
        return "image" if getattr(first, "ndim", 0) == 4 else "series"
    return "graph"


def _of_path(path: Path) -> Kind:
    if not path.exists():
        raise StructmaeError(
            f"{path}: no such file. Give a table (.csv, .parquet), a .pt, .npy, .ts or .txt file, a folder, or a name "
            "of `structmae data`."
        )
    if path.is_dir():
        return _of_folder(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return "image" if _dimensions(path) == 4 else "series"
    known: dict[str, Kind] = {".ts": "series", ".txt": "text", ".pt": "graph"}
    return known[suffix] if suffix in known else _of_columns(column_names(path), str(path))


def _of_folder(folder: Path) -> Kind:
    names = [file.name.lower() for file in folder.iterdir()]
    if any(name.startswith("edges.") or name.endswith("_a.txt") for name in names):  # _A.txt: of the TU collection
        return "graph"
    if any(name.endswith("_train.ts") for name in names):
        return "series"
    image, text = (next(below(folder, suffixes), None) for suffixes in (IMAGES, (".txt",)))
    if image is not None and text is not None:
        raise StructmaeError(
            f"{folder}: kind unclear: it holds images ({image.name}) and text ({text.name}); say --kind image or "
            "--kind text."
        )
    return "image" if image is not None else "text" if text is not None else "graph"


def _dimensions(path: Path) -> int | None:
    """Of an array in a file; None where it cannot be read, which its reader says."""
    try:
        return int(np.load(path, mmap_mode="r", allow_pickle=False).ndim)
    except (OSError, ValueError, EOFError):
        return None


def _of_columns(names: list[str], where: str) -> Kind:
    lowered = {name.strip().lower() for name in names}
    if any(ends <= lowered for ends in _EDGES):
        return "graph"
    if lowered >= _MAYBE_EDGES and not lowered & {"date", "ds", "time", "timestamp", "datetime"}:
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise StructmaeError(
            f"{where}: kind unclear: columns are {shown}; a graph's edge table has src,dst (or source,target), or say "
            "--kind graph for ends in the first two; --kind series reads each column as a channel."
        )
    return "series"
