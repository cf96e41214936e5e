"""The transformer: self-attention over the tokens of each item, packed rows in and out."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from structmae.nn.gnn import ACTIVATIONS, NORMS


class Attention(nn.Module):
    """Multi-head self-attention within items (Vaswani et al., NeurIPS 2017, section 3.2)."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.inward, self.outward = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "tokens width"], ptr: Int[Tensor, "items_1"]) -> Float[Tensor, "tokens width"]:
        counts = ptr.diff()
        longest = int(counts.max()) if len(counts) else 0
        whole = len(counts) * longest == len(x)
        projected = self.inward(x)
        rows = None
        if not whole:  # items of different length: padded for the product, which does not look at the padding
            item = torch.arange(len(counts), device=x.device).repeat_interleave(counts, output_size=len(x))
            rows = torch.arange(len(x), device=x.device) + (item * longest - ptr[item])
            padded = projected.new_zeros(len(counts) * longest, projected.shape[1])
            projected = padded.index_copy(0, rows, projected)
        q, k, v = projected.view(len(counts), longest, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        allowed = None
        if not whole:
            allowed = torch.arange(longest, device=x.device) < counts.clamp_min(1)[:, None]
            allowed = allowed[:, None, None, :]
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, dropout_p=self.dropout if self.training else 0.0
        )
        mixed = mixed.transpose(1, 2).reshape(len(counts) * longest, -1)
        out: Tensor = self.outward(mixed if rows is None else mixed[rows])
        return out


class Layer(nn.Module):
    """Attention, then a perceptron for each token; each is added to its input and then normalised (post-norm)."""

    def __init__(
        self, width: int, heads: int, feed_forward: int, dropout: float, attention_dropout: float, norm: str, act: str
    ):
        super().__init__()
        self.attention = Attention(width, heads, attention_dropout)
        self.perceptron = nn.Sequential(
            nn.Linear(width, feed_forward), ACTIVATIONS[act](), nn.Dropout(dropout), nn.Linear(feed_forward, width)
        )
        self.dropout = nn.Dropout(dropout)
        self.norms = nn.ModuleList(NORMS[norm](width) for _ in range(2))

    def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
        x = self.norms[0](x + self.dropout(self.attention(x, ptr)))
        out: Tensor = self.norms[1](x + self.dropout(self.perceptron(x)))
        return out


class Transformer(nn.Module):
    """Layers over packed tokens: (tokens, width) and the items' borders to (tokens, width).

    Tokens see those of their own item only; batch normalisation takes its statistics over all tokens that are there,
    which padding is not.
    """

    def __init__(
        self,
        layers: int,
        width: int,
        *,
        heads: int,
        feed_forward: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        norm: str = "layernorm",
        activation: str = "gelu",
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            Layer(width, heads, feed_forward, dropout, attention_dropout, norm, activation) for _ in range(layers)
        )

    def forward(self, x: Float[Tensor, "tokens width"], ptr: Int[Tensor, "items_1"]) -> Float[Tensor, "tokens width"]:
        if not len(x):  # everything was dropped, or nothing observed
            return x
        for layer in self.layers:
            x = layer(x, ptr)
        return x


def waves(places: int, width: int) -> Float[Tensor, "{places} {width}"]:
    """Sines and cosines of the place at wavelengths from 2 pi to 2 pi x 10,000 (Vaswani et al., section 3.5): where
    learned positions start. Near places are alike from the first step on, which small random numbers are not."""
    rates = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2) / width)
    angles = torch.arange(places)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]
