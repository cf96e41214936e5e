"""The graph modality: how graphs are read, become tokens and batches, and are described."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch

from structmae import data as structures
from structmae.data import Graphs, Schema
from structmae.data.links import hold_out
from structmae.errors import StructmaeError
from structmae.nn.base import Encoder
from structmae.nn.graph import GraphEncoder
from structmae.recipe import DataOptions, Recipe
from structmae.tokens.graph import GraphSource, NodeTokenizer
from structmae.tokens.neighbourhoods import NeighbourhoodSource


def load(data: Any, options: DataOptions, *, nodes: Any = None, kind: Any = None) -> Graphs:
    """Data as the recipe reads it."""
    return _graphs(structures.load_graphs(data, nodes=nodes, kind=kind, **_read(options)), data, options)


def load_like(data: Any, options: DataOptions, schema: Mapping[str, Any], encoder: Encoder, **where: Any) -> Graphs:
    """Other data, read as the run's own was: the same columns and categories. Edge attributes that the encoder does not
    read may be there or not."""
    known = replace(Schema.from_json(dict(schema)), edge_width=encoder.tokenizer.edge_width)
    return _graphs(structures.load_graphs(data, schema=known, **where, **_read(options)), data, options)


def _graphs(found: Any, data: Any, options: DataOptions) -> Graphs:
    if not isinstance(found, Graphs):
        shown = data if isinstance(data, str) else f"this {type(data).__name__}"
        raise StructmaeError(f"{shown} is a table of series, and the recipe is for graphs: choose another recipe")
    return hold_out(found) if options.edges == "train" and found.held_out is None else found


def _read(options: DataOptions) -> dict[str, Any]:
    return {"undirected": options.undirected, "categorical": options.categorical}


def fit(graphs: Graphs, recipe: Recipe) -> NodeTokenizer:
    """The tokenizer, with what it learns of the graphs."""
    return NodeTokenizer.fit(graphs, recipe)


def encoder(recipe: Recipe, tokenizer: NodeTokenizer | Mapping[str, Any]) -> GraphEncoder:
    """The encoder over a fitted tokenizer, or over the settings of one (its buffers are then loaded)."""
    made = NodeTokenizer.from_config(tokenizer) if isinstance(tokenizer, Mapping) else tokenizer
    return GraphEncoder(recipe.encoder, made)


def source(graphs: Graphs, tokenizer: NodeTokenizer, device: torch.device, *, anew: bool = False) -> GraphSource:
    """Batches for the training loop: whole graphs, or with tokens.hops the neighbourhoods of a graph's nodes."""
    return (NeighbourhoodSource if tokenizer.hops else GraphSource)(graphs, tokenizer, device)


def tasks(graphs: Graphs) -> tuple[str, ...]:
    """What these graphs can be scored on, the usual first."""
    if graphs.level == "graph":
        return ("graph_classification", "clustering")
    both = ("node_classification", "link_prediction")
    return ("link_prediction",) if graphs.held_out is not None and graphs.y is None else (*both, "clustering")


def describe(graphs: Graphs, tokenizer: NodeTokenizer) -> str:
    """One line on what is trained on."""
    several = f"{graphs.num_items} graphs, " if graphs.level == "graph" else ""
    edges = f"{graphs.num_edges // 2} undirected edges" if tokenizer.undirected else f"{graphs.num_edges} edges"
    shape = f"{graphs.num_nodes} nodes, {edges}, {graphs.x.shape[1]} feature columns ({tokenizer.normalize})"
    hidden = sum(pairs.shape[1] for pairs in (graphs.held_out or {}).values())
    return f"{graphs.name}: {several}{shape}{f', {hidden} edges held out' if hidden else ''}"


def adapt(tokenizer: NodeTokenizer, graphs: Graphs) -> NodeTokenizer:
    """The tokenizer for fine-tuning on other graphs: as it is."""
    return deepcopy(tokenizer)
