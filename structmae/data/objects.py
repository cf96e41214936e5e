"""PyG objects: one `Data`, several, a dataset, or the same saved in a `.pt` file."""

import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from structmae.data.columns import matrix
from structmae.data.graphs import Schema
from structmae.data.labels import encode_integers
from structmae.data.splits import KEYS, Split
from structmae.data.validate import Draft
from structmae.errors import StructmaeError

if TYPE_CHECKING:
    from torch_geometric.data import Data

_MASKS = dict(zip(KEYS, ("train_mask", "val_mask", "test_mask"), strict=True))
_WANTED = "a PyG Data, a list of Data, a PyG dataset, or structmae's own Graphs"


def from_file(path: Path, schema: Schema | None = None) -> Draft:
    """The graphs in a file that `torch.save` wrote. Nothing but tensors and PyG's own containers is unpickled.

    Raises:
        StructmaeError: the file is damaged, or holds something else.
    """
    from torch_geometric.data import Data
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import BaseStorage, EdgeStorage, GlobalStorage, NodeStorage

    allowed: list[Any] = [Data, DataEdgeAttr, DataTensorAttr, BaseStorage, GlobalStorage, NodeStorage, EdgeStorage]
    try:
        with torch.serialization.safe_globals(allowed):
            value = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise _damaged(path) from None
        if found.group(1).startswith("torch_geometric.data.batch."):
            # A Batch makes its class when it is unpickled, which weights_only refuses whatever is allowed.
            raise StructmaeError(
                f"{path}: holds a PyG Batch, which cannot be read without running code. Save batch.to_data_list()."
            ) from None
        raise StructmaeError(
            f"{path}: holds a {found.group(1)}, which could run code of its own when read. Save the plain Data "
            "instead: torch.save(data, path)."
        ) from None
    except (RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError, IndexError, AttributeError, TypeError):
        # What torch.load raises for a file that is cut short or no pickle at all differs with where it is cut.
        raise _damaged(path) from None
    except OSError as error:
        raise StructmaeError(f"{path}: cannot be read: {error.strerror}.") from None
    return from_object(value, schema, name=path.stem, where=str(path))


def _damaged(path: Path) -> StructmaeError:
    return StructmaeError(f"{path}: not a file that torch.save wrote, or truncated. Save the Data again.")


def from_object(value: object, schema: Schema | None = None, name: str | None = None, where: str = "data") -> Draft:
    """The draft of a `Data` (a single graph), or of a sequence or dataset of them (a set of graphs).

    A set of one graph whose labels belong to its nodes, or that has none, is a single graph.

    Raises:
        StructmaeError: a `HeteroData`, anything else that is no graph, or graphs that do not go together.
    """
    from torch_geometric.data import Batch, Data, Dataset, HeteroData

    if isinstance(value, HeteroData):
        raise StructmaeError(
            f"{where}: HeteroData has several kinds of nodes; this version reads one. Use to_homogeneous()."
        )
    if isinstance(value, Batch):
        return from_object(value.to_data_list(), schema, name, where)
    if isinstance(value, Data):
        return _single(value, schema, name or "graph", where)
    if isinstance(value, str) or not isinstance(value, (Dataset, Sequence)):
        raise StructmaeError(f"{where}: is a {type(value).__name__}; structmae reads {_WANTED}.")
    if isinstance(value, Dataset) and name is None:
        name = re.sub(r"[^a-z0-9_-]+", "-", str(getattr(value, "name", type(value).__name__)).lower()).strip("-")
    items = cast(Sequence[object], value)
    graphs = [items[index] for index in range(len(items))]
    if not graphs:
        raise StructmaeError(f"{where}: the list is empty. Give at least one graph.")
    for index, graph in enumerate(graphs):
        if isinstance(graph, HeteroData) or not isinstance(graph, Data):
            raise StructmaeError(f"{where}: item {index} is a {type(graph).__name__}; structmae reads {_WANTED}.")
    plain = cast("list[Data]", graphs)
    y = plain[0].y
    if len(plain) == 1 and (not isinstance(y, Tensor) or y.numel() != 1 or _num_nodes(plain[0], where) == 1):
        return _single(plain[0], schema, name or "graph", where)
    return _several(plain, schema, name or "graphs", where)


