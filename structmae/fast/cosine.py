"""The cosine of rows, forward and backward in one pass each; torch's takes about fifteen over arrays of that size.

Where the rows come of a linear map and the others are sparse, the map need not be carried out. With p = W a + b

    p . y = a . (W'y) + b . y        a sum over the few columns that y has
    |p|^2 = a' (W'W) a + 2 a . W'b + b . b

and W'W is small where W has far more rows than columns. The same goes for gradients.
"""
# mypy: allow-untyped-defs

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from structmae.fast.chain import Chain, Product
from structmae.fast.edges import fits
from structmae.fast.products import low, times
from structmae.fast.sparse import SparseRows, dense, product, product_back
from structmae.masking.memory import empty
from structmae.masking.parallel import each, even, threads

_SUMS = {"reassoc", "contract", "nsz"}
EPS = 1e-12


@njit(nogil=True, cache=True, fastmath=_SUMS)
def _cosines(out, x, y, lo, hi):
    """out[lo:hi] (K, 3) <- the cosine of rows of x and y (K, P), and their lengths, EPS at least."""
    for i in range(lo, hi):
        xy, xx, yy = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for c in range(x.shape[1]):
            xy += x[i, c] * y[i, c]
            xx += x[i, c] * x[i, c]
            yy += y[i, c] * y[i, c]
        a, b = max(np.sqrt(xx), np.float32(EPS)), max(np.sqrt(yy), np.float32(EPS))
        out[i, 0], out[i, 1], out[i, 2] = xy / a / b, a, b


@njit(nogil=True, cache=True)
def _cosines_back(dx, grad, found, x, y, lo, hi):
    """dx[lo:hi] <- the gradient by way of the cosines `found`. A length that was raised to EPS does not move."""
    for i in range(lo, hi):
        cosine, a, b = found[i]
        for_y = grad[i] / a / b
        for_x = grad[i] * cosine / a / a if a > np.float32(EPS) else np.float32(0.0)
        for c in range(x.shape[1]):
            dx[i, c] = for_y * y[i, c] - for_x * x[i, c]


@dataclass(frozen=True, eq=False)
class Deferred:
    """A linear map that nobody has asked the result of yet: x (K, D) times weight (P, D) transposed, plus bias (P,);
    without a weight x itself, plus bias."""

    x: Tensor | Chain
    weight: Tensor | None
    bias: Tensor

    def halfway(self) -> Tensor | Chain:
        """The product (K, P), to which the bias is left to add."""
        if self.weight is None:
            return self.x
        if isinstance(self.x, Tensor) and not fits(self.x):
            return F.linear(self.x, self.weight)
        return Chain.of(self.x).then(Product(self.weight))

    def settled(self) -> "Deferred":
        """The same, of rows that are there."""
        return self if isinstance(self.x, Tensor) else replace(self, x=self.x.dense())

    def dense(self) -> Tensor:
        """(K, P) the result."""
        x = dense(self.x)
        return x + self.bias if self.weight is None else F.linear(x, self.weight, self.bias)

    def spares(self, y: SparseRows) -> bool:
        """Whether the cosine with y is had with fewer products than the map and its gradients take."""
        if self.weight is None or not isinstance(self.x, Tensor):
            return False
        (rows, inner), outer = self.x.shape, len(self.weight)
        plain = self.x.dtype is self.weight.dtype is torch.float32 and y.token is None and y.mask is None
        return plain and 2 * inner * (rows + outer) < 3 * rows * outer


def cosine(x: Tensor | Deferred, y: Tensor | SparseRows) -> Tensor:
    """(K,): the cosine of rows of x and y (K, P); 0 where one is 0. As torch's cosine_similarity, which is asked where
    there are no kernels or gradients go to y."""
    x = x.settled() if isinstance(x, Deferred) else x
    if isinstance(x, Deferred) and isinstance(y, SparseRows) and x.spares(y):
        spared: Tensor = _DeferredCosine.apply(x.x, x.weight, x.bias, y)
        return spared
    x, y = (dense(part) for part in (x, y))
    x, y = (part.float() if part.dtype in (torch.bfloat16, torch.float16) else part for part in (x, y))
    plain = all(part.device.type == "cpu" and part.dtype is torch.float32 for part in (x, y))
    if y.requires_grad or not plain or torch.compiler.is_compiling():
        return F.cosine_similarity(x, y, dim=-1, eps=EPS)
    out: Tensor = _Cosine.apply(x, y)
    return out


class _Cosine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        x, y = x.detach().contiguous(), y.contiguous()
        found = np.empty((len(x), 3), np.float32)
        args = found, x.numpy(), y.numpy()
        each(lambda lo, hi: _cosines(*args, lo, hi), even(len(x), threads(x.numel())))
        ctx.save_for_backward(x, y)
        ctx.found = found
        return torch.from_numpy(found[:, 0].copy())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, y = (part.numpy() for part in ctx.saved_tensors)
        dx = empty(x.shape, np.float32)
        args = dx, grad.contiguous().numpy(), ctx.found, x, y
        each(lambda lo, hi: _cosines_back(*args, lo, hi), even(len(x), threads(x.size)))
        return torch.from_numpy(dx), None


class _DeferredCosine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, y: SparseRows) -> Tensor:
        x, weight, bias = (part.detach().contiguous() for part in (x, weight, bias))
        ctx.low = low()
        gram = times(weight.t(), weight, ctx.low)  # (D, D)
        turned, along = times(x, gram, ctx.low), bias @ weight
        squares = torch.einsum("kd,kd->k", x, turned) + 2 * (x @ along) + bias @ bias
        length = squares.clamp_min(0).sqrt().clamp_min(EPS)
        reached = product(y, weight)  # (K, D) of each y
        both = torch.einsum("kd,kd->k", x, reached) + product(y, bias[:, None])[:, 0]
        ctx.y, other = y, y.lengths.clamp_min(EPS)
        cosines = both / length / other
        ctx.save_for_backward(x, weight, bias, turned, along, reached, length, other, cosines)
        return cosines

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, bias, turned, along, reached, length, other, cosines = ctx.saved_tensors
        for_both = (grad / length / other)[:, None]
        # Of |p|^2, twice. A length that was raised to EPS does not move.
        for_square = torch.where(length > EPS, -grad * cosines / length / length, 0.0)[:, None]
        scaled = x * for_square
        dx = (turned + along).mul_(for_square).addcmul_(reached, for_both)
        total = scaled.sum(0)
        dweight = times(weight, times(scaled.t(), x, ctx.low), ctx.low)
        dweight.addr_(bias, total)
        product_back(ctx.y, x * for_both, dweight)
        dbias = weight @ total + bias * for_square.sum()
        product_back(ctx.y, for_both.contiguous(), dbias[:, None])
        return dx, dweight, dbias, None
