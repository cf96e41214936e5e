"""The encoder and the decoder of graphs."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from structmae.errors import StructmaeError
from structmae.nn.base import Decoder, Encoded, Encoder
from structmae.nn.gnn import GNN, pooled
from structmae.recipe import EncoderOptions, HeadOptions
from structmae.tokens import TokenSet
from structmae.tokens.graph import NodeTokenizer


class GraphEncoder(Encoder):
    """A graph to vectors: `encoder(x, edge_index, edge_attr=None, batch=None)`, a plain module to fine-tune.

    It takes features and edges as the data set has them: normalising, one-hot codes, both directions and self-loops are
    its own business, so it gives what `run.embed` gives.
    """

    def __init__(self, options: EncoderOptions, tokenizer: NodeTokenizer):
        super().__init__()
        self.tokenizer, self.pool = tokenizer, options.pool
        self.width, self.token_widths = options.hidden, {"node": tokenizer.width}
        if tokenizer.edge_tokens:
            self.token_widths["edge"] = tokenizer.edge_width
        self.content_widths = self.token_widths  # features are hidden as they are
        self.body = GNN(
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
        return self.represent(tokens)

    def vectors(self, encoded: Encoded) -> Float[Tensor, "rows width"]:
        latent, node = encoded.latent["node"], encoded.tokens["node"]
        return latent if self.pool == "none" else pooled(latent, node.batch, len(node.item_id), self.pool)

    def embed(self, tokens: dict[str, TokenSet]) -> dict[str, Tensor]:
        return {name: part.values for name, part in tokens.items()}

    def reveal(self, h: dict[str, Tensor], tokens: dict[str, TokenSet]) -> dict[str, TokenSet]:
        if "edge" not in tokens:
            return tokens
        node = tokens["node"]
        edges = node.relations["edges"].with_attributes(h["edge"])
        return {**tokens, "node": replace(node, relations={**node.relations, "edges": edges})}

    def encode(self, h: dict[str, Tensor], tokens: dict[str, TokenSet]) -> dict[str, Tensor]:
        return {"node": self.body(h["node"], tokens["node"].relations["edges"])}

    def decoder(self, head: HeadOptions, options: EncoderOptions) -> "GraphDecoder":
        return GraphDecoder(head, options, self)


class GraphDecoder(Decoder):
    """Latents of the nodes to features: a dense bridge, then layers over the edges (GraphMAE, section 3.2).

    For those of edges, one more dense layer reads the sum and the product of the two ends: the same both ways.
    """

    def __init__(self, head: HeadOptions, options: EncoderOptions, encoder: GraphEncoder):
        super().__init__()
        width, self.of_edges = encoder.width, head.of == "edge"
        self.bridge = nn.Linear(width, width, bias=False)
        self.body = GNN(
            head.layer,
            [*[width] * head.layers, width if self.of_edges else encoder.token_widths["node"]],
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
        self.pair = nn.Linear(2 * width, encoder.token_widths["edge"]) if self.of_edges else None

    def forward(self, encoded: Encoded, scored: Tensor, zeroed: Tensor | None) -> Tensor:
        z = self.bridge(encoded.latent["node"])
        if zeroed is not None:
            z = z.index_fill(0, zeroed, 0.0)
        out: Tensor = self.body(z, encoded.seen["node"].relations["edges"])
        ends = encoded.seen["edge"].ends if self.of_edges else None
        if self.pair is None or ends is None:
            return out[scored]
        a, b = out[ends[0, scored]], out[ends[1, scored]]
        paired: Tensor = self.pair(torch.cat([a + b, a * b], 1))
        return paired
