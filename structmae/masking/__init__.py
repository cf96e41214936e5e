"""The masking layer: exact, reproducible choice of what is hidden, scored and altered. Works alone, on NumPy arrays.

    >>> from structmae.masking import Spec, draw, layout
    >>> tokens = layout(ptr=[0, 4, 10])                                       # two items, of 4 and 6 tokens
    >>> plan = draw(tokens, Spec(ratio=0.5, act="drop"), seed=0, visit=0)
    >>> len(plan.hidden), len(plan.visible)
    (5, 5)

`Spec` and `layout` need NumPy alone; the other names load Numba, or torch, when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from structmae.masking.layout import Layout, layout
from structmae.masking.strategies import Act, Spec, count

if TYPE_CHECKING:
    from structmae.masking.plan import Plan, draw, permutation
    from structmae.masking.rng import VALIDATION, Purpose, philox4x32, stream
    from structmae.masking.torch import TorchPlan, to_torch

_LAZY = {
    "plan": ("Plan", "draw", "permutation"),
    "rng": ("VALIDATION", "Purpose", "philox4x32", "stream"),
    "torch": ("TorchPlan", "to_torch"),
}

__all__ = [
    "VALIDATION",
    "Act",
    "Layout",
    "Plan",
    "Purpose",
    "Spec",
    "TorchPlan",
    "count",
    "draw",
    "layout",
    "permutation",
    "philox4x32",
    "stream",
    "to_torch",
]


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name in names:
            value = getattr(import_module(f"structmae.masking.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
