"""A graph from tables of one's own: an edge table and perhaps a node table."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from structmae.data import columns
from structmae.data.graphs import Schema
from structmae.data.labels import encode_names
from structmae.data.splits import KEYS, Split
from structmae.data.tablefile import SUFFIXES, TableFile
from structmae.data.validate import Draft
from structmae.errors import StructmaeError

_ENDS = (("src", "dst"), ("source", "target"))
_PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
_DATES = {"date", "time", "datetime", "timestamp", "ds"}


def from_tables(
    path: Path, nodes: Path | None, categorical: str | Sequence[str], schema: Schema | None, kind: str | None = None
) -> Draft:
    """The draft of an edge table with columns src,dst (or source,target), and of its node table if there is one.

    With kind "graph" a table without such columns has its ends in its first two. Further columns of the edge table are
    numbers and become `edge_attr`. The node table has id, features, and perhaps label and split (train, validation,
    test, or blank). Its row order is the node order; without it the nodes are the sorted ids of the edge table. A
    folder holds edges.csv and perhaps nodes.csv (or .parquet). Column names of structure are read without regard to
    case; ids are compared as text, with 3 and 3.0 the same.

    Raises:
        StructmaeError: a table that cannot be read or is no graph, an id that is missing, repeated or unknown, a cell
            that is missing or cannot be coded.
    """
    folder = path if path.is_dir() else None
    if folder is not None:
        path, nodes = _in_folder(folder, nodes)
    edge_table = TableFile.read(path, ("src", "dst", "source", "target"))
    notes: list[str] = []
    if kind == "graph" and not _named_ends(edge_table) and edge_table.frame.shape[1] >= 2:
        first, second = (str(name).strip().lower() for name in edge_table.frame.columns[:2])
        edge_table = TableFile.read(path, (first, second))
        notes.append(f"kind graph: the first two columns, {first} and {second}, are the ends of the edges")
    else:
        first, second = _end_columns(edge_table)
    source, target = _ids(edge_table, first), _ids(edge_table, second)
    node_table = None if nodes is None else TableFile.read(nodes, ("id", "label", "split"))
    ids = _sorted_ids(source + target) if node_table is None else _node_ids(node_table)
    code = {value: index for index, value in enumerate(ids)}
    if node_table is not None:
        _check_known(edge_table, node_table, source, target, code)
    rows = [[code[value] for value in source], [code[value] for value in target]]
    draft = Draft(
        name=_slug(folder.resolve().name if folder is not None else path.stem),
        edge_index=torch.tensor(rows, dtype=torch.int64).reshape(2, -1),
        num_nodes=len(ids),
        edge_attr=_edge_columns(edge_table),
        ids=_as_given(ids),
        where=str(path if nodes is None else nodes),
        notes=notes,
    )
    if node_table is not None:
        _fill_nodes(draft, node_table, ids, categorical, schema)
    elif categorical not in ("auto", "none"):
        columns.named(categorical, [], str(path))  # raises: there is no column to name
    return draft


def _in_folder(folder: Path, nodes: Path | None) -> tuple[Path, Path | None]:
    def one(stem: str) -> Path | None:
        return next((folder / (stem + suffix) for suffix in SUFFIXES if (folder / (stem + suffix)).is_file()), None)

    edges = one("edges")
    if edges is None:
        raise StructmaeError(f"{folder}: no edges.csv or edges.parquet in this folder. Put the edge table there.")
    return edges, nodes if nodes is not None else one("nodes")


def _named_ends(table: TableFile) -> tuple[str, str] | None:
    return next((ends for ends in _ENDS if all(end in table.special for end in ends)), None)


def _end_columns(table: TableFile) -> tuple[str, str]:
    """Which of the pairs of columns holds the ends of the edges."""
    if named := _named_ends(table):
        return named
    names = [str(name) for name in table.frame.columns]
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    lowered = {name.lower() for name in names}
    if lowered & _DATES or {"unique_id", "y"} <= lowered:
        raise StructmaeError(
            f"{table.path}: columns are {shown}: this looks like time series, no graph: give the table itself, "
            "not its folder, without --kind graph. A graph's edge table has src,dst."
        )
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise StructmaeError(f"{table.path}: one column, {names[0]!r}: save the table with commas between the cells.")
    raise StructmaeError(
        f"{table.path}: kind unclear: columns are {shown}; a graph's edge table has src,dst (or source,target), or say "
        "--kind graph for ends in the first two."
    )


def _ids(table: TableFile, key: str) -> list[str]:
    """Ids as normalised text, all present."""
    found: list[str] = []
    for row, value in enumerate(table.text(key)):
        if value is None:
            raise StructmaeError(f"{table.path}: {table.place(row)} has no {key}. Fill it, or drop the line.")
        found.append(re.sub(r"^([+-]?\d+)\.0*$", r"\1", value))
    return found


def _node_ids(table: TableFile) -> list[str]:
    if "id" not in table.special:
        names = ", ".join(str(name) for name in table.frame.columns[:8])
        raise StructmaeError(f"{table.path}: columns are {names}; a node table has a column id.")
    ids = _ids(table, "id")
    seen: dict[str, int] = {}
    for row, value in enumerate(ids):
        if value in seen:
            raise StructmaeError(
                f"{table.path}: id '{value}' is on {table.place(seen[value])} and on {table.place(row)}. "
                "Each node has one row."
            )
        seen[value] = row
    return ids


def _sorted_ids(values: list[str]) -> list[str]:
    """The distinct ids: in numeric order where all are whole numbers, else in that of text."""
    distinct = sorted(set(values))
    return sorted(distinct, key=int) if all(_is_whole(value) for value in distinct) else distinct


def _is_whole(value: str) -> bool:
    return re.fullmatch(r"0|-?[1-9]\d*", value) is not None


def _as_given(ids: list[str]) -> tuple[str | int, ...]:
    """Whole numbers as such, so that they match the id column of the person's own table; 007 stays text."""
    return tuple(int(value) for value in ids) if all(_is_whole(value) for value in ids) else tuple(ids)


