"""The image modality: how images are read, become tokens and batches, and are described."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from structmae.data.image_loading import load_images
from structmae.data.images import Images, ImageSchema
from structmae.errors import UsageError
from structmae.nn.base import Encoder
from structmae.recipe import DataOptions, Recipe
from structmae.tokens.image import ImageSource, ImageTokenizer

if TYPE_CHECKING:
    from structmae.nn.image import ImageEncoder


def load(data: Any, options: DataOptions, *, nodes: Any = None, kind: Any = None) -> Images:
    """Data as the recipe reads it."""
    if nodes is not None:
        raise UsageError("--nodes goes with an edge table; this recipe reads images")
    return load_images(data)


def load_like(data: Any, options: DataOptions, schema: Mapping[str, Any], encoder: Encoder, **where: Any) -> Images:
    """Other data, read as the run's own was: the same size, channels and maps."""
    return load_images(data, schema=ImageSchema.from_json(dict(schema)))


def fit(images: Images, recipe: Recipe) -> ImageTokenizer:
    """The tokenizer, with what it learns of the training images."""
    return ImageTokenizer.fit(images, recipe)


def encoder(recipe: Recipe, tokenizer: ImageTokenizer | Mapping[str, Any]) -> "ImageEncoder":
    """The encoder over a fitted tokenizer, or over the settings of one (its buffers are then loaded)."""
    from structmae.nn.image import ImageEncoder

    made = ImageTokenizer.from_config(tokenizer) if isinstance(tokenizer, Mapping) else tokenizer
    return ImageEncoder(recipe, made)


def source(images: Images, tokenizer: ImageTokenizer, device: torch.device, *, anew: bool = False) -> ImageSource:
    """Batches for the training loop. Any images are scaled as those that the tokenizer learned of."""
    return ImageSource(images, tokenizer, device)


def tasks(images: Images) -> tuple[str, ...]:
    """What these images can be scored on, the usual first."""
    return ("reconstruction",) if images.y is None else ("image_classification", "reconstruction", "clustering")


def describe(images: Images, tokenizer: ImageTokenizer) -> str:
    """One line on what is trained on."""
    rows, columns = tokenizer.grid
    maps = f" in {len(images.maps)} maps ({', '.join(tokenizer.kinds)})" if len(images.maps) > 1 else ""
    each = " each" if maps else ""
    tokens = f"{rows} x {columns} patches of {tokenizer.patch} x {tokenizer.patch}{each}"
    if tokenizer.vocabulary:
        tokens = f"{rows * columns} tokens, a pixel each, of {tokenizer.vocabulary} colours"
    return f"{images.name}: {images.num_items} images, {images.schema}{maps}; {tokens}"
