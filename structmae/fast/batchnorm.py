"""The end of a branch and batch normalisation after it: the columns of base + dropout(y + bias) by their own mean and
deviation (Ioffe and Szegedy, ICML 2015).

Statistics are of all rows, so there are two passes each way: sums are made while the rows are written, then rows are
normalised; sums of the gradient are made, and then the gradients of base and y in one. Sums of columns are of what is
off from the first row of base, by chunks in float32 and then in float64: squares of what is near do not cancel.
"""
# mypy: allow-untyped-defs

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from structmae.fast.dropout import draw_key, key_words, threshold
from structmae.fast.epilogue import LONG, added, chunks, forward, suits
from structmae.fast.vectors import add, flat, fresh, full16, fused, load16, mul, store, sub, where_bits
from structmae.masking.parallel import each

_SIZE = 128 * 256  # numbers of a chunk


@njit(nogil=True, cache=True)
def _scaled(out, x, mean, factor, shift, lo, hi):
    """Chunks lo .. hi of out <- (x - mean) * factor + shift, by columns."""
    width = len(factor)
    column = 32768 * lo % width
    for at in range(32768 * lo, min(32768 * hi, len(x)), 16):
        off = sub(load16(x, at), load16(mean, column))
        store(out, at, fused(off, load16(factor, column), load16(shift, column)))
        column = column + 16 if column + 16 < width else 0


@njit(nogil=True, cache=True)
def _moments(sums, upper, x, mean, lo, hi):
    """Chunks lo .. hi of sums (chunks, 2, width): of upper, and of upper times what x is off from its mean."""
    width = len(mean)
    column = 32768 * lo % width
    for chunk in range(lo, hi):
        total = 2 * width * chunk
        sums[total : total + 2 * width] = 0
        for at in range(32768 * chunk, min(32768 * (chunk + 1), len(x)), 16):
            first, change = total + column, load16(upper, at)
            off = sub(load16(x, at), load16(mean, column))
            store(sums, first, add(load16(sums, first), change))
            store(sums, first + width, fused(off, change, load16(sums, first + width)))
            column = column + 16 if column + 16 < width else 0


@njit(nogil=True, cache=True)
def _spread(of_base, of_y, sums, upper, bits, x, mean, by_upper, by_off, shift, lo, hi, kept):
    """Chunks lo .. hi of the gradients of base, which is upper * by_upper + (x - mean) * by_off + shift, and of y, and
    of sums (chunks, width) of that."""
    share, zero = full16(np.float32(65536 / max(kept, 1))), full16(np.float32(0))
    width = len(shift)
    column = 32768 * lo % width
    for chunk in range(lo, hi):
        total = width * chunk
        sums[total : total + width] = 0
        for at in range(32768 * chunk, min(32768 * (chunk + 1), len(x)), 16):
            change = fused(sub(load16(x, at), load16(mean, column)), load16(by_off, column), load16(shift, column))
            change = fused(load16(upper, at), load16(by_upper, column), change)
            store(of_base, at, change)
            if kept > 0:
                change = where_bits(bits, at // 16, mul(change, share), zero)
            store(of_y, at, change)
            store(sums, total + column, add(load16(sums, total + column), change))
            column = column + 16 if column + 16 < width else 0


def normalised(
    base: Tensor, y: Tensor, bias: Tensor, p: float, norm: nn.Module | None, training: bool = True
) -> Tensor:
    """norm(base + dropout(y + bias, p, training)), for base and a product y (rows, width) and bias (width,); without a
    norm the sum."""
    if isinstance(norm, nn.BatchNorm1d) and _reads(norm, base, y, bias) and training and p < 1:
        drawn = (draw_key(), threshold(p)) if p > 0 else (0, 0)
        out: Tensor = _Normalised.apply(base, y, bias, norm.weight, norm.bias, norm, *drawn)
        return out
    whole = added(base, y, bias, p, training)
    return whole if norm is None else torch.as_tensor(norm(whole))


def _reads(norm: nn.BatchNorm1d, base: Tensor, y: Tensor, bias: Tensor) -> bool:
    """Whether the kernels do this norm of these: by statistics of the rows, and weights of its own."""
    usual = norm.training and norm.affine and norm.track_running_stats and norm.momentum is not None
    return usual and len(y) > 1 and base.dtype == LONG and base.shape == y.shape and suits(y, bias)


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
        borders, rows = chunks(y.numel()), len(y)
        bits = np.empty(y.numel() // 16 if kept else 0, np.uint16)
        x, moments = fresh(y.shape, LONG), bias.new_empty(borders[-1], 2, len(bias))
        arrays = flat(x), bits, flat(moments), flat(base), flat(y), flat(bias)
        drawn = *key_words(key), np.uint64(kept)
        each(lambda lo, hi: forward(*arrays, 0, lo, hi, *drawn), borders)

        first, second = moments.sum(0, dtype=torch.float64) / rows
        mean, variance = first + base[0], (second - first.square()).clamp_min(0)
        _follow(norm, mean, variance * rows / (rows - 1))
        rate = (variance + norm.eps).rsqrt()
        columns = flat(mean.float()), flat((rate * weight).float()), flat(shift)
        out = fresh(y.shape, LONG)
        made = flat(out)
        each(lambda lo, hi: _scaled(made, arrays[0], *columns, lo, hi), borders)
        ctx.save_for_backward(x, mean, rate, weight)
        ctx.bits, ctx.kept, ctx.kind = bits, kept, y.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rate, weight = ctx.saved_tensors
        borders = chunks(x.numel())
        sums, of_bias = mean.new_empty(borders[-1], 2, len(mean), dtype=LONG), weight.new_empty(borders[-1], len(mean))
        arrays = flat(upper), flat(x), flat(mean.float())
        each(lambda lo, hi: _moments(flat(sums), *arrays, lo, hi), borders)

        of_shift, off = sums.sum(0, dtype=torch.float64)
        of_weight = off * rate
        factor = weight * rate
        by_off, less = -factor * rate * of_weight / len(x), -factor * of_shift / len(x)
        of_base, of_y = fresh(x.shape, LONG), fresh(x.shape, ctx.kind)
        made = flat(of_base), flat(of_y), flat(of_bias), arrays[0], ctx.bits, *arrays[1:]
        columns = flat(factor.float()), flat(by_off.float()), flat(less.float())
        each(lambda lo, hi: _spread(*made, *columns, lo, hi, np.uint64(ctx.kept)), borders)
        return of_base, of_y, of_bias.sum(0), of_weight.to(LONG), of_shift.to(LONG), None, None, None


def _follow(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor) -> None:
    """Moves the running statistics on."""
    assert norm.momentum is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.running_mean.lerp_(mean.to(LONG), norm.momentum)
    norm.running_var.lerp_(variance.to(LONG), norm.momentum)
    norm.num_batches_tracked += 1
