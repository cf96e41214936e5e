"""What the model asks of an encoder and of a decoder, whatever their tokens are."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from structmae.recipe import EncoderOptions, HeadOptions
from structmae.tokens import TokenSet


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

    @abstractmethod
    def represent(self, tokens: dict[str, TokenSet]) -> Tensor:
        """What a person gets of whole, unmasked tokens: a vector each, or one an item."""

    @abstractmethod
    def decoder(self, head: HeadOptions, options: EncoderOptions) -> "Decoder":
        """A decoder that reads this encoder's latents."""


class Decoder(nn.Module, ABC):
    """Latents to a target."""

    @abstractmethod
    def forward(
        self,
        latent: dict[str, Tensor],
        tokens: dict[str, TokenSet],
        kept: dict[str, Tensor | None],
        scored: Tensor,
        zeroed: Tensor | None,
    ) -> Tensor:
        """A prediction (scored, width) for each token `scored` of one set. `tokens` are as `Encoder.reveal` leaves
        them, latents are those of their rows `kept` (None: all); at the rows `zeroed` of the set that has latents the
        decoder reads zeros."""
