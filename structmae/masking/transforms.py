"""Hiding as PyTorch Geometric transforms: on a graph, or on a batch of graphs, exactly and reproducibly in each.

    >>> import torch_geometric.transforms as T
    >>> from structmae.masking.transforms import HideEdges, HideNodes
    >>> transform = T.Compose([T.NormalizeFeatures(), HideNodes(0.5, act="drop"), HideEdges(0.3, seed=1)])

A transform does not know the epoch, so it counts: the k-th call of one (from 0) is visit k. Set `transform.visit` to
repeat a call, or before each epoch. A graph's name in the contract of a draw is `data.item_id`, or else its place in
the batch. No global generator is read or seeded. Draws are made on the CPU, results are on the data's device.

A data loader's workers have copies, which begin anew each epoch: with num_workers > 0 hide in the loop, on the loader's
batch. Or give each graph its own data.item_id and set transform.visit before each epoch, without persistent_workers,
which it would not reach: a worker does not count, and refuses anything else.
"""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform
from torch_geometric.utils import select

from structmae.errors import UsageError
from structmae.masking.adjacency import adjacency
from structmae.masking.edge_tokens import Edges, edges
from structmae.masking.layout import Ints, Layout, layout
from structmae.masking.plan import Plan, draw
from structmae.masking.rng import word
from structmae.masking.strategies import Act, Spec
from structmae.masking.weights import degree, pagerank

_OURS = ("hidden_edge_index", "negative_edge_index")
_SCORES = {
    "degree": lambda index, ptr: degree(index, int(ptr[-1])),
    "pagerank": lambda index, ptr: pagerank(index, int(ptr[-1]), ptr=ptr),
}


class _Hide(BaseTransform):  # type: ignore[misc]
    """What the transforms share: the spec, the key, the graphs of the data, and the set-up of the last one."""

    def __init__(self, seed: int, weights: str | None, options: dict[str, Any]) -> None:
        known = [field.name for field in fields(Spec)]
        for name, value in options.items():
            if name not in known:
                raise UsageError(
                    f"{name} = {value!r}: no option of {type(self).__name__}; see Spec: {', '.join(known)}"
                )
        self.spec = Spec(**options)
        if self.spec.random_from == "vocabulary":
            raise UsageError("random_from = 'vocabulary': graphs have none; choose visible or any")
        missing = {"dirichlet": "strata", "rectangle": "grid"}.get(self.spec.strategy)
        if missing:
            raise UsageError(f"strategy = {self.spec.strategy!r}: graphs have no {missing}; choose another, as 'block'")
        if weights not in (None, *_SCORES) or (weights is None) == (self.spec.strategy == "weighted"):
            raise UsageError(
                f"weights = {weights!r} with strategy {self.spec.strategy!r}: 'weighted' needs one of "
                f"{', '.join(_SCORES)}, and no other strategy takes weights; give both or neither"
            )
        self.seed, self.weights = word("seed", seed), weights
        self._visit, self._set, self._drawn = 0, False, set[int]()  # was visit set, and what a worker drew since
        self._last: tuple[tuple[Ints, ...], Any] | None = None

    @property
    def visit(self) -> int:
        """Which visit the next call is."""
        return self._visit

    @visit.setter
    def visit(self, value: int) -> None:
        self._visit, self._set, self._drawn = word("visit", value), True, set()

    def forward(self, data: Data) -> Data:
        if not isinstance(data, Data):
            raise UsageError(f"{type(data).__name__}: {type(self).__name__} takes Data; give data.to_homogeneous()")
        if "edge_index" not in data:
            raise UsageError(f"{type(self).__name__} needs data.edge_index; put T.ToSparseTensor and its like after it")
        ptr, ids = _graphs(data)
        if get_worker_info() is not None:
            self._register("item_id" in data, ids.tolist())
        hidden = self._hide(data, ptr, ids, self._setup(data.edge_index.cpu().numpy(), ptr, ids))
        self._visit += get_worker_info() is None
        return hidden

    def _register(self, named: bool, ids: list[int]) -> None:
        """Raises UsageError where a mask could come again: a worker's copy is at the visit it was made with."""
        if not named or not self._set or not self._drawn.isdisjoint(ids):
            have = "no visit set" if not self._set else f"an item_id twice at visit {self.visit}"
            raise UsageError(
                f"{type(self).__name__} in a data loader's worker, {have if named else 'no data.item_id'}: masks would "
                "repeat; hide in the loop, on the loader's batch, or give each graph its own data.item_id and set "
                "transform.visit before each epoch, without persistent_workers"
            )
        self._drawn.update(ids)

    def _setup(self, *now: Ints) -> Any:
        """What `_make` makes, or made at the last call, where edges, borders and names were the same."""
        if self._last is None or not all(map(np.array_equal, self._last[0], now)):
            index, ptr, ids = (part.copy() for part in now)  # the caller may write to theirs
            if index.size and not 0 <= index.min() <= index.max() < ptr[-1]:
                have = f"nodes {index.min()} to {index.max()}, of {ptr[-1]}"
                raise UsageError(f"data.edge_index has {have}: must be 0 to {ptr[-1] - 1}; mend it, or data.num_nodes")
            self._last = (index, ptr, ids), self._make(index, ptr, ids)
        return self._last[1]

    def _make(self, index: Ints, ptr: Ints, ids: Ints) -> Any:
        raise NotImplementedError

    def _hide(self, data: Data, ptr: Ints, ids: Ints, made: Any) -> Data:
        raise NotImplementedError

    def _draw(self, over: Layout) -> Plan:
        return draw(over, self.spec, seed=self.seed, visit=self.visit, step=self.visit)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}  # it can be made again

    def __repr__(self) -> str:
        options = {field.name: getattr(self.spec, field.name) for field in fields(Spec)} | {"weights": self.weights}
        plain = vars(Spec()) | {"weights": None, "ratio": None}
        parts = [f"{name}={getattr(value, 'name', value)}" for name, value in options.items() if value != plain[name]]
        return f"{type(self).__name__}({', '.join(parts)}, seed={self.seed}, visit={self.visit})"


