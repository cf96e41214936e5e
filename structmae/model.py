"""The masked autoencoder: tokens -> plan -> encode -> decode -> loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from structmae import registry
from structmae.errors import UsageError
from structmae.masking.torch import TorchPlan, apply
from structmae.nn.base import Decoder, Encoder
from structmae.nn.build import build_decoder
from structmae.recipe import HeadOptions, Recipe
from structmae.tokens import TokenSet


class Head(nn.Module):
    """One thing that is rebuilt: the content of one token set, scored where the plan says."""

    def __init__(self, options: HeadOptions, decoder: Decoder):
        super().__init__()
        self.options, self.decoder, self.loss = options, decoder, registry.get("loss", options.loss)

    def forward(
        self,
        latent: dict[str, Tensor],
        seen: dict[str, TokenSet],
        target: TokenSet,
        plan: TorchPlan,
        zeroed: Sequence[Tensor | None],
    ) -> Tensor | None:
        """Mean error over the scored tokens, and over decodings: one for each entry of `zeroed`, the latents that it is
        not given. None where nothing is scored, so that an empty set is never a NaN."""
        if not len(plan.scored):
            return None
        wanted = target.values[plan.scored]
        predictions = [self.decoder(latent, seen, places)[plan.scored] for places in zeroed]
        errors = [self.loss(prediction, wanted, self.options.gamma).mean() for prediction in predictions]
        return torch.stack(errors).mean()


@dataclass(frozen=True)
class Losses:
    """`total` is the weighted sum of `terms`; None where no term had anything to score."""

    total: Tensor | None
    terms: dict[str, Tensor]


class MaskedAutoencoder(nn.Module):
    """Token sets and a plan for each, to named losses. The encoder is what is kept."""

    def __init__(self, recipe: Recipe, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.tokens = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(1, width)) for name, width in encoder.token_widths.items()}
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

    def forward(
        self,
        tokens: dict[str, TokenSet],
        plans: dict[str, TorchPlan],
        remasks: Mapping[str, Sequence[TorchPlan]] | None = None,
    ) -> Losses:
        """plans: of each token set; remasks: of each head whose `remask` is "random", one plan a decoding."""
        content = self.encoder.embed(tokens)
        seen = {name: apply(content[name], plans[name], self.tokens[name]) for name in content}
        revealed = self.encoder.reveal(seen, tokens)
        latent = self.encoder.encode(seen, revealed)
        (places,) = (plans[name].hidden for name in latent)  # of the one set that has latents
        terms: dict[str, Tensor] = {}
        total: Tensor | None = None
        for name, options in self.options.items():
            zeroed: list[Tensor | None] = [places if options.remask == "hidden" else None]
            if options.remask == "random":
                zeroed = [plan.hidden for plan in (remasks or {})[name]]
            term = self.heads[name](latent, revealed, tokens[options.of], plans[options.of], zeroed)
            if term is not None:
                terms[name] = term
                total = term * options.weight + (0 if total is None else total)
        return Losses(total, terms)
