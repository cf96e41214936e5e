"""`load`: whatever a person has, by name, by path or as an object, becomes `Graphs` or `Series`."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np

from structmae.data import bundled, catalog, fetch, raw, simulate
from structmae.data.catalog import Card
from structmae.data.graphs import Graphs, Schema
from structmae.data.tablefile import column_names
from structmae.data.validate import Draft, build
from structmae.errors import StructmaeError, UsageError

if TYPE_CHECKING:
    from torch_geometric.data import Data, Dataset

    from structmae.data.series import Series, SeriesSchema

Source = Union[str, os.PathLike[str], Graphs, "Data", "Dataset", Sequence["Data"]]
Kind = Literal["graph", "series"]
#: Column names of an edge table, and such as may be one: a table with them is not read as a series by mistake.
_EDGES = ({"src", "dst"}, {"source", "target"})
_MAYBE_EDGES = {"from", "to"}


def load(
    data: Any,
    *,
    nodes: str | os.PathLike[str] | None = None,
    kind: Kind | None = None,
    undirected: bool = True,
    categorical: str | Sequence[str] = "auto",
    schema: "Schema | SeriesSchema | None" = None,
    time: str = "auto",
    id: str = "auto",
    value: str = "auto",
    channels: str | Sequence[str] = "all",
    split: str = "auto",
) -> "Graphs | Series":
    """Graphs or series from a name, a path or an object.

    Arguments:
        data: a name of the catalog (`structmae data` lists them), a path or an object. See `load_graphs` and
            `load_series` for what each reads, and `kind_of` for which it is.
        kind: "graph" or "series", where the data does not tell.
        nodes, undirected, categorical: of graphs alone, see `load_graphs`.
        time, id, value, channels, split: of series alone, see `load_series`.
        schema: read the data as an earlier data set with this schema was read.

    Returns:
        `Graphs`, or `Series`. `load(**result.spec)` reads the same again; the `spec` of an object is empty.

    Raises:
        UsageError: an unknown name or value, or an option of the other kind.
        StructmaeError: data that is missing, damaged, or neither.
    """
    # A node table goes with a graph, unless the name is that of a series.
    named = isinstance(data, str) and catalog.is_known(data)
    found = kind_of(data, "graph" if kind is None and nodes is not None and not named else kind)
    options = {"time": time, "id": id, "value": value, "split": split, "channels": "auto" if channels == "all" else ""}
    given = [key for key, option in options.items() if option != "auto"]
    if found == "graph":
        if given:
            raise UsageError(f"{given[0]}= is for series, and this is a graph. Leave it out, or say kind='series'.")
        if schema is not None and not isinstance(schema, Schema):
            raise UsageError("the schema is one of series, and this is a graph.")
        return load_graphs(data, nodes=nodes, kind=kind, undirected=undirected, categorical=categorical, schema=schema)
    if nodes is not None or not undirected or categorical != "auto":
        option = "nodes" if nodes is not None else "undirected" if not undirected else "categorical"
        raise UsageError(f"{option}= is for graphs, and this is a series. Leave it out, or say kind='graph'.")
    if isinstance(schema, Schema):
        raise UsageError("the schema is one of a graph, and this is a series.")
    from structmae.data.series_loading import load_series

    series = load_series(data, time=time, id=id, value=value, channels=channels, split=split, schema=schema)
    return replace(series, spec={**series.spec, "kind": kind}) if kind is not None and series.spec else series


def kind_of(data: Any, kind: str | None = None) -> Kind:
    """Whether data is a graph or a series: by `kind` where it is given, else by the data.

    A name of the catalog is what its card says. A table is a graph if it has columns src,dst or source,target, else a
    series; a folder is a series if it has a NAME_TRAIN.ts. Arrays, .npy and .ts are series; .pt and PyG objects graphs.

    Raises:
        UsageError: a kind that does not exist, or an unknown name.
        StructmaeError: no such file, a table that cannot be read, or one that is as well an edge table.
    """
    if kind is not None:
        if kind == "graph":
            return "graph"
        if kind == "series":
            return "series"
        raise UsageError(f"kind '{kind}' does not exist; there are graph and series.")
    if isinstance(data, (str, os.PathLike)):
        text = os.fspath(data)
        if isinstance(data, str):
            if catalog.is_known(text):
                return catalog.resolve(text).kind
            if not catalog.looks_like_a_path(text):
                catalog.resolve(text)  # raises, with the near misses
        return _kind_of_path(Path(text).expanduser())
    if isinstance(data, Graphs):
        return "graph"
    module = type(data).__module__
    if module.startswith("structmae.data.series") or isinstance(data, np.ndarray):
        return "series"
    if module.partition(".")[0] == "pandas":
        return (
            _kind_of_columns([str(name) for name in data.columns], "the table")
            if hasattr(data, "columns")
            else "series"
        )
    # tsai's (X, y, splits) begins with an array; a tuple of PyG objects is a set of graphs.
    if isinstance(data, tuple) and data and (hasattr(data[0], "__array__") or isinstance(data[0], np.ndarray)):
        return "series"
    return "series" if module.partition(".")[0] == "torch" else "graph"


def _kind_of_path(path: Path) -> Kind:
    if not path.exists():
        raise StructmaeError(
            f"{path}: no such file. Give a table (.csv, .parquet), a .pt, .npy or .ts file, or a name of "
            "`structmae data`."
        )
    if path.is_dir():
        return "series" if any(file.name.upper().endswith("_TRAIN.TS") for file in path.iterdir()) else "graph"
    suffix = path.suffix.lower()
    if suffix in (".npy", ".ts"):
        return "series"
    return "graph" if suffix == ".pt" else _kind_of_columns(column_names(path), str(path))


def _kind_of_columns(names: list[str], where: str) -> Kind:
    lowered = {name.strip().lower() for name in names}
    if any(ends <= lowered for ends in _EDGES):
        return "graph"
    if lowered >= _MAYBE_EDGES and not lowered & {"date", "ds", "time", "timestamp", "datetime"}:
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise StructmaeError(
            f"{where}: kind unclear: columns are {shown}; a graph's edge table has src,dst (or source,target), or say "
            "--kind graph for ends in the first two; --kind series reads each column as a channel."
        )
    return "series"


def load_graphs(
    data: Source,
    *,
    nodes: str | os.PathLike[str] | None = None,
    kind: Kind | None = None,
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
        kind: "graph" says that a table is one, with its ends in the first two columns if none is named so.
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
    if kind_of(data, kind or "graph") == "series":
        raise UsageError("kind 'series' is not read as graphs. Use load or load_series.")
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
        if isinstance(data, str) and not catalog.looks_like_a_path(text):
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


def _by_name(name: str, undirected: bool, schema: Schema | None) -> Graphs:
    card = catalog.resolve(name)
    if card.kind == "series":
        raise StructmaeError(f"'{card.name}' is a set of time series, no graph. `structmae data` lists the graphs.")
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
