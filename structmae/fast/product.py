"""Products of a transformer's layers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x (rows, in) times weight (out, in), as torch.nn.functional.linear without a bias.

    The gradient of the weight, a sum over many rows, is made the wide way round: oneDNN is faster at (in, out) than at
    (out, in) where there are more out, and MKL as fast.
    """
    native = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if not native or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return F.linear(x, weight)
    out: Tensor = _Product.apply(x, weight)
    return out


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x.mm(weight.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x = upper.mm(weight) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return for_x, None
        wide = len(weight) > weight.shape[1]
        return for_x, x.t().mm(upper).t() if wide else upper.t().mm(x)
