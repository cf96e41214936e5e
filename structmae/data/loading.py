"""`load`: whatever a person has, by name, by path or as an object, becomes `Graphs`."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

from structmae.data import bundled, catalog, fetch, raw, simulate
from structmae.data.catalog import Card
from structmae.data.graphs import Graphs, Schema
from structmae.data.validate import Draft, build
from structmae.errors import StructmaeError, UsageError

if TYPE_CHECKING:
    from torch_geometric.data import Data, Dataset

Source = Union[str, os.PathLike[str], Graphs, "Data", "Dataset", Sequence["Data"]]
SUFFIXES = (".csv", ".parquet", ".pt")


def load(
    data: Source,
    *,
    nodes: str | os.PathLike[str] | None = None,
    kind: Literal["graph", "series"] | None = None,
    undirected: bool = True,
    categorical: str | Sequence[str] = "auto",
    schema: Schema | None = None,
) -> Graphs:
    """One graph or a set of graphs from a name, a path or an object.

    Arguments:
        data: a name of the catalog (`structmae data` lists them), without regard to case; `sbm:n=10000,seed=1`; a
            `.pt` file with a saved PyG `Data` or a list of them; an edge table `.csv` or `.parquet`; a folder with
            edges.csv and perhaps nodes.csv (or .parquet); a PyG `Data`, a sequence or a dataset of them; or `Graphs`.
        nodes: the node table that goes with an edge table.
        kind: "graph" says that a table is one, with its ends in the first two columns if none is named so; this
            version reads nothing else.
        undirected: whether every edge gets its reverse.
        categorical: which whole-number columns of a node table are categories: "auto" (3 to 32 distinct values),
            "none", or the names, as a sequence or with commas. Text and bool columns always are, but for names given.
        schema: read the data as an earlier data set with this schema was read.

    Returns:
        The graphs. See `Graphs` for shapes. A graph set in memory has an empty `spec`.

    Raises:
        UsageError: an unknown name or value.
        StructmaeError: data that is missing, damaged, or no graph.
    """
    if kind not in (None, "graph", "series"):
        raise UsageError(f"kind '{kind}' does not exist; this version reads 'graph'.")
    if kind == "series":
        raise StructmaeError(
            "kind 'series': this version reads graphs only. Give an edge table, or a graph of the catalog."
        )
    if isinstance(data, Graphs):
        return data
    if not isinstance(data, (str, os.PathLike)):
        if nodes is not None:
            raise UsageError("nodes= goes with an edge table in a file; put the features of an object into data.x.")
        from structmae.data.objects import from_object

        return build(from_object(data, schema), undirected=undirected, schema=schema)

    text = os.fspath(data)
    if isinstance(data, str) and catalog.is_known(text):
        if nodes is not None:
            raise UsageError(
                f"nodes= goes with an edge table; '{text}' is a set of the catalog. Write ./{text} for a file."
            )
        graphs = _by_name(text, undirected, schema)
        spec: dict[str, Any] = {"data": text if text.lower().startswith("sbm:") else graphs.card or text, "nodes": None}
    else:
        if isinstance(data, str) and not _looks_like_a_path(text):
            catalog.resolve(text)  # raises, with the near misses
        path = Path(text).expanduser()
        node_path = None if nodes is None else Path(nodes).expanduser()
        graphs = build(_by_path(path, node_path, categorical, schema, kind), undirected=undirected, schema=schema)
        spec = {"data": str(path.resolve()), "nodes": None if node_path is None else str(node_path.resolve())}
    # Only what differs from the default: `load(**spec)` reads the same graphs again.
    if not undirected:
        spec["undirected"] = False
    if categorical != "auto":
        spec["categorical"] = categorical if isinstance(categorical, str) else list(categorical)
    if kind is not None:
        spec["kind"] = kind
    return replace(graphs, spec=spec)


def _looks_like_a_path(text: str) -> bool:
    separators = [os.sep] if os.altsep is None else [os.sep, os.altsep]
    return any(s in text for s in separators) or text.lower().endswith(SUFFIXES) or Path(text).expanduser().exists()


def _by_name(name: str, undirected: bool, schema: Schema | None) -> Graphs:
    card = catalog.resolve(name)
    if card.kind == "series":
        raise StructmaeError(
            f"'{card.name}' is a set of time series; this version reads graphs only. `structmae data` lists the graphs."
        )
    draft = _simulated(card, name) if card.loader == "simulated" else _published(card, schema)
    draft.card = card.name
    return build(draft, undirected=undirected, schema=schema)


def _simulated(card: Card, name: str) -> Draft:
    match card.name:
        case "citations":
            return simulate.planted_citations()
        case "sbm":
            return simulate.sbm(name)
        case "digits":
            return bundled.digits()
        case "karate":
            return bundled.karate()
    raise StructmaeError(f"the card '{card.name}' names no simulation of this version.")


def _published(card: Card, schema: Schema | None) -> Draft:
    folder = catalog.find(card) or fetch.fetch(card)
    fetch.verify(folder, card)
    if card.loader == "planetoid":
        return raw.read_planetoid(folder, card.prefix, card.name)
    return raw.read_tu(folder, card.prefix, card.name, schema)


def _by_path(
    path: Path, nodes: Path | None, categorical: str | Sequence[str], schema: Schema | None, kind: str | None
) -> Draft:
    if not path.exists():
        raise StructmaeError(f"{path}: no such file. Give an edge table, a .pt file, or a name of `structmae data`.")
    if nodes is not None and not nodes.is_file():
        raise StructmaeError(f"{nodes}: no such file. nodes= is the table with the column id.")
    if path.is_file() and path.suffix.lower() == ".pt":
        if nodes is not None:
            raise UsageError(f"nodes= goes with an edge table; {path.name} holds its own features.")
        from structmae.data.objects import from_file

        return from_file(path, schema)
    from structmae.data.tables import from_tables

    return from_tables(path, nodes, categorical, schema, kind)
