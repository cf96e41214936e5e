"""What every encoder reads: tokens in a row, with the items they belong to and the relations between them."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Relation:
    """Edges between the tokens of one set in compressed rows: those that end at token i are `indptr[i]:indptr[i + 1]`.

    Rows are ordered by source, so a graph has one Relation however its edges were listed.
    """

    indptr: Int[Tensor, "tokens_1"]
    source: Int[Tensor, "edges"]
    attributes: Float[Tensor, "edges width"] | None = None

    @classmethod
    def of(
        cls,
        edge_index: Int[Tensor, "2 edges"],
        size: int,
        attributes: Float[Tensor, "edges width"] | None = None,
    ) -> "Relation":
        """From source and target ids below `size`, in any order."""
        source, target = edge_index
        key = target * size + source
        if key.numel() and bool((key[1:] < key[:-1]).any()):  # sorting costs far more than this look
            order = torch.argsort(key, stable=True)
            source, target = source[order], target[order]
            attributes = None if attributes is None else attributes[order]
        indptr = torch.searchsorted(target.contiguous(), torch.arange(size + 1, device=target.device))
        return cls(indptr, source.contiguous(), attributes)

    @cached_property
    def edge_index(self) -> Int[Tensor, "2 edges"]:
        """(source, target) of each edge, by target and then source."""
        nodes = torch.arange(len(self.indptr) - 1, device=self.indptr.device)
        return torch.stack([self.source, nodes.repeat_interleave(self.indptr.diff(), output_size=len(self.source))])

    def rows(self, index: Int[Tensor, "chosen"], ranges: Int[Tensor, "chosen"]) -> "Relation":
        """The part on tokens `index` (whole items, so every edge stays inside); `ranges` is what is taken off each
        chosen token's old id to give its new one."""
        counts = self.indptr.diff()[index]
        indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        edges = torch.arange(int(indptr[-1])) + (self.indptr[index] - indptr[:-1]).repeat_interleave(counts)
        source = self.source[edges] - ranges.repeat_interleave(counts)
        return Relation(indptr, source, None if self.attributes is None else self.attributes[edges])

    def to(self, device: torch.device) -> "Relation":
        attributes = None if self.attributes is None else self.attributes.to(device)
        return Relation(self.indptr.to(device), self.source.to(device), attributes)


@dataclass(frozen=True, eq=False)
class TokenSet:
    """M tokens of I items, packed: item i is rows `ptr[i]:ptr[i + 1]`.

    `values` (M, P) is their content, `item_id` (I,) names the items (a plan depends on the name, not on the batch),
    `valid` (M,) is False for padding, `relations` hold edges by name.
    """

    values: Float[Tensor, "tokens width"]
    ptr: Int[Tensor, "items_1"]
    item_id: Int[Tensor, "items"]
    relations: dict[str, Relation]
    valid: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def batch(self) -> Int[Tensor, "tokens"]:
        """The item, 0 to I - 1, of each token."""
        items = torch.arange(len(self.item_id), device=self.ptr.device)
        return items.repeat_interleave(self.ptr.diff(), output_size=len(self.values))

    def to(self, device: torch.device) -> "TokenSet":
        if self.values.device == device:
            return self
        return replace(
            self,
            values=self.values.to(device),
            ptr=self.ptr.to(device),
            item_id=self.item_id.to(device),
            relations={name: relation.to(device) for name, relation in self.relations.items()},
            valid=None if self.valid is None else self.valid.to(device),
        )


@runtime_checkable
class Source(Protocol):
    """Where the training loop gets batches from."""

    @property
    def num_items(self) -> int:
        """Graphs, windows, images: what an epoch goes through once."""

    def batch(self, items: Int[Tensor, "chosen"]) -> dict[str, TokenSet]:
        """The token sets of these items, in this order. The same object may come back for the same items."""
