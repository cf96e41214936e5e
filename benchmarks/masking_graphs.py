"""Works of masking.py on a graph: nodes, undirected edges and paths."""

import time
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from masking_works import Ints, Work, about, must, rounded
from numpy.typing import NDArray
from torch import Tensor

from structmae.masking import Plan, Spec, count, layout
from structmae.masking.edge_tokens import Edges, edges, subgraph

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a dependency's deprecations
    import torch_geometric.typing
    from torch_geometric.utils import dropout_edge, dropout_node, dropout_path


@dataclass
class Graph:
    """A random graph of distinct undirected pairs without self-loops; what is made of it is made once, when needed."""

    nodes: int
    number: int  # of pairs
    setups: dict[str, float] = field(default_factory=dict)

    @cached_property
    def _made(self) -> tuple[Ints, Ints]:
        begin, rng, n = time.perf_counter(), np.random.default_rng(0), self.nodes
        u = rng.integers(0, n, self.number + self.number // 20 + 64)
        v = rng.integers(0, n - 1, len(u))
        v += v >= u
        key = np.unique(np.minimum(u, v) * n + np.maximum(u, v))
        key = np.delete(key, rng.choice(len(key), len(key) - self.number, replace=False))
        pairs = np.stack(np.divmod(key, n))
        index = np.stack(np.divmod(np.sort(np.concatenate([key, pairs[1] * n + pairs[0]])), n))
        self.setups["making it"] = time.perf_counter() - begin
        return pairs, index

    @property
    def pairs(self) -> Ints:
        """(2, M) lesser node first, sorted."""
        return self._made[0]

    @property
    def index(self) -> Ints:
        """(2, E) both directions, sorted."""
        return self._made[1]

    @cached_property
    def tensor(self) -> Tensor:
        return torch.from_numpy(self.index)

    def __str__(self) -> str:
        return f"{rounded(self.nodes)} nodes / {rounded(2 * self.number)} edges"

    @cached_property
    def edges(self) -> Edges:
        index, begin = self.index, time.perf_counter()
        made = edges(index, self.nodes)
        self.setups["edges()"] = time.perf_counter() - begin
        return made


@dataclass
class OnGraph(Work):
    graph: Graph = field(kw_only=True)
    large = True

    @property
    def size(self) -> str:
        return str(self.graph)

    def check_pairs(self, out: Ints, whose: str, hidden: int | None) -> None:
        """Both directions together; with `hidden`, that many pairs are gone."""
        one, back = np.split(out, 2, 1)
        must((one == back[::-1]).all() and (one[0] < one[1]).all(), f"{whose}: both directions together")
        key = one[0] * self.graph.nodes + one[1]
        must((np.diff(key) > 0).all(), f"{whose}: each pair once")
        found = np.isin(key, self.graph.pairs[0] * self.graph.nodes + self.graph.pairs[1], assume_unique=True)
        must(found.all(), f"{whose}: pairs of the graph")
        must(hidden is None or len(key) == self.graph.number - hidden, f"{whose}: count")


@dataclass
class Nodes(OnGraph):
    """Half of the nodes hidden, and the edges between the others."""

    name = "nodes"
    against = "PyG dropout_node"
    target = 3.0

    def setup(self) -> None:
        self.spec = Spec(ratio=0.5)
        with self.once("layout"):
            self.at = layout([0, self.graph.nodes])
        self.moved = 2 * 8 * self.graph.index.shape[1] * 5 // 4  # edges are read, and a quarter stays

    def ours(self, visit: int) -> tuple[Tensor, Plan]:
        plan = self.plan(visit)
        return torch.from_numpy(subgraph(self.graph.index, plan)), plan

    def other(self) -> Any:
        return dropout_node(self.graph.tensor, p=0.5, num_nodes=self.graph.nodes)

    def check(self) -> None:
        out, plan = self.ours(0)
        must(len(plan.hidden) == count(0.5, self.graph.nodes), "ours: count")
        seen = np.ones(self.graph.nodes, bool)
        seen[plan.hidden] = False
        must(np.array_equal(out.numpy(), self.graph.index[:, seen[self.graph.index].all(0)]), "ours: edges that stay")
        out, _, seen = self.other()
        about(seen.float().mean().item(), 0.5, len(seen), "other: share")
        must(torch.equal(out, self.graph.tensor[:, seen[self.graph.tensor].all(0)]), "other: edges that stay")


@dataclass
class UndirectedEdges(OnGraph):
    """Half of the undirected pairs hidden, and the edges that stay, both ways."""

    name = "edges"
    against = "PyG dropout_edge(force_undirected=True)"
    target = 4.0

    def setup(self) -> None:
        self.spec, self.at = Spec(ratio=0.5), self.graph.edges.layout
        self.moved = self._moved()

    def _moved(self) -> int:
        # The pairs are read, as two int32; what stays is written, both ways, in int64.
        return 8 * self.graph.number + 4 * 8 * (self.graph.number - count(self.spec.ratio, self.graph.number))

    def ours(self, visit: int) -> Tensor:
        return torch.from_numpy(self.graph.edges.visible(self.plan(visit)))

    def other(self) -> Any:
        return dropout_edge(self.graph.tensor, p=0.5, force_undirected=True)[0]

    def check(self) -> None:
        self.check_pairs(self.ours(0).numpy(), "ours", count(0.5, self.graph.number))
        out = self.other().numpy()
        self.check_pairs(out, "other", None)
        about(out.shape[1] / 2 / self.graph.number, 0.5, self.graph.number, "other: share")


@dataclass
class Paths(UndirectedEdges):
    """Seven tenths of the pairs hidden, along random walks of 3 steps from random nodes."""

    name = "paths"
    length = 3

    @property
    def against(self) -> str:  # type: ignore[override]
        return "PyG dropout_path" if torch_geometric.typing.WITH_PYG_LIB else "vectorised NumPy walk"

    @property
    def target(self) -> float | None:  # type: ignore[override]
        return None if torch_geometric.typing.WITH_PYG_LIB else 5.0

    def setup(self) -> None:
        self.spec, self.at = Spec(strategy="walk", ratio=0.7, length=self.length), self.graph.edges.layout
        self.moved, self.rng = self._moved(), np.random.default_rng(0)
        with self.once("topology"):
            _ = self.at.topology
        with self.once("the walk's rows"):
            row, col = self.graph.index
            self.start = np.append(0, np.cumsum(np.bincount(row, minlength=self.graph.nodes)))
            self.col = np.ascontiguousarray(col)
            key = np.minimum(row, col) * self.graph.nodes + np.maximum(row, col)
            self.pair = np.unique(key, return_inverse=True)[1]  # (E,) of each directed edge

    def other(self) -> Any:
        if torch_geometric.typing.WITH_PYG_LIB:
            # By directed edges, of which each start passes 3: this share of starts passes about .7 of them.
            p = -np.log(1 - self.spec.ratio) / self.length
            return dropout_path(self.graph.tensor, p, 1, self.length, self.graph.nodes, is_sorted=True)[0]
        stay = torch.from_numpy(~self.walk()[self.pair])
        return self.graph.tensor[:, stay]

    def first_times(self, order: Ints) -> Ints:
        """The pairs of `order`, each when it first comes."""
        return order[np.sort(np.unique(order, return_index=True)[1])]

    def walk(self) -> NDArray[np.bool_]:
        """(M,) which pairs are hidden: all walks step at once, then pairs are taken in the order of walks."""
        pairs, wanted = self.graph.number, count(self.spec.ratio, self.graph.number)
        hidden, left = np.zeros(pairs, bool), wanted
        while left:
            share = min(left / (pairs - wanted + left), 0.999)  # of those not passed yet
            walks = int(-np.log1p(-share) * pairs / self.length * 1.01) + 64
            at = self.rng.integers(0, self.graph.nodes, walks)
            at = at[self.start.take(at + 1) > self.start.take(at)]
            passed = np.empty((len(at), self.length), np.int64)
            for step in range(self.length):
                first = self.start.take(at)
                degree = self.start.take(at + 1) - first
                edge = first + (self.rng.random(len(at)) * degree).astype(np.int64)
                passed[:, step] = self.pair.take(edge)
                at = self.col.take(edge)
            order = passed.ravel()
            if left < wanted:
                order = order[~hidden[order]]
            new = self.first_times(order)[:left]
            hidden[new] = True
            left -= len(new)
        return hidden

    def check(self) -> None:
        pairs, plan = self.graph.number, self.plan(0)
        self.check_pairs(self.ours(0).numpy(), "ours", count(self.spec.ratio, pairs))
        if torch_geometric.typing.WITH_PYG_LIB:
            share = self.other().shape[1] / 2 / pairs
            must(abs(share - 1 + self.spec.ratio) < 0.02, f"other: {share:.3f} of the edges stay")
            return
        self.check_pairs(_sorted(self.other().numpy()), "other", count(self.spec.ratio, pairs))
        # Walks from random nodes prefer pairs with ends of low degree: both must, as much.
        degree = np.diff(self.start)[self.graph.pairs].sum(0)
        mean = [degree[some].mean() for some in (plan.hidden, self.walk())]
        must(abs(mean[0] - mean[1]) < 5 * degree.std() / pairs**0.5, f"degrees of what is hidden: {mean}")


def _sorted(edge_index: Ints) -> Ints:
    """First u < v, then the others, each by the pair."""
    turned = edge_index[0] > edge_index[1]
    order = np.lexsort((edge_index.max(0), edge_index.min(0), turned))
    return edge_index[:, order]


class PathsTuned(Paths):
    """Against a walk whose author thought harder: no sort, and no pass over the edges in both directions."""

    name = "paths_tuned"
    against = "the same, tuned"  # type: ignore[assignment]
    target = None  # type: ignore[assignment]

    def setup(self) -> None:
        super().setup()
        self.stamp = np.empty(self.graph.number, np.int32)

    def first_times(self, order: Ints) -> Ints:
        when = np.arange(len(order), dtype=np.int32)
        self.stamp[order[::-1]] = when[::-1]  # where a pair comes twice, the first time is written last
        return order[self.stamp.take(order) == when]

    def other(self) -> Any:
        stay = np.flatnonzero(~self.walk())
        one = self.graph.pairs.take(stay, 1)
        return torch.from_numpy(np.concatenate([one, one[::-1]], 1))
