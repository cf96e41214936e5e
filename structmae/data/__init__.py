"""Where structure comes in: `load` gives `Graphs`, `Series`, `Images` or `Texts` from a name, a path or an object; the
catalog tells what there is."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from structmae.data.catalog import Card, cards, describe, where

if TYPE_CHECKING:
    from structmae.data.graphs import Graphs, Schema
    from structmae.data.image_loading import load_images
    from structmae.data.images import Images, ImageSchema
    from structmae.data.kinds import kind_of
    from structmae.data.loading import load, load_graphs
    from structmae.data.series import Series, SeriesSchema
    from structmae.data.series_loading import load_series
    from structmae.data.text_loading import load_texts
    from structmae.data.texts import Texts, TextSchema

__all__ = [
    "Card",
    "Graphs",
    "ImageSchema",
    "Images",
    "Schema",
    "Series",
    "SeriesSchema",
    "TextSchema",
    "Texts",
    "cards",
    "describe",
    "kind_of",
    "load",
    "load_graphs",
    "load_images",
    "load_series",
    "load_texts",
    "where",
]

# The catalog is listed without torch; the rest comes when it is asked for.
_WHERE = {
    "Graphs": "graphs",
    "Schema": "graphs",
    "ImageSchema": "images",
    "Images": "images",
    "Series": "series",
    "SeriesSchema": "series",
    "TextSchema": "texts",
    "Texts": "texts",
    "kind_of": "kinds",
    "load": "loading",
    "load_graphs": "loading",
    "load_images": "image_loading",
    "load_series": "series_loading",
    "load_texts": "text_loading",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'structmae.data' has no attribute '{name}'")
    return getattr(import_module(f"structmae.data.{_WHERE[name]}"), name)
