"""Edges as tokens: which are hidden together, the graph that is left, and pairs that are no edges.

    >>> from structmae.masking import Spec, draw
    >>> from structmae.masking.edge_tokens import edges
    >>> ring = edges([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]])
    >>> ring
    Edges(4 undirected pairs from 8 edges, 4 nodes in 1 graph)
    >>> plan = draw(ring.layout, Spec(ratio=0.5), seed=0, visit=0)
    >>> ring.visible(plan).shape, ring.hidden(plan).shape
    ((2, 4), (2, 2))

In PyTorch, `torch.from_numpy(ring.visible(plan))` copies nothing. Above 1e6 tokens all of Numba's threads help.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from structmae.errors import UsageError
from structmae.masking import edge_kernels as kernels
from structmae.masking import memory, parallel
from structmae.masking.adjacency import Adjacency
from structmae.masking.layout import Ints, Layout, layout
from structmae.masking.plan import Plan
from structmae.masking.rng import Purpose, stream, word
from structmae.masking.strategies import UNTOUCHED, Act

Small = NDArray[np.int32]
MOST = np.iinfo(np.int32).max  # nodes and edges


@dataclass(frozen=True)
class Rows:
    """Compressed rows by target, of all edges, each once: sources ascend within a row."""

    ptr: Ints  # (N+1,)
    source: Small  # (V,)
    token: Small  # (V,) -1 for a self-loop


@dataclass(frozen=True, eq=False)
class Edges:
    """Made by `edges`. A token is an undirected pair {u, v}, or a directed edge; self-loops are none and always stay.

    Plans are drawn over `layout`. What needs all edges in another order is made at first use and kept.
    """

    edge_index: Ints  # (2, E) as given
    nodes: Ints  # (I+1,) borders of the graphs' nodes
    ends: Small  # (2, M) of each token, by (graph, min, max) or (graph, source, target)
    of: Small  # (E,) the token of each given edge, -1 for a self-loop
    loops: Ints  # (L,) nodes with a self-loop, ascending
    undirected: bool
    layout: Layout

    @property
    def num_nodes(self) -> int:
        """How many nodes, N."""
        return int(self.nodes[-1])

    @cached_property
    def pairs(self) -> Ints:
        """(2, M) the tokens: u < v, or source and target."""
        return self.ends.astype(np.int64)

    def __repr__(self) -> str:
        graphs = len(self.nodes) - 1
        loops = f", {len(self.loops)} with a self-loop," if len(self.loops) else ""
        what = "undirected pairs" if self.undirected else "directed edges"
        return (
            f"Edges({self.ends.shape[1]} {what} from {len(self.of)} edges, "
            f"{self.num_nodes} nodes{loops} in {graphs} graph{'' if graphs == 1 else 's'})"
        )

    def visible(self, plan: Plan) -> Ints:
        """(2, V) the edges that stay, each once: in token order, then (undirected) all the other way round, then
        self-loops. The order of PyG's dropout_edge(force_undirected=True)."""
        return self._pairs(plan, Act.KEEP, UNTOUCHED, self.undirected, self.loops)

    def hidden(self, plan: Plan) -> Ints:
        """(2, H) the hidden tokens, each once, in order."""
        return self._pairs(plan, Act.DROP, Act.ZERO, False, self.loops[:0])

    def visible_index(self, plan: Plan) -> Ints:
        """(V,) which of the given edges stay, in the given order, repeats and self-loops included: for attributes."""
        out = memory.empty(len(self.of) + 1, np.int64)
        return out[: kernels.staying(self._code(plan), self.of, out)]

    def csr(self, plan: Plan) -> tuple[Ints, Ints]:
        """The visible edges by target: indptr (N+1,) and source (V,), ascending within a row, each edge once."""
        code, rows = self._code(plan), self.rows
        visible = kernels.count(plan.code, np.uint8(Act.KEEP), np.uint8(UNTOUCHED))
        indptr = np.empty(self.num_nodes + 1, np.int64)
        source = memory.empty((1 + self.undirected) * visible + len(self.loops) + 1, np.int64)
        kernels.visible_rows(code, rows.ptr, rows.source, rows.token, indptr, source)
        return indptr, source[:-1]

    def negatives(
        self, plan_or_count: Any, *, seed: int, visit: int, view: int = 0, token_set: int = 0, draw: int = 0
    ) -> Ints:
        """(2, n) pairs of nodes of one graph that are no edges, nor self-loops; hidden edges are edges. Graph by graph:
        as many as a plan hides in each, or a count: an int or (I,).

        Each is uniform over the graph's non-edges, min first if undirected, and independent of the others: a pair may
        come twice. A graph without non-edges gets none. Pairs are a function of (seed, stream, item id, visit) and of
        the graph's own count. Raises UsageError for a part of the key, a count or a plan that does not fit.
        """
        words = word("visit", visit), word("seed", seed), stream(view, token_set, Purpose.NEGATIVES, draw)
        graphs = len(self.nodes) - 1
        if isinstance(plan_or_count, Plan):
            self._code(plan_or_count)
            count = np.diff(np.searchsorted(plan_or_count.hidden, self.layout.ptr))
        else:
            count = np.asarray(plan_or_count)
            if count.dtype.kind not in "iu" or count.shape not in ((), (graphs,)) or (count < 0).any():
                raise UsageError(
                    f"count = {plan_or_count!r}: must be an integer, 0 or more, or one for each of the {graphs} graphs"
                )
        borders = np.zeros(graphs + 1, np.int64)
        np.cumsum(np.where(self._free > 0, count, 0), out=borders[1:])
        out = np.empty((2, borders[-1]), np.int64)
        gap_ptr, gap = self._gaps
        rows, ids, key = self.rows, self.layout.item_id, tuple(np.uint64(w) for w in words)

        def fill(lo: int, hi: int) -> None:
            graph = (borders, ids, self.nodes, gap_ptr, gap, rows.ptr, rows.source, self.undirected)
            kernels.negatives(lo, hi, *graph, *key, out)

        if out.size:
            parallel.each(fill, parallel.even(out.shape[1], parallel.threads(out.shape[1])))
        return out

    @cached_property
    def rows(self) -> Rows:
        """All edges by target."""
        size = (1 + self.undirected) * self.ends.shape[1] + len(self.loops)
        source, token = np.empty(size, np.int32), np.empty(size, np.int32)
        ptr = kernels.rows(*self.ends, self.loops, self.num_nodes, self.undirected, source, token)
        return Rows(ptr, source, token)

    @cached_property
    def _free(self) -> Ints:
        """(I,) how many pairs of a graph's nodes are no edges."""
        n = np.diff(self.nodes)
        free: Ints = n * (n - 1) // (1 + self.undirected) - np.diff(self.layout.ptr)
        return free

    @cached_property
    def _gaps(self) -> tuple[Ints, Small]:
        """The non-edges of graphs where they are under a quarter of the pairs: borders (I+1,) and pairs (2, K)."""
        few = 3 * self._free < np.diff(self.layout.ptr)  # so there are fewer than edges / 3 to list
        ptr = np.append(0, np.cumsum(np.where(few, self._free, 0)))
        out = np.empty((2, ptr[-1]), np.int32)
        kernels.gaps(np.flatnonzero(few), self.nodes, self.rows.ptr, self.rows.source, self.undirected, out)
        return ptr, out

    def _code(self, plan: Plan) -> NDArray[np.uint8]:
        """The plan's codes, at least one: kernels read one for a self-loop. Raises UsageError for another size."""
        if plan.size != self.layout.size:
            raise UsageError(f"a plan of {plan.size} tokens for {self!r}: must have as many; draw it over edges.layout")
        return plan.code if plan.size else np.zeros(1, np.uint8)

    def _pairs(self, plan: Plan, lo: int, hi: int, both: bool, loops: Ints) -> Ints:
        self._code(plan)
        code, few, many = plan.code, np.uint8(lo), np.uint8(hi)
        # Threads pay above 1e6 tokens, and the counting is a twentieth of the work.
        borders = parallel.even(len(code), parallel.threads(len(code) // 10))
        counts = [kernels.count(code[a:b], few, many) for a, b in pairwise(borders)]
        starts = dict(zip(borders, np.cumsum([0, *counts]).tolist(), strict=True))
        n = sum(counts)
        out = memory.empty((2, (1 + both) * n + len(loops)), np.int64)
        out[:, out.shape[1] - len(loops) :] = loops

        def fill(a: int, b: int) -> None:
            low, high = self.ends[0, a:b], self.ends[1, a:b]
            kernels.pairs(code[a:b], few, many, low, high, out[0], out[1], starts[a], both * n)

        parallel.each(fill, borders)
        return out


def _ends(edge_index: Any) -> Ints:
    """(2, E) int64 in C order, writable: to Numba a read-only array is another type."""
    a = np.asarray(edge_index)
    if a.size == 0 and a.shape[:1] == (2,):
        a = a.astype(np.int64)
    if a.dtype.kind not in "iu" or a.ndim != 2 or len(a) != 2 or a.shape[1] > MOST:
        raise UsageError(
            f"edge_index has dtype {a.dtype} and shape {a.shape}: must be integers (2, E), with E below 2**31; "
            "give sources and targets, one row each"
        )
    return np.require(a, np.int64, ["C", "A", "W"])


def _nodes(index: Ints, num_nodes: Any, ptr: Any) -> Ints:
    """Borders (I+1,) of the graphs' nodes, checked against the edges."""
    top = int(index.max()) + 1 if index.size else 0
    if ptr is None:
        nodes = np.array([0, word("num_nodes", top if num_nodes is None else num_nodes, 31)])
    else:
        nodes = layout(ptr).ptr
        word("num_nodes", int(nodes[-1]), 31)
        if num_nodes is not None and num_nodes != nodes[-1]:
            raise UsageError(f"num_nodes = {num_nodes!r}, but ptr ends at {nodes[-1]}: give one of them, or the same")
    if index.size and (index.min() < 0 or top > nodes[-1]):
        raise UsageError(
            f"edge_index has nodes {index.min()} to {top - 1}: must be 0 to {nodes[-1] - 1}; give num_nodes= or ptr="
        )
    if len(nodes) > 2:
        graph = np.repeat(np.arange(len(nodes) - 1, dtype=np.int32), np.diff(nodes))
        crossing = np.flatnonzero(graph[index[0]] != graph[index[1]])
        if len(crossing):
            u, v = index[:, crossing[0]]
            raise UsageError(f"edge {u}-{v} leads from one graph to another: must stay in one; mend ptr or the edge")
    return nodes


def _steps(ends: Small, nodes: Ints, undirected: bool) -> Adjacency:
    """Steps from node to node and the token each passes: both ways if undirected, from source to target if not."""
    low, high = ends
    size = (1 + undirected) * len(low)
    place, token = np.empty(size, np.int32), np.empty(size, np.int32)
    loops = np.empty(0, np.int64)
    ways = (low, high) if undirected else (high, low)  # rows are by target, so a directed edge is turned round
    ptr = kernels.rows(*ways, loops, int(nodes[-1]), undirected, place, token)
    return Adjacency(ptr, place.astype(np.int64), token.astype(np.int64), nodes)


def edges(
    edge_index: Any,
    num_nodes: int | None = None,
    *,
    ptr: Any = None,
    item_id: Any = None,
    undirected: bool = True,
    weight: Any = None,
) -> Edges:
    """Describe the edges of a graph, or of several one after another: done once, used by every draw.

    edge_index (2, E) int, below 2**31: sources and targets. Repeats of an edge are one token, and so are its two
        directions if `undirected`; one direction is enough then.
    num_nodes: default the largest node + 1.
    ptr (I+1,) int: where the nodes of each graph start and end. Default one graph.
    item_id (I,) int, >= 0: a graph's name in the contract of a draw. Default 0..I-1.
    weight (M,) float: of the tokens, for strategy "weighted".

    Arrays are NumPy, lists or CPU tensors. Raises UsageError for a wrong shape, dtype or node, or an edge between
    graphs.
    """
    index, undirected = _ends(edge_index).copy(), bool(undirected)
    nodes = _nodes(index, num_nodes, ptr)
    key = np.empty(index.shape[1], np.int64)
    ordered = kernels.keys(*index, undirected, key)
    of = np.empty(len(key), np.int32)
    ends = np.empty((2, len(key)), np.int32)
    ends = ends[:, : kernels.number(key, np.arange(len(key)) if ordered else np.argsort(key), of, *ends)].copy()
    steps = partial(_steps, ends, nodes, undirected)  # made when a walk or a block is first drawn
    tokens = layout(np.searchsorted(ends[0], nodes), item_id, weight=weight, adjacency=steps)
    return Edges(index, nodes, ends, of, np.unique(index[0, of < 0]), undirected, tokens)


@overload
def subgraph(edge_index: Any, plan: Plan, return_index: Literal[False] = False) -> Ints: ...
@overload
def subgraph(edge_index: Any, plan: Plan, return_index: Literal[True]) -> tuple[Ints, Ints]: ...
def subgraph(edge_index: Any, plan: Plan, return_index: bool = False) -> Ints | tuple[Ints, Ints]:
    """(2, V) the edges whose both ends a plan over nodes leaves visible, in the given order, nodes not renumbered.

    With return_index also (V,), which of the given edges they are. Raises UsageError where the plan has too few nodes.
    """
    index, size = _ends(edge_index), word("plan.size", plan.size, 31)
    seen = ((plan.code == np.uint8(Act.KEEP)) | (plan.code == np.uint8(UNTOUCHED))).view(np.uint8)
    runs = parallel.even(index.shape[1], parallel.threads(index.shape[1] // 10))
    # How many stay is known at the end: they go to int32 first, a quarter of what the edges take, and then into place.
    kept = [memory.empty((2, b - a + 1), np.int32) for a, b in pairwise(runs)]
    counts = [0] * len(kept)

    def gather(a: int, b: int) -> None:
        run = runs.index(a)
        counts[run] = kernels.between(seen, *index[:, a:b], *kept[run])

    if index.size:
        parallel.each(gather, runs)
    if min(counts) < 0:
        have = f"{index.min()} to {index.max()}"
        raise UsageError(f"edge_index has nodes {have}, the plan {size}: must be fewer; draw it over all nodes")
    out = memory.empty((2, sum(counts)), np.int64)
    for n, end, part in zip(counts, np.cumsum(counts), kept, strict=True):
        out[:, end - n : end] = part[:, :n]
    if not return_index:
        return out
    where = memory.empty(index.shape[1] + 1, np.int64)
    return out, where[: kernels.where_between(seen, *index, where)]
