"""Plans as torch tensors, without copying on the CPU."""

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from structmae.masking.plan import Plan
from structmae.masking.strategies import Act


class TorchPlan:
    """A `Plan` whose fields are tensors on `device`: int64, but for `act` and `code`, uint8. Shapes as there.

    A field is made (and moved) when first read, then kept; on the CPU it shares the plan's memory: do not write to it.
    """

    def __init__(self, plan: Plan, device: torch.device | str = "cpu") -> None:
        self.plan = plan
        self.device = torch.device(device)

    @property
    def size(self) -> int:
        """How many tokens, M."""
        return self.plan.size

    @cached_property
    def scored(self) -> Tensor:
        return self._tensor(self.plan.scored)

    @cached_property
    def act(self) -> Tensor:
        return self._tensor(self.plan.act)

    @cached_property
    def source(self) -> Tensor:
        return self._tensor(self.plan.source)

    @cached_property
    def code(self) -> Tensor:
        return self._tensor(self.plan.code)

    @cached_property
    def hidden(self) -> Tensor:
        return self._tensor(self.plan.hidden)

    @cached_property
    def visible(self) -> Tensor:
        return self._tensor(self.plan.visible)

    @cached_property
    def kept(self) -> Tensor:
        return self._tensor(self.plan.kept)

    @cached_property
    def restore(self) -> Tensor:
        return self._tensor(self.plan.restore)

    def with_act(self, act: Act) -> Tensor:
        """(n,) the tokens that get `act`."""
        return self._tensor(self.plan.with_act(act))

    def to(self, device: torch.device | str) -> "TorchPlan":
        """The same plan with its tensors on `device`."""
        return TorchPlan(self.plan, device)

    def _tensor(self, array: NDArray[np.int64] | NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def __repr__(self) -> str:
        return f"Torch{self.plan!r}"


def to_torch(plan: Plan, device: torch.device | str = "cpu") -> TorchPlan:
    """`plan` with tensors for fields, on `device`. On the CPU nothing is copied."""
    return TorchPlan(plan, device)
