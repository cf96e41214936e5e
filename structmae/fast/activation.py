"""The parametric rectifier with one slope. torch makes an array of the input's size for the slope's gradient, and sums
it in a second pass."""
# mypy: allow-untyped-defs

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from structmae.masking.memory import empty
from structmae.masking.parallel import each, even, threads

FEW = 100_000  # elements below which a call from Python costs more than what it saves
BLOCK = 4096  # elements that are summed alone, so that the sum does not depend on threads


@njit(nogil=True, cache=True)
def _rectify(out, x, slope, lo, hi):
    """Blocks lo .. hi of out (n,) <- x (n,) where it is above 0, slope x elsewhere."""
    one = np.float32(1.0)
    into, part = out[lo * BLOCK : hi * BLOCK], x[lo * BLOCK : hi * BLOCK]
    for i in range(len(part)):
        into[i] = part[i] * (one if part[i] > 0 else slope)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _rectify_back(dx, sums, g, x, slope, lo, hi):
    """Blocks lo .. hi of dx (n,) <- the gradient by way of x; sums (blocks,) <- each one's for the slope."""
    one, zero = np.float32(1.0), np.float32(0.0)
    for block in range(lo, hi):
        total, part = zero, x[block * BLOCK : block * BLOCK + BLOCK]
        into, given = dx[block * BLOCK : block * BLOCK + BLOCK], g[block * BLOCK : block * BLOCK + BLOCK]
        for i in range(len(part)):
            into[i] = given[i] * (one if part[i] > 0 else slope)
            total += given[i] * part[i] * (zero if part[i] > 0 else one)  # signs are chance: no branch
        sums[block] = total


class PReLU(nn.PReLU):
    """As torch's (He et al., ICCV 2015), whose kernels it uses where ours do not fit."""

    def forward(self, x: Tensor) -> Tensor:
        plain = x.device.type == "cpu" and x.dtype is torch.float32 and self.weight.dtype is torch.float32
        if not plain or x.numel() < FEW or self.num_parameters != 1 or torch.compiler.is_compiling():
            return F.prelu(x, self.weight)
        out: Tensor = _PReLU.apply(x, self.weight)
        return out


def _blocks(size: int) -> list[int]:
    return even(-(-size // BLOCK), threads(size))


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = x.detach().contiguous()
        ctx.save_for_backward(x, weight)
        flat, out = x.view(-1).numpy(), empty(x.numel(), np.float32)
        slope = np.float32(weight.item())
        each(lambda lo, hi: _rectify(out, flat, slope, lo, hi), _blocks(len(flat)))
        return torch.from_numpy(out).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        flat, g, dx = x.view(-1).numpy(), grad.contiguous().view(-1).numpy(), empty(x.numel(), np.float32)
        sums, slope = np.empty(-(-len(flat) // BLOCK), np.float32), np.float32(weight.item())
        each(lambda lo, hi: _rectify_back(dx, sums, g, flat, slope, lo, hi), _blocks(len(flat)))
        total = torch.tensor([sums.sum(dtype=np.float64)], dtype=weight.dtype)
        return torch.from_numpy(dx).view(x.shape), total
