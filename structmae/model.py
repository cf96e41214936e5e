"""The masked autoencoder: tokens -> plan -> encode -> decode -> loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from structmae import registry
from structmae.errors import UsageError
from structmae.masking.torch import TorchPlan
from structmae.nn.base import Decoder, Encoded, Encoder
from structmae.nn.build import build_decoder
from structmae.objectives import average
from structmae.recipe import HeadOptions, Recipe
from structmae.tokens import TokenSet


@dataclass(frozen=True)
class Batch:
    """What a step reads. `plans` is of each token set, `remasks` of each head whose `remask` is "random", one plan a
    decoding; `target`, of a task with labels, is what its head is to say."""

    tokens: dict[str, TokenSet]
    plans: dict[str, TorchPlan]
    remasks: Mapping[str, Sequence[TorchPlan]] = field(default_factory=dict)
    target: dict[str, Tensor] | None = None


@dataclass(frozen=True)
class Losses:
    """`total` is the weighted sum of `terms`; None where no term had anything to score."""

    total: Tensor | None
    terms: dict[str, Tensor]


class Head(nn.Module):
    """One thing that is rebuilt: the content of one token set, scored where the plan says."""

    def __init__(self, options: HeadOptions, decoder: Decoder):
        super().__init__()
        self.options, self.decoder, self.loss = options, decoder, registry.get("loss", options.loss)

    def forward(self, encoded: Encoded, scored: Tensor, zeroed: Sequence[Tensor | None]) -> Tensor | None:
        """Mean error over what is scored and observed, and over decodings: one for each entry of `zeroed`, the latents
        that it is not given. None where nothing is scored, so that an empty set is never a NaN."""
        if not len(scored):
            return None
        target = encoded.tokens[self.options.of]
        observed = None if target.observed is None else target.observed[scored]
        errors = []
        for places in zeroed:
            prediction = self.decoder(encoded, scored, places)
            error = average(self.loss, prediction, target.values[scored], self.options.gamma, observed)
            if error is None:
                return None
            errors.append(error)
        return torch.stack(errors).mean()


class Trainable(nn.Module):
    """What the training loop asks of a model: `forward(batch) -> Losses`, and these."""

    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups; `scale` is of the learning rate."""
        return [{"params": list(self.parameters())}]

    def begin(self, epoch: int) -> None:
        """Called before each epoch, counted from 0."""


class MaskedAutoencoder(Trainable):
    """Token sets and a plan for each, to named losses. The encoder is what is kept."""

    def __init__(self, recipe: Recipe, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.tokens = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(1, width)) for name, width in encoder.content_widths.items()}
        )
        # A head whose token set is not made (edges, where none are hidden) has nothing to rebuild.
        heads = {name: options for name, options in recipe.heads.items() if options.of in encoder.token_widths}
        for name, options in heads.items():
            if options.loss == "sce" and encoder.token_widths[options.of] == 1:
                raise UsageError(
                    f"heads.{name}.loss=sce compares directions, and a {options.of} with 1 column has none to learn: "
                    f"set heads.{name}.loss=mse"
                )
        self.heads = nn.ModuleDict(
            {name: Head(options, build_decoder(options, recipe, encoder)) for name, options in heads.items()}
        )
        self.options = heads

    def forward(self, batch: Batch) -> Losses:
        encoded = self.encoder.read(batch.tokens, batch.plans, dict(self.tokens.items()))
        hidden = batch.plans[next(iter(batch.tokens))].hidden  # the first set is the one with latents
        terms: dict[str, Tensor] = {}
        total: Tensor | None = None
        for name, options in self.options.items():
            zeroed: list[Tensor | None] = [hidden if options.remask == "hidden" else None]
            if options.remask == "random":
                zeroed = [plan.hidden for plan in batch.remasks[name]]
            term = self.heads[name](encoded, batch.plans[options.of].scored, zeroed)
            if term is not None:
                terms[name] = term
                total = term * options.weight + (0 if total is None else total)
        return Losses(total, terms)

    def rebuild(self, batch: Batch) -> dict[str, Tensor]:
        """Each head's prediction (M, P) for every token of its set, normalised as `Encoder.prepare` leaves them."""
        encoded = self.encoder.read(batch.tokens, batch.plans, dict(self.tokens.items()))
        hidden = batch.plans[next(iter(batch.tokens))].hidden
        rebuilt: dict[str, Tensor] = {}
        for name, options in self.options.items():
            every = torch.arange(len(batch.tokens[options.of]), device=hidden.device)
            zeroed = hidden if options.remask == "hidden" else None
            head = self.heads[name]
            assert isinstance(head, Head)
            rebuilt[name] = head.decoder(encoded, every, zeroed)
        return rebuilt
