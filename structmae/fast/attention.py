"""Attention within items for short items and small heads, straight from the fused projection to the output's layout.

Libraries are made for long sequences and heads of 64: with 42 tokens and heads of 8 they spend most of their time on
copies and on loops that are too short. Here 16 queries stand side by side in a vector, and keys are gone through one by
one, each number of a key times all 16: no copies, no padding, no sums across a vector, and items of any lengths. The
backward pass makes the weights again from the log of their sum (Dao et al., FlashAttention, NeurIPS 2022).

Head h of token t has its query, key and value at `(3 * t + part) * heads * d + h * d`, d of them, in flat arrays.
Weights are powers of 2, so scores are times log2(e). 8 channels are done at once: d is a multiple of 8.
"""
# mypy: allow-untyped-defs

import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from structmae.fast.dropout import draw_key, drop_run, key_words, threshold
from structmae.fast.vectors import add, cut, exp2, full8, full16, larger, load8, load16, mul, plus, store, sub
from structmae.masking.memory import empty
from structmae.masking.parallel import balanced, each, threads


@njit(nogil=True, cache=True, inline="always")
def _dot(array, at, x0, x1, x2, x3, x4, x5, x6, x7, y):
    """y + the sum of array[at + c] * x_c."""
    y = plus(array, at, x0, y)
    y = plus(array, at + 1, x1, y)
    y = plus(array, at + 2, x2, y)
    y = plus(array, at + 3, x3, y)
    y = plus(array, at + 4, x4, y)
    y = plus(array, at + 5, x5, y)
    y = plus(array, at + 6, x6, y)
    return plus(array, at + 7, x7, y)


@njit(nogil=True, cache=True, inline="always")
def _columns(turned, array, at, step, n, scale):
    """8 columns of n <= 16 rows of 8, each times scale, as vectors with zeros after n; `turned` (128,) is scratch."""
    for i in range(n):
        for c in range(8):
            turned[16 * c + i] = array[at + i * step + c] * scale
    for i in range(n, 16):
        for c in range(8):
            turned[16 * c + i] = 0
    return (
        load16(turned, 0), load16(turned, 16), load16(turned, 32), load16(turned, 48),
        load16(turned, 64), load16(turned, 80), load16(turned, 96), load16(turned, 112),
    )  # fmt: skip


@njit(nogil=True, cache=True, inline="always")
def _rows(array, at, step, n):
    """8 rows of 8, the first again in the place of those after n."""
    return (
        load8(array, at), load8(array, at + step * (n > 1)),
        load8(array, at + 2 * step * (n > 2)), load8(array, at + 3 * step * (n > 3)),
        load8(array, at + 4 * step * (n > 4)), load8(array, at + 5 * step * (n > 5)),
        load8(array, at + 6 * step * (n > 6)), load8(array, at + 7 * step * (n > 7)),
    )  # fmt: skip


@njit(nogil=True, cache=True, inline="always")
def _mixed(turned, array, at, step, weights, n):
    """turned (8, 16) <- for each of 8 columns the sum over n rows of array times weights (n, 16)."""
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = full16(np.float32(0))
    for j in range(n):
        w = load16(weights, 16 * j)
        a0 = plus(array, at, w, a0)
        a1 = plus(array, at + 1, w, a1)
        a2 = plus(array, at + 2, w, a2)
        a3 = plus(array, at + 3, w, a3)
        a4 = plus(array, at + 4, w, a4)
        a5 = plus(array, at + 5, w, a5)
        a6 = plus(array, at + 6, w, a6)
        a7 = plus(array, at + 7, w, a7)
        at += step
    store(turned, 0, a0)
    store(turned, 16, a1)
    store(turned, 32, a2)
    store(turned, 48, a3)
    store(turned, 64, a4)
    store(turned, 80, a5)
    store(turned, 96, a6)
    store(turned, 112, a7)


