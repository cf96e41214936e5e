"""Products with weights: in the dtype that autocast wants, the faster way round, of several heads without copies."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def low() -> torch.dtype | None:
    """The dtype that autocast wants of products on the CPU; None: float32."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


def times(a: Tensor, b: Tensor, dtype: torch.dtype | None) -> Tensor:
    """a @ b in float32, by way of `dtype`: autograd's functions are outside autocast's reach backward."""
    return a @ b if dtype is None else (a.to(dtype) @ b.to(dtype)).float()


def outer(upper: Tensor, x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """upper' x, the gradient of a weight (out, in) from upper (rows, out) and x (rows, in). It is made the wide way
    round: oneDNN is faster at (in, out) than at (out, in) where there are more out, and MKL as fast."""
    wide = upper.shape[1] > x.shape[1]
    return times(x.t(), upper, dtype).t() if wide else times(upper.t(), x, dtype)


def by_heads(x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
    """(T, H C): of x (T, H P) each head's columns times its rows of weight (H C, P) transposed, plus bias (H C,)."""
    out: Tensor = _ByHeads.apply(x, weight, bias, heads)
    return out


class _ByHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.heads, ctx.low = heads, low()
        out = x.new_empty(len(x), len(weight))
        for mine, rows, into in zip(x.chunk(heads, 1), weight.chunk(heads), out.chunk(heads, 1), strict=True):
            _into(into, mine, rows.t(), ctx.low)
        return out.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (x, weight), heads = ctx.saved_tensors, ctx.heads
        dx, dweight = torch.empty_like(x), torch.empty_like(weight)
        parts = x.chunk(heads, 1), weight.chunk(heads), grad.chunk(heads, 1), dx.chunk(heads, 1), dweight.chunk(heads)
        for mine, rows, g, for_x, for_rows in zip(*parts, strict=True):
            _into(for_x, g, rows, ctx.low)
            _into(for_rows, g.t(), mine, ctx.low)
        return dx, dweight, grad.sum(0), None


def _into(out: Tensor, a: Tensor, b: Tensor, dtype: torch.dtype | None) -> None:
    """out <- a @ b. BLAS writes columns of a wider matrix in place."""
    if dtype is None:
        torch.mm(a, b, out=out)
    else:
        out.copy_(times(a, b, dtype))
