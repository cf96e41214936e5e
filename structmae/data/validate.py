"""One way in: whatever the source, a `Draft` becomes checked, cleaned `Graphs` here and nowhere else."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from structmae.data.graphs import Graphs, Level, Schema
from structmae.data.splits import KEYS, Split, stratified
from structmae.errors import StructmaeError

#: Highest degree with a code of its own where the degree stands in for missing features.
MAX_DEGREE = 400
_PLURAL = {True: "", False: "s"}


@dataclass
class Draft:
    """What a reader found, before any check of the graph itself. Shapes as in `Graphs`; `x` is coded already."""

    name: str
    edge_index: Tensor
    num_nodes: int
    x: Tensor | None = None
    ptr: Tensor | None = None
    edge_attr: Tensor | None = None
    y: Tensor | None = None
    level: Level = "node"
    split: Split | None = None
    split_source: str = ""
    classes: tuple[str, ...] = ()
    ids: tuple[str | int, ...] | None = None
    schema: Schema | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    card: str | None = None
    where: str = ""

    @property
    def label(self) -> str:
        """How a message names the source: by its path if it has one, else by name."""
        return self.where or self.name


def build(draft: Draft, *, undirected: bool = True, schema: Schema | None = None) -> Graphs:
    """The checked graphs of a draft.

    Edges lose self-loops and duplicates (their attributes are averaged), get both directions with `undirected`,
    and are sorted by (target, source). Without features `x` is the degree. A single labelled graph without a split
    gets one. With `schema`, width and edge width have to agree with it.

    Raises:
        StructmaeError: no node, an edge to a node that does not exist or between two graphs, a feature that is not
            finite, a split that overlaps, or a width other than the schema's.
    """
    if draft.num_nodes == 0:
        raise StructmaeError(f"{draft.label}: the graph has no node. A graph needs at least one.")
    notes = list(draft.notes)
    ptr = torch.tensor([0, draft.num_nodes]) if draft.ptr is None else draft.ptr.long()
    _check_ptr(draft.label, ptr, draft.num_nodes)
    _check_edges(draft.label, draft.edge_index, draft.edge_attr, ptr, draft.num_nodes)
    edge_index, edge_attr = _clean(draft.edge_index.long(), draft.edge_attr, draft.num_nodes, undirected, notes)
    if edge_attr is not None and not bool(torch.isfinite(edge_attr).all()):
        row, column = torch.nonzero(~torch.isfinite(edge_attr))[0].tolist()
        a, b = edge_index[:, row].tolist()
        raise StructmaeError(
            f"{draft.label}: edge {_node(draft, a)} -> {_node(draft, b)} has {edge_attr[row, column].item()} in edge "
            f"column {column}. Edge columns must be finite numbers: fill or drop it."
        )
    _note_isolated(edge_index, draft.num_nodes, notes)

    own = draft.schema or Schema(width=0 if draft.x is None else draft.x.size(1))
    x, own = _features(draft, own, schema, edge_index, notes)
    if schema is not None and schema.edge_width == 0 and edge_attr is not None:
        notes.append("edge columns ignored: the model reads none")
        edge_attr = None
    edge_width = 0 if edge_attr is None else edge_attr.size(1)
    if schema is not None and schema.edge_width != edge_width:
        raise StructmaeError(
            f"{draft.label}: edges have {edge_width} columns, the model was trained with {schema.edge_width}. "
            "Give the edges the same columns in the same order."
        )
    own = Schema(own.width, own.names, own.categories, own.source, edge_width)

    y, split, split_source = _labels(draft, notes)
    return Graphs(
        name=draft.name,
        x=x.contiguous(),
        edge_index=edge_index.contiguous(),
        ptr=ptr,
        edge_attr=edge_attr,
        y=y,
        level=draft.level,
        split=split,
        split_source=split_source,
        classes=draft.classes if y is not None else (),
        ids=draft.ids,
        schema=own,
        spec=dict(draft.spec),
        notes=tuple(notes),
        card=draft.card,
    )


def _check_ptr(name: str, ptr: Tensor, num_nodes: int) -> None:
    sizes = ptr.diff()
    if bool((sizes < 1).any()):
        empty = int((sizes < 1).nonzero()[0])
        raise StructmaeError(f"{name}: graph {empty} has no node. Drop it, or give it a node.")
    if int(ptr[0]) != 0 or int(ptr[-1]) != num_nodes:
        raise StructmaeError(f"{name}: ptr runs from {int(ptr[0])} to {int(ptr[-1])}, not from 0 to {num_nodes} nodes.")


def _check_edges(name: str, edge_index: Tensor, edge_attr: Tensor | None, ptr: Tensor, num_nodes: int) -> None:
    shape = tuple(edge_index.shape)
    if len(shape) != 2 or shape[0] != 2:
        raise StructmaeError(f"{name}: edge_index has shape {shape}; it must be (2, E), rows source and target.")
    if edge_index.dtype.is_floating_point or edge_index.dtype == torch.bool or edge_index.dtype.is_complex:
        raise StructmaeError(f"{name}: edge_index is {edge_index.dtype}; it must hold integers. Use .long().")
    if edge_attr is not None and edge_attr.size(0) != shape[1]:
        raise StructmaeError(
            f"{name}: edge_attr has {edge_attr.size(0)} rows for {shape[1]} edges; it must have one an edge."
        )
    bad = ((edge_index < 0) | (edge_index >= num_nodes)).any(dim=0)
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        a, b = edge_index[:, first].tolist()
        raise StructmaeError(
            f"{name}: edge {first} is {a} -> {b}, but nodes run from 0 to {num_nodes - 1} "
            f"({int(bad.sum())} such edges). Number the nodes from 0, or add the missing ones."
        )
    if ptr.numel() > 2:
        item = torch.bucketize(edge_index, ptr[1:], right=True)
        crossing = item[0] != item[1]
        if bool(crossing.any()):
            first = int(crossing.nonzero()[0])
            a, b = edge_index[:, first].tolist()
            raise StructmaeError(
                f"{name}: edge {first} ({a} -> {b}) joins graphs {int(item[0, first])} and {int(item[1, first])}. "
                "An edge must stay inside its graph."
            )


def _clean(
    edge_index: Tensor, edge_attr: Tensor | None, num_nodes: int, undirected: bool, notes: list[str]
) -> tuple[Tensor, Tensor | None]:
    # Imported here: half a second that listing the catalog need not pay.
    from torch_geometric.utils import coalesce, to_undirected

    attr = None if edge_attr is None or edge_attr.size(1) == 0 else edge_attr.float()
    keep = edge_index[0] != edge_index[1]
    loops = int((~keep).sum())
    if loops:
        notes.append(f"{loops} self-loop{_PLURAL[loops == 1]} removed (the encoder adds its own)")
        edge_index, attr = edge_index[:, keep], None if attr is None else attr[keep]
    if edge_index.size(1) == 0:
        notes.append("the graph has no edges")
        return edge_index, attr

    def merged(index: Tensor, value: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if value is None:
            return coalesce(index, num_nodes=num_nodes, sort_by_row=False), None
        one, mean = coalesce(index, value, num_nodes=num_nodes, reduce="mean", sort_by_row=False)
        return one, mean

    single, single_attr = merged(edge_index, attr)
    repeats = edge_index.size(1) - single.size(1)
    if repeats:
        notes.append(f"{repeats} repeated edge{_PLURAL[repeats == 1]} merged")
    if not undirected:
        return single, single_attr
    if attr is None:
        both, both_attr = merged(to_undirected(edge_index, num_nodes=num_nodes), None)
    else:
        both, both_attr = merged(*to_undirected(edge_index, attr, num_nodes=num_nodes, reduce="mean"))
    if both.size(1) != single.size(1):
        notes.append(f"edges made undirected ({single.size(1)} -> {both.size(1)})")
    elif single_attr is not None and both_attr is not None and not _same(single_attr, both_attr):
        notes.append("edge columns averaged over the two directions")
    return both, both_attr


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, equal_nan=True)


def _note_isolated(edge_index: Tensor, num_nodes: int, notes: list[str]) -> None:
    if edge_index.size(1) == 0:
        return
    touched = torch.zeros(num_nodes, dtype=torch.bool)
    touched[edge_index.reshape(-1)] = True
    isolated = num_nodes - int(touched.sum())
    if isolated:
        notes.append(f"{isolated} node{_PLURAL[isolated == 1]} without an edge")


def _features(
    draft: Draft, own: Schema, schema: Schema | None, edge_index: Tensor, notes: list[str]
) -> tuple[Tensor, Schema]:
    x = None if draft.x is None or draft.x.size(1) == 0 else draft.x.float()
    if schema is not None and schema.source == "degree":
        if x is not None:
            notes.append("features ignored: the model reads node degrees")
        x = None
    elif schema is not None and x is None:
        raise StructmaeError(
            f"{draft.label}: the nodes have no features, the model was trained with {schema.width} columns. Add them."
        )
    if x is None:
        degree = torch.bincount(edge_index[1], minlength=draft.num_nodes)
        top = min(MAX_DEGREE, int(degree.max())) if schema is None else len(schema.categories[0]) - 1
        if schema is None:
            notes.append(f"no features: the node's degree is used (0..{top})")
        own = Schema(1, None, {0: tuple(range(top + 1))}, "degree")
        return degree.clamp(max=top).float().unsqueeze(1), own
    if x.size(0) != draft.num_nodes:
        raise StructmaeError(
            f"{draft.label}: x has {x.size(0)} rows for {draft.num_nodes} nodes; it must have one a node."
        )
    only = schema.categories.get(0, ()) if schema is not None and schema.width == 1 else ()
    if len(only) == x.size(1) > 1 and bool((x.sum(1) == 1).all() & ((x == 0) | (x == 1)).all()):
        x = x.argmax(1, keepdim=True).float()  # one-hot, as PyTorch Geometric gives the node labels of TU sets
    if schema is not None and schema.width != x.size(1):
        raise StructmaeError(
            f"{draft.label}: nodes have {x.size(1)} feature columns, the model was trained with {schema.width}. "
            "Give the same columns in the same order."
        )
    if not bool(torch.isfinite(x).all()):
        bad = torch.nonzero(~torch.isfinite(x))
        row, column = bad[0].tolist()
        raise StructmaeError(
            f"{draft.label}: feature column {own.column(column)} of node {_node(draft, row)} is "
            f"{_shown(x[row, column])} ({bad.size(0)} such cell{_PLURAL[bad.size(0) == 1]}). "
            "Features must be finite: fill or drop them."
        )
    return x, own


def _shown(value: Tensor) -> str:
    return "missing" if bool(torch.isnan(value)) else str(value.item())


def _node(draft: Draft, row: int) -> str:
    return str(row) if draft.ids is None else f"'{draft.ids[row]}'"


def _labels(draft: Draft, notes: list[str]) -> tuple[Tensor | None, Split | None, str]:
    y = draft.y
    if y is None or not bool((y >= 0).any()):
        return None, None, ""
    if draft.level == "graph":
        return y, None, ""
    if draft.split is not None:
        return y, _checked_split(draft.label, draft.split, y, notes), draft.split_source
    split = stratified(y, train=0.1, validation=0.1)
    if split is None:
        labelled = int((y >= 0).sum())
        notes.append(f"no split: {labelled} labelled nodes of {len(draft.classes)} classes are too few for one")
        return y, None, ""
    return y, split, "made: stratified 10/10/80, seed 0"


def _checked_split(name: str, split: Split, y: Tensor, notes: list[str]) -> Split:
    part = torch.full_like(y, -1)
    kept: Split = {}
    unlabelled = 0
    for code, key in enumerate(KEYS):
        index = split[key]
        twice = index[part[index] >= 0]
        if twice.numel():
            raise StructmaeError(
                f"{name}: node {int(twice[0])} is in {KEYS[int(part[twice[0]])]} and in {key} "
                f"({twice.numel()} such). A node belongs to one part of the split."
            )
        part[index] = code
        kept[key] = index[y[index] >= 0]
        unlabelled += index.numel() - kept[key].numel()
        if kept[key].numel() == 0:
            raise StructmaeError(
                f"{name}: the split has no labelled node in {key}. Label some, or leave the split out."
            )
    if unlabelled:
        notes.append(f"{unlabelled} nodes of the split have no label and are left out of it")
    return kept
