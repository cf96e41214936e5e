"""Several operations, one after another, as one function of autograd's.

On a small graph an operation takes less time than what autograd does around it. A Chain collects stages, and runs them
when somebody asks for the result.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from structmae.fast.products import low, outer, times

Shape = tuple[int, int]


class Stage(ABC):
    """An operation on rows (M, C), float32 and contiguous, and its gradients. Nothing here is recorded by autograd."""

    weights: Sequence[Tensor] = ()  # what gradients go to, beside the rows

    @abstractmethod
    def shape(self, given: Shape) -> Shape:
        """Of the result."""

    @abstractmethod
    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Any]:
        """The result, and what `backward` needs of this besides."""

    @abstractmethod
    def backward(
        self, kept: Any, grad: Tensor, weights: Sequence[Tensor], wants: Sequence[bool]
    ) -> tuple[Tensor | None, Sequence[Tensor | None]]:
        """The gradients of the rows, and of the weights, from that of the result; `wants` says which of them are asked
        for, that of the rows first."""


class Chain:
    """Rows x, and the stages that are to follow."""

    def __init__(self, x: Tensor, stages: tuple[Stage, ...] = (), shape: Shape | None = None):
        self.x, self.stages = x, stages
        self.shape = shape or (len(x), x.shape[1])  # of the result

    @classmethod
    def of(cls, x: "Tensor | Chain") -> "Chain":
        """What begins with x; its rows become float32."""
        return x if isinstance(x, Chain) else cls(x.float())

    def then(self, stage: Stage) -> "Chain":
        return Chain(self.x, (*self.stages, stage), stage.shape(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def dense(self) -> Tensor:
        """The result. Each call does it all again."""
        if not self.stages:
            return self.x
        out: Tensor = _Run.apply(self.x, self.stages, *(weight for stage in self.stages for weight in stage.weights))
        return out


class Product(Stage):
    """Times a weight (out, C) transposed."""

    def __init__(self, weight: Tensor):
        self.weights = (weight,)

    def shape(self, given: Shape) -> Shape:
        return given[0], len(self.weights[0])

    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Any]:
        how = low()
        return times(x, weights[0].t(), how), (x, how)

    def backward(
        self, kept: Any, grad: Tensor, weights: Sequence[Tensor], wants: Sequence[bool]
    ) -> tuple[Tensor | None, Sequence[Tensor | None]]:
        x, how = kept
        return times(grad, weights[0], how) if wants[0] else None, (outer(grad, x, how) if wants[1] else None,)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x (rows, in) times weight (out, in), as torch.nn.functional.linear without a bias."""
    native = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if not native or low() is not None or torch.compiler.is_compiling():
        return F.linear(x, weight)
    return Chain(x).then(Product(weight)).dense()


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stages: tuple[Stage, ...], *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)  # so that torch notices when they change before `backward`
        ctx.stages, ctx.kept = stages, []
        x, left = x.detach().contiguous(), iter(weights)
        for stage in stages:
            x, kept = stage.forward(x, [next(left) for _ in stage.weights])
            ctx.kept.append(kept)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _, *weights = ctx.saved_tensors
        gradients: list[Tensor | None] = [None] * len(weights)
        rows: Tensor | None = grad.contiguous()
        of_x, _, *of_weights = ctx.needs_input_grad
        end = len(weights)
        for stage, kept in zip(reversed(ctx.stages), reversed(ctx.kept), strict=True):
            begin = end - len(stage.weights)
            wants = of_x or any(of_weights[:begin]), *of_weights[begin:end]
            if rows is None or not any(wants):
                break
            rows, gradients[begin:end] = stage.backward(kept, rows, weights[begin:end], wants)
            end = begin
        return rows if of_x else None, None, *gradients
