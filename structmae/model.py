"""The masked autoencoder: tokens -> plan -> encode -> decode -> loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
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
from structmae.targets import Target, build_target
from structmae.terms import Term, build_terms
from structmae.tokens import Source, TokenSet
from structmae.views import Seen, Shadow


@dataclass(frozen=True)
class View:
    """Another look at the items of a batch: `plans` hide anew, or are empty where nothing is hidden."""

    tokens: dict[str, TokenSet]
    plans: dict[str, TorchPlan]


@dataclass(frozen=True)
class Batch:
    """What a step reads. `plans` is of each token set, `remasks` of each head whose `remask` is "random", one plan a
    decoding, `views` by name, `negatives` (2, n) pairs of nodes that are no edges; `target`, of a task with labels, is
    what its head is to say."""

    tokens: dict[str, TokenSet]
    plans: dict[str, TorchPlan]
    remasks: Mapping[str, Sequence[TorchPlan]] = field(default_factory=dict)
    target: dict[str, Tensor] | None = None
    views: Mapping[str, View] = field(default_factory=dict)
    negatives: Tensor | None = None


@dataclass(frozen=True)
class Losses:
    """`total` is the weighted sum of `terms`; None where no term had anything to score. `facts` go to the log."""

    total: Tensor | None
    terms: dict[str, Tensor]
    facts: dict[str, float] = field(default_factory=dict)


class Head(nn.Module):
    """One thing that is rebuilt: a query, a decoder, a target, a loss."""

    def __init__(self, name: str, options: HeadOptions, decoder: Decoder, target: Target, kind: int | None):
        super().__init__()
        self.name, self.options, self.decoder, self.target, self.kind = name, options, decoder, target, kind
        self.loss = registry.get("loss", options.loss)

    def query(self, encoded: Encoded, plans: Mapping[str, TorchPlan], negatives: Tensor | None = None) -> Tensor:
        """What the head is asked about: tokens (K,), scored ones or all, of its own kind; or pairs of nodes (2, K), the
        scored edges and then as many `negatives`."""
        if self.options.of == "pair":
            ends = encoded.tokens["edge"].ends
            assert ends is not None
            assert negatives is not None
            return torch.cat([ends[:, plans["edge"].scored], negatives], 1)
        part = encoded.tokens[self.options.of]
        if self.options.at == "scored":
            rows = plans[self.options.of].scored
        else:
            every = torch.arange(len(part), device=part.ptr.device)
            rows = every if part.valid is None else every[part.valid]
        return rows if self.kind is None or part.kind is None else rows[part.kind[rows] == self.kind]

    def forward(self, encoded: Encoded, batch: Batch, views: Mapping[str, Encoded], main: TorchPlan) -> Tensor | None:
        """Mean error over what is asked and observed, and over decodings: one for each re-masking. None where nothing
        is asked, so that an empty set is never a NaN."""
        asked = self.query(encoded, batch.plans, batch.negatives)
        if not asked.shape[-1]:
            return None
        spares = self.options.loss == "sce"  # the cosine asks for less than all that is said and wanted
        target, observed = (self.target.lazy if spares else self.target)(encoded, views, asked)
        decode = self.decoder.deferred if spares else self.decoder
        zeroed: list[Tensor | None] = [main.hidden if self.options.remask == "hidden" else None]
        if self.options.remask == "random":
            zeroed = [plan.hidden for plan in batch.remasks[self.name]]
        errors = []
        for places in zeroed:
            error = average(self.loss, decode(encoded, asked, places), target, self.options.gamma, observed)
            if error is None:
                return None
            errors.append(error)
        return torch.stack(errors).mean()


class Trainable(nn.Module):
    """What the training loop asks of a model: `forward(batch) -> Losses`, and these."""

    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups; `scale` is of the learning rate."""
        return [{"params": [weight for weight in self.parameters() if weight.requires_grad]}]

    def begin(self, epoch: int, source: Source) -> None:
        """Called before each epoch, counted from 0."""

    def stepped(self) -> None:
        """Called after each step of the optimizer."""


