"""Readers of the raw folders of two public collections: Planetoid and TU. Neither writes anything."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from structmae.data.columns import matrix
from structmae.data.graphs import Schema
from structmae.data.labels import encode_integers
from structmae.data.validate import Draft
from structmae.errors import StructmaeError

PLANETOID_PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")


def read_planetoid(folder: Path, prefix: str, name: str) -> Draft:
    """Cora, CiteSeer or PubMed with the public split.

    The files are pickles: check their SHA-256 first (`fetch.verify`). The nodes of CiteSeer that are missing from the
    files have an all-zero feature row and no label.
    """
    from torch_geometric.io import read_planetoid_data

    with warnings.catch_warnings():
        # The pickles are from Python 2 and NumPy 1: their dtype arguments and SciPy's old module names are deprecated.
        warnings.simplefilter("ignore")
        data = read_planetoid_data(str(folder), prefix)
    labelled = data.train_mask | data.val_mask | data.test_mask
    # The nodes of the files `ally` come first and are all labelled; the test nodes and the gaps between them follow.
    labelled[: int(data.test_mask.nonzero()[0])] = True
    y = torch.where(labelled, data.y, -1)
    return Draft(
        name=name,
        edge_index=data.edge_index,
        num_nodes=data.num_nodes,
        x=data.x,
        y=y,
        split={
            "train": data.train_mask.nonzero().flatten(),
            "validation": data.val_mask.nonzero().flatten(),
            "test": data.test_mask.nonzero().flatten(),
        },
        split_source="public",
        classes=tuple(str(label) for label in range(int(y.max()) + 1)),
        schema=Schema(width=data.x.size(1)),
    )


def read_tu(folder: Path, prefix: str, name: str, schema: Schema | None = None) -> Draft:
    """A set of the TU collection: node labels as categorical columns, edge labels as one-hot edge columns.

    Attributes are read only where there are no labels; a set with neither has no features (the degree stands in).
    Duplicate edges and the like are left for `validate.build`.

    Raises:
        StructmaeError: a file is missing or is not the table of numbers that the collection's format asks for.
    """
    # The graph set is read packed, which torch_geometric's reader splits and would have to be packed again.
    pairs = _table(folder, prefix, "A", np.int64)
    indicator = _table(folder, prefix, "graph_indicator", np.int64)
    if pairs is None or indicator is None:
        missing = "A" if pairs is None else "graph_indicator"
        raise StructmaeError(f"{folder}: no file {prefix}_{missing}.txt. Every TU set has one: fetch the set again.")
    if pairs.shape[1] != 2:
        raise _unreadable(folder, f"{prefix}_A.txt has {pairs.shape[1]} columns, not 2")
    item = indicator[:, 0]
    steps = np.diff(item)
    if item.size == 0 or item[0] != 1 or bool(((steps < 0) | (steps > 1)).any()):
        raise _unreadable(folder, f"{prefix}_graph_indicator.txt does not count the graphs 1, 2, 3, ...")
    num_graphs = int(item[-1])
    ptr = np.concatenate([[0], np.cumsum(np.bincount(item - 1, minlength=num_graphs))])

    notes: list[str] = []
    x = _rows(folder, prefix, ("node_labels", "node_attributes"), item.size)
    coded, own, remarks = (None, None, []) if x is None else _coded(x, schema, name)
    edge_attr = _edge_columns(folder, prefix, pairs.shape[0])
    y: Tensor | None = None
    classes: tuple[str, ...] = ()
    labels = _table(folder, prefix, "graph_labels", np.float64)
    if labels is not None:
        if labels.shape[0] != num_graphs:
            raise _unreadable(folder, f"{prefix}_graph_labels.txt has {labels.shape[0]} rows for {num_graphs} graphs")
        whole = labels.shape[1] == 1 and bool((labels == np.round(labels)).all())
        if whole:
            y, classes, _ = encode_integers(torch.from_numpy(labels[:, 0].astype(np.int64)))
        else:
            notes.append("graph labels are not classes: not used")
    elif (folder / f"{prefix}_graph_attributes.txt").exists():
        notes.append("the set has numbers to regress on and no classes: not used")
    return Draft(
        name=name,
        edge_index=torch.from_numpy(np.ascontiguousarray(pairs.T) - 1),
        num_nodes=item.size,
        x=coded,
        ptr=torch.from_numpy(ptr),
        edge_attr=edge_attr,
        y=y,
        level="graph",
        classes=classes,
        schema=own,
        notes=notes + remarks,
    )


def _coded(x: Tensor, schema: Schema | None, name: str) -> tuple[Tensor, Schema, list[str]]:
    """Labels start anywhere (NCI1: at 1), so that codes count from the smallest and categories keep the numbers."""
    if schema is not None or x.dtype.is_floating_point:
        return matrix(x, schema, name)
    low = x.min(dim=0).values
    coded, own, notes = matrix(x - low, None, name)
    values: dict[int, tuple[str | int, ...]] = {
        column: tuple(int(low[column]) + code for code in range(len(codes))) for column, codes in own.categories.items()
    }
    return coded, replace(own, categories=values), notes


def _table(folder: Path, prefix: str, part: str, dtype: type[np.generic]) -> NDArray[Any] | None:
    """The rows of PREFIX_part.txt, always 2-D; None where there is no such file."""
    path = folder / f"{prefix}_{part}.txt"
    if not path.is_file():
        return None
    if path.stat().st_size == 0:
        raise _unreadable(folder, f"{path.name} is empty")
    try:
        return np.loadtxt(path, dtype=dtype, delimiter=",", ndmin=2, comments=None)
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise _unreadable(folder, f"{path.name}: {error}") from None


def _rows(folder: Path, prefix: str, parts: tuple[str, str], rows: int) -> Tensor | None:
    """The first of the two files that exists: labels as int64, attributes as float32."""
    labels, attributes = parts
    for part, dtype in ((labels, np.int64), (attributes, np.float64)):
        table = _table(folder, prefix, part, dtype)
        if table is None:
            continue
        if table.shape[0] != rows:
            raise _unreadable(folder, f"{prefix}_{part}.txt has {table.shape[0]} rows, not {rows}")
        tensor = torch.from_numpy(table)
        return tensor if dtype is np.int64 else tensor.float()
    return None


def _edge_columns(folder: Path, prefix: str, edges: int) -> Tensor | None:
    table = _rows(folder, prefix, ("edge_labels", "edge_attributes"), edges)
    if table is None or table.dtype.is_floating_point:
        return table
    shifted = table - table.min(dim=0).values
    return torch.cat([torch.nn.functional.one_hot(column) for column in shifted.unbind(1)], dim=1).float()


def _unreadable(folder: Path, what: str) -> StructmaeError:
    return StructmaeError(f"{folder}: cannot be read as a TU set: {what}.\nRemove the folder and fetch the set again.")
