"""What follows a product, in one pass over it: bias, activation, dropout, residual.

Each is a few operations on a number that comes from memory and goes back there, so that passes are what they cost: a
product that adds its bias first writes it everywhere, and the gradient of the bias is one more pass. In the backward
pass activations are made again from their input.

Arrays are flat, rows of `width`, a multiple of 16; float32, or but for the bias bfloat16. Sums over rows are made by
chunks of 2**15 numbers, whatever the threads, and then of these.
"""
# mypy: allow-untyped-defs

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from structmae.fast.dropout import draw_key, drop_run, dropout, key_words, threshold
from structmae.fast.vectors import (
    add,
    div,
    exp2,
    flat,
    fresh,
    full16,
    fused,
    larger,
    load16,
    mul,
    store,
    store_positive,
    sub,
    where_bits,
    where_positive,
)
from structmae.masking.parallel import each, even, threads

CHUNK = 256  # runs of 128 numbers
_NONE, _RELU, _GELU = 0, 1, 2
_KINDS: dict[type[nn.Module], int] = {nn.ReLU: _RELU, nn.GELU: _GELU}


@njit(nogil=True, cache=True, inline="always")
def _normal(x):
    """Of the normal distribution: how much lies below x, and exp(-x**2 / 2). The first is within 1e-7."""
    e = exp2(mul(mul(x, x), full16(np.float32(-0.5 * math.log2(math.e)))))
    one, size = full16(np.float32(1)), larger(x, sub(full16(np.float32(0)), x))
    t = div(one, fused(size, full16(np.float32(0.28)), one))
    # What lies above |x|, over exp(-x**2 / 2), by powers of t: the error of x times it is the least possible.
    q = full16(np.float32(-0.10681216418743134))
    q = fused(q, t, full16(np.float32(0.3940577805042267)))
    q = fused(q, t, full16(np.float32(-0.24391958117485046)))
    q = fused(q, t, full16(np.float32(0.27460214495658875)))
    q = fused(q, t, full16(np.float32(0.06517520546913147)))
    q = fused(q, t, full16(np.float32(0.1168966293334961)))
    above = mul(mul(q, t), e)
    return where_positive(x, sub(one, above), above), e


