"""The end of a layer: bias, batch normalisation, rectifier and dropout of a product, in two passes each way. On small
graphs it is calls that cost, and this makes one of eight."""
# mypy: allow-untyped-defs

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from structmae.fast.chain import Chain, Shape, Stage
from structmae.fast.columns import BLOCK, FACTOR, MEAN, RATE, SHIFT, blocks, moments, moving, reads, settle, turn
from structmae.fast.dropout import RUN, draw_key, drop_run, dropout, key_words, threshold
from structmae.fast.sparse import dense
from structmae.fast.vectors import add, full16, fused, larger, load16, mul, store, sub, where_positive
from structmae.masking.memory import empty
from structmae.masking.parallel import each


@njit(nogil=True, cache=True)
def _masks(mask, ones, first, count, k0, k1, kept, grow):
    """mask <- dropout's factors of `count` elements from `first` on, a multiple of RUN."""
    for at in range(0, count, RUN):
        drop_run(mask[at : at + RUN], ones, (first + at) // RUN, k0, k1, kept, grow)


@njit(nogil=True, cache=True)
def end(out, y, columns, slope, k0, k1, kept, lo, hi):
    """Blocks lo .. hi of out (M, C) <- dropout of the rectifier of (y - mean) * factor + shift."""
    width, drops, grow = y.shape[1], kept < np.uint64(65536), np.float32(65536.0 / kept)
    ones, mask = np.ones(RUN, np.float32), np.empty(BLOCK * width if drops else 0, np.float32)
    below, zero, leaks = full16(slope), full16(np.float32(0)), slope != 0
    for block in range(lo, hi):
        first, last = block * BLOCK, min(block * BLOCK + BLOCK, len(y))
        if drops:
            _masks(mask, ones, first * width, (last - first) * width, k0, k1, kept, grow)
        for i in range(first, last):
            for c in range(0, width, 16):
                at = i * width + c
                off = sub(load16(y, at), load16(columns, c))
                v = fused(off, load16(columns, FACTOR * width + c), load16(columns, SHIFT * width + c))
                v = where_positive(v, v, mul(v, below)) if leaks else larger(zero, v)  # what is no number stays so
                store(out, at, mul(v, load16(mask, at - first * width)) if drops else v)


@njit(nogil=True, cache=True)
def _back(dv, sums, g, y, columns, slope, k0, k1, kept, lo, hi):
    """Blocks lo .. hi of dv (M, C) <- the gradient by way of what is rectified; of sums (blocks, 3, C): of dv, of dv
    times what y is off from its mean, and of the gradient of the slope."""
    width, drops, grow = y.shape[1], kept < np.uint64(65536), np.float32(65536.0 / kept)
    ones, mask = np.ones(RUN, np.float32), np.empty(BLOCK * width if drops else 0, np.float32)
    below, zero, leaks = full16(slope), full16(np.float32(0)), slope != 0
    for block in range(lo, hi):
        first, last = block * BLOCK, min(block * BLOCK + BLOCK, len(y))
        if drops:
            _masks(mask, ones, first * width, (last - first) * width, k0, k1, kept, grow)
        sums[block] = 0
        for i in range(first, last):
            for c in range(0, width, 16):
                at, total = i * width + c, 3 * width * block + c
                off, given = sub(load16(y, at), load16(columns, c)), load16(g, at)
                if drops:
                    given = mul(given, load16(mask, at - first * width))
                v = fused(off, load16(columns, FACTOR * width + c), load16(columns, SHIFT * width + c))
                change = where_positive(v, given, mul(given, below) if leaks else zero)
                store(dv, at, change)
                store(sums, total, add(load16(sums, total), change))
                store(sums, total + width, fused(change, off, load16(sums, total + width)))
                for_slope = where_positive(v, zero, mul(given, v))
                store(sums, total + 2 * width, add(load16(sums, total + 2 * width), for_slope))


@njit(nogil=True, cache=True)
def _spread(dy, y, columns, back, lo, hi):
    """Blocks lo .. hi of dy (M, C), which holds the gradient of what is normalised, <- that of y."""
    width = y.shape[1]
    for i in range(lo * BLOCK, min(hi * BLOCK, len(y))):
        for c in range(0, width, 16):
            at = i * width + c
            off = sub(load16(y, at), load16(columns, c))
            change = fused(load16(dy, at), load16(columns, FACTOR * width + c), load16(back, width + c))
            store(dy, at, fused(off, load16(back, c), change))


@njit(nogil=True, cache=True)
def _whole(out, y, columns, sums, slope, k0, k1, kept, bias, weight, shift, mean, variance, momentum, eps):
    """All of a forward, with batch statistics, in one call: on small graphs it is calls that cost."""
    moments(sums, y, 0, len(sums))
    settle(columns, sums, len(y), bias, weight, shift, mean, variance, momentum, eps)
    end(out, y, columns, slope, k0, k1, kept, 0, len(sums))


@njit(nogil=True, cache=True)
def _whole_back(dy, back, sums, g, y, columns, slope, k0, k1, kept):
    """All of its backward."""
    _back(dy, sums, g, y, columns, slope, k0, k1, kept, 0, len(sums))
    turn(back, sums, columns, len(y))
    _spread(dy, y, columns, back, 0, len(sums))


def ended(
    y: Tensor | Chain, bias: Tensor | None, norm: nn.Module, act: nn.Module, p: float = 0.0, training: bool = True
) -> Tensor | Chain:
    """dropout(act(norm(y + bias)), p, training), for a product y (M, C) and bias (C,), or none.

    By kernels for batch statistics, or no norm, and a rectifier; by the modules else.
    """
    p = p if training else 0.0
    slope = _slope(act)
    if slope is None or not 0 <= p < 1 or not _reads(y, bias, norm):
        y = dense(y)
        return dropout(act(norm(y if bias is None else y + bias)), p, training)
    return Chain.of(y).then(_Ending(bias, norm, slope, p))


def _slope(act: nn.Module) -> Tensor | float | None:
    """Of a rectifier below zero."""
    if isinstance(act, nn.PReLU) and act.num_parameters == 1 and act.weight.dtype is torch.float32:
        return act.weight
    return 0.0 if isinstance(act, nn.ReLU) else None


def _reads(y: Tensor | Chain, bias: Tensor | None, norm: nn.Module) -> bool:
    x = y.x if isinstance(y, Chain) else y
    native = x.device.type == "cpu" and x.dtype is torch.float32 and (bias is None or bias.dtype is torch.float32)
    if not native or len(y.shape) != 2 or y.shape[1] % 16 or torch.compiler.is_compiling():
        return False
    return isinstance(norm, nn.Identity) or reads(norm, len(y))


class _Ending(Stage):
    def __init__(self, bias: Tensor | None, norm: nn.Module, slope: Tensor | float, p: float):
        self.norm = norm if isinstance(norm, nn.BatchNorm1d) else None
        self.biased, self.learned, self.p = bias is not None, isinstance(slope, Tensor), p
        self.slope = 0.0 if isinstance(slope, Tensor) else slope
        normal = () if self.norm is None else (self.norm.weight, self.norm.bias)
        given = (bias, *normal, slope)
        self.weights = [part for part in given if isinstance(part, Tensor)]

    def shape(self, given: Shape) -> Shape:
        return given

    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Any]:
        y, (rows, width), norm = x.numpy(), x.shape, self.norm
        columns, borders = np.zeros((4, width), np.float32), blocks(y.shape)
        read = [weight.detach().numpy() for weight in weights]
        bias = read.pop(0) if self.biased else np.zeros(width, np.float32)
        slope = read.pop()[0] if self.learned else np.float32(self.slope)
        key, kept = (draw_key(), threshold(self.p)) if self.p else (0, 65536)
        how = slope, *key_words(key), np.uint64(kept)
        out, sums = empty(y.shape, np.float32), np.empty((borders[-1], 3, width), np.float32)
        if norm is not None and len(borders) == 2:
            _whole(out, y, columns, sums, *how, bias, *read, *moving(norm))
            return torch.from_numpy(out), (y, columns, borders, how)
        if norm is None:
            np.negative(bias, out=columns[MEAN])
            columns[FACTOR] = 1
        else:
            each(lambda lo, hi: moments(sums, y, lo, hi), borders)
            settle(columns, sums, rows, bias, *read, *moving(norm))
        each(lambda lo, hi: end(out, y, columns, *how, lo, hi), borders)
        return torch.from_numpy(out), (y, columns, borders, how)

    def backward(
        self, kept: Any, grad: Tensor, weights: Sequence[Tensor], wants: Sequence[bool]
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        (y, columns, borders, how), g, width = kept, grad.numpy(), grad.shape[1]
        # Without rows there is one block, of zeros.
        dy, sums = empty(y.shape, np.float32), np.zeros((max(1, borders[-1]), 3, width), np.float32)
        back, whole = np.empty((2, width), np.float32), self.norm is not None and len(borders) == 2
        if whole:
            _whole_back(dy, back, sums, g, y, columns, *how)
        else:
            each(lambda lo, hi: _back(dy, sums, g, y, columns, *how, lo, hi), borders)
            turn(back, sums, columns, max(1, len(y)))
        plain, by_off, by_slope = sums[0]
        found = [plain]
        if self.norm is not None:
            if not whole:
                each(lambda lo, hi: _spread(dy, y, columns, back, lo, hi), borders)
            # The mean takes the bias out again.
            found = [np.zeros(width, np.float32), by_off * columns[RATE], plain]
        found = found if self.biased else found[1:]
        if self.learned:
            found.append(by_slope.sum(dtype=np.float64, keepdims=True).astype(np.float32))
        return torch.from_numpy(dy), [torch.from_numpy(part) for part in found]
