"""What the model asks of an encoder and of a decoder, whatever their tokens are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from structmae.fast.cosine import Deferred
from structmae.fast.sparse import SparseRows
from structmae.masking import Act
from structmae.masking.torch import TorchPlan, apply, take
from structmae.nn.gnn import pooled
from structmae.recipe import EncoderOptions, HeadOptions
from structmae.tokens import TokenSet


@dataclass(frozen=True)
class Encoded:
    """What an encoder made of tokens. `tokens` are normalised by what is visible, `seen` those without the hidden parts
    of their structure, `kept` the rows that have latents (None: all)."""

    latent: dict[str, Tensor]
    tokens: dict[str, TokenSet]
    seen: dict[str, TokenSet]
    kept: dict[str, Tensor | None]


class Encoder(nn.Module, ABC):
    """The part that is kept. `name` is the token set that has latents, `width` that of its latents; by token set,
    `token_widths` is that of the tokens' values, `content_widths` that of embedded content, which is what a mask token
    replaces. `tokenizer` made the tokens. Where they are ids, `vocabulary` is how many there are.

    On the CPU kernels read the weights of the parts inside of layers: hooks of those parts are not called.
    """

    name: str
    pool: str
    width: int
    token_widths: dict[str, int]
    content_widths: dict[str, int]
    tokenizer: Any
    vocabulary: int = 0

    @abstractmethod
    def embed(self, tokens: dict[str, TokenSet]) -> dict[str, Any]:
        """Each token's content on its own, before any token sees another: tensors, or SparseRows where `encode` takes
        them. Hiding happens after this."""

    def prepare(self, tokens: dict[str, TokenSet], visible: dict[str, Tensor] | None) -> dict[str, TokenSet]:
        """The tokens once it is known which of them may be read: normalised by statistics of the rows `visible` of each
        set (None: of all). What is rebuilt is normalised in the same way."""
        return tokens

    def reveal(
        self, h: dict[str, Any], tokens: dict[str, TokenSet], plans: Mapping[str, TorchPlan]
    ) -> dict[str, TokenSet]:
        """The tokens with all that is hidden taken out of their structure too: what encoder and decoders may look at.
        `h` is embedded content after hiding."""
        return tokens

    @abstractmethod
    def encode(self, h: dict[str, Any], tokens: dict[str, TokenSet]) -> dict[str, Tensor]:
        """Embedded content, hidden or not, to latents (tokens, width). Where tokens are dropped, or not valid, it gets
        the others only."""

    def encode_some(self, h: dict[str, Any], tokens: dict[str, TokenSet], rows: Tensor) -> dict[str, Tensor]:
        """As `encode`, of the tokens `rows` alone: for encoders that can spare the others."""
        latent = self.encode(h, tokens)
        return {**latent, self.name: latent[self.name][rows]}

    def read(
        self,
        tokens: dict[str, TokenSet],
        plans: Mapping[str, TorchPlan] | None = None,
        mask_tokens: Mapping[str, Tensor] | None = None,
        wanted: Tensor | None = None,
    ) -> Encoded:
        """The latents of tokens, whole or where `plans` hide: nothing of a hidden token's content reaches them. Of all
        tokens, or of the rows `wanted` of set `name`, where nobody asks for more."""
        plans, mask_tokens = plans or {}, mask_tokens or {}
        tokens = self.prepare(tokens, {name: plan.visible for name, plan in plans.items()} if plans else None)
        content = self.embed(self._swapped(tokens, plans))
        kept: dict[str, Tensor | None] = {}
        for name, part in tokens.items():
            plan = plans.get(name)
            kept[name] = None if part.valid is None else part.valid.nonzero()[:, 0]
            if plan is None:
                continue
            if plan.plan.dropped < len(plan.hidden):
                content[name] = hidden(content[name], plan, mask_tokens[name])
            if plan.plan.dropped:
                kept[name] = plan.kept
        seen = self.reveal(content, tokens, plans)
        given, h = dict(seen), dict(content)
        for name, rows in kept.items():
            if rows is not None:
                given[name], h[name] = seen[name].only(rows), take(content[name], rows)
        if wanted is None or kept[self.name] is not None:
            return Encoded(self.encode(h, given), tokens, seen, kept)
        return Encoded(self.encode_some(h, given, wanted), tokens, seen, {**kept, self.name: wanted})

    def _swapped(self, tokens: dict[str, TokenSet], plans: Mapping[str, TorchPlan]) -> dict[str, TokenSet]:
        """The tokens with ids of the vocabulary where a plan puts random ones."""
        found = dict(tokens)
        for name, plan in plans.items():
            ids = tokens[name].ids
            if ids is not None and plan.plan.from_where is None and len(at := plan.with_act(Act.RANDOM)):
                swapped = ids.index_copy(0, at, plan.random_ids(self.vocabulary))
                found[name] = replace(tokens[name], ids=swapped)
        return found

    def how(self, tokens: dict[str, TokenSet]) -> str:
        """In a line, by which code tokens like these are encoded: there is a faster one that does not cover all."""
        return ""

    def represent(self, tokens: dict[str, TokenSet]) -> Tensor:
        """What a person gets of whole, unmasked tokens: a vector each, or one an item."""
        return self.vectors(self.read(tokens))

    def vectors(self, encoded: Encoded) -> Tensor:
        """Latents as a person and a task's head read them: one vector a token (0 where it has no latent), or where the
        recipe pools one an item, of the tokens that have latents."""
        return self.spread(encoded) if self.pool == "none" else self.pooled(encoded, self.pool)

    def units(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """What losses between vectors compare, (units, width), and which each is (units,), ascending: one an item, of
        the tokens that have latents; of a graph whose nodes are what is wanted, one a node."""
        vectors = self.pooled(encoded, "mean" if self.pool == "none" else self.pool)
        return vectors, torch.arange(len(vectors), device=vectors.device)

    def spread(self, encoded: Encoded) -> Tensor:
        """Latents by token, zeros where there is none."""
        return placed(encoded.latent[self.name], encoded.kept[self.name], len(encoded.tokens[self.name]))

    def pooled(self, encoded: Encoded, how: str) -> Tensor:
        """One vector an item, of the tokens that have latents."""
        part, rows = encoded.tokens[self.name], encoded.kept[self.name]
        of = part.batch if rows is None else part.batch[rows]
        return pooled(encoded.latent[self.name], of, len(part.item_id), how)

    @abstractmethod
    def decoder(self, head: HeadOptions, options: EncoderOptions, out: int) -> "Decoder":
        """A decoder that reads this encoder's latents and gives predictions of width `out`."""

    def scores(self) -> nn.Module:
        """Of ids: the product with their embedding, (tokens, width) to (tokens, vocabulary)."""
        raise NotImplementedError(f"{type(self).__name__} embeds no ids")


