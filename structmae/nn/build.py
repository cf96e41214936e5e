"""From a recipe to modules, and from modules to what config.json says of them. The one place that knows modalities."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from structmae.recipe import HeadOptions, Recipe
from structmae.tokens import TokenSet


class Encoder(Protocol):
    """What the model asks of an encoder, whatever its tokens are."""

    width: int
    token_widths: dict[str, int]
    tokenizer: Any

    def embed(self, tokens: dict[str, TokenSet]) -> dict[str, Tensor]: ...

    def encode(self, h: dict[str, Tensor], tokens: dict[str, TokenSet]) -> dict[str, Tensor]: ...

    def represent(self, tokens: dict[str, TokenSet]) -> Tensor: ...


def build_encoder(recipe: Recipe, tokenizer: nn.Module | Mapping[str, Any]) -> Any:
    """The encoder of a recipe over a fitted tokenizer, or over the settings of one (its buffers are then loaded)."""
    from structmae.nn.graph import GraphEncoder
    from structmae.tokens.graph import NodeTokenizer

    made = NodeTokenizer(**tokenizer) if isinstance(tokenizer, Mapping) else tokenizer
    return GraphEncoder(recipe.encoder, made)


def build_decoder(options: HeadOptions, recipe: Recipe, encoder: Any) -> nn.Module:
    """The decoder of one head over the encoder's latents."""
    from structmae.nn.graph import GraphDecoder

    return GraphDecoder(options, recipe.encoder, encoder)
