"""What every encoder reads: tokens in a row, with the items they belong to and the relations between them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from structmae.fast.edges import Edges
from structmae.fast.sparse import Compressed, compressed


@dataclass(frozen=True, eq=False)
class Relation:
    """Edges between the tokens of one set in compressed rows: those that end at token i are `indptr[i]:indptr[i + 1]`.

    Rows are ordered by source, so a graph has one Relation however its edges were listed.
    """

    indptr: Int[Tensor, "tokens_1"]
    source: Int[Tensor, "edges"]
    attributes: Float[Tensor, "edges width"] | None = None
    token: Int[Tensor, "edges"] | None = None  # where edges are tokens: which one, -1 for a self-loop

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

    @cached_property
    def incoming(self) -> Edges:
        """The edges of all tokens, as the kernels read them."""
        return Edges(self.indptr.numpy(), self.source.numpy(), np.arange(len(self.indptr) - 1), len(self.indptr) - 1)

    def onto(self, rows: Int[Tensor, "chosen"] | None) -> Edges:
        """The edges that end at the tokens `rows` (None: at all), for the kernels."""
        if rows is None:
            return self.incoming
        every, chosen = self.incoming, rows.numpy()
        counts = np.diff(every.indptr)[chosen]
        indptr = np.append(0, counts.cumsum())
        edges = np.arange(indptr[-1]) + np.repeat(every.indptr[chosen] - indptr[:-1], counts)
        return Edges(indptr, every.source[edges], chosen, every.size)

    @cached_property
    def roots(self) -> Float[Tensor, "tokens"]:
        """One over the root of how many edges end at each token; 0 where none does (Kipf and Welling, section 2)."""
        degree = self.indptr.diff().float()
        return torch.where(degree > 0, degree.rsqrt(), 0.0)

    def with_attributes(self, of_token: Float[Tensor, "tokens width"]) -> "Relation":
        """The same edges with other attributes: those of their tokens (both directions of a pair have one), and for a
        self-loop the mean over the others that end where it does, as PyTorch Geometric has it."""
        assert self.token is not None
        if not len(of_token):  # self-loops alone
            return replace(self, attributes=of_token.new_zeros(len(self.source), of_token.shape[1]))
        loops = self.token < 0
        attributes = of_token[self.token.clamp_min(0)].masked_fill(loops[:, None], 0.0)
        target = self.edge_index[1]
        counts = (self.indptr.diff() - 1).clamp_min(1)  # each node has one self-loop
        sums = attributes.new_zeros(len(counts), attributes.shape[1]).index_add(0, target, attributes)
        mean = (sums / counts[:, None])[target]
        return replace(self, attributes=torch.where(loops[:, None], mean, attributes))

    def rows(
        self,
        index: Int[Tensor, "chosen"],
        ranges: Int[Tensor, "chosen"],
        tokens: Int[Tensor, "chosen"] | None = None,
    ) -> "Relation":
        """The part on tokens `index` (whole items, so every edge stays inside); `ranges` is what is taken off each
        chosen token's old id to give its new one, `tokens` likewise off the ids of its edges."""
        counts = self.indptr.diff()[index]
        indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        edges = torch.arange(int(indptr[-1])) + (self.indptr[index] - indptr[:-1]).repeat_interleave(counts)
        source = self.source[edges] - ranges.repeat_interleave(counts)
        attributes = None if self.attributes is None else self.attributes[edges]
        token = None
        if self.token is not None and tokens is not None:
            token = (self.token[edges] - tokens.repeat_interleave(counts)).where(self.token[edges] >= 0, -1)
        return Relation(indptr, source, attributes, token)

    def among(self, index: Int[Tensor, "chosen"]) -> "Relation":
        """The edges whose both ends are among the tokens `index` (increasing), which are numbered anew."""
        place = torch.full_like(self.indptr[:-1], -1)
        place[index] = torch.arange(len(index), device=index.device)
        source, target = place[self.edge_index]
        return self.where((source >= 0) & (target >= 0), source, target, len(index))

    def without(self, gone: Bool[Tensor, "tokens"]) -> "Relation":
        """The edges but for those that are `gone`, by the tokens that they are; self-loops are none, and stay."""
        assert self.token is not None
        source, target = self.edge_index
        stays = (self.token < 0) | ~gone[self.token.clamp_min(0)]
        return self.where(stays, source, target, len(self.indptr) - 1)

    def where(self, stays: Bool[Tensor, "edges"], source: Tensor, target: Tensor, size: int) -> "Relation":
        """Some of the edges, with other numbers for their ends, in the same order."""
        counts = torch.bincount(target[stays], minlength=size)
        return Relation(
            torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
            source[stays],
            None if self.attributes is None else self.attributes[stays],
            None if self.token is None else self.token[stays],
        )

    def to(self, device: torch.device) -> "Relation":
        attributes = None if self.attributes is None else self.attributes.to(device)
        token = None if self.token is None else self.token.to(device)
        return Relation(self.indptr.to(device), self.source.to(device), attributes, token)


