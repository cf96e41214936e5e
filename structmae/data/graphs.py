"""`Graphs`: one graph or a set of graphs, packed; and `Schema`: what its columns mean."""

import hashlib
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

with warnings.catch_warnings():  # the library's own deprecations are no concern of a person who imports ours
    warnings.simplefilter("ignore")
    import torch_geometric  # noqa: F401

Level = Literal["node", "graph"]


@dataclass(frozen=True)
class Schema:
    """What the columns of `x` mean, so that a second data set is read as the first was.

    `categories` maps a column index to the values of that column in code order. With `source == "degree"` the
    graph had no features: `x` is the node's degree, one categorical column whose last code means "this or more".
    """

    width: int
    names: tuple[str, ...] | None = None
    categories: dict[int, tuple[str | int, ...]] = field(default_factory=dict)
    source: Literal["given", "degree"] = "given"
    edge_width: int = 0

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values; `from_json` gives the schema back."""
        return {
            "width": self.width,
            "names": None if self.names is None else list(self.names),
            "categories": {str(column): list(values) for column, values in self.categories.items()},
            "source": self.source,
            "edge_width": self.edge_width,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Schema":
        """The schema that `to_json` wrote. JSON has string keys only, hence the `int`."""
        names = value["names"]
        return cls(
            width=value["width"],
            names=None if names is None else tuple(names),
            categories={int(column): tuple(values) for column, values in value["categories"].items()},
            source=value["source"],
            edge_width=value["edge_width"],
        )

    def column(self, index: int) -> str:
        """How a message names column `index`: by its name in quotes where it has one, else by its number."""
        return f"'{self.names[index]}'" if self.names is not None else str(index)


@dataclass(frozen=True)
class Graphs:
    """One graph (`level == "node"`) or a set of graphs (`level == "graph"`), packed.

    Shapes:
        x (N, F) float32: categorical columns hold codes 0..n-1.
        edge_index (2, E) int64: rows source and target, in the packed numbering, sorted by (target, source);
            no duplicates, no self-loops.
        ptr (G+1,) int64: graph g has nodes `ptr[g]..ptr[g+1]-1`.
        edge_attr (E, D) float32 or None.
        y (N,) or (G,) int64 or None: codes into `classes`, -1 where unlabelled.
        split: int64 node indices under the keys train, validation, test; None for a set of graphs.
        held_out: pairs of nodes (2, n) int64 under the keys validation and test, the smaller first, which are edges and
            not in edge_index either way; None where all edges are there.
    """

    name: str
    x: Tensor
    edge_index: Tensor
    ptr: Tensor
    edge_attr: Tensor | None
    y: Tensor | None
    level: Level
    split: dict[str, Tensor] | None
    split_source: str
    classes: tuple[str, ...]
    ids: tuple[str | int, ...] | None
    schema: Schema
    spec: dict[str, Any]
    notes: tuple[str, ...]
    card: str | None = None
    held_out: dict[str, Tensor] | None = None

    @property
    def num_items(self) -> int:
        """Graphs in the pack: G."""
        return self.ptr.numel() - 1

    @property
    def num_nodes(self) -> int:
        """Nodes over all graphs: N."""
        return self.x.size(0)

    @property
    def num_edges(self) -> int:
        """Directed edges over all graphs: E, so twice the edges of an undirected graph."""
        return self.edge_index.size(1)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over dtype, shape and bytes of x, edge_index, edge_attr, ptr, y, split and held_out.

        Two loads of the same data have the same fingerprint; names, notes and paths do not count.
        """
        parts: list[tuple[str, Tensor | None]] = [
            ("x", self.x),
            ("edge_index", self.edge_index),
            ("edge_attr", self.edge_attr),
            ("ptr", self.ptr),
            ("y", self.y),
        ]
        parts += [(f"split.{key}", self.split[key]) for key in sorted(self.split or {}) if self.split is not None]
        parts += [(f"held_out.{key}", pairs) for key, pairs in sorted((self.held_out or {}).items())]
        digest = hashlib.sha256()
        for key, tensor in parts:
            if tensor is None:
                digest.update(f"{key}:none;".encode())
                continue
            flat = tensor.detach().cpu().contiguous()
            digest.update(f"{key}:{flat.dtype}:{tuple(flat.shape)};".encode())
            digest.update(flat.numpy().tobytes())
        return digest.hexdigest()
