"""Message passing by kernels (structmae/fast) that read the weights of PyTorch Geometric's layers and do the same."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GINConv

from structmae.fast.chain import Chain, Product
from structmae.fast.cosine import Deferred
from structmae.fast.edges import Edges, attended, fits, gathered
from structmae.fast.ending import ended
from structmae.fast.products import by_heads
from structmae.fast.sparse import SparseRows, dense
from structmae.tokens import Relation

Rows = Tensor | SparseRows | Chain  # what a layer reads


def linear(h: Rows, weight: Tensor) -> Tensor:
    """(M, out): rows times weight (out, in) transposed."""
    return h.product(weight) if isinstance(h, SparseRows) else F.linear(dense(h), weight)


class Layer(nn.Module, ABC):
    """A message-passing layer that can be asked for some rows only."""

    @abstractmethod
    def forward(
        self, h: Rows, relation: Relation, rows: Int[Tensor, "wanted"] | None = None, defers: bool = False
    ) -> Float[Tensor, "wanted out"] | Deferred:
        """h: (M, width_in); rows: the tokens whose output is wanted, increasing (None: all). `defers`: where the layer
        ends with a linear map, that may be left to do."""


class Convolution(Layer):
    """A PyTorch Geometric layer over a Relation: (M, width_in) to (M, width_out).

    Where there are kernels for it, on the CPU and without edge attributes, `fused` does the same with the same
    weights; the layer itself does the rest.
    """

    def __init__(self, conv: nn.Module, reads_attributes: bool = False):
        super().__init__()
        self.conv, self.reads_attributes = conv, reads_attributes

    def fused(self, h: Rows, relation: Relation, rows: Tensor | None) -> Tensor | Deferred:
        """As `forward`, by kernels. A linear map at the end is left to do."""
        raise NotImplementedError

    def covered(self, relation: Relation) -> bool:
        """Whether there are kernels for this."""
        has = type(self).fused is not Convolution.fused
        return has and not self.reads_attributes and fits(relation.source)

    def forward(
        self, h: Rows, relation: Relation, rows: Int[Tensor, "wanted"] | None = None, defers: bool = False
    ) -> Float[Tensor, "wanted out"] | Deferred:
        if self.covered(relation):
            made = self.fused(h, relation, rows)
            return made if defers else dense(made)
        attributes = (relation.attributes,) if self.reads_attributes else ()
        out: Tensor = self.conv(dense(h), relation.edge_index, *attributes)
        return out if rows is None else out[rows]


def product(h: Rows, weight: Tensor) -> Tensor | Chain:
    """As `linear`, for what goes on as a chain."""
    return h.product(weight) if isinstance(h, SparseRows) else Chain.of(h).then(Product(weight))


def sums_first(h: Rows, edges: Edges, out: int, heads: int = 1) -> bool:
    """Whether to sum over neighbours before the product with a weight, which both are linear: where few of the rows
    are wanted that spares products, and where the output is wide additions, of which one costs about four of theirs.
    """
    if isinstance(h, SparseRows):  # the product is what makes it dense, and narrow
        return False
    width, wanted = h.shape[1], len(edges.rows)
    first = wanted * width * out + 4 * len(edges.source) * heads * width
    return first <= len(h) * width * out + 4 * len(edges.source) * out


class Attention(Convolution):
    """GATConv."""

    conv: GATConv

    def fused(self, h: Rows, relation: Relation, rows: Tensor | None) -> Tensor | Deferred:
        conv, edges, h = self.conv, relation.onto(rows), dense(h) if isinstance(h, Chain) else h
        heads, width = conv.heads, conv.out_channels
        how = {"slope": conv.negative_slope, "p": conv.dropout if self.training else 0.0}
        blocks = torch.cat([apart(conv.att_src), apart(conv.att_dst)])
        if not isinstance(h, SparseRows) and sums_first(h, edges, heads * width, heads):
            logits = F.linear(h, blocks @ conv.lin.weight)  # a (W h) = (a W) h
            means = attended(h, logits, edges, heads, shared=True, **how)
            if heads == 1:
                return Deferred(means, conv.lin.weight, conv.bias)
            return by_heads(means, conv.lin.weight, conv.bias, heads)
        z = linear(h, conv.lin.weight)
        return Deferred(attended(z, F.linear(z, blocks), edges, heads, **how), None, conv.bias)


def apart(vectors: Float[Tensor, "1 heads width"]) -> Float[Tensor, "heads all"]:
    """Each head's vector in its place among all columns (H, H width), zeros elsewhere: their products at once."""
    heads = vectors.shape[1]
    return (torch.eye(heads, device=vectors.device)[..., None] * vectors).flatten(1)


class Mean(Convolution):
    """GCNConv."""

    conv: GCNConv

    def fused(self, h: Rows, relation: Relation, rows: Tensor | None) -> Tensor | Deferred:
        edges, weight = relation.onto(rows), self.conv.lin.weight
        if not isinstance(h, SparseRows) and sums_first(h, edges, len(weight)):
            return Deferred(gathered(h, edges, relation.roots), weight, self.conv.bias)
        return Deferred(gathered(product(h, weight), edges, relation.roots), None, self.conv.bias)


class Sum(Convolution):
    """GINConv, whose perceptron begins with a product that commutes with the sum."""

    conv: GINConv

    def fused(self, h: Rows, relation: Relation, rows: Tensor | None) -> Tensor | Deferred:
        first, norm, act, last = self.conv.nn
        # Batch statistics are of all rows, wanted or not.
        chosen = None if isinstance(norm, nn.BatchNorm1d) else rows
        edges = relation.onto(chosen)
        own = 1 + float(self.conv.eps)
        if not isinstance(h, SparseRows) and sums_first(h, edges, first.out_features):
            z = product(gathered(h, edges, own=own), first.weight)
        else:
            z = gathered(product(h, first.weight), edges, own=own)
        out = ended(z, first.bias, norm, act)
        return Deferred(out if rows is chosen or rows is None else dense(out)[rows], last.weight, last.bias)


class Alone(Layer):
    """A linear map of rows, over a Relation that it does not look at."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.linear = linear

    def forward(
        self, h: Rows, relation: Relation, rows: Int[Tensor, "wanted"] | None = None, defers: bool = False
    ) -> Float[Tensor, "wanted out"] | Deferred:
        given = dense(h)
        made = Deferred(given if rows is None else given[rows], self.linear.weight, self.linear.bias)
        return made if defers else made.dense()
