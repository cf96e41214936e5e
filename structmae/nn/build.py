"""From a recipe to modules, and from modules to what config.json says of them. The one place that knows modalities."""

from collections.abc import Mapping
from typing import Any

from structmae.nn.base import Decoder, Encoder
from structmae.nn.graph import GraphDecoder, GraphEncoder
from structmae.recipe import HeadOptions, Recipe
from structmae.tokens.graph import NodeTokenizer


def build_encoder(recipe: Recipe, tokenizer: Any) -> Encoder:
    """The encoder of a recipe over a fitted tokenizer, or over the settings of one (its buffers are then loaded)."""
    made = NodeTokenizer.from_config(tokenizer) if isinstance(tokenizer, Mapping) else tokenizer
    return GraphEncoder(recipe.encoder, made)


def build_decoder(options: HeadOptions, recipe: Recipe, encoder: Any) -> Decoder:
    """The decoder of one head over the encoder's latents."""
    return GraphDecoder(options, recipe.encoder, encoder)
