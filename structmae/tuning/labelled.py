"""Batches with what a task's head is to say of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from structmae.model import Batch
from structmae.tokens import TokenSet


@dataclass(frozen=True, eq=False)
class Labelled:
    """A source of `items`, which `fetch` makes tokens of and `label` the targets."""

    items: Tensor
    fetch: Callable[[Tensor], dict[str, TokenSet]]
    label: Callable[[Tensor], dict[str, Tensor]]
    device: torch.device

    @property
    def num_items(self) -> int:
        return len(self.items)

    def batch(self, items: Tensor) -> dict[str, TokenSet]:
        return self.fetch(self.items[items])

    def target(self, items: Tensor) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in self.label(self.items[items]).items()}

    def sweep(self, at_once: int = 256) -> Iterator[dict[str, TokenSet]]:
        for items in torch.split(self.items, at_once):
            yield self.fetch(items)

    def batches(self, at_once: int = 64) -> Iterator[Batch]:
        """Everything in order, nothing hidden."""
        for items in torch.split(torch.arange(self.num_items), at_once):
            yield Batch(self.batch(items), {}, target=self.target(items))
