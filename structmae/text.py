"""The text modality: how text is read, becomes tokens and batches, and is described."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from structmae.data.text_loading import load_texts
from structmae.data.texts import Texts
from structmae.errors import UsageError
from structmae.nn.base import Encoder
from structmae.recipe import DataOptions, Recipe
from structmae.tokens.text import TextSource, TextTokenizer

if TYPE_CHECKING:
    from structmae.nn.text import TextEncoder


def load(data: Any, options: DataOptions, *, nodes: Any = None, kind: Any = None) -> Texts:
    """Data as the recipe reads it."""
    if nodes is not None:
        raise UsageError("--nodes goes with an edge table; this recipe reads text")
    return load_texts(data)


def load_like(data: Any, options: DataOptions, schema: Mapping[str, Any], encoder: Encoder, **where: Any) -> Texts:
    """Other data, read as the run's own was."""
    return load_texts(data)


def fit(texts: Texts, recipe: Recipe) -> TextTokenizer:
    """The tokenizer, with what it learns of the training documents."""
    return TextTokenizer.fit(texts, recipe)


def encoder(recipe: Recipe, tokenizer: TextTokenizer | Mapping[str, Any]) -> "TextEncoder":
    """The encoder over a fitted tokenizer, or over the settings of one."""
    from structmae.nn.text import TextEncoder

    made = TextTokenizer.from_config(tokenizer) if isinstance(tokenizer, Mapping) else tokenizer
    return TextEncoder(recipe, made)


def source(texts: Texts, tokenizer: TextTokenizer, device: torch.device, *, anew: bool = False) -> TextSource:
    """Batches for the training loop."""
    return TextSource(texts, tokenizer, device)


def tasks(texts: Texts) -> tuple[str, ...]:
    """What text can be scored on."""
    return ("reconstruction",)


def describe(texts: Texts, tokenizer: TextTokenizer) -> str:
    """One line on what is trained on."""
    shrunk = f", shrunk from tokens.context={tokenizer.shrunk_from}" if tokenizer.shrunk_from else ""
    return (
        f"{texts.name}: {texts.num_items} documents, {texts.num_characters} characters; windows of {tokenizer.context} "
        f"pieces{shrunk}, {tokenizer.vocabulary} different ones"
    )
