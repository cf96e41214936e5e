"""Edges that are held out of a graph, so that they can be predicted, and pairs of nodes that are no edges."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from structmae import masking
from structmae.data.graphs import Graphs
from structmae.errors import StructmaeError, UsageError

SHARES = {"validation": 0.05, "test": 0.10}
SPLIT_SOURCE = "made: 85/5/10 % of the edges, seed 0"
FEWEST = 10  # edges, so that each part has some
NOT_EDGES = 1  # the number of the draw, apart from those of training


def hold_out(graphs: Graphs) -> Graphs:
    """The graph without 5% of its edges, for validation, and 10%, for the test: `held_out` has them.

    Both directions between two nodes are one edge, and the parts are the same at each call. Degrees that stand in for
    features are those that are left. Raises UsageError for a set of graphs, StructmaeError for one with too few edges.
    """
    if graphs.level != "node":
        raise UsageError(f"data.edges=train holds out edges of a single graph, and {graphs.name} is a set of graphs")
    edges = masking.edges(graphs.edge_index.numpy(), graphs.num_nodes)
    many = edges.pairs.shape[1]
    if many < FEWEST:
        raise StructmaeError(
            f"data.edges=train: {graphs.name} has {many} edges, too few to hold some out; {FEWEST} will do"
        )
    order, begin, parts = masking.permutation(many, seed=0, visit=0), 0, {}
    for part, share in SHARES.items():
        end = begin + masking.count(share, many)
        parts[part], begin = np.sort(order[begin:end]), end
    gone = np.zeros(many, np.bool_)
    gone[order[:begin]] = True
    stays = torch.from_numpy(~gone[edges.of])
    edge_index = graphs.edge_index[:, stays]
    x = graphs.x
    if graphs.schema.source == "degree":
        top = len(graphs.schema.categories[0]) - 1
        x = torch.bincount(edge_index[1], minlength=len(x)).clamp(max=top).to(x.dtype)[:, None]
    counts = " and ".join(f"{len(rows)} for {part}" for part, rows in parts.items())
    return replace(
        graphs,
        x=x,
        edge_index=edge_index,
        edge_attr=None if graphs.edge_attr is None else graphs.edge_attr[stays],
        held_out={part: torch.from_numpy(edges.pairs[:, rows]) for part, rows in parts.items()},
        split_source=f"{graphs.split_source}; training edges only" if graphs.split is not None else "",
        notes=(*graphs.notes, f"edges held out: {counts}; whatever is trained or scored sees the other {many - begin}"),
    )


def scored_pairs(graphs: Graphs) -> dict[str, tuple[Tensor, Tensor]]:
    """By part, "validation" and "test": pairs (2, 2n), the n held-out edges and then as many that are no edges of the
    whole graph, all different; and labels (2n,), 1 and 0. Raises StructmaeError where the graph has not so many."""
    assert graphs.held_out is not None
    whole = torch.cat([graphs.edge_index, *graphs.held_out.values()], 1)
    edges = masking.edges(whole.numpy(), graphs.num_nodes)
    wanted = sum(part.shape[1] for part in graphs.held_out.values())
    drawn = edges.negatives(4 * wanted, seed=0, visit=masking.VALIDATION, draw=NOT_EDGES)
    _, first = np.unique(drawn[0] * graphs.num_nodes + drawn[1], return_index=True)
    different = torch.from_numpy(drawn[:, np.sort(first)])
    if different.shape[1] < wanted:
        raise StructmaeError(
            f"{graphs.name} has too few pairs of nodes without an edge: {wanted} are scored beside as many edges"
        )
    found, begin = {}, 0
    for part, pairs in graphs.held_out.items():
        end = begin + pairs.shape[1]
        labels = torch.cat([torch.ones(pairs.shape[1]), torch.zeros(pairs.shape[1])])
        found[part] = torch.cat([pairs, different[:, begin:end]], 1), labels
        begin = end
    return found
