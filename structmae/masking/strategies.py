"""What is asked for: the acts, the request (`Spec`), and how many of n are chosen. Plain Python and NumPy, no Numba, so
that recipes can name a `Spec` without the cost of loading a compiler.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from structmae.errors import UsageError

STRATEGIES = ("uniform", "weighted", "block", "span", "walk", "dirichlet", "rectangle")
STARTS = ("node", "edge")
SCOPES = ("item", "batch", "set")
SOURCES = ("visible", "any", "vocabulary")


class Act(IntEnum):
    """What the encoder gets in place of a chosen token. The numbers are stored in plans and never change."""

    DROP = 0  # nothing: the token leaves the row
    TOKEN = 1  # a learned mask token
    RANDOM = 2  # the content of another token of the item (or a random vocabulary id)
    ZERO = 3  # zeros
    KEEP = 4  # its own content: scored, yet visible


# The code of a token that no act touches. In this order every set of a plan is one range of codes:
# hidden 0..3, scored 0..4, visible 4..5, kept 1..5.
UNTOUCHED = 5  # valid, not chosen
ABSENT = 6  # not valid: neither read nor scored


def share(name: str, value: Any) -> float:
    """`value` as a float in [0, 1]. Raises UsageError for anything else, NaN included."""
    number = float(value) if _is_number(value) else math.nan
    if not 0.0 <= number <= 1.0:
        raise UsageError(f"{name} = {value!r}: must be a number from 0 to 1; give a fraction, such as 0.5 for half")
    return number


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} = {value!r}: must be one of {', '.join(allowed)}; choose one of these")


@dataclass(frozen=True)
class Spec:
    """What is hidden, and what stands there instead.

    `ratio` of the groups of each stratum is chosen, exactly (see `count`; with dirichlet, of each item), by `strategy`:

    uniform: any, each set of them as likely.
    weighted: in proportion to the layout's `weight` raised to `power`, without replacement.
    block: `blocks` connected balls that grow together on the layout's `adjacency`.
    span: runs of neighbouring groups, `length` long on average, every arrangement of them as likely.
    walk: along random walks of `length` steps on the `adjacency`, begun at a random node, or with a random edge.
    dirichlet: any, but how many stay in each stratum is drawn too: the item's are shared out by a symmetric Dirichlet
        distribution of `concentration` (MultiMAE: Bachmann et al., ECCV 2022, section 3.2). See budgets.py.
    rectangle: in rectangles on the layout's `shape`, of `area` places or more and sides in proportions from `aspect` to
        1 / `aspect` (BEiT: Bao et al., ICLR 2022, algorithm 1, but for the exact count). See rectangles.py.

    Of the chosen, a share `random` gets RANDOM, a share `keep` gets KEEP, the rest gets `act`; each count is the floor
    or the ceiling of share x chosen, exact in expectation. Where groups are given, a group has one act. Raises
    UsageError where a value is out of range.
    """

    strategy: str = "uniform"
    ratio: float = 0.5
    act: Act | str = Act.TOKEN  # a name in any case is turned into an Act
    random: float = 0.0
    keep: float = 0.0
    # Whose content RANDOM is. visible: of a token that the encoder sees anyway, so nothing hidden reaches it; any: as
    # GraphMAE is published; vocabulary: of no token, for ids (Plan.random_ids, BERT's way).
    random_from: str = "visible"
    scope: str = "item"  # what one draw is for: an item, the batch, or a set of items
    power: float = 1.0  # of the weights: 0 is uniform, below 0 prefers the light
    length: int = 3  # mean of a span, steps of a walk
    blocks: int = 1
    start: str = "node"  # of a walk; with "edge", a node is begun at in proportion to its degree
    concentration: float = 1.0  # of a Dirichlet distribution: high shares alike, low leaves all to one stratum
    area: int = 16  # of a rectangle, at least; less where less is left to choose, or on a smaller grid
    aspect: float = 0.3  # the lowest ratio of a rectangle's sides

    def __post_init__(self) -> None:
        _one_of("strategy", self.strategy, STRATEGIES)
        _one_of("scope", self.scope, SCOPES)
        _one_of("random_from", self.random_from, SOURCES)
        _one_of("start", self.start, STARTS)
        for name in ("ratio", "random", "keep"):
            object.__setattr__(self, name, share(name, getattr(self, name)))
        if self.random + self.keep > 1.0 + 1e-9:
            both = self.random + self.keep
            raise UsageError(f"random + keep = {both:g}: must be at most 1; lower one, both are shares of the chosen")
        if not (_is_number(self.power) and math.isfinite(self.power)):
            raise UsageError(f"power = {self.power!r}: must be a finite number; 1 takes the weights as they are")
        object.__setattr__(self, "power", float(self.power))
        for name, high in (("concentration", 1e6), ("aspect", 1.0)):
            value = getattr(self, name)
            if not (_is_number(value) and 0.0 < value <= high):
                raise UsageError(f"{name} = {value!r}: must be a number above 0, at most {high:g}; choose another")
            object.__setattr__(self, name, float(value))
        for name, most in (("length", 1 << 16), ("blocks", 1 << 31), ("area", 1 << 31)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or not 1 <= value <= most:
                raise UsageError(f"{name} = {value!r}: must be a whole number from 1 to {most}; choose another")
            object.__setattr__(self, name, int(value))  # to Numba, NumPy's numbers are other types
        object.__setattr__(self, "act", to_act(self.act))


def to_act(value: Any) -> Act:
    """An Act from itself, its number or its name in any case. Raises UsageError."""
    if isinstance(value, str) and value.upper() in Act.__members__:
        return Act[value.upper()]
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value in set(Act):
        return Act(int(value))
    raise UsageError(f"act = {value!r}: must be one of {', '.join(a.name for a in Act)}; choose one of these")


@overload
def count(ratio: float, n: int) -> int: ...
@overload
def count(ratio: float, n: NDArray[np.int64]) -> NDArray[np.int64]: ...
def count(ratio: float, n: int | NDArray[np.int64]) -> int | NDArray[np.int64]:
    """How many of n are chosen: half-up(ratio n), within 1..n-1 where 0 < ratio < 1 and n >= 2; 0 is none, 1 is all.

    n is an int or an array of them; so is the result. The 1e-9 lets decimal ratios round as a person computes them:
    0.29 x 50 is 14.5, so 15, though the float product is 14.499999999999998. Raises UsageError where ratio is not in
    [0, 1] or n is no count.
    """
    ratio = share("ratio", ratio)
    given = np.asarray(n)
    if given.size and (given.dtype.kind not in "iu" or given.min() < 0):
        raise UsageError(f"n = {n!r}: must be whole numbers, 0 or more; give how many there are")
    many = given.astype(np.int64)
    k = np.floor(ratio * many + (0.5 + 1e-9)).astype(np.int64)
    if 0.0 < ratio < 1.0:
        k = np.where(many >= 2, np.clip(k, 1, np.maximum(many - 1, 1)), k)
    k = np.minimum(k, many)
    return k if isinstance(n, np.ndarray) else int(k)
