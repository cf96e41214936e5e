"""From a recipe to modules, by its modality."""

from typing import Any

from structmae import registry
from structmae.nn.base import Decoder, Encoder
from structmae.recipe import HeadOptions, Recipe


def build_encoder(recipe: Recipe, tokenizer: Any) -> Encoder:
    """The encoder of a recipe over a fitted tokenizer, or over the settings of one."""
    encoder: Encoder = registry.get("modality", recipe.modality).encoder(recipe, tokenizer)
    return encoder


def build_decoder(options: HeadOptions, recipe: Recipe, encoder: Encoder, out: int) -> Decoder:
    """The decoder of one head over the encoder's latents, to predictions of width `out`."""
    return encoder.decoder(options, recipe.encoder, out)
