"""Graphs as tokens: one a node, with the edges as a relation."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.utils import add_self_loops, coalesce, remove_self_loops, to_undirected

from structmae.data import Graphs
from structmae.errors import StructmaeError
from structmae.recipe import Recipe
from structmae.tokens.sets import Relation, TokenSet


class NodeTokenizer(nn.Module):
    """Raw node features (N, F) to token values (N, P), and edges to the relation that the layers read.

    Columns of categories become one-hot, the others are normalised: `row` divides each row by its sum (a row of zeros
    stays), `standard` takes off each column's mean and divides by its deviation (a constant column by 1), `none` leaves
    them. The statistics are those of the graphs that the run was pre-trained on.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        categories: dict[int, int],
        columns: int,
        normalize: str,
        undirected: bool,
        edge_width: int,
        edge_tokens: bool = False,
        hops: int = 0,
        neighbours: int = 64,
    ):
        super().__init__()
        self.edge_tokens, self.hops, self.neighbours = edge_tokens, hops, neighbours
        self.normalize, self.undirected, self.edge_width, self.columns = normalize, undirected, edge_width, columns
        self.categories = dict(categories)
        self.numeric = [column for column in range(columns) if column not in self.categories]
        self.width = len(self.numeric) + sum(self.categories.values())
        if normalize == "standard":
            self.register_buffer("mean", torch.zeros(len(self.numeric)))
            self.register_buffer("deviation", torch.ones(len(self.numeric)))

    @classmethod
    def fit(cls, graphs: Graphs, recipe: Recipe) -> "NodeTokenizer":
        """Settles `tokens.normalize=auto` and takes the statistics. Raises StructmaeError where edge attributes are
        asked for and the graphs have none."""
        normalize, ratio = recipe.tokens.normalize, recipe.mask.edge_ratio
        if recipe.reads_edges and graphs.edge_attr is None:
            asked = f"mask.edge_ratio={ratio:g}" if ratio else "encoder.edge_features=true"
            raise StructmaeError(
                f"{asked}, but {graphs.name} has no edge attributes: leave it out or give edges with attributes"
            )
        columns = graphs.x.shape[1]
        categories = {column: len(values) for column, values in graphs.schema.categories.items()}
        numeric = graphs.x[:, [column for column in range(columns) if column not in categories]]
        if normalize == "auto":
            # One-hot categories alone leave nothing to normalise.
            sparse = numeric.numel() > 0 and bool((numeric >= 0).all()) and float((numeric == 0).float().mean()) >= 0.5
            normalize = "row" if sparse else "standard" if numeric.numel() else "none"
        if normalize == "row" and bool((numeric < 0).any()):
            raise StructmaeError("tokens.normalize=row needs features of 0 or more: set tokens.normalize=standard")
        width = graphs.edge_attr.shape[1] if recipe.reads_edges and graphs.edge_attr is not None else 0
        hops = recipe.tokens.hops
        if hops and graphs.num_items > 1:
            raise StructmaeError(
                f"tokens.hops={hops} cuts a single graph, and {graphs.name} has {graphs.num_items}: set tokens.hops=0"
            )
        made = cls(
            categories=categories,
            columns=columns,
            normalize=normalize,
            undirected=recipe.data.undirected,
            edge_width=width,
            edge_tokens=ratio > 0 or recipe.mask.of == "edge",
            hops=hops,
            neighbours=recipe.tokens.neighbours,
        )
        if normalize == "standard" and numeric.numel():
            deviation, mean = torch.std_mean(numeric.double(), dim=0, correction=0)
            made.mean.copy_(mean)
            made.deviation.copy_(torch.where(deviation > 1e-12, deviation, torch.ones_like(deviation)))
        return made

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to build it again, JSON-able; the statistics are in the weights file."""
        return {
            "categories": {str(column): size for column, size in self.categories.items()},
            "columns": self.columns,
            "normalize": self.normalize,
            "undirected": self.undirected,
            "edge_width": self.edge_width,
            "edge_tokens": self.edge_tokens,
            "hops": self.hops,
            "neighbours": self.neighbours,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "NodeTokenizer":
        """The tokenizer whose `config()` this is."""
        return cls(**{**config, "categories": {int(column): size for column, size in config["categories"].items()}})

    def values(self, x: Tensor) -> Float[Tensor, "nodes width"]:
        """Token values (N, P) of raw features (N, F). Raises StructmaeError for a wrong width or unknown category."""
        if x.dim() == 2 and not self.numeric and x.shape[1] == self.width != self.columns:
            return x.float()  # one-hot already, as PyTorch Geometric gives the node labels of TU sets
        if x.dim() != 2 or x.shape[1] != self.columns:
            raise StructmaeError(f"features of shape {tuple(x.shape)}: this encoder reads (nodes, {self.columns})")
        parts = []
        if self.numeric:
            numeric = (x if not self.categories else x[:, self.numeric]).float()
            if self.normalize == "row":
                total = numeric.sum(1, keepdim=True)
                numeric = numeric / torch.where(total == 0, torch.ones_like(total), total)
            elif self.normalize == "standard":
                numeric = (numeric - self.mean) / self.deviation
            parts.append(numeric)
        for column, size in self.categories.items():
            codes = x[:, column].long()
            if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= size):
                bad = int(codes.max()) if int(codes.max()) >= size else int(codes.min())
                raise StructmaeError(f"column {column} has category {bad}: this encoder knows 0 to {size - 1}")
            parts.append(nn.functional.one_hot(codes, size).float())
        return torch.cat(parts, 1)

    def relation(self, edge_index: Int[Tensor, "2 edges"], nodes: int, edge_attr: Tensor | None = None) -> Relation:
        """Edges as the layers read them: no repeats, both directions where the recipe says so, one self-loop a node
        (its attributes are the mean of those that end there, as PyTorch Geometric has it)."""
        if self.edge_width and edge_attr is None:
            raise StructmaeError("this encoder was pre-trained with edge attributes: give edge_attr")
        if not self.edge_width:
            edge_attr = None
        elif edge_attr is not None and (edge_attr.dim() != 2 or edge_attr.shape[1] != self.edge_width):
            raise StructmaeError(
                f"edge_attr of shape {tuple(edge_attr.shape)}: this encoder reads (edges, {self.edge_width})"
            )
        edges, attributes = remove_self_loops(edge_index, edge_attr)
        join = to_undirected if self.undirected else coalesce
        if attributes is None:
            edges = join(edges, num_nodes=nodes)
            edges, _ = add_self_loops(edges, num_nodes=nodes)
        else:
            edges, attributes = join(edges, attributes.float(), nodes, "mean")
            edges, attributes = add_self_loops(edges, attributes, fill_value="mean", num_nodes=nodes)
        return Relation.of(edges, nodes, attributes)

    def tokens(
        self, x: Tensor, edge_index: Tensor, ptr: Tensor, item_id: Tensor, edge_attr: Tensor | None = None
    ) -> dict[str, TokenSet]:
        """Whole graphs as token sets: "node", and "edge" beside it where edges are hidden."""
        relation = self.relation(edge_index, len(x), edge_attr)
        edges = {}
        if self.edge_tokens:
            relation, edges["edge"] = edge_tokens(relation, ptr, item_id, self.undirected)
        return {"node": TokenSet(self.values(x), ptr, item_id, {"edges": relation}), **edges}


def edge_tokens(relation: Relation, ptr: Tensor, item_id: Tensor, undirected: bool) -> tuple[Relation, TokenSet]:
    """Edges as tokens, one for both directions of a pair, with their attributes if they have any: the relation with
    their ids, and their set, by item and ends.

    The relation keeps the attributes as they are; `Relation.with_attributes` gives those that a plan leaves.
    """
    nodes = len(relation.indptr) - 1
    source, target = relation.edge_index
    first, second = (torch.minimum(source, target), torch.maximum(source, target)) if undirected else (source, target)
    between = source != target
    keys, of = torch.unique(first[between] * nodes + second[between], return_inverse=True)
    token = torch.full_like(source, -1)
    token[between] = of
    attributes = relation.attributes
    if attributes is None:
        attributes = torch.zeros(len(source), 0, device=source.device)
    values = attributes.new_empty(len(keys), attributes.shape[1])
    values[of] = attributes[between]  # both directions have the same
    ends = torch.stack([keys // nodes, keys % nodes]) if nodes else keys.new_zeros(2, 0)
    borders = torch.searchsorted(ends[0].contiguous(), ptr)
    return replace(relation, token=token), TokenSet(values, borders, item_id, {}, ends=ends)


class GraphSource:
    """Batches of whole graphs (a single graph is one item and one batch). Tokens are made once, on construction."""

    def __init__(self, graphs: Graphs, tokenizer: NodeTokenizer, device: torch.device | None = None):
        self.device = device or torch.device("cpu")
        everything = torch.arange(graphs.num_items)
        with torch.no_grad():
            self.all = tokenizer.tokens(graphs.x, graphs.edge_index, graphs.ptr, everything, graphs.edge_attr)
        self._whole: dict[str, TokenSet] | None = None

    @property
    def num_items(self) -> int:
        return len(self.all["node"].item_id)

    def everything(self) -> dict[str, TokenSet]:
        """All items in order; the same object at each call, so set-up for it is done once."""
        if self._whole is None:
            self._whole = {name: part.to(self.device) for name, part in self.all.items()}
        return self._whole

    def target(self, items: Int[Tensor, "chosen"]) -> dict[str, Tensor] | None:
        return None

    def sweep(self, at_once: int = 256) -> Iterator[dict[str, TokenSet]]:
        for items in torch.split(torch.arange(self.num_items), at_once):
            yield self.batch(items)

    def batch(self, items: Int[Tensor, "chosen"]) -> dict[str, TokenSet]:
        if self.num_items == 1:
            return self.everything()
        node, edge = self.all["node"], self.all.get("edge")
        ptr, index, moved = _rows(node, items)
        of_edges, batch = None, {}
        if edge is not None and edge.ends is not None:
            edge_ptr, rows, _ = _rows(edge, items)
            ends = edge.ends[:, rows] - (node.ptr[items] - ptr[:-1]).repeat_interleave(edge_ptr.diff())
            of_edges = (edge.ptr[items] - edge_ptr[:-1]).repeat_interleave(ptr.diff())
            batch["edge"] = TokenSet(edge.values[rows], edge_ptr, edge.item_id[items], {}, ends=ends)
        relations = {name: relation.rows(index, moved, of_edges) for name, relation in node.relations.items()}
        batch = {"node": TokenSet(node.values[index], ptr, node.item_id[items], relations), **batch}
        return {name: part.to(self.device) for name, part in batch.items()}


def _rows(part: TokenSet, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the items chosen: their borders, the rows they have now, and what is taken off a row's number to move it."""
    counts = part.ptr.diff()[items]
    ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    moved = (part.ptr[items] - ptr[:-1]).repeat_interleave(counts)
    return ptr, torch.arange(int(ptr[-1])) + moved, moved
