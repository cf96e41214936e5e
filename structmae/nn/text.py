"""The encoder of text: a transformer over the pieces of a byte-pair encoding."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from structmae.errors import StructmaeError
from structmae.nn.embedding import Embedding, Tied
from structmae.nn.sequence import SequenceEncoder
from structmae.recipe import Recipe
from structmae.tokens import TokenSet
from structmae.tokens.text import TextTokenizer


class TextEncoder(SequenceEncoder):
    """Text to vectors: `encoder(["a text", "another"])`, a plain module to fine-tune."""

    def __init__(self, recipe: Recipe, tokenizer: TextTokenizer):
        super().__init__(recipe, tokenizer, "piece", (tokenizer.context,))
        options, self.vocabulary = recipe.encoder, tokenizer.vocabulary
        self.token_widths, self.content_widths = {"piece": 0}, {"piece": options.hidden}
        self.embedding = Embedding(self.vocabulary, options.hidden)
        self.read_by(options)

    def forward(self, texts: Sequence[str]) -> Float[Tensor, "rows width"]:
        """One vector a piece, or one a text where the recipe pools; of a long text its first `context` pieces count.
        Raises StructmaeError for no texts, or an empty one."""
        if isinstance(texts, str) or not len(texts):
            raise StructmaeError("the encoder takes a list of texts, one at least")
        ids = [self.tokenizer.encode(text)[: self.tokenizer.context] for text in texts]
        if not all(ids):
            raise StructmaeError(f"text {[bool(each) for each in ids].index(False)} is empty: leave it out")
        tokens = self.tokenizer.tokens(ids, torch.arange(len(ids)))
        device = self.embedding.weight.device
        return self.represent({name: part.to(device) for name, part in tokens.items()})

    def embed(self, tokens: dict[str, TokenSet]) -> dict[str, Tensor]:
        ids = tokens["piece"].ids
        assert ids is not None
        return {"piece": self.embedding(ids)}

    def scores(self) -> nn.Module:
        return Tied(self.embedding)
