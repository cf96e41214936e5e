"""What needs no encoder: forecasts and imputations by the last value, the season, a straight line, and NLinear."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from structmae.evaluate.heads import Values


def last_observed(observed: Bool[Tensor, "B C T"]) -> Int[Tensor, "B C T"]:
    """For each row the nearest observed one, itself or before, or -1."""
    rows = torch.arange(observed.shape[-1], device=observed.device)
    return torch.where(observed, rows, -1).cummax(-1).values


def last_value(
    x: Float[Tensor, "B C T"], observed: Bool[Tensor, "B C T"], horizon: int
) -> Float[Tensor, "B C {horizon}"]:
    """The last observed value again and again; 0 where a window has none."""
    at = last_observed(observed)[..., -1:]
    return torch.where(at >= 0, x.gather(-1, at.clamp_min(0)), 0.0).expand(-1, -1, horizon)


def seasonal_naive(
    x: Float[Tensor, "B C T"], observed: Bool[Tensor, "B C T"], horizon: int, period: int
) -> Float[Tensor, "B C {horizon}"]:
    """The last full season of `period` rows, at most T, again and again. A value that is missing there is taken from
    the same place in the latest season that has it, else the last observed value stands for it."""
    seasons = x.shape[-1] // period
    shape = (*x.shape[:2], seasons, period)
    folded, seen = (part[..., part.shape[-1] - seasons * period :].reshape(shape) for part in (x, observed))
    at = torch.where(seen, torch.arange(seasons, device=x.device)[:, None], -1).amax(-2, keepdim=True)
    season = folded.gather(-2, at.clamp_min(0))[..., 0, :]
    season = torch.where(at[..., 0, :] >= 0, season, last_value(x, observed, period))
    return season.repeat(1, 1, -(-horizon // period))[..., :horizon]


@dataclass(frozen=True)
class NLinear:
    """Features of NLinear (Zeng et al., AAAI 2023): a window less its last observed value, 0 where missing, and a 1.

    One map for all channels, or with `together` from all to all, solved in closed form as every `Design` is. Its
    intercept is penalised as the others are.
    """

    source: Values
    look_back: int
    together: bool = False
    first: None = None

    def rows(self, starts: Int[Tensor, "B"]) -> tuple[Float[Tensor, "rows width"], Float[Tensor, "B C"]]:
        return self.of(*self.source.values(starts, self.look_back))

    def of(
        self, x: Float[Tensor, "B C T"], observed: Bool[Tensor, "B C T"]
    ) -> tuple[Float[Tensor, "rows width"], Float[Tensor, "B C"]]:
        """As `rows`, of windows that are there."""
        level = last_value(x, observed, 1)
        own = (x - level).masked_fill(~observed, 0.0)
        flat = own.flatten(1) if self.together else own.flatten(0, 1)
        return torch.cat([flat, flat.new_ones(len(flat), 1)], 1), level[..., 0]


def carried(x: Float[Tensor, "B C T"], observed: Bool[Tensor, "B C T"]) -> Float[Tensor, "B C T"]:
    """Each missing value is the last observed before it, else the first after it; 0 where a series has none."""
    before, after = last_observed(observed), _next_observed(observed)
    at = torch.where(before >= 0, before, after)
    return torch.where(at >= 0, x.gather(-1, at.clamp_min(0)), 0.0)


def interpolated(x: Float[Tensor, "B C T"], observed: Bool[Tensor, "B C T"]) -> Float[Tensor, "B C T"]:
    """Missing values on the line between their observed neighbours; beyond the last or before the first, that one."""
    before, after = last_observed(observed), _next_observed(observed)
    low = torch.where(before >= 0, before, after)
    high = torch.where(after >= 0, after, before)
    rows = torch.arange(x.shape[-1], device=x.device)
    share = (rows - low) / (high - low).clamp_min(1)
    a, b = (x.gather(-1, at.clamp_min(0)) for at in (low, high))
    return torch.where(low >= 0, a + (b - a) * share.to(x.dtype), 0.0)


def window_mean(x: Float[Tensor, "B C T"], observed: Bool[Tensor, "B C T"]) -> Float[Tensor, "B C T"]:
    """The mean of the observed values everywhere; 0 where a series has none."""
    total = x.masked_fill(~observed, 0.0).sum(-1, keepdim=True)
    return (total / observed.sum(-1, keepdim=True).clamp_min(1)).expand_as(x)


def _next_observed(observed: Tensor) -> Tensor:
    """As `last_observed`, itself or after."""
    found = last_observed(observed.flip(-1)).flip(-1)
    return torch.where(found >= 0, observed.shape[-1] - 1 - found, -1)
