"""What a frozen encoder gives a head of a panel: the latents of windows, and where each window lies."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from structmae.evaluate.baselines import NLinear

AT_ONCE = 512  # series of windows that an encoder reads at once


@contextmanager
def frozen(*encoders: Any) -> Iterator[None]:
    """Without gradients, dropout and running statistics while open; afterwards each is in the mode that it was in."""
    modes = [encoder.training for encoder in encoders]
    try:
        with torch.no_grad():
            for encoder in encoders:
                encoder.eval()
            yield
    finally:
        for encoder, training in zip(encoders, modes, strict=True):
            encoder.train(training)


def location_scale(
    x: Float[Tensor, "B C T"], observed: Bool[Tensor, "B C T"], normalized: bool
) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B C"]]:
    """Mean and standard deviation of the observed values of each series, never 0; 0 and 1 where not `normalized`."""
    if not normalized:
        return x.new_zeros(x.shape[:2]), x.new_ones(x.shape[:2])
    weight = observed.to(x.dtype)
    count = weight.sum(-1).clamp_min(1)
    mean = (x * weight).sum(-1) / count
    variance = ((x - mean[..., None]).square() * weight).sum(-1) / count
    return mean, (variance + 1e-5).sqrt()  # as the encoder has it (see tokens.series.normalized)


class Latents:
    """Features of a frozen encoder, for a ridge whose loss is the metric itself, the error in scaled values.

    A series of a window has mean m and deviation s, by which the encoder divides. Its row is [s x latents, s] and its
    targets are y - m, so a forecast is m + s (latents W + b), as if made in the window's own units. Where a row is a
    window of several channels, s is their root mean square. With `skip` NLinear (see `baselines`) is fitted first, on
    the same look-back, and the latents on what it leaves; rows end with its features, and its level stands for m.
    """

    def __init__(self, encoder: Any, source: Any, *, skip: bool = False, at_once: int = AT_ONCE):
        self.encoder, self.source, self.at_once = encoder, source, at_once
        self.together: bool = encoder.mixed
        self.normalized: bool = source.tokenizer.window_norm
        self.look_back: int = source.context
        self.first = NLinear(source, self.look_back, self.together) if skip else None

    def rows(self, starts: Int[Tensor, "B"]) -> tuple[Float[Tensor, "rows width"], Float[Tensor, "B C"]]:
        x, observed = self.source.values(starts, self.look_back)
        windows = max(1, self.at_once // x.shape[1])
        latents = torch.cat([self.encoder.features(self.source.at(part)) for part in torch.split(starts, windows)])
        own = None if self.first is None else self.first.of(x, observed)
        return features(latents, *location_scale(x, observed, self.normalized), own, self.together)


def features(
    latents: Float[Tensor, "rows width"],
    mean: Float[Tensor, "B C"],
    deviation: Float[Tensor, "B C"],
    own: tuple[Tensor, Tensor] | None,
    together: bool,
) -> tuple[Float[Tensor, "rows all"], Float[Tensor, "B C"]]:
    """Rows and level as `Latents` has them; `own` are NLinear's."""
    mean, deviation = mean.to(latents.device), deviation.to(latents.device)
    scale = (deviation.square().mean(1).sqrt() if together else deviation.flatten())[:, None]
    parts = [scale * latents, scale]
    if own is None:
        return torch.cat(parts, 1), mean
    return torch.cat([*parts, own[0].to(latents.device)], 1), own[1].to(latents.device)
