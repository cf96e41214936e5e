"""Where structure comes in: `load` gives `Graphs` or `Series` from a name, a path or an object; the catalog tells what
there is."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from structmae.data.catalog import Card, cards, describe, where

if TYPE_CHECKING:
    from structmae.data.graphs import Graphs, Schema
    from structmae.data.loading import kind_of, load, load_graphs
    from structmae.data.series import Series, SeriesSchema
    from structmae.data.series_loading import load_series

__all__ = [
    "Card",
    "Graphs",
    "Schema",
    "Series",
    "SeriesSchema",
    "cards",
    "describe",
    "kind_of",
    "load",
    "load_graphs",
    "load_series",
    "where",
]

# The catalog is listed without torch; the rest comes when it is asked for.
_WHERE = {
    "Graphs": "graphs",
    "Schema": "graphs",
    "Series": "series",
    "SeriesSchema": "series",
    "kind_of": "loading",
    "load": "loading",
    "load_graphs": "loading",
    "load_series": "series_loading",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'structmae.data' has no attribute '{name}'")
    return getattr(import_module(f"structmae.data.{_WHERE[name]}"), name)
