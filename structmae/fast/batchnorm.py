"""The end of a branch and batch normalisation after it: the columns of base + dropout(y + bias) by their own mean and
deviation. Statistics are of all rows, so there are two passes each way."""
# mypy: allow-untyped-defs

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from structmae.fast.columns import BLOCK, FACTOR, RATE, blocks, moments, moving, reads, settle, turn
from structmae.fast.dropout import draw_key, threshold
from structmae.fast.ending import end
from structmae.fast.epilogue import LONG, added, suits, whole
from structmae.fast.vectors import add, flat, fresh, full16, fused, load16, mul, store, sub, where_bits
from structmae.masking.parallel import each


@njit(nogil=True, cache=True)
def _sums(sums, upper, x, columns, lo, hi):
    """Blocks lo .. hi of sums (blocks, 2, C): of upper, and of upper times what x is off from its mean."""
    width = x.shape[1]
    for block in range(lo, hi):
        first = 2 * width * block
        sums[block] = 0
        for i in range(block * BLOCK, min(block * BLOCK + BLOCK, len(x))):
            for c in range(0, width, 16):
                change = load16(upper, i * width + c)
                off = sub(load16(x, i * width + c), load16(columns, c))
                store(sums, first + c, add(load16(sums, first + c), change))
                store(sums, first + width + c, fused(off, change, load16(sums, first + width + c)))


@njit(nogil=True, cache=True)
def _spread(of_base, of_y, sums, upper, bits, x, columns, back, lo, hi, kept):
    """Blocks lo .. hi of the gradients of base and of y, and of sums (blocks, C) of that. `of_y` is flat."""
    share, zero = full16(np.float32(65536 / max(kept, 1))), full16(np.float32(0))
    width = x.shape[1]
    for block in range(lo, hi):
        sums[block] = 0
        for i in range(block * BLOCK, min(block * BLOCK + BLOCK, len(x))):
            for c in range(0, width, 16):
                at, total = i * width + c, block * width + c
                off = sub(load16(x, at), load16(columns, c))
                change = fused(off, load16(back, c), load16(back, width + c))
                change = fused(load16(upper, at), load16(columns, FACTOR * width + c), change)
                store(of_base, at, change)
                if kept > 0:
                    change = where_bits(bits, at // 16, mul(change, share), zero)
                store(of_y, at, change)
                store(sums, total, add(load16(sums, total), change))


def normalised(
    base: Tensor, y: Tensor, bias: Tensor, p: float, norm: nn.Module | None, training: bool = True
) -> Tensor:
    """norm(base + dropout(y + bias, p, training)), for base and a product y (rows, width) and bias (width,); without a
    norm the sum."""
    fits = base.dtype == LONG and base.shape == y.shape and suits(y, bias) and p < 1
    if isinstance(norm, nn.BatchNorm1d) and fits and training and reads(norm, len(y)):
        drawn = (draw_key(), threshold(p)) if p > 0 else (0, 0)
        out: Tensor = _Normalised.apply(base, y, bias, norm.weight, norm.bias, norm, *drawn)
        return out
    whole = added(base, y, bias, p, training)
    return whole if norm is None else torch.as_tensor(norm(whole))


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        base: Tensor,
        y: Tensor,
        bias: Tensor,
        weight: Tensor,
        shift: Tensor,
        norm: nn.BatchNorm1d,
        key: int,
        kept: int,
    ) -> Tensor:
        x, bits = whole(base, y, bias, 0, key, kept)
        read, borders = x.numpy(), blocks(x.shape)
        sums, columns = np.empty((borders[-1], 3, len(bias)), np.float32), np.empty((4, len(bias)), np.float32)
        each(lambda lo, hi: moments(sums, read, lo, hi), borders)
        settle(columns, sums, len(x), np.zeros(len(bias), np.float32), flat(weight), flat(shift), *moving(norm))
        out = fresh(y.shape, LONG)
        made, all_kept, slope = out.numpy(), np.uint64(65536), np.float32(1)
        each(lambda lo, hi: end(made, read, columns, slope, np.uint64(0), np.uint64(0), all_kept, lo, hi), borders)
        ctx.save_for_backward(x, weight)
        ctx.columns, ctx.bits, ctx.kept, ctx.kind = columns, bits, kept, y.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, ...]:
        (x, _), columns = ctx.saved_tensors, ctx.columns
        borders, width = blocks(x.shape), x.shape[1]
        g, read, sums = upper.contiguous().numpy(), x.numpy(), np.empty((borders[-1], 2, width), np.float32)
        each(lambda lo, hi: _sums(sums, g, read, columns, lo, hi), borders)
        back = np.empty((2, width), np.float32)
        turn(back, sums, columns, len(x))
        of_base, of_y = fresh(x.shape, LONG), fresh(x.shape, ctx.kind)
        of_bias = np.empty((borders[-1], width), np.float32)
        made = of_base.numpy(), flat(of_y), of_bias, g, ctx.bits, read, columns, back
        each(lambda lo, hi: _spread(*made, lo, hi, np.uint64(ctx.kept)), borders)
        of_weight = torch.from_numpy(sums[0, 1] * columns[RATE])
        bias = torch.from_numpy(of_bias.sum(0, dtype=np.float64).astype(np.float32))
        return of_base, of_y, bias, of_weight, torch.from_numpy(sums[0, 0]), None, None, None
