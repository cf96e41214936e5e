"""Imputation: values are taken out of windows, a ridge on the latents of a frozen encoder fills them in again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from structmae.data.series import Series
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate.baselines import carried, interpolated, last_observed, window_mean
from structmae.evaluate.frozen import AT_ONCE, frozen, location_scale
from structmae.evaluate.heads import Errors, Parts
from structmae.evaluate.ridge import PENALTIES, Gram, best
from structmae.masking import VALIDATION, Spec, draw, layout
from structmae.nn.base import Encoder
from structmae.recipe import Recipe

SEED = 0  # of the gaps: the same for every encoder
TOKENS = 200_000  # at most so many, of windows evenly spaced over the training rows, fit the ridge
MEMORY = 4 << 30  # bytes of all normal equations together
BASELINES = {"linear": interpolated, "last_value": carried, "mean": window_mean}


def check(data: Series, recipe: Recipe) -> None:
    """Raises UsageError where the task does not fit the series or the recipe."""
    if data.level != "panel":
        raise UsageError(f"imputation: {data.name} is a set of labelled recordings; the task is classification")
    if recipe.tokens.spectrum:
        raise UsageError(
            f"imputation: tokens.spectrum={recipe.tokens.spectrum} makes spectrograms, which are not turned back into "
            "values; set tokens.spectrum=0"
        )


def evaluate(
    encoder: Encoder,
    initial: Encoder,
    source: Any,
    data: Series,
    recipe: Recipe,
    *,
    ratio: float = 0.25,
    length: int = 24,
    progress: Callable[[str], None] | None = None,
    at_once: int = AT_ONCE,
) -> dict[str, Any]:
    """The evaluation of `encoder` beside `initial`, the same before training, and simple methods, in scaled values.

    Gaps are a share `ratio` of the observed values of each series: single values, and spans, `length` rows long on
    average. Those of validation and test lie in the same places for every encoder, whatever its windows, which lie side
    by side over all rows of the part. progress: takes a line as each kind is done.
    at_once: series of windows that an encoder reads at once.

    Raises UsageError for a ratio or length out of range, StructmaeError where a part has too few observed values.
    """
    check(data, recipe)
    if not 0 < ratio < 1:
        raise UsageError(f"ratio={ratio}: must be above 0 and below 1; give a fraction, such as 0.25")
    say = progress or (lambda text: None)
    parts = Parts.of(data.split)
    rows: list[dict[str, Any]] = []
    for kind, spec in (("point", Spec("uniform", ratio)), ("span", Spec("span", ratio, length=length))):
        errors = {}
        with frozen(encoder, initial):
            for arm, part in (("pretrained", encoder), ("random_init", initial)):
                reader = Reader(part, Gaps(source, spec, parts), at_once)
                errors[arm] = score(reader, fit(reader))
        errors |= baselines(Gaps(source, spec, parts))
        scored = errors["pretrained"]
        rows.append(
            {
                "gaps": kind,
                "ratio": ratio,
                "length": length if kind == "span" else 1,
                "mse": scored.mse,
                "mae": scored.mae,
                "n_values": scored.values,
                **{arm: each.mse for arm, each in errors.items() if arm != "pretrained"},
            }
        )
        say(f"{kind} gaps: mse " + ", ".join(f"{each.mse:.4f} {arm}" for arm, each in errors.items()))
    return {
        "task": "imputation",
        "metric": "mse",
        "better": "lower",
        "split": "test",
        "split_source": data.split_source,
        "pretrained": fmean(row["mse"] for row in rows),
        **{arm: fmean(row[arm] for row in rows) for arm in ("random_init", *BASELINES)},
        "rows": rows,
        "notes": [],
    }


@dataclass(frozen=True, eq=False)
class Gaps:
    """Windows with values taken out, as `spec` says: of train in each window anew, of validation and test once, over
    all rows of the part. A gap does not depend on the batch."""

    source: Any
    spec: Spec
    parts: Parts

    def starts(self, part: str) -> Int[Tensor, "windows"]:
        """Windows of a part: side by side, the last one counted too, filled up; of train at most `TOKENS` tokens."""
        low, high = getattr(self.parts, part)
        if part != "train":
            return torch.arange(low, high, self.source.context)
        tokens = self.source.context // self.source.segment * len(self.source.series.channels)
        last = max(low, high - self.source.context)
        most = min(max(2, TOKENS // tokens), last - low + 1)
        spaced: Tensor = torch.linspace(low, last, most, dtype=torch.float64).round().long()
        return spaced  # all different, for there are no more than there are rows

    def windows(
        self, starts: Int[Tensor, "B"], part: str
    ) -> tuple[Float[Tensor, "B C T"], Bool[Tensor, "B C T"], Bool[Tensor, "B C T"]]:
        """Values, 0 where missing; which of them can be seen; and the gaps: observed, in the part, and taken out."""
        low, high = getattr(self.parts, part)
        x, observed = self.source.values(starts, self.source.context)
        at = starts[:, None] + torch.arange(x.shape[-1])
        observed = observed & ((at >= low) & (at < high))[:, None]
        if part == "train":
            gaps = self._drawn(observed, starts, 0)
        else:
            row = (at - low).clamp(0, high - low - 1)  # rows outside the part are not observed
            gaps = self._held[part][:, row].transpose(0, 1) & observed
        return x.masked_fill(~observed, 0.0), observed & ~gaps, gaps

    @cached_property
    def _held(self) -> dict[str, Bool[Tensor, "C rows"]]:
        """The gaps of the parts that are not trained on."""
        found = {}
        for part in ("validation", "test"):
            low, high = getattr(self.parts, part)
            start = torch.tensor([low])
            observed = self.source.values(start, high - low)[1]
            found[part] = self._drawn(observed, start, VALIDATION)[0]
        return found

    def _drawn(self, observed: Bool[Tensor, "B C T"], starts: Int[Tensor, "B"], visit: int) -> Bool[Tensor, "B C T"]:
        channels, rows = observed.shape[1:]
        items = starts[:, None] * channels + torch.arange(channels)
        places = layout(torch.arange(0, observed.numel() + 1, rows), items.flatten(), valid=observed.flatten())
        gaps = torch.zeros(observed.numel(), dtype=torch.bool)
        gaps[torch.from_numpy(draw(places, self.spec, seed=SEED, visit=visit).scored)] = True
        return gaps.view(observed.shape)


@dataclass(frozen=True, eq=False)
class Reader:
    """Features of the tokens of windows with gaps, for a ridge in scaled values (see `frozen.Latents`).

    A token's row is [s z, s z-, s z+, own values less m, s where they are, s]: its latent, those of the nearest tokens
    before and after that have one (a token inside a gap has none), and its own values as far as they can be seen.
    """

    encoder: Any
    gaps: Gaps
    at_once: int = AT_ONCE

    def blocks(self, part: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows (G, N, width), values less m and gaps (G, N, segment) of the windows of a part: one group of N tokens,
        or where channels are mixed one a channel, since their latents are the same."""
        source, segment = self.gaps.source, self.gaps.source.segment
        normalized, mixed = source.tokenizer.window_norm, self.encoder.mixed
        for starts in torch.split(self.gaps.starts(part), max(1, self.at_once // len(source.series.channels))):
            x, seen, gaps = (each.to(source.device) for each in self.gaps.windows(starts, part))
            mean, scale = location_scale(x, seen, normalized)
            folded = (*x.shape[:2], -1, segment)
            own = (x - mean[..., None]).reshape(folded)
            there = seen.reshape(folded)
            z = self._latents(x.masked_fill(~seen, 0.0), seen, starts)
            s = scale[..., None, None]
            alive = (there.any(1, keepdim=True).expand_as(there) if mixed else there).any(-1)
            near = [z, _nearest(z, alive, back=True), _nearest(z, alive, back=False)]
            rows = torch.cat([s * torch.cat(near, -1), own * there, s * there, s.expand(-1, -1, own.shape[2], 1)], -1)
            read = rows, own, gaps.reshape(folded)
            a, b, c = (each.transpose(0, 1).flatten(1, 2) if mixed else each.flatten(0, 2)[None] for each in read)
            yield a, b, c

    def _latents(self, x: Tensor, seen: Tensor, starts: Tensor) -> Tensor:
        """(B, C, tokens, width)."""
        tokens = self.gaps.source.tokenizer.tokens(x, seen, starts)
        flat = self.encoder.features(tokens)
        windows, channels, rows = x.shape
        shaped: Tensor = flat.view(windows, -1, rows // self.gaps.source.segment, self.encoder.width)
        return shaped.expand(-1, channels, -1, -1)


def _nearest(z: Float[Tensor, "B C L W"], alive: Bool[Tensor, "B C L"], *, back: bool) -> Float[Tensor, "B C L W"]:
    """The latent of the nearest token before (or after) each one that has one, or zeros."""
    if not back:
        return _nearest(z.flip(2), alive.flip(2), back=True).flip(2)
    at = torch.nn.functional.pad(last_observed(alive)[..., :-1], (1, 0), value=-1)[..., None]
    return z.gather(2, at.clamp_min(0).expand_as(z)).masked_fill(at < 0, 0.0)


def fit(reader: Reader) -> Float[Tensor, "groups segment width"]:
    """A ridge for each place in a segment, on the training gaps that lie there; one penalty for all, chosen on those of
    validation. Raises StructmaeError where either part has no gaps, or the regressions take too much memory."""
    grams: list[list[Gram]] = []
    for rows, values, gaps in reader.blocks("train"):
        groups, width, segment = len(rows), rows.shape[-1], values.shape[-1]
        if not grams:
            if groups * segment * width**2 * 8 > MEMORY:
                raise StructmaeError(
                    f"imputation: {groups * segment} regressions over {width} features take more than "
                    f"{MEMORY >> 30} GiB; lower encoder.hidden or tokens.segment, or set encoder.channels=independent"
                )
            grams = [[Gram(width, 1, rows.device) for _ in range(segment)] for _ in range(groups)]
        for group, of_group in enumerate(grams):
            for place, gram in enumerate(of_group):
                chosen = gaps[group, :, place].nonzero()[:, 0]
                gram.add(rows[group, chosen], values[group, chosen, place : place + 1])
    # A place without a gap in training is filled with its window's mean: weights of zero.
    weights = torch.stack(
        [
            torch.stack(
                [g.solve(free=1)[..., 0] if g.rows else g.xy.new_zeros(len(PENALTIES), len(g.xy)) for g in each]
            )
            for each in grams
        ]
    )
    weights = weights.permute(2, 0, 1, 3).float()  # (penalties, groups, segment, width)
    errors, count = torch.zeros(len(PENALTIES), dtype=torch.float64), 0
    for rows, values, gaps in reader.blocks("validation"):
        count += int(gaps.sum())
        for index, weight in enumerate(weights):
            error = (rows @ weight.mT - values).masked_fill_(~gaps, 0.0)
            errors[index] += error.square_().sum(dtype=torch.float64).cpu()
    if not count or not any(gram.rows for each in grams for gram in each):
        raise StructmaeError("imputation: no gaps in the training or validation rows; give more observed values")
    return weights[best(errors)]


def score(reader: Reader, weight: Float[Tensor, "groups segment width"]) -> Errors:
    """Errors at the gaps of the test windows. Raises StructmaeError where there are none."""
    errors = Errors()
    for rows, values, gaps in reader.blocks("test"):
        errors.add(rows @ weight.mT, values, gaps)
    if not errors.values:
        raise StructmaeError("imputation: no gaps in the test rows; give more observed values")
    return errors


def baselines(gaps: Gaps) -> dict[str, Errors]:
    """Errors of the simple methods at the same gaps."""
    found = {name: Errors() for name in BASELINES}
    for starts in torch.split(gaps.starts("test"), AT_ONCE):
        x, seen, taken = gaps.windows(starts, "test")
        for name, errors in found.items():
            errors.add(BASELINES[name](x.masked_fill(~seen, 0.0), seen), x, taken)
    return found