class HideNodes(_Hide):
    """Hides nodes: `ratio` of each graph's, exactly.

    act "token" or "zero": hidden rows of data.x are 0, which stands in for a learned token; a RANDOM row (`random`, or
        act "random") is that of another node. The graph stays.
    act "drop": hidden nodes leave, with their edges and all attributes; `data.kept` (V,) are the others' old numbers.

    Adds `data.hidden` and `data.scored`, (N,) bool, over the nodes that are left: they differ where `keep` > 0. weights
    "degree" or "pagerank" is for strategy "weighted"; blocks and walks go along edges, either way. Other options are
    those of `Spec`. Raises UsageError for what cannot be.
    """

    def __init__(self, ratio: float = 0.5, *, seed: int = 0, weights: str | None = None, **options: Any) -> None:
        super().__init__(seed, weights, {"ratio": ratio, **options})

    def _make(self, index: Ints, ptr: Ints, ids: Ints) -> Layout:
        if self.weights:
            return layout(ptr, ids, weight=_SCORES[self.weights](index, ptr))
        if self.spec.strategy in ("block", "walk"):
            steps = edges(index, ptr=ptr).layout.adjacency
            return layout(ptr, ids, adjacency=adjacency(steps.ptr, steps.place, ptr))
        return layout(ptr, ids)

    def _hide(self, data: Data, ptr: Ints, ids: Ints, made: Layout) -> Data:
        plan = self._draw(made)
        code = torch.from_numpy(plan.code).to(data.edge_index.device)
        if data.x is not None:
            x = data.x.clone()
            x[(code == Act.TOKEN) | (code == Act.ZERO)] = 0
            swapped = plan.act == Act.RANDOM
            x[_tensor(plan.scored[swapped], data)] = data.x[_tensor(plan.source[swapped], data)]
            data.x = x
        data.hidden, data.scored = code <= Act.ZERO, code <= Act.KEEP
        _reslice(data, {"hidden": ptr, "scored": ptr}, ptr)
        if self.spec.act is Act.DROP:
            _take_nodes(data, plan.kept, ptr)
        return data


