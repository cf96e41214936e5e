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
from structmae.fast.vectors import (
    add,
    div,
    exp2,
    flat,
    fresh,
    full8,
    full16,
    fused,
    high,
    join,
    larger,
    load8,
    load16,
    low,
    mul,
    plus,
    prefetch,
    store,
    sub,
    turned,
    where_before,
)
from structmae.masking.parallel import balanced, each, threads


@njit(nogil=True, cache=True, forceinline=True)
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


@njit(nogil=True, cache=True, forceinline=True)
def _pair(array, at, step, i, n):
    """8 numbers of row i and of row i + 8, of the last one where there are only n."""
    return join(load8(array, at + step * min(i, n - 1)), load8(array, at + step * min(i + 8, n - 1)))


@njit(nogil=True, cache=True, forceinline=True)
def _columns(array, at, step, n, bias, scale):
    """8 columns, plus bias (a pair), times scale, of 16 rows; the last row again in the place of those after n."""
    return turned(
        mul(add(_pair(array, at, step, 0, n), bias), scale), mul(add(_pair(array, at, step, 1, n), bias), scale),
        mul(add(_pair(array, at, step, 2, n), bias), scale), mul(add(_pair(array, at, step, 3, n), bias), scale),
        mul(add(_pair(array, at, step, 4, n), bias), scale), mul(add(_pair(array, at, step, 5, n), bias), scale),
        mul(add(_pair(array, at, step, 6, n), bias), scale), mul(add(_pair(array, at, step, 7, n), bias), scale),
    )  # fmt: skip


@njit(nogil=True, cache=True, forceinline=True)
def _write(array, at, step, i, n, pair):
    """Rows i and i + 8 of n."""
    if i < n:
        store(array, at + step * i, low(pair))
    if i + 8 < n:
        store(array, at + step * (i + 8), high(pair))


@njit(nogil=True, cache=True, forceinline=True)
def _write_columns(array, at, step, n, x0, x1, x2, x3, x4, x5, x6, x7):
    """What `_columns` reads: n rows of 8 <- 8 columns."""
    x0, x1, x2, x3, x4, x5, x6, x7 = turned(x0, x1, x2, x3, x4, x5, x6, x7)
    _write(array, at, step, 0, n, x0)
    _write(array, at, step, 1, n, x1)
    _write(array, at, step, 2, n, x2)
    _write(array, at, step, 3, n, x3)
    _write(array, at, step, 4, n, x4)
    _write(array, at, step, 5, n, x5)
    _write(array, at, step, 6, n, x6)
    _write(array, at, step, 7, n, x7)


@njit(nogil=True, cache=True, forceinline=True)
def _rows(array, at, step, n, bias):
    """8 rows of 8, plus bias; the last again in the place of those after n."""
    return (
        add(load8(array, at), bias), add(load8(array, at + step * min(1, n - 1)), bias),
        add(load8(array, at + step * min(2, n - 1)), bias), add(load8(array, at + step * min(3, n - 1)), bias),
        add(load8(array, at + step * min(4, n - 1)), bias), add(load8(array, at + step * min(5, n - 1)), bias),
        add(load8(array, at + step * min(6, n - 1)), bias), add(load8(array, at + step * min(7, n - 1)), bias),
    )  # fmt: skip


@njit(nogil=True, cache=True, forceinline=True)
def _mixed(array, at, step, weights, n):
    """For each of 8 columns the sum over n rows of array times weights (n, 16)."""
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
    return a0, a1, a2, a3, a4, a5, a6, a7


@njit(nogil=True, cache=True, forceinline=True)
def _gather(rows, array, at, step, n, d, bias, column):
    """rows (n, d) <- n rows of array, plus bias. Side by side they fit in the first-level cache; in `array`, rows that
    are a multiple of large powers of 2 apart drive each other out of it."""
    for j in range(n):
        for c in range(0, d, 8):
            store(rows, j * d + c, add(load8(array, at + j * step + c), load8(bias, column + c)))


