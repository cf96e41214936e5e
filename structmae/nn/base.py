"""What the model asks of an encoder and of a decoder, whatever their tokens are."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from structmae.recipe import EncoderOptions, HeadOptions
from structmae.tokens import TokenSet


class Encoder(nn.Module, ABC):
    """The part that is kept. `width` is that of its latents, `token_widths` (by token set) that of embedded content,
    which is what a mask token replaces; `tokenizer` made the tokens."""

    width: int
    token_widths: dict[str, int]
    tokenizer: Any

    @abstractmethod
    def embed(self, tokens: dict[str, TokenSet]) -> dict[str, Tensor]:
        """Each token's content on its own, before any token sees another. Hiding happens after this."""

    def reveal(self, h: dict[str, Tensor], tokens: dict[str, TokenSet]) -> dict[str, TokenSet]:
        """The tokens with all that is hidden taken out of their structure too: what encoder and decoders may look at.
        `h` is embedded content after hiding."""
        return tokens

    @abstractmethod
    def encode(self, h: dict[str, Tensor], tokens: dict[str, TokenSet]) -> dict[str, Tensor]:
        """Embedded content, hidden or not, to latents (tokens, width)."""

    @abstractmethod
    def represent(self, tokens: dict[str, TokenSet]) -> Tensor:
        """What a person gets of whole, unmasked tokens: a vector each, or one an item."""

    @abstractmethod
    def decoder(self, head: HeadOptions, options: EncoderOptions) -> "Decoder":
        """A decoder that reads this encoder's latents."""


class Decoder(nn.Module, ABC):
    """Latents to a target."""

    @abstractmethod
    def forward(self, latent: dict[str, Tensor], tokens: dict[str, TokenSet], zeroed: Tensor | None) -> Tensor:
        """A prediction for each token of one set (tokens, width). `tokens` are as `Encoder.reveal` leaves them; at
        `zeroed`, of the set that has latents, the decoder reads zeros."""