class Decoder(nn.Module, ABC):
    """Latents to a target."""

    def deferred(self, encoded: Encoded, scored: Tensor, zeroed: Tensor | None) -> Tensor | Deferred:
        """As `forward`, for a loss that may spare the last linear map."""
        made: Tensor = self(encoded, scored, zeroed)
        return made

    @abstractmethod
    def forward(self, encoded: Encoded, scored: Tensor, zeroed: Tensor | None) -> Tensor:
        """A prediction (scored, width) for each token `scored` of one set, or for pairs `scored` (2, K) of tokens. At
        the rows `zeroed` of the set that has latents the decoder reads zeros."""


def placed(z: Tensor, rows: Tensor | None, size: int, token: Tensor | None = None) -> Tensor:
    """Latents z in the `rows` that they are of (None: all are there), and `token` (1, width), or zeros, in the others
    of `size`."""
    if rows is None:
        return z
    empty = z.new_zeros(size, z.shape[1]) if token is None else token.to(z.dtype).expand(size, -1)
    return empty.index_copy(0, rows, z)


def hidden(content: Tensor | SparseRows, plan: TorchPlan, token: Tensor) -> Tensor | SparseRows:
    """Content as the encoder sees it. Random ids are in their place already."""
    if isinstance(content, SparseRows):
        return content.hidden(plan, token)
    if plan.plan.from_where is not None or not len(plan.with_act(Act.RANDOM)):
        return apply(content, plan, token)
    shown = content.index_put((plan.with_act(Act.TOKEN),), token.to(content.dtype))
    gone = torch.cat([plan.with_act(Act.ZERO), plan.with_act(Act.DROP)])
    return shown.index_fill(0, gone, 0.0)
