"""Rows ahead of a table of series."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from structmae.data.series import Series
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate import forecasting
from structmae.evaluate.baselines import NLinear
from structmae.evaluate.frozen import frozen, location_scale
from structmae.evaluate.heads import Errors, Parts
from structmae.nn.base import Encoder
from structmae.recipe import Recipe
from structmae.tuning.labelled import Labelled
from structmae.tuning.model import ForecastHead, TaskModel


def recoded(data: Series, known: dict[str, Any]) -> Series:
    """Values have no codes."""
    return data


def shape(data: Series, recipe: Recipe) -> dict[str, Any]:
    """What the head needs to know. Raises UsageError and StructmaeError as `evaluate.forecasting.check` does."""
    forecasting.check(data, recipe)
    return {"horizon": recipe.finetune.horizon}


def head(encoder: Encoder, known: dict[str, Any], recipe: Recipe) -> ForecastHead:
    """A head of zeros."""
    tokenizer, mixed = encoder.tokenizer, getattr(encoder, "mixed", False)
    return ForecastHead(
        tokenizer.grid[0] * tokenizer.grid[1] * encoder.width,
        tokenizer.context,
        known["horizon"],
        len(tokenizer.channels) if mixed else 1,
        skip=recipe.finetune.skip,
        dropout=recipe.finetune.dropout,
    )


def prepare(model: TaskModel, source: Any, recipe: Recipe) -> None:
    """The head starts at the ridge on the frozen encoder, its penalty chosen on validation."""
    assert isinstance(model.head, ForecastHead)
    fitted = forecasting.fit_head(model.encoder, source, model.head.horizon, recipe, skip=model.head.skip)
    with torch.no_grad():
        model.head.weight.copy_(fitted.linear.weight)


def parts(source: Any, data: Series, recipe: Recipe) -> tuple[dict[str, Labelled], str]:
    """Windows of each part: those of which all targets lie in it."""
    borders, horizon = Parts.of(data.split), recipe.finetune.horizon
    mixed = recipe.encoder.channels == "mixed"
    forecasting.settle(borders, source.context, data, [horizon])
    made = {
        part: _windows(source, borders.starts(part, source.context, horizon), horizon, mixed)
        for part in ("train", "validation", "test")
    }
    return made, data.split_source


def _windows(source: Any, starts: Tensor, horizon: int, mixed: bool) -> Labelled:
    linear = NLinear(source, source.context, mixed)

    def label(chosen: Tensor) -> dict[str, Tensor]:
        x, x_observed = source.values(chosen, source.context)
        y, observed = source.values(chosen + source.context, horizon)
        mean, deviation = location_scale(x, x_observed, source.tokenizer.window_norm)
        own, level = linear.of(x, x_observed)
        return {
            "own": own, "level": level, "mean": mean, "deviation": deviation, "y": y, "observed": observed
        }  # fmt: skip

    return Labelled(starts, source.at, label, source.device)


@dataclass(frozen=True, eq=False)
class Trained:
    """The head that fine-tuning made, with its encoder, as `forecasting.head_of` hands out heads."""

    model: TaskModel

    @property
    def horizon(self) -> int:
        """Rows ahead."""
        assert isinstance(self.model.head, ForecastHead)
        return self.model.head.horizon

    def predict(self, encoder: Any, source: Any, starts: Tensor) -> Tensor:
        """Scaled values (B, C, horizon) after the windows that start there. The encoder is the model's own."""
        mixed = bool(getattr(self.model.encoder, "mixed", False))
        windows = _windows(source, starts, self.horizon, mixed)
        with frozen(self.model):
            return torch.cat([self.model.predict(batch) for batch in windows.batches()])


def errors(model: TaskModel, source: Labelled) -> Errors:
    """Over the observed targets of all windows, in scaled values."""
    found = Errors()
    with frozen(model):
        for batch in source.batches():
            assert batch.target is not None
            found.add(model.predict(batch), batch.target["y"], batch.target["observed"])
    return found


def validation(model: TaskModel, source: Labelled) -> float:
    """Mean squared error."""
    return errors(model, source).mse


def evaluation(arms: dict[str, TaskModel], source: Any, data: Series, recipe: Recipe, task: str) -> dict[str, Any]:
    """Test errors of each arm at the horizon that it was trained for, beside simple methods."""
    sources, where = parts(source, data, recipe)
    horizon, borders = recipe.finetune.horizon, Parts.of(data.split)
    scored = {name: errors(model, sources["test"]) for name, model in arms.items()}
    simple = forecasting.naive(source, borders, [horizon], max(source.context, data.period), data.period)
    simple["nlinear"], look_backs = forecasting.nlinear(source, borders, [horizon], source.context)
    if not scored["pretrained"].values:
        raise StructmaeError(f"{data.name}: no target of the test part is observed, so there is nothing to score")
    low, high = borders.test
    assert scored["pretrained"].windows == high - low - horizon + 1
    others = {name: each[horizon].mse for name, each in simple.items()}
    row = {
        "horizon": horizon,
        "look_back": source.context,
        "mse": scored["pretrained"].mse,
        "mae": scored["pretrained"].mae,
        "n_windows": scored["pretrained"].windows,
        "random_init": scored["random_init"].mse,
        **others,
        "nlinear_look_back": look_backs[horizon],
    }
    return {
        "task": task,
        "metric": "mse",
        "better": "lower",
        "split": "test",
        "split_source": where,
        "finetuned": True,
        "pretrained": row["mse"],
        "random_init": row["random_init"],
        **others,
        "rows": [row],
        "notes": [],
    }


def predict(model: TaskModel, source: Any, data: Series, known: dict[str, Any]) -> pd.DataFrame:
    """Refused: forecasts have a command of their own, which gives them their stamps."""
    raise UsageError("predict is for classes; this run forecasts: use structmae forecast, or run.forecast")