def _single(data: "Data", schema: Schema | None, name: str, where: str) -> Draft:
    num_nodes = _num_nodes(data, where)
    x = _matrix(data.x, "x", where, num_nodes)
    coded, own, notes = (None, None, []) if x is None else matrix(x, schema, where)
    y, classes, remarks = _labels(data.y, num_nodes, "node", where)
    split, source, more = _masks(data, y, num_nodes, where)
    return Draft(
        name=name,
        where=where,
        edge_index=_edges(data, where),
        num_nodes=num_nodes,
        x=coded,
        edge_attr=_edge_attr(data, where),
        y=y,
        split=split,
        split_source=source,
        classes=classes,
        schema=own,
        notes=notes + remarks + more,
    )


def _several(graphs: "list[Data]", schema: Schema | None, name: str, where: str) -> Draft:
    sizes = [_num_nodes(graph, f"{where}: graph {i}") for i, graph in enumerate(graphs)]
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    xs = [_matrix(g.x, "x", f"{where}: graph {i}", sizes[i]) for i, g in enumerate(graphs)]
    edges, attrs = [], []
    for index, graph in enumerate(graphs):
        place = f"{where}: graph {index}"
        edge_index = _edges(graph, place)
        # Checked here and not only in `build`, where a wrong number would be one of the next graph's nodes.
        bad = ((edge_index < 0) | (edge_index >= sizes[index])).any(dim=0)
        if bool(bad.any()):
            a, b = edge_index[:, int(bad.nonzero()[0])].tolist()
            raise StructmaeError(
                f"{place}: edge {int(bad.nonzero()[0])} is {a} -> {b}, but its nodes run from 0 to {sizes[index] - 1}."
            )
        edges.append(edge_index + ptr[index])
        attrs.append(_edge_attr(graph, place))
    x = _joined(xs, "x", where)
    coded, own, notes = (None, None, []) if x is None else matrix(x, schema, where)
    y, classes, remarks = _graph_labels(graphs, where)
    return Draft(
        name=name,
        where=where,
        edge_index=torch.cat(edges, dim=1),
        num_nodes=sum(sizes),
        x=coded,
        ptr=ptr,
        edge_attr=_joined(attrs, "edge_attr", where),
        y=y,
        level="graph",
        classes=classes,
        schema=own,
        notes=notes + remarks,
    )


def _num_nodes(data: "Data", where: str) -> int:
    if isinstance(data.x, Tensor):
        return data.x.size(0)
    if "num_nodes" in data:
        return int(data.num_nodes or 0)
    if isinstance(data.y, Tensor) and data.y.dim() > 0 and len(data.y) > 1:
        return len(data.y)  # node labels count the nodes better than the largest number in edge_index does
    if not isinstance(data.edge_index, Tensor):
        raise StructmaeError(f"{where}: has neither x nor edge_index: no graph. Set data.edge_index, (2, E) int64.")
    return int(data.edge_index.max()) + 1 if data.edge_index.numel() else 0


def _edges(data: "Data", where: str) -> Tensor:
    if isinstance(data.edge_index, Tensor):
        edge_index = data.edge_index.detach().cpu()
        if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.dtype not in (torch.int64, torch.int32):
            raise StructmaeError(
                f"{where}: edge_index is {edge_index.dtype} {tuple(edge_index.shape)}; it must be (2, E) int64, rows "
                "source and target."
            )
        return edge_index.as_subclass(Tensor).long()
    if "adj_t" in data:
        raise StructmaeError(
            f"{where}: has adj_t and no edge_index. Leave ToSparseTensor out, so that edge_index stays."
        )
    return torch.zeros(2, 0, dtype=torch.int64)


def _edge_attr(data: "Data", where: str) -> Tensor | None:
    edges = data.edge_index.size(1) if isinstance(data.edge_index, Tensor) else 0
    attr = _matrix(data.edge_attr, "edge_attr", where, edges)
    return None if attr is None else attr.float()


