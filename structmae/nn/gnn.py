"""Message-passing layers and stacks of them.

The layers are PyTorch Geometric's own, and where there are kernels that do the same (structmae/fast) those read their
weights. They read a Relation that already has its self-loops (`NodeTokenizer.relation`), so none adds any. A layer of
one's own is registered as the built-in ones are: a callable that takes the keywords of `gat_layer` and gives a module
with `forward(h, relation)`.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GINConv, GINEConv

from structmae import registry
from structmae.fast.chain import Chain
from structmae.fast.columns import BatchNorm
from structmae.fast.cosine import Deferred
from structmae.fast.dropout import dropout
from structmae.fast.edges import fits, gathered
from structmae.fast.ending import ended
from structmae.fast.sparse import SparseRows, dense
from structmae.nn.convolutions import Alone, Attention, Convolution, Layer, Mean, Rows, Sum, linear
from structmae.tokens import Relation

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "prelu": nn.PReLU,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
}


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda width: nn.Identity(),
    "batchnorm": BatchNorm,
    "layernorm": nn.LayerNorm,
}


def gat_layer(
    width_in: int,
    width_out: int,
    *,
    hidden: int,
    heads: int,
    attention_dropout: float,
    norm: str,
    activation: str,
    edge_width: int,
) -> nn.Module:
    """Attention over neighbours (Velickovic et al., ICLR 2018), heads side by side, started as GraphMAE's code starts
    it: Xavier normal with the gain of a ReLU."""
    conv = GATConv(
        width_in,
        width_out // heads,
        heads,
        dropout=attention_dropout,
        add_self_loops=False,
        edge_dim=edge_width or None,
    )
    gain = nn.init.calculate_gain("relu")
    for weight in (conv.lin.weight, conv.att_src, conv.att_dst):
        nn.init.xavier_normal_(weight, gain)
    return Attention(conv, edge_width > 0)


def gcn_layer(
    width_in: int,
    width_out: int,
    *,
    hidden: int,
    heads: int,
    attention_dropout: float,
    norm: str,
    activation: str,
    edge_width: int,
) -> nn.Module:
    """Mean over neighbours with both degrees' roots (Kipf and Welling, ICLR 2017). Reads no edge attributes."""
    return Mean(GCNConv(width_in, width_out, add_self_loops=False))


def gin_layer(
    width_in: int,
    width_out: int,
    *,
    hidden: int,
    heads: int,
    attention_dropout: float,
    norm: str,
    activation: str,
    edge_width: int,
) -> nn.Module:
    """Sum over neighbours, then two dense layers (Xu et al., ICLR 2019); with edge attributes GINE (Hu et al., 2020).

    The node itself counts twice, once by the layer and once by its self-loop, as in GraphMAE's code.
    """
    perceptron = nn.Sequential(
        nn.Linear(width_in, hidden), NORMS[norm](hidden), ACTIVATIONS[activation](), nn.Linear(hidden, width_out)
    )
    return Convolution(GINEConv(perceptron, edge_dim=edge_width), True) if edge_width else Sum(GINConv(perceptron))


def mlp_layer(width_in: int, width_out: int, **unread: object) -> nn.Module:
    """A dense layer for each node alone: for decoders that look at no neighbours."""
    return Alone(nn.Linear(width_in, width_out))