@njit(nogil=True, cache=True)
def _forward(out, logs, packed, ptr, runs, longest, heads, d, causal, lo, hi, k0, k1, kept):
    """Units lo .. hi, a unit being a head of an item: its part of out (M * heads * d,), and of logs (M * heads,), the
    log2 of each query's sum of weights. `runs` (items,) are the numbers of the items' first runs of dropout; kept = 0
    drops nothing."""
    ones, mask = np.ones(128, np.float32), np.empty(16 * longest + 128, np.float32)
    weights, turned = np.empty(16 * longest, np.float32), np.empty(128, np.float32)
    top, total = np.empty(16, np.float32), np.empty(16, np.float32)
    scale, share = np.float32(math.log2(math.e) / math.sqrt(d)), np.float32(65536 / max(kept, 1))
    width = heads * d
    zero = full16(np.float32(0))
    for unit in range(lo, hi):
        item, h = unit // heads, unit % heads
        first, n = ptr[item], ptr[item + 1] - ptr[item]
        q, k, v = 3 * first * width + h * d, (3 * first + 1) * width + h * d, (3 * first + 2) * width + h * d
        eighths = (n + 7) // 8
        run = runs[item] + h * ((n + 15) // 16) * eighths
        for i0 in range(0, n, 16):
            m = min(16, n - i0)
            seen = i0 + m if causal else n
            most = zero
            for c in range(0, d, 8):
                q0, q1, q2, q3, q4, q5, q6, q7 = _columns(turned, packed, q + 3 * i0 * width + c, 3 * width, m, scale)
                most = full16(np.float32(-np.inf))
                for j in range(seen):
                    score = load16(weights, 16 * j) if c > 0 else zero
                    score = _dot(packed, k + 3 * j * width + c, q0, q1, q2, q3, q4, q5, q6, q7, score)
                    if causal and c + 8 >= d:
                        score = cut(score, j - i0)
                    store(weights, 16 * j, score)
                    most = larger(most, score)
            sums = zero
            for j in range(seen):
                weight = exp2(sub(load16(weights, 16 * j), most))
                sums = add(sums, weight)
                store(weights, 16 * j, weight)
            store(top, 0, most)
            store(total, 0, sums)
            if kept > 0:
                for j in range(0, seen, 8):
                    drop_run(mask[16 * j : 16 * j + 128], ones, run + i0 // 16 * eighths + j // 8, k0, k1, kept, share)
                for j in range(seen):
                    store(weights, 16 * j, mul(load16(weights, 16 * j), load16(mask, 16 * j)))
            for c in range(0, d, 8):
                _mixed(turned, packed, v + c, 3 * width, weights, seen)
                for i in range(m):
                    at, factor = (first + i0 + i) * width + h * d + c, np.float32(1) / total[i]
                    for x in range(8):
                        out[at + x] = turned[16 * x + i] * factor
            for i in range(m):
                logs[(first + i0 + i) * heads + h] = top[i] + math.log2(total[i])


@njit(nogil=True, cache=True)
def _backward(grad, upper, out, logs, packed, ptr, runs, longest, heads, d, causal, lo, hi, k0, k1, kept):
    """The same units' part of grad, that of `packed`, from `upper`, that of `out`."""
    ones, mask = np.ones(128, np.float32), np.empty(16 * longest + 128, np.float32)
    weights, changes = np.empty(16 * longest, np.float32), np.empty(16 * longest, np.float32)
    turned, mean, log = np.empty(128, np.float32), np.empty(16, np.float32), np.empty(16, np.float32)
    rate, share = np.float32(1 / math.sqrt(d)), np.float32(65536 / max(kept, 1))
    scale = np.float32(math.log2(math.e) / math.sqrt(d))
    width = heads * d
    step = 3 * width
    zero, none = full16(np.float32(0)), full8(np.float32(0))
    for unit in range(lo, hi):
        item, h = unit // heads, unit % heads
        first, n = ptr[item], ptr[item + 1] - ptr[item]
        q, k, v = 3 * first * width + h * d, (3 * first + 1) * width + h * d, (3 * first + 2) * width + h * d
        eighths = (n + 7) // 8
        run = runs[item] + h * ((n + 15) // 16) * eighths
        for i0 in range((n - 1) // 16 * 16, -1, -16):  # the last first, as it sees all keys
            m = min(16, n - i0)
            seen = i0 + m if causal else n
            head = (first + i0) * width + h * d  # of out and upper
            for i in range(16):
                mean[i], log[i] = 0, np.inf  # a query that is not there gives no weight to any key
                if i < m:
                    for x in range(d):
                        mean[i] += rate * out[head + i * width + x] * upper[head + i * width + x]
                    log[i] = logs[(first + i0 + i) * heads + h]
            if kept > 0:
                for j in range(0, seen, 8):
                    drop_run(mask[16 * j : 16 * j + 128], ones, run + i0 // 16 * eighths + j // 8, k0, k1, kept, share)
            means, total = load16(mean, 0), load16(log, 0)
            for c in range(0, d, 8):
                q0, q1, q2, q3, q4, q5, q6, q7 = _columns(turned, packed, q + i0 * step + c, step, m, scale)
                g0, g1, g2, g3, g4, g5, g6, g7 = _columns(turned, upper, head + c, width, m, rate)
                for j in range(seen):
                    weight = load16(weights, 16 * j) if c > 0 else zero
                    change = load16(changes, 16 * j) if c > 0 else zero
                    weight = _dot(packed, k + j * step + c, q0, q1, q2, q3, q4, q5, q6, q7, weight)
                    change = _dot(packed, v + j * step + c, g0, g1, g2, g3, g4, g5, g6, g7, change)
                    if c + 8 >= d:
                        if causal:
                            weight = cut(weight, j - i0)
                        weight = exp2(sub(weight, total))
                        if kept > 0:
                            factor = load16(mask, 16 * j)
                            change = mul(weight, sub(mul(change, factor), means))
                            weight = mul(weight, factor)
                        else:
                            change = mul(weight, sub(change, means))
                    store(weights, 16 * j, weight)
                    store(changes, 16 * j, change)
            for c in range(0, d, 8):
                _mixed(turned, packed, k + c, step, changes, seen)
                for i in range(m):
                    for x in range(8):
                        grad[q + (i0 + i) * step + c + x] = turned[16 * x + i]
                for i1 in range(0, m, 8):
                    r0, r1, r2, r3, r4, r5, r6, r7 = _rows(packed, q + (i0 + i1) * step + c, step, m - i1)
                    u0, u1, u2, u3, u4, u5, u6, u7 = _rows(upper, head + i1 * width + c, width, m - i1)
                    new = i0 + m == n and i1 == 0
                    for j in range(seen):
                        at = k + j * step + c
                        before = none if new else load8(grad, at)
                        store(grad, at, _dot(changes, 16 * j + i1, r0, r1, r2, r3, r4, r5, r6, r7, before))
                        at = v + j * step + c
                        before = none if new else load8(grad, at)
                        store(grad, at, _dot(weights, 16 * j + i1, u0, u1, u2, u3, u4, u5, u6, u7, before))


def suits(packed: Tensor, heads: int) -> bool:
    """Whether `attention` reads this, and does so faster than torch's own, which is better at heads above 64."""
    d = packed.shape[1] // 3 // heads
    kinds = (torch.float32, torch.bfloat16)
    native = packed.device.type == "cpu" and packed.dtype in kinds and not torch.compiler.is_compiling()
    return native and d % 8 == 0 and d <= 64


def attention(
    packed: Tensor, ptr: Tensor, heads: int, dropout: float = 0.0, training: bool = True, *, causal: bool = False
) -> Tensor:
    """Each item's tokens attend to each other, or where `causal` to themselves and those before.

    packed: (tokens, 3 * width), queries, keys and values as a projection gives them, each by head; see `suits`.
    ptr: (items + 1,), the items' borders. dropout: of weights, in training. Gives (tokens, width), in packed's dtype.
    """
    drawn = (draw_key(), threshold(dropout)) if training and dropout > 0 else (0, 0)
    out: Tensor = _Attention.apply(packed.float(), ptr, heads, causal, *drawn)
    return out.to(packed.dtype)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packed: Tensor, ptr: Tensor, heads: int, causal: bool, key: int, kept: int) -> Tensor:
        packed = packed.contiguous()
        width = packed.shape[1] // 3
        out = torch.from_numpy(empty((len(packed), width), np.float32))
        logs = torch.from_numpy(empty((len(packed), heads), np.float32))
        ctx.save_for_backward(packed, ptr, out, logs)
        ctx.how = heads, width // heads, causal, key, kept
        _units(_forward, (out, logs, packed), ptr, *ctx.how)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, ...]:
        packed, ptr, out, logs = ctx.saved_tensors
        grad = torch.from_numpy(empty(tuple(packed.shape), np.float32))
        _units(_backward, (grad, upper.contiguous(), out, logs, packed), ptr, *ctx.how)
        return grad, None, None, None, None, None


def _units(
    kernel: Any, tensors: tuple[Tensor, ...], ptr: Tensor, heads: int, d: int, causal: bool, key: int, kept: int
) -> None:
    """The kernel over all heads of all items, about as many pairs of tokens on each thread."""
    arrays = tuple(tensor.detach().view(-1).numpy() for tensor in tensors)
    borders = ptr.numpy()
    counts = np.diff(borders)
    pairs = np.append(0, np.cumsum(np.repeat(counts**2, heads)))
    of_item = heads * (-(-counts // 16)) * (-(-counts // 8))
    runs = np.cumsum(of_item) - of_item
    how = borders, runs, int(counts.max(initial=0)), heads, d, causal
    drawn = *key_words(key), np.uint64(kept)
    each(lambda lo, hi: kernel(*arrays, *how, lo, hi, *drawn), balanced(pairs, threads(int(pairs[-1]) * d)))
