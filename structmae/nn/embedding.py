"""Vectors of ids, and the product with them: what a head that is tied to its embedding says."""

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


def embedding(vocabulary: int, width: int) -> nn.Embedding:
    """A vector for each id, small at first."""
    made = nn.Embedding(vocabulary, width)
    nn.init.normal_(made.weight, std=0.02)
    return made
