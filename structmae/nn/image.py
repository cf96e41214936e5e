"""The encoder of images: a transformer over patches, or over pixels as colours of a palette."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from structmae.errors import StructmaeError
from structmae.nn.embedding import Embedding, Tied
from structmae.nn.sequence import SequenceEncoder
from structmae.recipe import Recipe
from structmae.tokens import TokenSet
from structmae.tokens.image import ImageTokenizer


class ImageEncoder(SequenceEncoder):
    """Images to vectors: `encoder(x, observed=None)`, x (B, C, H, W), a plain module to fine-tune.

    It takes values as the data set has them; scaling is its own business. A patch of which nothing was observed is not
    read, and so is a whole map: any of several maps may be left out, as NaN.
    """

    def __init__(self, recipe: Recipe, tokenizer: ImageTokenizer):
        super().__init__(recipe, tokenizer, "patch", tokenizer.grid, tokenizer.kinds)
        options, self.vocabulary = recipe.encoder, tokenizer.vocabulary
        self.token_widths, self.content_widths = {"patch": tokenizer.width}, {"patch": options.hidden}
        if self.vocabulary:
            self.embedding = Embedding(self.vocabulary, options.hidden)
        else:
            # A map of each its own: a gradient is no brightness.
            self.project = nn.ModuleList(nn.Linear(tokenizer.width, options.hidden) for _ in tokenizer.kinds)
        self.read_by(options)

    def forward(self, x: Tensor, observed: Bool[Tensor, "B C H W"] | None = None) -> Float[Tensor, "rows width"]:
        """One vector a token (B * tokens), zeros where one is missing, or one an image where the recipe pools.

        x: raw values; NaN, and values where `observed` is False, are missing. Raises StructmaeError for images of
        another size.
        """
        if x.dim() != 4 or not len(x):
            raise StructmaeError(f"x of shape {tuple(x.shape)}: must be (B, C, H, W), images by channels by pixels")
        if x.shape[1] != self.tokenizer.channels:
            known = " x ".join(map(str, (self.tokenizer.channels, *self.tokenizer.size)))
            raise StructmaeError(f"images of {' x '.join(map(str, x.shape[1:]))}: this encoder reads {known}")
        x = x.float() / 255 if x.dtype is torch.uint8 else x.float()  # as images are read
        there = ~x.isnan() if observed is None else observed & ~x.isnan()
        ids = torch.arange(len(x), device=x.device)
        return self.represent(self.tokenizer.tokens(self.tokenizer.normalize(x), there, ids))

    def embed(self, tokens: dict[str, TokenSet]) -> dict[str, Tensor]:
        part = tokens["patch"]
        if self.vocabulary:
            assert part.ids is not None
            return {"patch": self.embedding(part.ids)}
        if len(self.project) == 1 or part.kind is None:
            return {"patch": self.project[0](part.values)}
        h = part.values.new_zeros(len(part), self.width)
        for kind, project in enumerate(self.project):
            rows = (part.kind == kind).nonzero()[:, 0]
            h = h.index_copy(0, rows, project(part.values[rows]))
        return {"patch": h}

    def scores(self) -> nn.Module:
        return Tied(self.embedding)
