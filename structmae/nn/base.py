"""What the model asks of an encoder and of a decoder, whatever their tokens are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from structmae.masking.torch import TorchPlan, apply, take
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
    """The part that is kept. `width` is that of its latents; by token set, `token_widths` is that of the tokens'
    values, `content_widths` that of embedded content, which is what a mask token replaces. `tokenizer` made the tokens.
    """

    width: int
    token_widths: dict[str, int]
    content_widths: dict[str, int]
    tokenizer: Any

    @abstractmethod
    def embed(self, tokens: dict[str, TokenSet]) -> dict[str, Tensor]:
        """Each token's content on its own, before any token sees another. Hiding happens after this."""

    def prepare(self, tokens: dict[str, TokenSet], visible: dict[str, Tensor] | None) -> dict[str, TokenSet]:
        """The tokens once it is known which of them may be read: normalised by statistics of the rows `visible` of each
        set (None: of all). What is rebuilt is normalised in the same way."""
        return tokens

    def reveal(self, h: dict[str, Tensor], tokens: dict[str, TokenSet]) -> dict[str, TokenSet]:
        """The tokens with all that is hidden taken out of their structure too: what encoder and decoders may look at.
        `h` is embedded content after hiding."""
        return tokens

    @abstractmethod
    def encode(self, h: dict[str, Tensor], tokens: dict[str, TokenSet]) -> dict[str, Tensor]:
        """Embedded content, hidden or not, to latents (tokens, width). Where tokens are dropped, or not valid, it gets
        the others only."""

    def read(
        self,
        tokens: dict[str, TokenSet],
        plans: Mapping[str, TorchPlan] | None = None,
        mask_tokens: Mapping[str, Tensor] | None = None,
    ) -> Encoded:
        """The latents of tokens, whole or where `plans` hide: nothing of a hidden token's content reaches them."""
        plans, mask_tokens = plans or {}, mask_tokens or {}
        tokens = self.prepare(tokens, {name: plan.visible for name, plan in plans.items()} if plans else None)
        content = self.embed(tokens)
        kept: dict[str, Tensor | None] = {}
        for name, part in tokens.items():
            plan = plans.get(name)
            kept[name] = None if part.valid is None else part.valid.nonzero()[:, 0]
            if plan is None:
                continue
            if plan.plan.dropped < len(plan.hidden) or not plan.plan.dropped:
                content[name] = apply(content[name], plan, mask_tokens[name])
            if plan.plan.dropped:
                kept[name] = plan.kept
        seen = self.reveal(content, tokens)
        given, h = dict(seen), dict(content)
        for name, rows in kept.items():
            if rows is not None:
                given[name], h[name] = seen[name].only(rows), take(content[name], rows)
        return Encoded(self.encode(h, given), tokens, seen, kept)

    def represent(self, tokens: dict[str, TokenSet]) -> Tensor:
        """What a person gets of whole, unmasked tokens: a vector each, or one an item."""
        return self.vectors(self.read(tokens))

    @abstractmethod
    def vectors(self, encoded: Encoded) -> Tensor:
        """Latents as a person and a task's head read them: one vector a token (0 where it has no latent), or where the
        recipe pools one an item, of the tokens that have latents."""

    @abstractmethod
    def decoder(self, head: HeadOptions, options: EncoderOptions) -> "Decoder":
        """A decoder that reads this encoder's latents."""


class Decoder(nn.Module, ABC):
    """Latents to a target."""

    @abstractmethod
    def forward(self, encoded: Encoded, scored: Tensor, zeroed: Tensor | None) -> Tensor:
        """A prediction (scored, width) for each token `scored` of one set. At the rows `zeroed` of the
        set that has latents the decoder reads zeros."""