@dataclass(frozen=True, eq=False)
class TokenSet:
    """M tokens of I items, packed: item i is rows `ptr[i]:ptr[i + 1]`.

    `values` (M, P) is their content, `item_id` (I,) names the items (a plan depends on the name, not on the batch),
    `valid` (M,) is False for padding, `observed` (M, P) where a value was measured (None: everywhere; the others are 0
    in `values`), `relations` hold edges by name. Tokens that stand between two of another set, as edges do, say which:
    `ends` (2, M). Where the items are equal grids, row-major, `grid` is their shape, and `position` (M,) the place of
    each token; `set_id` (I,) names the set (a window of several series) that an item belongs to, with `members` each.
    Discrete tokens have `ids` (M,) of a vocabulary, and P = 0. Where tokens of several types stand in one sequence,
    `kind` (M,) says which each is. `structure` (M, S) says where in its graph a token is.
    """

    values: Float[Tensor, "tokens width"]
    ptr: Int[Tensor, "items_1"]
    item_id: Int[Tensor, "items"]
    relations: dict[str, Relation]
    valid: Tensor | None = None
    ends: Int[Tensor, "2 tokens"] | None = None
    observed: Bool[Tensor, "tokens width"] | None = None
    grid: tuple[int, ...] | None = None
    position: Int[Tensor, "tokens"] | None = None
    set_id: Int[Tensor, "items"] | None = None
    members: int = 1
    ids: Int[Tensor, "tokens"] | None = None
    kind: Int[Tensor, "tokens"] | None = None
    structure: Float[Tensor, "tokens places"] | None = None

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def batch(self) -> Int[Tensor, "tokens"]:
        """The item, 0 to I - 1, of each token."""
        items = torch.arange(len(self.item_id), device=self.ptr.device)
        return items.repeat_interleave(self.ptr.diff(), output_size=len(self.values))

    @cached_property
    def sparse(self) -> Compressed | None:
        """The values by their non-zeros, where those are few."""
        return compressed(self.values)

    def only(self, index: Int[Tensor, "chosen"]) -> "TokenSet":
        """The tokens `index`, in increasing order, which all are valid, and the edges between them."""
        return replace(
            self,
            values=self.values[index],
            ptr=torch.searchsorted(index, self.ptr),
            relations={name: relation.among(index) for name, relation in self.relations.items()},
            valid=None,
            ends=None if self.ends is None else self.ends[:, index],
            observed=None if self.observed is None else self.observed[index],
            position=None if self.position is None else self.position[index],
            ids=None if self.ids is None else self.ids[index],
            kind=None if self.kind is None else self.kind[index],
            structure=None if self.structure is None else self.structure[index],
        )

    def to(self, device: torch.device) -> "TokenSet":
        if self.values.device == device:
            return self
        optional = ("valid", "ends", "observed", "position", "set_id", "ids", "kind", "structure")
        tensors = ("values", "ptr", "item_id", *optional)
        parts = {name: getattr(self, name) for name in tensors}
        moved: dict[str, Any] = {name: None if part is None else part.to(device) for name, part in parts.items()}
        return replace(
            self, relations={name: relation.to(device) for name, relation in self.relations.items()}, **moved
        )


class RowSource(ABC):
    """Items by number: an epoch goes through the `rows` that train; `at` gives the tokens of any."""

    rows: Int[Tensor, "items"]
    device: torch.device

    @property
    def num_items(self) -> int:
        return len(self.rows)

    def batch(self, items: Int[Tensor, "chosen"]) -> dict[str, TokenSet]:
        return self.at(self.rows[items])

    def target(self, items: Int[Tensor, "chosen"]) -> dict[str, Tensor] | None:
        return None

    @abstractmethod
    def at(self, rows: Int[Tensor, "B"]) -> dict[str, TokenSet]:
        """The token sets of the items of these numbers."""


@runtime_checkable
class Source(Protocol):
    """Where the training loop gets batches from."""

    device: torch.device

    @property
    def num_items(self) -> int:
        """Graphs, windows, images: what an epoch goes through once."""

    def batch(self, items: Int[Tensor, "chosen"]) -> dict[str, TokenSet]:
        """The token sets of these items, in this order. The same object may come back for the same items."""

    def target(self, items: Int[Tensor, "chosen"]) -> dict[str, Tensor] | None:
        """What a task's head is to say of these items; None without a task."""

    def sweep(self, at_once: int = 256) -> Iterator[dict[str, TokenSet]]:
        """All of the data in order, without hiding anything."""
