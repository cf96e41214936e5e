"""The masking layer: exact, reproducible choice of what is hidden, scored and altered. Works alone, on NumPy arrays and
torch tensors, without the rest of the toolkit.

    >>> from structmae.masking import Spec, draw, layout
    >>> tokens = layout(ptr=[0, 4, 10])                                       # two items, of 4 and 6 tokens
    >>> plan = draw(tokens, Spec(ratio=0.5, act="drop"), seed=0, visit=0)
    >>> len(plan.hidden), len(plan.visible)
    (5, 5)

Where tokens are: `layout`, with group and stratum ids (`tube`, `strip`, `cell`, `modality`, `undirected`), weights
(`degree`, `pagerank`, `variance`), neighbours (`adjacency`, `grid`) and the shape of a grid; a graph's edges as tokens:
`edges`. What is asked for: `Spec`, over epochs a `Curriculum`. What is hidden: the `Plan` that `draw` gives; on tensors
`to_torch`, `apply` and `take`; for PyTorch Geometric the transforms `HideNodes`, `HideEdges` and `HidePaths`.

`Spec`, `layout` and what describes tokens need NumPy alone; the other names load Numba, torch or PyTorch Geometric when
first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from structmae.masking.adjacency import Adjacency, adjacency, grid
from structmae.masking.curriculum import Curriculum
from structmae.masking.groups import cell, cells, modality, strip, tube, undirected
from structmae.masking.layout import Layout, layout
from structmae.masking.strategies import Act, Spec, count
from structmae.masking.weights import degree, pagerank, variance

if TYPE_CHECKING:
    from structmae.masking.edge_tokens import Edges, edges, subgraph
    from structmae.masking.plan import Plan, draw, permutation
    from structmae.masking.rng import VALIDATION, Purpose, philox4x32, stream
    from structmae.masking.torch import TorchPlan, apply, take, to_torch
    from structmae.masking.transforms import HideEdges, HideNodes, HidePaths

_LAZY = {
    "edge_tokens": ("Edges", "edges", "subgraph"),
    "plan": ("Plan", "draw", "permutation"),
    "rng": ("VALIDATION", "Purpose", "philox4x32", "stream"),
    "torch": ("TorchPlan", "apply", "take", "to_torch"),
    "transforms": ("HideEdges", "HideNodes", "HidePaths"),
}

__all__ = [
    "Act",
    "Adjacency",
    "Curriculum",
    "Edges",
    "HideEdges",
    "HideNodes",
    "HidePaths",
    "Layout",
    "Plan",
    "Purpose",
    "Spec",
    "TorchPlan",
    "VALIDATION",
    "adjacency",
    "apply",
    "cell",
    "cells",
    "count",
    "degree",
    "draw",
    "edges",
    "grid",
    "layout",
    "modality",
    "pagerank",
    "permutation",
    "philox4x32",
    "stream",
    "strip",
    "subgraph",
    "take",
    "to_torch",
    "tube",
    "undirected",
    "variance",
]


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name in names:
            loaded = import_module(f"structmae.masking.{module}")
            globals().update({each: getattr(loaded, each) for each in names})  # over the submodule's own name too
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
