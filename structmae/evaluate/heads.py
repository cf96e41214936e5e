"""Linear forecasters of a panel: what is fitted in closed form on windows, whatever their features are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from structmae.errors import StructmaeError
from structmae.evaluate.ridge import PENALTIES, Gram, best

MOST = 100_000  # training rows that heads are fitted on, the last ones; validation has a quarter. Test has no limit
ROWS = 4096  # of a product: large enough for a fast one


@runtime_checkable
class Values(Protocol):
    """What is read of a series: see `structmae.tokens.series.SeriesSource`."""

    def values(self, starts: Int[Tensor, "windows"], length: int) -> tuple[Tensor, Tensor]:
        """Scaled (B, C, length), 0 where missing, and observed (B, C, length)."""


@runtime_checkable
class Design(Protocol):
    """Features of windows, for a linear map to what follows them."""

    @property
    def look_back(self) -> int:
        """Rows of a window."""

    @property
    def together(self) -> bool:
        """A row is a window, its targets are those of all channels; else a row is a channel of a window."""

    @property
    def first(self) -> "Design | None":
        """A design whose features are the last ones of this one's rows, and are fitted before the others: those then
        get what is left, or nothing where validation says so."""

    def rows(self, starts: Int[Tensor, "windows"]) -> tuple[Float[Tensor, "rows width"], Float[Tensor, "windows C"]]:
        """Features of the windows of `look_back` rows that start at these rows, and the level of each channel, which
        is taken off the targets."""


@dataclass(frozen=True)
class Parts:
    """Row borders: windows of a part have all their targets in it. Of a long table the last `MOST` training rows."""

    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]

    @classmethod
    def of(cls, split: Mapping[str, Any]) -> "Parts":
        train, validation, test = ((int(split[p][0]), int(split[p][1])) for p in ("train", "validation", "test"))
        low, high = max(train[0], train[1] - MOST), min(validation[1], validation[0] + MOST // 4)
        return cls((low, train[1]), (validation[0], high), test)

    @property
    def note(self) -> list[str]:
        """What is not read of a long table."""
        if self.train[1] - self.train[0] < MOST:
            return []
        return [f"heads are fitted on the last {MOST} training rows, their penalty on {MOST // 4} validation rows"]

    def starts(self, part: str, look_back: int, horizon: int) -> Int[Tensor, "windows"]:
        """Where the windows of a part start: of train, look-back and targets lie in its rows; of the others the targets
        do, and the look-back reaches back before the border. In order; a shorter horizon has more at the end."""
        low, high = getattr(self, part)
        first = low if part == "train" else low - look_back
        return torch.arange(first, max(first, high - horizon - look_back + 1))

    def refusal(self, look_back: int, horizon: int) -> str | None:
        """Why a horizon has no windows in some part, or None."""
        for part in ("train", "validation", "test"):
            low, high = getattr(self, part)
            if not len(self.starts(part, look_back, horizon)):
                needs = f"{look_back} + {horizon}" if part == "train" else f"{horizon}"
                return f"horizon {horizon}: a window needs {needs} rows of the {part} part, which has {high - low}"
        return None


@dataclass(frozen=True, eq=False)
class Linear:
    """A fitted map from the features of a `Design` to `horizon` steps: weight (width, horizon), or (width, horizon x C)
    step by step where a row is a window. `penalty` is what validation chose, `validation` its mean squared error."""

    horizon: int
    weight: Float[Tensor, "width targets"]
    penalty: float
    validation: float


Fits = dict[Design, dict[int, Linear]]


def unfold(flat: Float[Tensor, "rows targets"], level: Float[Tensor, "B C"], together: bool) -> Float[Tensor, "B C H"]:
    """Forecasts, of (B*C, H) or where a row is a window of (B, H*C) step by step, with the level added."""
    windows, channels = level.shape
    steps = flat.view(windows, -1, channels).transpose(1, 2) if together else flat.view(windows, channels, -1)
    return steps + level[..., None]


def fold(steps: Shaped[Tensor, "B C H"], together: bool) -> Shaped[Tensor, "rows targets"]:
    """Steps ahead (B, C, H) as `unfold` takes them."""
    return steps.transpose(1, 2).flatten(1) if together else steps.flatten(0, 1)


def blocks(starts: Int[Tensor, "windows"], source: Values) -> Iterator[Int[Tensor, "windows"]]:
    """Windows in order, about `ROWS` pairs of a window and a channel at a time."""
    if len(starts):
        channels = source.values(starts[:1], 1)[0].shape[1]
        yield from torch.split(starts, max(1, ROWS // channels))


def fit(
    source: Values, design: Design, parts: Parts, horizons: Sequence[int], known: Fits | None = None
) -> dict[int, Linear]:
    """The ridge of each horizon: training rows whose targets are all observed, the penalty that has the least mean
    squared error over the observed targets of validation. No other row is read. Raises StructmaeError where a horizon
    has no windows.

    Each row is read once: in X'Y it counts for its longest horizon and all shorter ones (see `Gram`). known: fits of
    the same source, parts and horizons, which are not made again; this one is added.
    """
    known = {} if known is None else known
    if design not in known:
        before = {} if design.first is None else fit(source, design.first, parts, horizons, known)
        known[design] = _fit(source, design, parts, horizons, before)
    return known[design]


def _fit(
    source: Values, design: Design, parts: Parts, horizons: Sequence[int], before: Mapping[int, Linear]
) -> dict[int, Linear]:
    penalties = (*PENALTIES, torch.inf) if before else PENALTIES
    weights = _train(source, design, parts, sorted(horizons, reverse=True), penalties, before)
    squares = {horizon: torch.zeros(len(penalties), dtype=torch.float64) for horizon in horizons}
    counts = dict.fromkeys(horizons, 0)
    for x, level, y, observed, there in _windows(source, design, parts, "validation", horizons):
        for horizon in there:
            target = fold(y[..., :horizon] - level[..., None], design.together)
            missing = fold(~observed[..., :horizon], design.together)
            counts[horizon] += missing.numel() - int(missing.sum())
            if before:
                base = before[horizon].weight
                target -= x[:, -len(base) :] @ base
            for index, (penalty, weight) in enumerate(zip(penalties, weights[horizon], strict=True)):
                left = target if penalty == torch.inf else target - x[:, : len(weight)] @ weight
                squares[horizon][index] += left.masked_fill(missing, 0.0).square_().sum(dtype=torch.float64).cpu()
    fitted = {}
    for horizon in horizons:
        if not counts[horizon]:
            raise StructmaeError(f"horizon {horizon}: no target of the validation part is observed")
        errors = squares[horizon] / counts[horizon]
        chosen = best(errors)
        weight = weights.pop(horizon)[chosen].clone()
        if before:
            weight = torch.cat([weight, before[horizon].weight.to(weight)])
        fitted[horizon] = Linear(horizon, weight, penalties[chosen], float(errors[chosen]))
    return fitted


class Errors:
    """Sums of errors in float64, so that the size of a batch does not change the score."""

    def __init__(self) -> None:
        self.squares, self.absolutes, self.values, self.windows = 0.0, 0.0, 0, 0

    def add(self, prediction: Tensor, target: Tensor, scored: Tensor) -> None:
        """Values where `scored`; the first axis is of windows."""
        error = (prediction - target)[scored].double()
        self.squares += float(error.square().sum())
        self.absolutes += float(error.abs().sum())
        self.values += error.numel()
        self.windows += len(prediction)

    @property
    def mse(self) -> float:
        return self.squares / max(self.values, 1)

    @property
    def mae(self) -> float:
        return self.absolutes / max(self.values, 1)


def score(source: Values, design: Design, parts: Parts, heads: Mapping[int, Linear]) -> dict[int, Errors]:
    """Errors over the observed targets of all test windows, for each horizon."""
    sums = {horizon: Errors() for horizon in heads}
    for x, level, y, observed, known in _windows(source, design, parts, "test", list(heads)):
        for horizon in known:
            prediction = unfold(x @ heads[horizon].weight, level, design.together)
            sums[horizon].add(prediction, y[..., :horizon], observed[..., :horizon])
    return sums


def _windows(
    source: Values, design: Design, parts: Parts, part: str, horizons: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, list[int]]]:
    """Features, level, targets and observed of all windows of a part, and the horizons that have them.

    Blocks end where a horizon's windows do, so a horizon has all windows of a block or none.
    """
    sizes = {horizon: len(parts.starts(part, design.look_back, horizon)) for horizon in horizons}
    starts = parts.starts(part, design.look_back, min(horizons))
    begin = 0
    for end in sorted(set(sizes.values())):
        known = [horizon for horizon in horizons if sizes[horizon] >= end]
        for chosen in blocks(starts[begin:end], source):
            x, level = design.rows(chosen)
            y, observed = source.values(chosen + design.look_back, max(known))
            yield x, level, y.to(x.device), observed.to(x.device), known
        begin = end


def _train(
    source: Values,
    design: Design,
    parts: Parts,
    horizons: Sequence[int],
    penalties: tuple[float, ...],
    before: Mapping[int, Linear],
) -> dict[int, Tensor]:
    """Weights (penalties, width, targets) float32 of each horizon, the longest first, but of the features of
    `design.first`, which have theirs in `before`: those stand in X'Y as further targets, so their part can be taken off
    for any horizon."""
    last = len(before[horizons[0]].weight) if before else 0
    longest = _longest(source, design, parts, horizons)
    outputs = longest.shape[1] if design.together else 1
    starts = parts.train[0] + torch.arange(len(longest))
    gram: Gram | None = None
    weights = {}
    for place, horizon in enumerate(horizons):
        mine = longest == place
        for chosen in blocks(mine.any(1).nonzero().flatten(), source):
            x, level = design.rows(starts[chosen])
            y = source.values(starts[chosen] + design.look_back, horizon)[0].to(x.device) - level[..., None]
            y = fold(y, design.together)
            keep = (mine[chosen, 0] if design.together else mine[chosen].flatten()).to(x.device)
            if last:
                x, y = x[:, :-last], torch.cat([x[:, -last:], y], 1)
            if gram is None:
                gram = Gram(x.shape[1], horizons[0] * outputs + last, x.device)
            whole = bool(keep.all())
            gram.add(x if whole else x[keep], y if whole else y[keep])
        if gram is None:
            raise StructmaeError(
                f"horizon {horizon}: no training window has all its targets observed"
                f"{', in every channel, as mixed channels need' if design.together else ''}; give more observed rows"
            )
        less = before[horizon].weight if last else None
        weights[horizon] = gram.solve(horizon * outputs, penalties=penalties, less=less).float()
    return weights


def _longest(source: Values, design: Design, parts: Parts, horizons: Sequence[int]) -> Int[Tensor, "windows C"]:
    """For each training window and channel the place in `horizons` (descending) of the longest whose targets lie in the
    training rows and are all observed, or len(horizons). Where a row is a window, all channels count as one."""
    (low, high), look_back = parts.train, design.look_back
    observed = source.values(torch.tensor([low]), high - low)[1][0].cpu()  # (C, rows)
    if design.together:
        observed = observed.all(0, keepdim=True).expand_as(observed)
    before = torch.nn.functional.pad(observed.long().cumsum(1), (1, 0))
    origins = torch.arange(look_back, max(look_back, high - low - min(horizons) + 1))
    found = torch.full((len(origins), len(observed)), len(horizons))
    for place in range(len(horizons) - 1, -1, -1):
        horizon = horizons[place]
        inside = origins[origins + horizon <= high - low]
        whole = (before[:, inside + horizon] - before[:, inside] == horizon).T
        found[: len(inside)] = torch.where(whole, place, found[: len(inside)])
    return found
