"""Forecasting: a ridge on the latents of a frozen encoder, every test window counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from structmae.data.series import Series
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate.baselines import NLinear, last_value, seasonal_naive
from structmae.evaluate.frozen import AT_ONCE, Latents, frozen
from structmae.evaluate.heads import Errors, Fits, Linear, Parts, Values, blocks, fit, score, unfold
from structmae.nn.base import Encoder
from structmae.recipe import Recipe

LOOK_BACKS = (336, 512)  # of NLinear, beside that of the encoder; the best on validation counts


def check(data: Series, recipe: Recipe) -> None:
    """Raises StructmaeError where the series are too short to score, UsageError where the task does not fit them."""
    if data.level != "panel":
        raise UsageError(f"forecasting: {data.name} is a set of labelled recordings; the task is classification")
    if not data.horizons:
        raise StructmaeError(f"{data.name} has too few validation or test rows to score a forecast: give more rows")


def evaluate(
    encoder: Encoder,
    initial: Encoder,
    source: Any,
    data: Series,
    recipe: Recipe,
    *,
    horizons: Sequence[int] | None = None,
    progress: Callable[[str], None] | None = None,
    at_once: int = AT_ONCE,
) -> dict[str, Any]:
    """The evaluation of `encoder` beside `initial`, the same before training, and simple methods, in scaled values.

    horizons: rows ahead; those that the data names without it, and then those that a part has no windows for are left
    out. progress: takes a line as each arm is done. at_once: series of windows that an encoder reads at once.

    Raises UsageError for a horizon below 1, StructmaeError where the data has no windows for one that was asked for.
    """
    check(data, recipe)
    say = progress or (lambda text: None)
    parts = Parts.of(data.split)
    chosen, notes = settle(parts, source.context, data, horizons)
    known: Fits = {}  # NLinear comes before the latents of both encoders, and on its own
    heads: dict[str, dict[int, Linear]] = {}
    errors: dict[str, dict[int, Errors]] = {}
    with frozen(encoder, initial):
        for arm, part in (("pretrained", encoder), ("random_init", initial)):
            design = Latents(part, source, skip=recipe.probe.skip, at_once=at_once)
            heads[arm] = fit(source, design, parts, chosen, known)
            errors[arm] = score(source, design, parts, heads[arm])
            say(_line(arm, errors[arm]))
    errors |= naive(source, parts, chosen, max(source.context, data.period), data.period)
    errors["nlinear"], look_backs = nlinear(source, parts, chosen, source.context, known)
    for arm in ("last_value", "seasonal_naive", "nlinear"):
        say(_line(arm, errors[arm]))
    rows = []
    for horizon in chosen:
        scored = errors["pretrained"][horizon]
        low, high = parts.test
        assert all(each[horizon].windows == high - low - horizon + 1 for each in errors.values())
        if not scored.values:
            raise StructmaeError(f"horizon {horizon}: no target of the test part is observed; give more observed rows")
        rows.append(
            {
                "horizon": horizon,
                "look_back": source.context,
                "mse": scored.mse,
                "mae": scored.mae,
                "n_windows": scored.windows,
                "validation": heads["pretrained"][horizon].validation,
                "penalty": finite(heads["pretrained"][horizon].penalty),  # null: validation leaves the latents out
                **{arm: each[horizon].mse for arm, each in errors.items() if arm != "pretrained"},
                "nlinear_look_back": look_backs[horizon],
            }
        )
    return {
        "task": "forecasting",
        "metric": "mse",
        "better": "lower",
        "split": "test",
        "split_source": data.split_source,
        **{arm: fmean(each[horizon].mse for horizon in chosen) for arm, each in errors.items()},
        "rows": rows,
        "notes": [*notes, *parts.note, *_left_out(heads)],
    }


def _left_out(heads: dict[str, dict[int, Linear]]) -> list[str]:
    """What validation gave no part in a forecast."""
    found = []
    for arm, each in heads.items():
        without = [str(horizon) for horizon, head in each.items() if not isfinite(head.penalty)]
        if without:
            found.append(f"{arm} at {', '.join(without)}: validation leaves the latents out, so this is NLinear alone")
    return found


def finite(penalty: float) -> float | None:
    """As JSON has it: none where it is infinite."""
    return penalty if isfinite(penalty) else None


def settle(parts: Parts, look_back: int, data: Series, horizons: Sequence[int] | None) -> tuple[list[int], list[str]]:
    """The horizons to score, in increasing order, and why others are left out. Raises as `evaluate` does."""
    given = [horizons] if isinstance(horizons, int) else data.horizons if horizons is None else horizons
    if not all(isinstance(each, int) for each in given):
        raise UsageError(f"horizons={list(given)}: must be whole numbers, 1 or more; give how many rows ahead")
    asked = sorted(set(given))
    if not asked or asked[0] < 1:
        raise UsageError(f"horizons={list(asked)}: must be whole numbers, 1 or more; give how many rows ahead")
    refused = {horizon: why for horizon in asked if (why := parts.refusal(look_back, horizon))}
    kept = [horizon for horizon in asked if horizon not in refused]
    if refused and (horizons is not None or not kept):
        fix = "ask for a shorter one, lower tokens.context or give more rows"
        raise StructmaeError(f"{data.name}: {next(iter(refused.values()))}; {fix}")
    return kept, [f"left out: {why}" for why in refused.values()]


def naive(
    source: Values, parts: Parts, horizons: Sequence[int], look_back: int, period: int
) -> dict[str, dict[int, Errors]]:
    """The last value and the last season, from windows of `look_back` rows."""
    found: dict[str, dict[int, Errors]] = {"last_value": {}, "seasonal_naive": {}}
    for horizon in horizons:
        last, season = found["last_value"][horizon], found["seasonal_naive"][horizon] = Errors(), Errors()
        for starts in blocks(parts.starts("test", look_back, horizon), source):
            x, observed = source.values(starts, look_back)
            y, scored = source.values(starts + look_back, horizon)
            last.add(last_value(x, observed, horizon), y, scored)
            season.add(seasonal_naive(x, observed, horizon, period), y, scored)
    return found


def nlinear(
    source: Values, parts: Parts, horizons: Sequence[int], context: int, known: Fits | None = None
) -> tuple[dict[int, Errors], dict[int, int]]:
    """Closed-form NLinear, at the look-back that is best on validation: its test errors, and those look-backs. known:
    see `fit`, of all horizons."""
    fitted: dict[int, tuple[Linear, NLinear]] = {}
    for look_back in sorted({context, *LOOK_BACKS}):
        design = NLinear(source, look_back)
        fits = [horizon for horizon in horizons if parts.refusal(look_back, horizon) is None]
        made = known if len(fits) == len(horizons) else None
        for horizon, head in (fit(source, design, parts, fits, made) if fits else {}).items():
            if horizon not in fitted or head.validation < fitted[horizon][0].validation:
                fitted[horizon] = head, design
    errors: dict[int, Errors] = {}
    for horizon, (head, design) in fitted.items():
        errors |= score(source, design, parts, {horizon: head})
    return errors, {horizon: design.look_back for horizon, (_, design) in fitted.items()}


@dataclass(frozen=True, eq=False)
class ForecastHead:
    """A ridge fitted on the latents of a frozen encoder: see `Latents`."""

    linear: Linear
    skip: bool

    @property
    def horizon(self) -> int:
        """Rows ahead."""
        return self.linear.horizon

    def predict(self, encoder: Any, source: Any, starts: Int[Tensor, "B"]) -> Float[Tensor, "B C H"]:
        """Scaled values of the `horizon` rows that follow the windows of `source.context` rows which start there."""
        design = Latents(encoder, source, skip=self.skip)
        with frozen(encoder):
            parts = []
            for chosen in blocks(starts, source):
                x, level = design.rows(chosen)
                parts.append(unfold(x @ self.linear.weight, level, design.together))
        return torch.cat(parts)


def fit_head(encoder: Encoder, source: Any, horizon: int, recipe: Recipe, *, skip: bool | None = None) -> ForecastHead:
    """The head that `evaluate` scores, of one horizon: fitted on training windows, its penalty chosen on validation.
    `skip` is `probe.skip` without it. Raises as `evaluate` does."""
    parts = Parts.of(source.series.split)
    settle(parts, source.context, source.series, [horizon])
    skip = recipe.probe.skip if skip is None else skip
    with frozen(encoder):
        return ForecastHead(fit(source, Latents(encoder, source, skip=skip), parts, [horizon])[horizon], skip)


def _line(arm: str, errors: dict[int, Errors]) -> str:
    return f"{arm}: mse " + ", ".join(f"{each.mse:.4f} at {horizon}" for horizon, each in errors.items())
