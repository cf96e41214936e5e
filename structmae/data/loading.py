"""`load`: whatever a person has, by name, by path or as an object, becomes `Graphs`, `Series`, `Images` or `Texts`."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from structmae.data import bundled, catalog, fetch, raw, simulate
from structmae.data.catalog import Card
from structmae.data.graphs import Graphs, Schema
from structmae.data.images import Images
from structmae.data.kinds import KINDS, Kind, kind_of
from structmae.data.validate import Draft, build
from structmae.errors import StructmaeError, UsageError

if TYPE_CHECKING:
    from torch_geometric.data import Data, Dataset

    from structmae.data.series import Series
    from structmae.data.texts import Texts

Source = Union[str, os.PathLike[str], Graphs, "Data", "Dataset", Sequence["Data"]]


def load(
    data: Any,
    *,
    nodes: str | os.PathLike[str] | None = None,
    kind: Kind | None = None,
    undirected: bool = True,
    categorical: str | Sequence[str] = "auto",
    schema: Any = None,
    time: str = "auto",
    id: str = "auto",
    value: str = "auto",
    channels: str | Sequence[str] = "all",
    split: str = "auto",
) -> "Graphs | Series | Images | Texts":
    """Graphs, series, images or texts from a name, a path or an object.

    Arguments:
        data: a name of the catalog (`structmae data` lists them), a path or an object. See `load_graphs`,
            `load_series`, `load_images` and `load_texts` for what each reads, and `kind_of` for which it is.
        kind: "graph", "series", "image" or "text", where the data does not tell.
        nodes, undirected, categorical: of graphs alone, see `load_graphs`.
        time, id, value, channels, split: of series alone, see `load_series`.
        schema: read the data as an earlier data set with this schema was read.

    Returns:
        `Graphs`, `Series`, `Images` or `Texts`. `load(**result.spec)` reads the same again; the `spec` of an object is
        empty.

    Raises:
        UsageError: an unknown name or value, or an option of another kind.
        StructmaeError: data that is missing, damaged, or none of these.
    """
    # A node table goes with a graph, unless the name is that of another set.
    named = isinstance(data, str) and catalog.is_known(data)
    found = kind_of(data, "graph" if kind is None and nodes is not None and not named else kind)
    edges: dict[str, Any] = {"nodes": nodes, "undirected": undirected, "categorical": categorical}
    table: dict[str, Any] = {"time": time, "id": id, "value": value, "channels": channels, "split": split}
    if found != "graph":
        _refuse(edges, {"nodes": None, "undirected": True, "categorical": "auto"}, "graph", found)
    if found != "series":
        _refuse(table, {**dict.fromkeys(table, "auto"), "channels": "all"}, "series", found)
    of = next((known for known in KINDS.values() if known.schema == type(schema).__name__), None)
    if schema is not None and of != KINDS[found]:
        what = type(schema).__name__ if of is None else of.words
        raise UsageError(f"the schema is one of {what}, and this is {KINDS[found].words}.")
    if found == "graph":
        return load_graphs(data, kind=kind, schema=schema, **edges)
    result: Series | Images | Texts
    if found == "series":
        from structmae.data.series_loading import load_series

        result = load_series(data, schema=schema, **table)
    elif found == "image":
        from structmae.data.image_loading import load_images

        result = load_images(data, schema=schema)
    else:
        from structmae.data.text_loading import load_texts

        result = load_texts(data, schema=schema)
    return replace(result, spec={**result.spec, "kind": kind}) if kind is not None and result.spec else result


def _refuse(given: dict[str, Any], usual: dict[str, Any], of: Kind, found: Kind) -> None:
    option = next((key for key, value in given.items() if value != usual[key]), None)
    if option is not None:
        raise UsageError(
            f"{option}= is for {KINDS[of].several}, and this is {KINDS[found].words}. Leave it out, or say kind='{of}'."
        )


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
    if (found := kind_of(data, kind or "graph")) != "graph":
        raise UsageError(f"kind '{found}' is not read as graphs. Use load or {KINDS[found].loader}.")
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
    if card.kind != "graph":
        raise StructmaeError(f"'{card.name}' is {KINDS[card.kind].words}, no graph. `structmae data` lists the graphs.")
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
