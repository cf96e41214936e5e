"""Vectors of ids, and the product with them: what a head that is tied to its embedding says."""

import math
from typing import Any

import torch
from torch import Tensor, nn


class Tied(nn.Module):
    """Scores (tokens, vocabulary) of vectors by their product with an embedding, which stays the encoder's own, and a
    bias (Devlin et al., BERT, 2019; Press and Wolf, EACL 2017)."""

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        self._embedding: list[Any] = [embedding]  # in a list, so that it is not a weight of this module too
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = z @ self._embedding[0].weight.T + self.bias
        return out


class Embedding(nn.Embedding):
    """A vector for each id, times the root of its width (Vaswani et al., NeurIPS 2017, section 3.4): weights small
    enough for the scores of a tied head, vectors as large as the sines of the places that are added to them."""

    def __init__(self, vocabulary: int, width: int):
        super().__init__(vocabulary, width)
        nn.init.normal_(self.weight, std=width**-0.5)

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * math.sqrt(self.embedding_dim)