class GNN(nn.Module):
    """Layers in a row: dropout, layer, residual, norm, activation. With `open_end` the last one stops after its layer,
    so that its output can be any number, as a decoder's must."""

    def __init__(
        self,
        layer: str,
        widths: list[int],
        *,
        hidden: int,
        heads: int,
        dropout: float,
        attention_dropout: float,
        norm: str,
        activation: str,
        residual: bool,
        edge_width: int,
        open_end: bool,
    ):
        super().__init__()
        make = registry.get("layer", layer)
        pairs = list(pairwise(widths))
        closed = [not (open_end and index == len(pairs) - 1) for index in range(len(pairs))]
        self.dropout = dropout
        self.layers = nn.ModuleList(
            make(
                a, b, hidden=hidden, heads=heads, attention_dropout=attention_dropout,
                norm=norm, activation=activation, edge_width=edge_width,
            )
            for a, b in pairs
        )  # fmt: skip
        self.residuals = nn.ModuleList(
            (nn.Identity() if a == b else nn.Linear(a, b, bias=False)) if residual and more else nn.ParameterList()
            for (a, b), more in zip(pairs, closed, strict=True)
        )
        self.ends = nn.ModuleList(
            nn.Sequential(NORMS[norm](b), ACTIVATIONS[activation]()) if more else nn.Sequential()
            for (_, b), more in zip(pairs, closed, strict=True)
        )

        # Batch statistics of the last layer are of all rows, wanted or not.
        self.narrows = not any(isinstance(part, BatchNorm) for part in self.ends[-1].modules())

    def reads_sparse(self, relation: Relation) -> bool:
        """Whether the first layer has kernels for SparseRows."""
        first = self.layers[0]
        return isinstance(first, Convolution) and first.covered(relation)

    def forward(
        self, h: Rows, relation: Relation, rows: Int[Tensor, "wanted"] | None = None, defers: bool = False
    ) -> Float[Tensor, "wanted out"] | Deferred:
        """h: (M, width), what is hidden in it hidden; rows: the tokens whose output is wanted, increasing (None: all),
        so that the last layer is computed for them alone. `defers`: of an open end the last linear map may be left to
        do."""
        chosen = rows if self.narrows else None
        p, training, last = self.dropout, self.training, len(self.layers) - 1
        h = h.dropped(p, training) if isinstance(h, SparseRows) else dropout(dense(h), p, training)
        for index, (layer, residual, end) in enumerate(zip(self.layers, self.residuals, self.ends, strict=True)):
            wanted = chosen if index == last else None
            if isinstance(h, Chain) and not isinstance(residual, nn.ParameterList):
                h = dense(h)  # it is read twice
            if isinstance(layer, Layer):
                out = layer(h, relation, wanted, defers=True)
            else:  # one of a person's own
                out = layer(dense(h), relation)
                out = out if wanted is None else out[wanted]
            if isinstance(residual, nn.Linear) and wanted is None:
                out = dense(out) + linear(h, residual.weight)
            elif not isinstance(residual, nn.ParameterList):
                given = dense(h)
                out = dense(out) + residual(given if wanted is None else given[wanted])
            assert isinstance(end, nn.Sequential)
            if not end:
                return out if defers and isinstance(out, Deferred) else dense(out)
            # What the next layer drops is dropped on the way.
            y, bias = (out.halfway(), out.bias) if isinstance(out, Deferred) else (out, None)
            norm, act = end
            h = ended(y, bias, norm, act, p if index < last else 0.0, training)
        return dense(h) if rows is chosen else dense(h)[rows]


def averaged(h: Float[Tensor, "tokens width"], relation: Relation, hops: int) -> Float[Tensor, "tokens width"]:
    """S^hops h, S = D^-1/2 (A + I) D^-1/2 of a relation with self-loops (Wu et al., SGC, ICML 2019)."""
    source, target = relation.edge_index
    for _ in range(hops):
        if fits(h):
            h = gathered(h, relation.incoming, relation.roots).dense()
        else:
            scaled = relation.roots[:, None] * h
            h = relation.roots[:, None] * torch.zeros_like(h).index_add(0, target, scaled[source])
    return h


def pooled(h: Float[Tensor, "tokens width"], batch: Tensor, items: int, how: str) -> Float[Tensor, "items width"]:
    """One vector an item: sum, mean or max over its tokens."""
    from torch_geometric.nn import global_add_pool, global_max_pool, global_mean_pool

    pool = {"sum": global_add_pool, "mean": global_mean_pool, "max": global_max_pool}[how]
    return torch.as_tensor(pool(h, batch, items))
