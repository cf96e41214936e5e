"""Masking that gets harder: a spec's ratio and power as functions of how far training is.

>>> from structmae.masking.strategies import Spec
>>> harder = Curriculum(ratio=(0.25, 0.75))
>>> [harder.at(Spec(), progress(epoch, epochs=3)).ratio for epoch in range(3)]
[0.25, 0.5, 0.75]
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from structmae.errors import UsageError
from structmae.masking.groups import whole
from structmae.masking.strategies import Spec, share

SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda p: p,
    "cosine": lambda p: (1.0 - math.cos(math.pi * p)) / 2.0,  # slow at both ends
    "sqrt": math.sqrt,  # fast at first
}


@dataclass(frozen=True)
class Curriculum:
    """From the first value to the last, by `shape`; None leaves the spec's own.

    Easy to hard is a ratio that rises, and a power that rises from below 0 or 0 to above: weights are raised to it,
    so that light tokens are chosen first, heavy ones at last. The other way round is hard to easy. Raises UsageError
    where a value is out of range.
    """

    ratio: tuple[float, float] | None = None
    power: tuple[float, float] | None = None
    shape: str = "linear"

    def __post_init__(self) -> None:
        if self.ratio is not None:
            first, last = _pair("ratio", self.ratio)
            object.__setattr__(self, "ratio", (share("ratio[0]", first), share("ratio[1]", last)))
        if self.power is not None:
            first, last = _pair("power", self.power)
            object.__setattr__(self, "power", (_finite("power[0]", first), _finite("power[1]", last)))
        if self.shape not in SHAPES:
            raise UsageError(f"shape = {self.shape!r}: must be one of {', '.join(SHAPES)}; choose one of these")

    def at(self, spec: Spec, progress: float) -> Spec:
        """`spec` at `progress`, from 0 (the first values, exactly) to 1 (the last). Raises UsageError outside."""
        part = SHAPES[self.shape](share("progress", progress))
        ends = {"ratio": self.ratio, "power": self.power}
        moved: dict[str, Any] = {name: _between(*pair, part) for name, pair in ends.items() if pair is not None}
        return replace(spec, **moved)


def progress(epoch: int, epochs: int) -> float:
    """How far `epoch`, from 0, is through training: epoch / (epochs - 1), within 0..1; 0.0 where epochs is 1.

    Raises UsageError for epochs below 1.
    """
    epoch, epochs = whole("epoch", epoch, None), whole("epochs", epochs, 1)
    return min(max(epoch / (epochs - 1), 0.0), 1.0) if epochs > 1 else 0.0


def _between(first: float, last: float, part: float) -> float:
    # This form, unlike first + part (last - first), ends exactly at last; the limits catch a rounding in the middle.
    value = (1.0 - part) * first + part * last
    return min(max(value, min(first, last)), max(first, last))


def _pair(name: str, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise UsageError(f"{name} = {value!r}: must be two numbers; give ({name} at first, {name} at last)")
    return value[0], value[1]


def _finite(name: str, value: Any) -> float:
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number):
            return number
    raise UsageError(f"{name} = {value!r}: must be a finite number; give one, such as -1 or 2")