def _check_known(
    edges: TableFile, nodes: TableFile, source: list[str], target: list[str], code: dict[str, int]
) -> None:
    bad = [row for row in range(len(source)) if source[row] not in code or target[row] not in code]
    if not bad:
        return
    row = bad[0]
    unknown = source[row] if source[row] not in code else target[row]
    more = f", and so on for {len(bad)} edges" if len(bad) > 1 else ""
    raise StructmaeError(
        f"{edges.path}: {edges.place(row)} has node '{unknown}', which is not an id in {nodes.path.name}{more}. "
        "Add the node there, or drop the edge."
    )


def _edge_columns(table: TableFile) -> Tensor | None:
    found = []
    for name in table.others():
        column = table.frame[name]
        if column.empty:
            found.append(np.zeros(0, np.float32))
            continue
        if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)):
            raise StructmaeError(
                f"{table.path}: column '{name}' holds '{column.dropna().iloc[0]}'. Columns of an edge table beside "
                "src,dst are numbers: code it as numbers, or drop it."
            )
        found.append(column.to_numpy(dtype=np.float32, na_value=np.nan))
    return torch.from_numpy(np.stack(found, axis=1)) if found else None


def _fill_nodes(
    draft: Draft, table: TableFile, ids: list[str], categorical: str | Sequence[str], schema: Schema | None
) -> None:
    """Features, labels and split of the node table, into the draft."""
    features = table.frame[table.others()]
    draft.x, draft.schema, notes = columns.table(features, ids, categorical, schema, str(table.path))
    draft.notes += notes
    if "label" not in table.special:
        if "split" in table.special:
            draft.notes.append("split column without a label column: not used")
        return
    draft.y, draft.classes, remarks = encode_names(table.text("label"), str(table.path))
    draft.notes += remarks
    if "split" in table.special:
        split, missing = _split(table)
        if missing:
            draft.notes.append(f"split column has no {' and no '.join(missing)} node: a split is made")
        else:
            draft.split, draft.split_source = split, "column split"


def _split(table: TableFile) -> tuple[Split, list[str]]:
    rows: dict[str, list[int]] = {key: [] for key in KEYS}
    for row, value in enumerate(table.text("split")):
        if value is None:
            continue
        if value.lower() not in _PARTS:
            raise StructmaeError(
                f"{table.path}: {table.place(row)} has split '{value}'; it must be train, validation, test or blank."
            )
        rows[_PARTS[value.lower()]].append(row)
    return {key: torch.tensor(rows[key], dtype=torch.int64) for key in KEYS}, [key for key in KEYS if not rows[key]]


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "graph"
