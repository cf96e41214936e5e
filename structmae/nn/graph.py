"""The encoder and the decoder of graphs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from structmae.errors import StructmaeError
from structmae.fast.cosine import Deferred
from structmae.fast.sparse import SparseRows, dense
from structmae.masking.torch import TorchPlan, take
from structmae.nn.base import Decoder, Encoded, Encoder, placed
from structmae.nn.convolutions import Convolution
from structmae.nn.gnn import ACTIVATIONS, GNN, averaged
from structmae.nn.graph_transformer import GraphTransformer
from structmae.recipe import EncoderOptions, HeadOptions
from structmae.tokens import TokenSet
from structmae.tokens.graph import NodeTokenizer
from structmae.tokens.neighbourhoods import AT_ONCE, Neighbourhoods


class GraphEncoder(Encoder):
    """A graph to vectors: `encoder(x, edge_index, edge_attr=None, batch=None)`, a plain module to fine-tune.

    It takes features and edges as the data set has them: normalising, one-hot codes, both directions and self-loops are
    its own business, so it gives what `run.embed` gives.
    """

    def __init__(self, options: EncoderOptions, tokenizer: NodeTokenizer):
        super().__init__()
        self.name, self.tokenizer, self.pool = "node", tokenizer, options.pool
        self.smooth, self.unit = options.smooth, options.unit
        self.width, self.token_widths = options.hidden, {"node": tokenizer.width}
        if tokenizer.edge_tokens:
            self.token_widths["edge"] = tokenizer.edge_width
        self.content_widths = self.token_widths  # features are hidden as they are
        self.transformer = options.kind == "graph_transformer"
        self.body: nn.Module = (
            GraphTransformer(tokenizer.width, options) if self.transformer else _gnn(options, tokenizer)
        )

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None, batch: Tensor | None = None
    ) -> Float[Tensor, "rows width"]:
        """One vector a node, or one a graph where the recipe pools.

        x: (N, F) raw features; edge_index: (2, E); edge_attr: (E, D) where the encoder was pre-trained with them, and
        read by none otherwise; batch: (N,) graph of each node, not decreasing, as PyTorch Geometric's loaders give it.
        Raises StructmaeError for shapes, categories or edges that the encoder can't read.
        """
        if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < len(x):
            low, high = int(edge_index.min()), int(edge_index.max())
            raise StructmaeError(f"edge_index names nodes {low} to {high}, but x has rows 0 to {len(x) - 1}")
        batch = x.new_zeros(len(x), dtype=torch.long) if batch is None else batch
        if bool((batch[1:] < batch[:-1]).any()):
            raise StructmaeError("batch must not decrease: the nodes of a graph stand together")
        counts = torch.bincount(batch, minlength=1)
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        tokens = self.tokenizer.tokens(x, edge_index, ptr, torch.arange(len(counts), device=x.device), edge_attr)
        if not self.tokenizer.hops:
            return self.represent(tokens)
        around = Neighbourhoods(tokens, self.tokenizer)
        parts = torch.split(torch.arange(len(x), device=x.device), AT_ONCE)
        return torch.cat([self.represent(around.cut(nodes)) for nodes in parts])

    def vectors(self, encoded: Encoded) -> Float[Tensor, "rows width"]:
        if self.tokenizer.hops:  # each neighbourhood begins with the node that it is of
            found = self.spread(encoded)[encoded.tokens["node"].ptr[:-1]]
        else:
            found = super().vectors(encoded)
            if self.smooth and self.pool == "none":
                found = averaged(found, encoded.seen["node"].relations["edges"], self.smooth)
        return nn.functional.normalize(found) if self.unit else found

    def units(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        if self.pool != "none" or self.tokenizer.hops:
            return super().units(encoded)
        latent, rows = encoded.latent["node"], encoded.kept["node"]
        return latent, torch.arange(len(latent), device=latent.device) if rows is None else rows

    def how(self, tokens: dict[str, TokenSet]) -> str:
        node = tokens["node"]
        if not isinstance(self.body, GNN) or not isinstance(first := self.body.layers[0], Convolution):
            return ""
        name = type(first.conv).__name__
        if not first.covered(node.relations["edges"]):
            why = "edge attributes" if first.reads_attributes else f"on {node.values.device.type}"
            return f"layers: PyTorch Geometric's {name} ({why})"
        matrix = node.sparse
        share = "" if matrix is None else f", the first by the {len(matrix.data) / node.values.numel():.1%} not zero"
        return f"layers: {name} by kernels of our own{share}"

    def embed(self, tokens: dict[str, TokenSet]) -> dict[str, Any]:
        content: dict[str, Any] = {name: part.values for name, part in tokens.items()}
        node = tokens["node"]
        if isinstance(self.body, GNN) and self.body.reads_sparse(node.relations["edges"]) and node.sparse is not None:
            content["node"] = SparseRows.whole(node.sparse)
        return content

    def reveal(
        self, h: dict[str, Any], tokens: dict[str, TokenSet], plans: Mapping[str, TorchPlan]
    ) -> dict[str, TokenSet]:
        node = tokens["node"]
        edges = node.relations["edges"]
        if "edge" in tokens and self.tokenizer.edge_width:
            edges = edges.with_attributes(h["edge"])
        if "edge" in plans and plans["edge"].plan.dropped:
            gone = torch.zeros(len(tokens["edge"]), dtype=torch.bool, device=edges.source.device)
            edges = edges.without(gone.index_fill(0, plans["edge"].hidden, True))
        if edges is not node.relations["edges"]:
            node = replace(node, relations={**node.relations, "edges": edges})
        if isinstance(self.body, GraphTransformer):
            node = replace(node, structure=self.body.structure(edges, node.ptr))
        return tokens if node is tokens["node"] else {**tokens, "node": node}

    def encode_some(self, h: dict[str, Any], tokens: dict[str, TokenSet], rows: Tensor) -> dict[str, Tensor]:
        if self.transformer:
            return super().encode_some(h, tokens, rows)
        return {"node": self.body(h["node"], tokens["node"].relations["edges"], rows)}

    def encode(self, h: dict[str, Any], tokens: dict[str, TokenSet]) -> dict[str, Tensor]:
        node = tokens["node"]
        if self.transformer:
            return {"node": self.body(h["node"], node.structure, node.relations["edges"], node.ptr)}
        return {"node": self.body(h["node"], node.relations["edges"])}

    def decoder(self, head: HeadOptions, options: EncoderOptions, out: int) -> Decoder:
        return PairDecoder(head, options, self) if head.of == "pair" else GraphDecoder(head, options, self, out)


def _gnn(options: EncoderOptions, tokenizer: NodeTokenizer) -> GNN:
    return GNN(
        options.layer,
        [tokenizer.width, *[options.hidden] * options.layers],
        hidden=options.hidden,
        heads=options.heads,
        dropout=options.dropout,
        attention_dropout=options.attention_dropout,
        norm=options.norm,
        activation=options.activation,
        residual=options.residual,
        edge_width=tokenizer.edge_width,
        open_end=False,
    )


class GraphDecoder(Decoder):
    """Latents of the nodes to predictions: a dense bridge, then layers over the edges (GraphMAE, section 3.2). Nodes
    that the encoder did not get have a mask token of the decoder's own.

    For those of edges, one more dense layer reads the sum and the product of the two ends: the same both ways.
    """

    def __init__(self, head: HeadOptions, options: EncoderOptions, encoder: GraphEncoder, out: int):
        super().__init__()
        self.of_edges = head.of == "edge"
        width = head.hidden or encoder.width
        self.bridge = nn.Linear(encoder.width, width, bias=False)
        self.token = nn.Parameter(torch.zeros(1, width)) if encoder.transformer else None
        self.body = GNN(
            head.layer,
            [*[width] * head.layers, width if self.of_edges else out],
            hidden=width,
            heads=1,
            dropout=options.dropout,
            attention_dropout=options.attention_dropout,
            norm=options.norm,
            activation=options.activation,
            residual=options.residual,
            edge_width=encoder.tokenizer.edge_width,
            open_end=True,
        )
        self.pair = nn.Linear(2 * width, out) if self.of_edges else None

    def forward(self, encoded: Encoded, scored: Tensor, zeroed: Tensor | None) -> Tensor:
        return dense(self.deferred(encoded, scored, zeroed))

    def deferred(self, encoded: Encoded, scored: Tensor, zeroed: Tensor | None) -> Tensor | Deferred:
        node = encoded.seen["node"]
        z, rows = rest(encoded.latent["node"], encoded.kept["node"], zeroed, len(node))
        z = placed(self.bridge(z), rows, len(node), self.token)
        if zeroed is not None and self.token is not None:
            z = z.index_fill(0, zeroed, 0.0)
        edges = node.relations["edges"]
        if self.pair is None:
            made: Tensor | Deferred = self.body(z, edges, scored, defers=True)
            return made
        out, ends = self.body(z, edges), encoded.seen["edge"].ends
        assert ends is not None
        a, b = out[ends[0, scored]], out[ends[1, scored]]
        paired: Tensor = self.pair(torch.cat([a + b, a * b], 1))
        return paired


def rest(z: Tensor, rows: Tensor | None, zeroed: Tensor | None, size: int) -> tuple[Tensor, Tensor | None]:
    """Latents z, in `rows` (None: all) of `size`, without those in the rows `zeroed`; and the rows of what is left."""
    if zeroed is None:
        return z, rows
    stays = torch.ones(size, dtype=torch.bool, device=z.device).index_fill_(0, zeroed, False)
    if rows is None:
        rows = stays.nonzero()[:, 0]
        return take(z, rows), rows
    stays = stays[rows]
    return (z, rows) if bool(stays.all()) else (z[stays], rows[stays])


class PairDecoder(Decoder):
    """Latents of two nodes to whether they are an edge: the product of both through a perceptron (Li et al., MaskGAE,
    KDD 2023, section 4.3), the same both ways."""

    def __init__(self, head: HeadOptions, options: EncoderOptions, encoder: GraphEncoder):
        super().__init__()
        width = head.hidden or encoder.width
        layers: list[nn.Module] = [nn.Linear(encoder.width, width)]
        for _ in range(head.layers - 1):
            layers += [nn.Linear(width, width)]
        parts = [part for layer in layers for part in (layer, ACTIVATIONS["relu"](), nn.Dropout(options.dropout))]
        self.body = nn.Sequential(*parts, nn.Linear(width, 1))

    def forward(self, encoded: Encoded, scored: Tensor, zeroed: Tensor | None) -> Tensor:
        z = encoded.latent["node"]
        out: Tensor = self.body(z[scored[0]] * z[scored[1]])
        return out
