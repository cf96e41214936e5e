"""Where structure comes in: `load` gives `Graphs` from a name, a path or an object; the catalog tells what there is."""

from typing import TYPE_CHECKING, Any

from structmae.data.catalog import Card, cards, describe, where

if TYPE_CHECKING:
    from structmae.data.graphs import Graphs, Schema
    from structmae.data.loading import load

__all__ = ["Card", "Graphs", "Schema", "cards", "describe", "load", "where"]


def __getattr__(name: str) -> Any:
    # The catalog is listed without torch; the rest comes when it is asked for.
    if name in ("Graphs", "Schema"):
        from structmae.data import graphs

        return getattr(graphs, name)
    if name == "load":
        from structmae.data import loading

        return loading.load
    raise AttributeError(f"module 'structmae.data' has no attribute '{name}'")
