"""Neighbourhoods of a graph's nodes as items: all that is within some steps of a node, and the edges between.

A neighbourhood begins with its node, the seed; the others follow by number. Steps go against the edges, towards what
the layers of the seed read. At most `tokens.neighbours` nodes are taken, the nearer first; of the ring that does not
fit, those of smallest rank: word `node % 4` of Philox with key (0, stream) and counter (seed's number low, high,
VALIDATION, node // 4). So a neighbourhood is the same in any batch and any run.
"""

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from structmae.data import Graphs
from structmae.masking.neighbourhoods import between, within
from structmae.masking.rng import VALIDATION, stream
from structmae.tokens.graph import GraphSource, NodeTokenizer, edge_tokens
from structmae.tokens.sets import Relation, TokenSet

Ints = NDArray[np.int64]
AT_ONCE = 256  # neighbourhoods that an encoder reads together
# No plan has a token set of this number.
_KEY = np.uint64(VALIDATION), np.uint64(0), np.uint64(stream(token_set=255))


class Neighbourhoods:
    """The neighbourhoods of a whole graph's nodes: `cut(nodes)` gives some of them as token sets, packed."""

    def __init__(self, whole: dict[str, TokenSet], tokenizer: NodeTokenizer):
        self.node, self.edges, self.tokenizer = whole["node"], whole["node"].relations["edges"], tokenizer
        self.indptr, self.source = (part.cpu().numpy() for part in (self.edges.indptr, self.edges.source))

    def cut(self, nodes: Int[Tensor, "chosen"]) -> dict[str, TokenSet]:
        """Those of `nodes`, in this order; an item's id is its node."""
        seeds = np.ascontiguousarray(nodes.cpu().numpy(), np.int64)
        hops, most = self.tokenizer.hops, min(self.tokenizer.neighbours, len(self.node))
        members, borders = within(self.indptr, self.source, seeds, hops, most, *_KEY)
        found, indptr, source = between(self.indptr, self.source, members, borders)
        device = self.node.values.device
        attributes = self.edges.attributes
        if attributes is not None:
            attributes = attributes[_on(device, found)]
        relation = Relation(_on(device, indptr), _on(device, source), attributes)
        ptr, item_id, edge = _on(device, borders), nodes.to(device), {}
        if self.tokenizer.edge_tokens:
            relation, edge["edge"] = edge_tokens(relation, ptr, item_id, self.tokenizer.undirected)
        return {"node": TokenSet(self.node.values[_on(device, members)], ptr, item_id, {"edges": relation}), **edge}


class NeighbourhoodSource(GraphSource):
    """Batches of neighbourhoods of one graph, an item each node. `all` is the whole graph."""

    def __init__(self, graphs: Graphs, tokenizer: NodeTokenizer, device: torch.device | None = None):
        super().__init__(graphs, tokenizer, device)
        self.neighbourhoods = Neighbourhoods(self.all, tokenizer)

    @property
    def num_items(self) -> int:
        return len(self.all["node"])

    def batch(self, items: Int[Tensor, "chosen"]) -> dict[str, TokenSet]:
        return {name: part.to(self.device) for name, part in self.neighbourhoods.cut(items).items()}


def _on(device: torch.device, array: Ints) -> Tensor:
    return torch.from_numpy(array).to(device)
