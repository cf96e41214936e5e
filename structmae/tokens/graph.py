"""Graphs as tokens: one a node, with the edges as a relation."""

from collections.abc import Mapping
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

    def __init__(self, *, categories: dict[int, int], columns: int, normalize: str, undirected: bool, edge_width: int):
        super().__init__()
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
        normalize, edge_features = recipe.tokens.normalize, recipe.encoder.edge_features
        if edge_features and graphs.edge_attr is None:
            raise StructmaeError(
                f"encoder.edge_features=true, but {graphs.name} has no edge attributes: "
                "leave the option out or give edges with attributes"
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
        width = graphs.edge_attr.shape[1] if edge_features and graphs.edge_attr is not None else 0
        made = cls(
            categories=categories,
            columns=columns,
            normalize=normalize,
            undirected=recipe.data.undirected,
            edge_width=width,
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
    ) -> TokenSet:
        """Whole graphs as one token set."""
        return TokenSet(self.values(x), ptr, item_id, {"edges": self.relation(edge_index, len(x), edge_attr)})


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
        return len(self.all.item_id)

    def everything(self) -> dict[str, TokenSet]:
        """All items in order; the same object at each call, so set-up for it is done once."""
        if self._whole is None:
            self._whole = {"node": self.all.to(self.device)}
        return self._whole

    def batch(self, items: Int[Tensor, "chosen"]) -> dict[str, TokenSet]:
        if self.num_items == 1:
            return self.everything()
        whole = self.all
        counts = whole.ptr.diff()[items]
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        moved = (whole.ptr[items] - ptr[:-1]).repeat_interleave(counts)
        index = torch.arange(int(ptr[-1])) + moved
        relations = {name: relation.rows(index, moved) for name, relation in whole.relations.items()}
        return {"node": TokenSet(whole.values[index], ptr, whole.item_id[items], relations).to(self.device)}
