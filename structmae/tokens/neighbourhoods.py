"""Neighbourhoods of a graph's nodes as items: all that is within some steps of a node, and the edges between.

A neighbourhood begins with its node, the seed; the others follow by number. Steps go against the edges, towards what
the layers of the seed read. At most `most` nodes are taken, the nearer first; of the ring that does not fit, those of
smallest rank: Philox with key (0, stream) and counter (seed node low, high, VALIDATION, node), so that a neighbourhood
is the same in any batch and any run.
"""
# mypy: disallow-untyped-decorators=false

import numpy as np
import torch
from jaxtyping import Int
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from structmae.data import Graphs
from structmae.masking.kernels import kth
from structmae.masking.rng import HALF, LOW, VALIDATION, philox, stream
from structmae.tokens.graph import GraphSource, NodeTokenizer, edge_tokens
from structmae.tokens.sets import Relation, TokenSet

Ints = NDArray[np.int64]
AT_ONCE = 256  # neighbourhoods that an encoder reads together
# No plan has a token set of this number.
_STREAM, _VISIT = np.uint64(stream(token_set=255)), np.uint64(VALIDATION)


class Neighbourhoods:
    """The neighbourhoods of a whole graph's nodes: `cut(nodes)` gives some of them as token sets, packed."""

    def __init__(self, whole: dict[str, TokenSet], tokenizer: NodeTokenizer):
        self.node, self.edges, self.tokenizer = whole["node"], whole["node"].relations["edges"], tokenizer
        self.indptr, self.source = (part.cpu().numpy() for part in (self.edges.indptr, self.edges.source))

    def cut(self, nodes: Int[Tensor, "chosen"]) -> dict[str, TokenSet]:
        """Those of `nodes`, in this order; an item's id is its node."""
        seeds = np.ascontiguousarray(nodes.cpu().numpy(), np.int64)
        hops, most = self.tokenizer.hops, min(self.tokenizer.neighbours, len(self.node))
        members, borders = within(self.indptr, self.source, seeds, hops, most, _VISIT, _STREAM)
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


@njit(nogil=True, cache=True)
def within(
    indptr: Ints, source: Ints, seeds: Ints, hops: int, most: int, visit: np.uint64, key: np.uint64
) -> tuple[Ints, Ints]:
    """The nodes at most `hops` steps from each seed, `most` at most: members (M,) and the borders (B + 1,) of each
    seed's. Edges that end at node i come from source[indptr[i]:indptr[i + 1]]."""
    size = len(indptr) - 1
    members, borders = np.empty(len(seeds) * most, np.int64), np.zeros(len(seeds) + 1, np.int64)
    met, ring = np.full(size, -1, np.int64), np.empty(size, np.int64)
    stop = 0
    for b in range(len(seeds)):
        begin, near, seed = stop, stop, seeds[b]
        members[stop] = seed
        met[seed] = b
        stop += 1
        for _ in range(hops):
            count = 0
            for j in range(near, stop):
                for e in range(indptr[members[j]], indptr[members[j] + 1]):
                    if met[source[e]] != b:
                        met[source[e]] = b
                        ring[count] = source[e]
                        count += 1
            near, room = stop, most - (stop - begin)
            limit = np.uint64(0xFFFFFFFFFFFFFFFF)
            ranks = np.empty(0, np.uint64)
            if count > room:
                ranks = np.empty(count, np.uint64)
                for j in range(count):
                    block, word = np.uint64(ring[j]) >> np.uint64(2), ring[j] & 3
                    w0, w1, w2, w3 = philox(
                        np.uint64(seed) & LOW, np.uint64(seed) >> HALF, visit, block & LOW, np.uint64(0), key
                    )
                    rank = (w0 if word == 0 else w1) if word < 2 else (w2 if word == 2 else w3)
                    ranks[j] = rank << HALF | np.uint64(ring[j])  # ties by node: each key is another
                if room == 0:
                    break
                limit = kth(ranks, room)
            for j in range(count):
                if len(ranks) == 0 or ranks[j] <= limit:
                    members[stop] = ring[j]
                    stop += 1
        members[begin + 1 : stop].sort()
        borders[b + 1] = stop
    return members[:stop].copy(), borders


@njit(nogil=True, cache=True)
def between(indptr: Ints, source: Ints, members: Ints, borders: Ints) -> tuple[Ints, Ints, Ints]:
    """The edges between members of one neighbourhood: which (E,), and as compressed rows over members: indptr (M + 1,),
    source (E,), ascending in each row."""
    rows = np.zeros(len(members) + 1, np.int64)
    place = np.full(len(indptr) - 1, -1, np.int64)  # of a node among the members; below `begin` it is another item's
    for write in range(2):  # count, then fill
        if write == 0:
            which, ends = np.empty(0, np.int64), np.empty(0, np.int64)
        else:
            which, ends = np.empty(rows[-1], np.int64), np.empty(rows[-1], np.int64)
            place[:] = -1
        at = 0
        for b in range(len(borders) - 1):
            begin = borders[b]
            for j in range(begin, borders[b + 1]):
                place[members[j]] = j
            for j in range(begin, borders[b + 1]):
                first = at
                for e in range(indptr[members[j]], indptr[members[j] + 1]):
                    where = place[source[e]]
                    if where < begin:
                        continue
                    if write == 1:
                        q = at
                        if where == begin:  # the seed stands before all others
                            while q > first:
                                which[q], ends[q] = which[q - 1], ends[q - 1]
                                q -= 1
                        which[q], ends[q] = e, where
                    at += 1
                rows[j + 1] = at
    return which, rows, ends