@njit(nogil=True, cache=True, forceinline=True)
def _ahead(array, ptr, item, share, shares, step):
    """Asks for a share of the next item's rows, so that they are there when their turn comes: a head is a small part of
    each row, and the processor does not guess such strides."""
    if item + 2 < len(ptr):
        for row in range(ptr[item + 1] + share, ptr[item + 2], shares):
            for x in range(row * step, (row + 1) * step, 16):
                prefetch(array, x)


@njit(nogil=True, cache=True)
def _forward(out, tops, sums, packed, bias, ptr, blocks, longest, heads, d, causal, lo, hi, k0, k1, kept):
    """Units lo .. hi, a unit being a head of an item: its part of out (M * heads * d,), and for each query the highest
    score, negated, and the sum of 2**(score - highest), 16 for each block of queries. `blocks` (items,) are the numbers
    of the items' first blocks; kept = 0 drops nothing."""
    ones, mask = np.ones(128, np.float32), np.empty(16 * longest + 128, np.float32)
    weights = np.empty(16 * longest, np.float32)
    keys, values = np.empty(longest * d, np.float32), np.empty(longest * d, np.float32)
    scale = full16(np.float32(math.log2(math.e) / math.sqrt(d)))
    factor = np.float32(65536 / max(kept, 1))
    width = heads * d
    step = 3 * width
    zero, one = full16(np.float32(0)), full16(np.float32(1))
    least = full16(np.float32(-np.inf))
    for unit in range(lo, hi):
        item, column = unit // heads, unit % heads * d
        first, n = ptr[item], ptr[item + 1] - ptr[item]
        shares = (n + 15) // 16
        at = first * step + column
        _gather(keys, packed, at + width, step, n, d, bias, column + width)
        _gather(values, packed, at + 2 * width, step, n, d, bias, column + 2 * width)
        for i0 in range(0, n, 16):
            m = min(16, n - i0)
            seen, share = i0 + m if causal else n, unit % heads * shares + i0 // 16
            number = blocks[item] + share
            _ahead(packed, ptr, item, share, heads * shares, step)
            most = zero
            for c in range(0, d, 8):
                shift = load8(bias, column + c)
                q0, q1, q2, q3, q4, q5, q6, q7 = _columns(
                    packed, at + i0 * step + c, step, m, join(shift, shift), scale
                )
                most = least
                for j in range(seen):
                    score = load16(weights, 16 * j) if c > 0 else zero
                    score = _dot(keys, j * d + c, q0, q1, q2, q3, q4, q5, q6, q7, score)
                    if causal and c + 8 >= d:
                        score = where_before(j - i0, least, score)
                    store(weights, 16 * j, score)
                    most = larger(most, score)
            total = zero
            for j in range(seen):
                weight = exp2(sub(load16(weights, 16 * j), most))
                total = add(total, weight)
                store(weights, 16 * j, weight)
            if kept > 0:
                for j in range(0, seen, 8):
                    run = number * ((longest + 7) // 8) + j // 8
                    drop_run(mask[16 * j : 16 * j + 128], ones, run, k0, k1, kept, factor)
                for j in range(seen):
                    store(weights, 16 * j, mul(load16(weights, 16 * j), load16(mask, 16 * j)))
            rate = div(one, total)
            for c in range(0, d, 8):
                a0, a1, a2, a3, a4, a5, a6, a7 = _mixed(values, c, d, weights, seen)
                _write_columns(
                    out, (first + i0) * width + column + c, width, m,
                    mul(a0, rate), mul(a1, rate), mul(a2, rate), mul(a3, rate),
                    mul(a4, rate), mul(a5, rate), mul(a6, rate), mul(a7, rate),
                )  # fmt: skip
            # A query that is not there gives no weight to any key.
            store(tops, 16 * number, where_before(m, sub(zero, most), least))
            store(sums, 16 * number, total)


@njit(nogil=True, cache=True)
def _backward(
    grad, parts, upper, out, logs, packed, bias, ptr, blocks, longest, heads, d, causal, lo, hi, k0, k1, kept
):
    """The same units' part of grad, that of `packed`, and of its sums over an item's rows (items, 3 * heads * d), from
    `upper`, that of `out`. `logs` are -log2 of the sums of 2**score."""
    ones, mask = np.ones(128, np.float32), np.empty(16 * longest + 128, np.float32)
    weights, changes = np.empty(16 * longest, np.float32), np.empty(16 * longest, np.float32)
    keys, values = np.empty(longest * d, np.float32), np.empty(longest * d, np.float32)
    of_keys, of_values = np.empty(longest * d, np.float32), np.empty(longest * d, np.float32)
    scale, one = full16(np.float32(math.log2(math.e) / math.sqrt(d))), full16(np.float32(1))
    rate, factor = full16(np.float32(1 / math.sqrt(d))), np.float32(65536 / max(kept, 1))
    width = heads * d
    step = 3 * width
    zero, none, least = full16(np.float32(0)), full8(np.float32(0)), full16(np.float32(-np.inf))
    for unit in range(lo, hi):
        item, column = unit // heads, unit % heads * d
        first, n = ptr[item], ptr[item + 1] - ptr[item]
        shares = (n + 15) // 16
        at = first * step + column
        _gather(keys, packed, at + width, step, n, d, bias, column + width)
        _gather(values, packed, at + 2 * width, step, n, d, bias, column + 2 * width)
        of_keys[: n * d] = 0
        of_values[: n * d] = 0
        for i0 in range(0, n, 16):
            m = min(16, n - i0)
            seen, share = i0 + m if causal else n, unit % heads * shares + i0 // 16
            number = blocks[item] + share
            _ahead(packed, ptr, item, share, heads * shares, step)
            _ahead(grad, ptr, item, share, heads * shares, step)
            _ahead(upper, ptr, item, share, heads * shares, width)
            _ahead(out, ptr, item, share, heads * shares, width)
            head = (first + i0) * width + column  # of out and upper
            if kept > 0:
                for j in range(0, seen, 8):
                    run = number * ((longest + 7) // 8) + j // 8
                    drop_run(mask[16 * j : 16 * j + 128], ones, run, k0, k1, kept, factor)
            under, mean = load16(logs, 16 * number), zero
            for c in range(0, d, 8):
                shift = load8(bias, column + c)
                q0, q1, q2, q3, q4, q5, q6, q7 = _columns(
                    packed, at + i0 * step + c, step, m, join(shift, shift), scale
                )
                u0, u1, u2, u3, u4, u5, u6, u7 = _columns(upper, head + c, width, m, zero, rate)
                o0, o1, o2, o3, o4, o5, o6, o7 = _columns(out, head + c, width, m, zero, one)
                mean = fused(o0, u0, fused(o1, u1, fused(o2, u2, fused(o3, u3, mean))))
                mean = fused(o4, u4, fused(o5, u5, fused(o6, u6, fused(o7, u7, mean))))
                for j in range(seen):
                    weight = load16(weights, 16 * j) if c > 0 else under
                    change = load16(changes, 16 * j) if c > 0 else zero
                    weight = _dot(keys, j * d + c, q0, q1, q2, q3, q4, q5, q6, q7, weight)
                    change = _dot(values, j * d + c, u0, u1, u2, u3, u4, u5, u6, u7, change)
                    if c + 8 >= d:
                        if causal:
                            weight = where_before(j - i0, least, weight)
                        weight = exp2(weight)
                        if kept > 0:
                            kept_or_not = load16(mask, 16 * j)
                            change = mul(weight, sub(mul(change, kept_or_not), mean))
                            weight = mul(weight, kept_or_not)
                        else:
                            change = mul(weight, sub(change, mean))
                    store(weights, 16 * j, weight)
                    store(changes, 16 * j, change)
            for c in range(0, d, 8):
                a0, a1, a2, a3, a4, a5, a6, a7 = _mixed(keys, c, d, changes, seen)
                _write_columns(grad, at + i0 * step + c, step, m, a0, a1, a2, a3, a4, a5, a6, a7)
                for i in range(0, m, 8):
                    shift = load8(bias, column + c)
                    r0, r1, r2, r3, r4, r5, r6, r7 = _rows(packed, at + (i0 + i) * step + c, step, m - i, shift)
                    u0, u1, u2, u3, u4, u5, u6, u7 = _rows(upper, head + i * width + c, width, m - i, none)
                    for j in range(seen):
                        x = j * d + c
                        change, value = load8(of_keys, x), load8(of_values, x)
                        store(of_keys, x, _dot(changes, 16 * j + i, r0, r1, r2, r3, r4, r5, r6, r7, change))
                        store(of_values, x, _dot(weights, 16 * j + i, u0, u1, u2, u3, u4, u5, u6, u7, value))
        for c in range(0, d, 8):
            total, of_key, of_value = none, none, none
            for j in range(n):
                x, y = at + j * step + c, j * d + c
                total = add(total, load8(grad, x))
                of_key, of_value = add(of_key, load8(of_keys, y)), add(of_value, load8(of_values, y))
                store(grad, x + width, load8(of_keys, y))
                store(grad, x + 2 * width, load8(of_values, y))
            x = item * step + column + c
            store(parts, x, total)
            store(parts, x + width, of_key)
            store(parts, x + 2 * width, of_value)


def suits(x: Tensor, heads: int) -> bool:
    """Whether `attention` reads a product of x (tokens, width), and does so faster than torch's own, which is better at
    heads of more than 64."""
    d = x.shape[1] // heads
    kinds = (torch.float32, torch.bfloat16)
    native = x.device.type == "cpu" and x.dtype in kinds and not torch.compiler.is_compiling()
    return native and d % 8 == 0 and d <= 64


def attention(
    packed: Tensor,
    bias: Tensor,
    ptr: Tensor,
    heads: int,
    dropout: float = 0.0,
    training: bool = True,
    *,
    causal: bool = False,
) -> Tensor:
    """Each item's tokens attend to each other, or where `causal` to themselves and those before.

    packed: (tokens, 3 * width), a product that gives queries, keys and values, each by head; see `suits`.
    bias: (3 * width,), to be added.
    ptr: (items + 1,), the items' borders. dropout: of weights, in training. Gives (tokens, width), in packed's dtype.
    """
    drawn = (draw_key(), threshold(dropout)) if training and dropout > 0 else (0, 0)
    out: Tensor = _Attention.apply(packed, bias.float(), ptr, heads, causal, *drawn)
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, packed: Tensor, bias: Tensor, ptr: Tensor, heads: int, causal: bool, key: int, kept: int
    ) -> Tensor:
        width = packed.shape[1] // 3
        out = fresh((len(packed), width), packed.dtype)
        tops, sums = bias.new_empty(2, 16 * int((ptr.diff() + 15).div(16, rounding_mode="floor").sum()) * heads)
        ctx.how = heads, width // heads, causal, key, kept
        _units(_forward, (out, tops, sums, packed, bias), ptr, *ctx.how)
        ctx.save_for_backward(packed, bias, ptr, out, tops.sub_(sums.log2_()))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, ...]:
        packed, bias, ptr, out, logs = ctx.saved_tensors
        grad = fresh(packed.shape, packed.dtype)
        parts = bias.new_empty(len(ptr) - 1, len(bias))
        _units(_backward, (grad, parts, upper, out, logs, packed, bias), ptr, *ctx.how)
        return grad, parts.sum(0), None, None, None, None, None


def _units(
    kernel: Any, tensors: tuple[Tensor, ...], ptr: Tensor, heads: int, d: int, causal: bool, key: int, kept: int
) -> None:
    """The kernel over all heads of all items, about as many pairs of tokens on each thread."""
    arrays = tuple(flat(tensor) for tensor in tensors)
    borders = ptr.numpy()
    counts = np.diff(borders)
    pairs = np.append(0, np.cumsum(np.repeat(counts**2, heads)))
    blocks = heads * -(-counts // 16)
    how = borders, np.cumsum(blocks) - blocks, int(counts.max(initial=0)), heads, d, causal
    drawn = *key_words(key), np.uint64(kept)
    each(lambda lo, hi: kernel(*arrays, *how, lo, hi, *drawn), balanced(pairs, threads(int(pairs[-1]) * d)))
