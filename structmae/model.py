"""The masked autoencoder: tokens -> plan -> encode -> decode -> loss."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from structmae import registry
from structmae.errors import UsageError
from structmae.masking import Act
from structmae.masking.torch import TorchPlan
from structmae.nn.base import Decoder, Encoder
from structmae.nn.build import build_decoder
from structmae.recipe import HeadOptions, Recipe
from structmae.tokens import TokenSet


def hide(h: Float[Tensor, "tokens width"], plan: TorchPlan, token: Tensor) -> Float[Tensor, "tokens width"]:
    """Embedded content with the plan carried out: what the encoder gets where a token is hidden."""
    if len(plan.with_act(Act.DROP)):
        raise UsageError("act 'drop' takes tokens out of the row; this encoder reads all of them: use token or zero")
    out = h.clone()
    if len(index := plan.with_act(Act.TOKEN)):
        out = out.index_put((index,), token)
    if len(index := plan.with_act(Act.ZERO)):
        out = out.index_fill(0, index, 0.0)
    if len(index := plan.with_act(Act.RANDOM)):
        out = out.index_copy(0, index, h[plan.source[plan.act == Act.RANDOM]])
    return out


class Head(nn.Module):
    """One thing that is rebuilt from the latents of one token set, scored where the plan says."""

    def __init__(self, options: HeadOptions, decoder: Decoder):
        super().__init__()
        self.options, self.decoder, self.loss = options, decoder, registry.get("loss", options.loss)

    def forward(self, latent: Tensor, tokens: TokenSet, plan: TorchPlan) -> Tensor | None:
        """Mean error over the scored tokens; None where there are none, so that an empty set is never a NaN."""
        if not len(plan.scored):
            return None
        z = self.decoder.bridge(latent)
        if self.options.remask:
            z = z.index_fill(0, plan.hidden, 0.0)
        prediction = self.decoder(z, tokens)[plan.scored]
        errors: Tensor = self.loss(prediction, tokens.values[plan.scored], self.options.gamma)
        return errors.mean()


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
        self.heads = nn.ModuleDict(
            {name: Head(options, build_decoder(options, recipe, encoder)) for name, options in recipe.heads.items()}
        )
        self.weights = {name: options.weight for name, options in recipe.heads.items()}

    def forward(self, tokens: dict[str, TokenSet], plans: dict[str, TorchPlan]) -> Losses:
        content = self.encoder.embed(tokens)
        seen = {name: hide(content[name], plans[name], self.tokens[name]) for name in content}
        latent = self.encoder.encode(seen, tokens)
        terms: dict[str, Tensor] = {}
        total: Tensor | None = None
        for name, head in self.heads.items():
            (of,) = latent  # one token set so far; a head's query names its set once there are more
            term = head(latent[of], tokens[of], plans[of])
            if term is not None:
                terms[name] = term
                total = term * self.weights[name] + (0 if total is None else total)
        return Losses(total, terms)