class MaskedAutoencoder(Trainable):
    """Token sets and a plan for each, to named losses. The encoder is what is kept."""

    def __init__(self, recipe: Recipe, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.tokens = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(1, width)) for name, width in encoder.content_widths.items()}
        )
        self.heads = nn.ModuleDict()
        for name, options in recipe.heads.items():
            # A head whose token set is not made (edges, where none are hidden) has nothing to rebuild.
            if options.of in encoder.token_widths or options.of == "pair":
                self.heads[name] = _head(name, options, recipe, encoder)
        self.options = {name: recipe.heads[name] for name in self.heads}
        terms = build_terms(recipe, encoder)
        self.terms = nn.ModuleDict(terms)
        self.weights = {name: options.weight for name, options in self.options.items()}
        self.weights |= {name: term.weight for name, term in terms.items()}
        self.shadows = nn.ModuleDict(
            {name: Shadow(encoder, view.momentum) for name, view in recipe.reads().items() if view.encoder == "ema"}
        )

    def forward(self, batch: Batch) -> Losses:
        encoded = self.encode(batch.tokens, batch.plans, self.wanted(batch))
        views = Seen(lambda name: self._view(name, batch.views[name]))
        total: Tensor | None = None
        main = batch.plans[self.encoder.name]
        found: dict[str, Tensor | None] = {}
        found |= {name: head(encoded, batch, views, main) for name, head in self.heads.items()}
        found |= {name: term(self.encoder, encoded, views) for name, term in self.terms.items()}
        terms = {name: loss for name, loss in found.items() if loss is not None}
        for name, loss in terms.items():
            total = loss * self.weights[name] + (0 if total is None else total)
        facts = [term.facts().items() for term in self.terms.values() if isinstance(term, Term)]
        return Losses(total, terms, dict(chain(*facts)))

    def wanted(self, batch: Batch) -> Tensor | None:
        """The tokens whose latents are read, where those of hidden ones are not: all decoders get zeros there."""
        spares = not self.terms and all(head.remask == "hidden" and head.of != "pair" for head in self.options.values())
        plan = batch.plans[self.encoder.name]
        return plan.visible if spares and len(plan.hidden) else None

    def encode(
        self, tokens: dict[str, TokenSet], plans: Mapping[str, TorchPlan] | None = None, wanted: Tensor | None = None
    ) -> Encoded:
        """What the encoder makes of tokens, with the learned tokens in their places."""
        return self.encoder.read(tokens, plans, dict(self.tokens.items()), wanted)

    def _view(self, name: str, view: View) -> Encoded:
        if name not in self.shadows:
            return self.encode(view.tokens, view.plans)
        with torch.no_grad():
            module: Any = self.shadows[name].module
            encoded: Encoded = module.read(view.tokens, view.plans, dict(self.tokens.items()))
        return encoded

    def begin(self, epoch: int, source: Source) -> None:
        for head in self.heads.values():
            if epoch == 0 and isinstance(head, Head):
                head.target.fit(self.encoder, source)
        for term in self.terms.values():
            if isinstance(term, Term):
                term.begin(epoch, self.encoder, source)

    def stepped(self) -> None:
        for shadow in self.shadows.values():
            if isinstance(shadow, Shadow):
                shadow.follow(self.encoder)
        for term in self.terms.values():
            if isinstance(term, Term):
                term.stepped()

    def rebuild(self, batch: Batch) -> dict[str, Tensor]:
        """Each head's prediction (M, P) for every token of its set, normalised as `Encoder.prepare` leaves them. Heads
        of pairs, and rows of another kind than a head rebuilds, are left out (0)."""
        encoded = self.encode(batch.tokens, batch.plans)
        hidden = batch.plans[self.encoder.name].hidden
        rebuilt: dict[str, Tensor] = {}
        for name, head in self.heads.items():
            if not isinstance(head, Head) or head.options.of == "pair":
                continue
            part = encoded.tokens[head.options.of]
            every = torch.arange(len(part), device=hidden.device)
            rows = every if head.kind is None or part.kind is None else every[part.kind == head.kind]
            found = head.decoder(encoded, rows, hidden if head.options.remask == "hidden" else None)
            rebuilt[name] = found.new_zeros(len(part), found.shape[1]).index_copy(0, rows, found)
        return rebuilt


def _head(name: str, options: HeadOptions, recipe: Recipe, encoder: Encoder) -> Head:
    target = build_target(options, recipe, encoder)
    if options.loss == "sce" and target.width == 1:
        raise UsageError(
            f"heads.{name}.loss=sce compares directions, and a {options.of} with 1 column has none to learn: "
            f"set heads.{name}.loss=mse"
        )
    kinds = getattr(encoder, "kinds", ())
    if options.kind != "all" and options.kind not in kinds:
        raise UsageError(f"heads.{name}.kind={options.kind}: no such map in the data: {', '.join(kinds) or 'none'}")
    kind = None if options.kind == "all" else kinds.index(options.kind)
    return Head(name, options, build_decoder(options, recipe, encoder, target.width), target, kind)