@njit(nogil=True, cache=True)
def _forward(out, bits, base, y, bias, kind, lo, hi, k0, k1, kept):
    """Chunks lo .. hi of out <- base + dropout of the activation of y + bias; and of bits, a number for each 16, which
    of them are kept. `base` may be empty; kept = 0 drops nothing."""
    ones, mask = np.ones(128, np.float32), np.ones(128, np.float32)
    share, zero = np.float32(65536 / max(kept, 1)), full16(np.float32(0))
    n, width, more = len(y), len(bias), len(base) > 0
    column = 128 * 256 * lo % width
    for run in range(256 * lo, min(256 * hi, (n + 127) // 128)):
        if kept > 0:
            drop_run(mask, ones, run, k0, k1, kept, share)
        for i in range(0, min(128, n - 128 * run), 16):
            at = 128 * run + i
            x = add(load16(y, at), load16(bias, column))
            if kind == 1:
                x = larger(zero, x)  # in this order, what is no number stays so
            elif kind == 2:
                x = mul(x, _normal(x)[0])
            if kept > 0:
                factor = load16(mask, i)
                x = mul(x, factor)
                store_positive(bits, at // 16, factor)
            store(out, at, add(load16(base, at), x) if more else x)
            column = column + 16 if column + 16 < width else 0


@njit(nogil=True, cache=True)
def _backward(grad, sums, upper, bits, y, bias, kind, lo, hi, kept):
    """Chunks lo .. hi of grad, that of y, and of its sums over rows (chunks, width), from `upper`, that of the result.
    With `kind` 0 y is not read."""
    share, zero = full16(np.float32(65536 / max(kept, 1))), full16(np.float32(0))
    density = full16(np.float32(1 / math.sqrt(2 * math.pi)))
    n, width = len(upper), len(bias)
    column = 128 * 256 * lo % width
    for chunk in range(lo, hi):
        total = chunk * width
        sums[total : total + width] = 0
        for at in range(128 * 256 * chunk, min(128 * 256 * (chunk + 1), n), 16):
            change = load16(upper, at)
            if kept > 0:
                change = where_bits(bits, at // 16, mul(change, share), zero)
            if kind > 0:
                x = add(load16(y, at), load16(bias, column))
                if kind == 1:
                    change = where_positive(x, change, zero)
                else:
                    below, e = _normal(x)
                    change = mul(change, fused(mul(x, density), e, below))
            store(grad, at, change)
            store(sums, total + column, add(load16(sums, total + column), change))
            column = column + 16 if column + 16 < width else 0


def activated(y: Tensor, bias: Tensor, activation: nn.Module, p: float, training: bool = True) -> Tensor:
    """dropout(activation(y + bias), p, training), for a product y (rows, width) and bias (width,)."""
    kind = _KINDS.get(type(activation), _NONE)
    exact = not isinstance(activation, nn.GELU) or activation.approximate == "none"
    if kind == _NONE or not exact or p == 1 or not suits(y, bias):
        return dropout(activation(y + bias), p, training)
    return _apply(None, y, bias, kind, p, training)


def added(base: Tensor, y: Tensor, bias: Tensor, p: float, training: bool = True) -> Tensor:
    """base + dropout(y + bias, p, training), for base and a product y (rows, width) and bias (width,)."""
    if p == 1 or not suits(y, bias) or base.dtype not in (y.dtype, LONG) or base.shape != y.shape:
        return base + dropout(y + bias, p, training)
    return _apply(base, y, bias, _NONE, p, training)


SHORT, LONG = torch.bfloat16, torch.float32


def suits(y: Tensor, bias: Tensor) -> bool:
    native = y.device.type == "cpu" and y.dtype in (SHORT, LONG) and not torch.compiler.is_compiling()
    return native and bias.dtype == LONG and y.dim() == 2 and y.shape[1] % 16 == 0 and y.shape[1] <= 128 * CHUNK


def _apply(base: Tensor | None, y: Tensor, bias: Tensor, kind: int, p: float, training: bool) -> Tensor:
    drawn = (draw_key(), threshold(p)) if training and p > 0 else (0, 0)
    out: Tensor = _Epilogue.apply(base, y, bias, kind, *drawn)
    return out


class _Epilogue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, base: Tensor | None, y: Tensor, bias: Tensor, kind: int, key: int, kept: int) -> Tensor:
        ctx.save_for_backward(y if kind != _NONE else y.new_empty(0), bias)
        out, ctx.bits = whole(base, y, bias, kind, key, kept)
        ctx.kind, ctx.kept = kind, kept
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, ...]:
        y, bias = ctx.saved_tensors
        grad, borders = fresh(upper.shape, y.dtype), _chunks(upper.numel())
        sums = bias.new_empty(borders[-1], len(bias))
        arrays = flat(grad), flat(sums), flat(upper), ctx.bits, flat(y), flat(bias)
        each(lambda lo, hi: _backward(*arrays, ctx.kind, lo, hi, np.uint64(ctx.kept)), borders)
        return upper if ctx.needs_input_grad[0] else None, grad, sums.sum(0), None, None, None


def whole(
    base: Tensor | None, y: Tensor, bias: Tensor, kind: int, key: int, kept: int
) -> tuple[Tensor, NDArray[np.uint16]]:
    """What `_forward` makes of all chunks. Not differentiable."""
    out, bits = (
        fresh(y.shape, y.dtype if base is None else base.dtype),
        np.empty(y.numel() // 16 if kept else 0, np.uint16),
    )
    arrays = flat(out), bits, np.empty(0, np.float32) if base is None else flat(base), flat(y), flat(bias)
    drawn = *key_words(key), np.uint64(kept)
    each(lambda lo, hi: _forward(*arrays, kind, lo, hi, *drawn), _chunks(y.numel()))
    return out, bits


def _chunks(size: int) -> list[int]:
    """Borders of the chunks that each thread makes."""
    return even(-(-size // (128 * CHUNK)), threads(size))