def _matrix(value: object, key: str, where: str, rows: int) -> Tensor | None:
    """x or edge_attr as a dense 2-D tensor on the CPU, dtype kept."""
    if value is None:
        return None
    if not isinstance(value, Tensor):
        raise StructmaeError(f"{where}: {key} is a {type(value).__name__}; it must be a tensor.")
    tensor = value.detach().cpu()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.dim() == 1:
        tensor = tensor.unsqueeze(1)
    if tensor.dim() != 2 or tensor.size(0) != rows or tensor.is_complex():
        raise StructmaeError(
            f"{where}: {key} is {tensor.dtype} {tuple(tensor.shape)}; it must be real with {rows} rows."
        )
    return tensor if tensor.size(1) else None


def _joined(parts: list[Tensor | None], key: str, where: str) -> Tensor | None:
    """The parts one below the other: none of them there, or all, of one width."""
    rows = [part for part in parts if part is not None]
    if not rows:
        return None
    first = rows[0]
    for index, part in enumerate(parts):
        width = 0 if part is None else part.size(1)
        if width != first.size(1):
            raise StructmaeError(
                f"{where}: graph {index} has {width} columns in {key}, others have {first.size(1)}. "
                "All graphs of a set have the same columns."
            )
    whole = not any(part.dtype.is_floating_point or part.dtype == torch.bool for part in rows)
    return torch.cat([part if whole else part.float() for part in rows])


def _labels(value: object, count: int, what: str, where: str) -> tuple[Tensor | None, tuple[str, ...], list[str]]:
    """Codes (count,), class names, notes; None where y holds no classes."""
    if value is None:
        return None, (), []
    if not isinstance(value, Tensor):
        raise StructmaeError(f"{where}: y is a {type(value).__name__}; it must be a tensor of class numbers.")
    y = value.detach().cpu()
    if y.dim() == 2 and y.size(1) == 1:
        y = y.squeeze(1)
    if y.dim() == 2 and y.size(0) == count:
        return None, (), [f"y has {y.size(1)} columns (several labels a {what}): not used"]
    if what == "node" and y.numel() == 1 and count != 1:
        return None, (), ["y is one label for the whole graph: not used"]
    if y.dim() != 1 or y.size(0) != count:
        raise StructmaeError(f"{where}: y has shape {tuple(y.shape)}; it must have one label a {what}, ({count},).")
    if y.dtype.is_floating_point:
        blank = torch.isnan(y)
        whole = bool((y[~blank] == y[~blank].round()).all())
        if not whole or bool(torch.isinf(y).any()):
            return None, (), ["y holds fractions (regression), not classes: not used"]
        return encode_integers(torch.where(blank, 0, y).long(), blank)
    return encode_integers(y.long())


def _graph_labels(graphs: "list[Data]", where: str) -> tuple[Tensor | None, tuple[str, ...], list[str]]:
    given = [graph.y for graph in graphs]
    tensors = [y for y in given if isinstance(y, Tensor)]
    if not tensors:
        return None, (), []
    if any(y.numel() != 1 for y in tensors):
        wide = next(y for y in tensors if y.numel() != 1)
        return None, (), [f"y has {wide.numel()} values a graph, not one class: not used"]
    # NaN stands for a graph without a label, whatever the type of the others.
    rows = [y.reshape(1).double() if isinstance(y, Tensor) else torch.tensor([float("nan")]).double() for y in given]
    return _labels(torch.cat(rows), len(graphs), "graph", where)


def _masks(data: "Data", y: Tensor | None, num_nodes: int, where: str) -> tuple[Split | None, str, list[str]]:
    if y is None:
        return None, "", []
    present = [name for name in _MASKS.values() if isinstance(data.get(name), Tensor)]
    if len(present) < len(_MASKS):
        if not present:
            return None, "", []
        missing = [name for name in _MASKS.values() if name not in present]
        return None, "", [f"no {' and no '.join(missing)}: a split is made, {', '.join(present)} not used"]
    split: Split = {}
    notes: list[str] = []
    for key, name in _MASKS.items():
        mask = data[name].detach().cpu()
        if mask.dim() == 2:
            notes = [f"masks of {mask.size(1)} splits: the first is used"]
            mask = mask[:, 0]
        if mask.dtype != torch.bool or mask.numel() != num_nodes:
            raise StructmaeError(
                f"{where}: {name} is {mask.dtype} {tuple(mask.shape)}; it must be bool, one a node ({num_nodes},)."
            )
        split[key] = mask.nonzero().flatten()
    return split, "masks of the data", notes