class HideEdges(_Hide):
    """Hides edges: `ratio` of each graph's pairs of linked nodes, exactly, both directions together.

    Hidden edges leave data.edge_index, with their attributes; repeats and self-loops are as in `edges`. Adds
    `data.hidden_edge_index` (2, H), each pair once, and `data.negative_edge_index` (2, H), as many pairs that are no
    edges: none for a graph where all nodes are linked. undirected: whether both directions are one pair; by default,
    where each edge has its reverse, which must be so in all graphs of a batch or in none. weights as in HideNodes, of
    an edge the mean of its ends'. Other options are those of `Spec`, of which only the strategy's and `keep` make a
    difference. Raises UsageError for what cannot be.
    """

    def __init__(
        self,
        ratio: float = 0.5,
        *,
        undirected: bool | None = None,
        seed: int = 0,
        weights: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(seed, weights, {"ratio": ratio, **options})
        self.undirected = undirected

    def _make(self, index: Ints, ptr: Ints, ids: Ints) -> Edges:
        found = edges(index, ptr=ptr, item_id=ids, undirected=self.undirected in (None, True))
        if self.undirected is None and _directed(found):
            found = edges(index, ptr=ptr, item_id=ids, undirected=False)
        if self.weights:
            weight = _SCORES[self.weights](index, ptr)[found.pairs].mean(0)
            found = replace(found, layout=replace(found.layout, weight=weight))
        return found

    def _hide(self, data: Data, ptr: Ints, ids: Ints, made: Edges) -> Data:
        plan = self._draw(made.layout)
        _number(data, ptr)
        parts = _slices(data, "edge_index")
        _take(data, _level(data, "edge", parts), made.visible_index(plan), parts)
        found = made.hidden(plan), made.negatives(plan, seed=self.seed, visit=self.visit)
        for name, pairs in zip(_OURS, found, strict=True):
            data[name] = _tensor(pairs, data)
        _reslice(data, {name: _borders(pairs, ptr) for name, pairs in zip(_OURS, found, strict=True)}, ptr)
        return data


class HidePaths(HideEdges):
    """Hides the edges of random walks of `length` steps, as MaskGAE does (Li et al. 2023); otherwise as HideEdges."""

    def __init__(self, ratio: float = 0.7, length: int = 3, start: str = "node", **options: Any) -> None:
        super().__init__(ratio, strategy="walk", length=length, start=start, **options)


def _graphs(data: Data) -> tuple[Ints, Ints]:
    """Borders (I+1,) of the graphs' nodes, and their names (I,)."""
    nodes = int(data.num_nodes)
    if "ptr" in data:
        ptr = data.ptr.cpu().numpy().copy()
    elif "batch" in data:
        ptr = np.append(0, np.cumsum(np.bincount(data.batch.cpu().numpy())))
    else:
        ptr = np.array([0, nodes])
    if ptr[-1] != nodes or ("batch" in data and (data.batch.diff() < 0).any()):
        raise UsageError(
            f"data of {nodes} nodes, ptr to {ptr[-1]}: the nodes of a graph must be together; mend data.ptr"
        )
    ids = np.arange(len(ptr) - 1)
    if "item_id" in data:
        ids = np.asarray(torch.as_tensor(data.item_id).cpu(), np.int64).reshape(-1)
    return ptr, ids


def _directed(found: Edges) -> bool:
    """Whether a graph's edges, here taken as undirected, lack their reverse. Raises UsageError where graphs differ."""
    source, target = found.edge_index
    seen = np.zeros((2, found.layout.size), bool)  # of each pair, the way up and the way down
    for way, there in zip(seen, (source < target, source > target), strict=True):
        way[found.of[there]] = True
    lacking = np.searchsorted(np.flatnonzero(~seen.all(0)), found.layout.ptr)
    directed = np.diff(lacking)[np.diff(found.layout.ptr) > 0] > 0  # a graph without edges goes with either
    if directed.any() and not directed.all():
        raise UsageError(
            f"undirected = None, {directed.sum()} of {len(directed)} graphs with edges are directed: must be all or "
            "none; give undirected=True or undirected=False"
        )
    return bool(directed.any())


def _number(data: Data, ptr: Ints) -> None:
    """Says how many nodes there are, where the attributes do not: the edges that are left may not reach the last."""
    if not {"x", "pos", "batch"} & set(data.keys()) or "num_nodes" in data:
        data.num_nodes = int(ptr[-1])
    if getattr(data, "_num_nodes", None) is not None:
        data._num_nodes = np.diff(ptr).tolist()


def _tensor(array: Ints, data: Data) -> Tensor:
    return torch.from_numpy(array).to(data.edge_index.device)


def _level(data: Data, level: str, borders: Ints | None) -> list[str]:
    """The attributes of which each node, or edge, has one. PyG goes by length: in a batch of two graphs with two edges
    in all, labels are the edges'. A batch that can be taken apart tells more: the borders of the graphs' parts."""
    keys = data.node_attrs() if level == "node" else data.edge_attrs()
    keys = [key for key in keys if key not in (*_OURS, "ptr", "item_id")]
    parts = [_slices(data, key) for key in keys]
    known = [] if borders is None else borders.tolist()
    return [key for key, part in zip(keys, parts, strict=True) if part is None or part.tolist() == known]


def _slices(data: Data, key: str) -> Ints | None:
    """Where the graphs' parts of an attribute start and end, in a Batch that can be taken apart again."""
    known = (getattr(data, "_slice_dict", None) or {}).get(key)
    return None if known is None else np.asarray(known)


def _reslice(data: Data, slices: dict[str, Ints], ptr: Ints | None = None) -> None:
    """Records where the graphs' parts of attributes are, in a Batch that can be taken apart; new ones need its ptr."""
    if getattr(data, "_slice_dict", None) is not None:
        data._slice_dict = {**data._slice_dict, **{key: torch.from_numpy(part) for key, part in slices.items()}}
        if ptr is not None:
            added = {key: torch.from_numpy(ptr[:-1] * ("index" in key or key == "kept")) for key in slices}
            data._inc_dict = {**data._inc_dict, **added}


def _borders(pairs: Ints, ptr: Ints) -> Ints:
    """Where the graphs' parts of pairs of nodes (2, n) start and end."""
    return np.searchsorted(np.searchsorted(ptr, pairs[0], side="right"), np.arange(1, len(ptr) + 1))


def _take(data: Data, keys: list[str], index: Ints, borders: Ints | None) -> None:
    """Keeps the entries `index` (n,), ascending, of attributes whose graphs' parts have these borders."""
    at = _tensor(index, data)
    for key in keys:
        data[key] = select(data[key], at, data.__cat_dim__(key, data[key]))
    if borders is not None:
        _reslice(data, {key: np.searchsorted(index, borders) for key in keys if _slices(data, key) is not None})


def _take_nodes(data: Data, kept: Ints, ptr: Ints) -> None:
    """Keeps the nodes `kept` (n,), ascending, and the edges between them, and numbers them anew."""
    new = np.full(ptr[-1], -1)
    new[kept] = np.arange(len(kept))
    borders, number = np.searchsorted(kept, ptr), _tensor(new, data)
    nodes, ends = _level(data, "node", ptr), _level(data, "edge", _slices(data, "edge_index"))
    for name in ("edge_index", *_OURS):
        if name in data:
            stay = (number[data[name]] >= 0).all(0).nonzero()[:, 0].cpu().numpy()
            part = _slices(data, name)
            _take(data, ends if name == "edge_index" else [name], stay, part)
            data[name] = number[data[name]]
            if part is not None:
                _reslice(data, {name: np.searchsorted(stay, part)}, borders)
    _take(data, nodes, kept, ptr)
    if "ptr" in data:
        data.ptr = _tensor(borders, data)
    _number(data, borders)
    data.kept = _tensor(kept, data)
    _reslice(data, {"kept": borders}, ptr)
