"""Other views of a batch: what encodes them, an average that follows the encoder, and when they are encoded."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn

from structmae.nn.base import Encoded


class Shadow(nn.Module):
    """The exponential moving average of a module (Tarvainen and Valpola, NeurIPS 2017), a module itself."""

    def __init__(self, online: nn.Module, momentum: float):
        super().__init__()
        self.module, self.momentum = deepcopy(online).requires_grad_(False), momentum

    def train(self, mode: bool = True) -> "Shadow":
        """It stays as in evaluation, so that what it says does not depend on dropout."""
        return super().train(False)

    @torch.no_grad()
    def follow(self, online: nn.Module) -> None:
        """One step towards the weights of `online`; its buffers are taken as they are."""
        for mine, theirs in zip(self.module.parameters(), online.parameters(), strict=True):
            mine.lerp_(theirs, 1 - self.momentum)
        for kept, given in zip(self.module.buffers(), online.buffers(), strict=True):
            kept.copy_(given)


class Seen(dict[str, Encoded]):
    """Views by name, each encoded when it is first asked for: a term that is not on yet costs nothing."""

    def __init__(self, made: Callable[[str], Encoded]):
        super().__init__()
        self._made = made

    def __missing__(self, name: str) -> Encoded:
        self[name] = self._made(name)
        return self[name]
