"""Sums over the edges that end at a token, fused: no array of edges x channels is made, forward or backward.

Edges are compressed rows by target (`Relation`). Forward, threads share the targets; the gradient of what was summed
goes to sources, so there they share those, by the same edges in the order of sources: no two write to the same place,
and sums have one order whatever the number of threads.
"""
# mypy: allow-untyped-defs

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from structmae.fast.chain import Chain, Shape, Stage
from structmae.fast.dropout import RUN, draw_key, drop, key_words, threshold
from structmae.fast.vectors import full16, fused, load16, store
from structmae.masking.memory import empty
from structmae.masking.parallel import balanced, each, threads

Ints = NDArray[np.int64]
ENOUGH = 1_000_000  # multiply-adds below which another thread costs more than it saves
_SUMS = {"reassoc", "contract", "nsz"}  # lets a dot product use several accumulators; infinities stay what they are


@njit(nogil=True, cache=True, forceinline=True)
def _clear(into, i):
    for c in range(into.shape[1]):
        into[i, c] = 0.0


@njit(nogil=True, cache=True, forceinline=True)
def _add(into, i, w, rows, j):
    """into[i] (C,) += w rows[j] (C,): short rows are many, and vectors that LLVM finds take time to begin."""
    width, many = into.shape[1], full16(w)
    whole = width - width % 16
    for c in range(0, whole, 16):
        store(into, i * width + c, fused(many, load16(rows, j * width + c), load16(into, i * width + c)))
    for c in range(whole, width):
        into[i, c] += w * rows[j, c]


@njit(nogil=True, cache=True)
def _sum(out, z, indptr, source, rows, scale, own, lo, hi):
    """out[t] (T, C) <- own z[rows[t]] + the sum of scale[source] scale[rows[t]] z[source] over the edges of t, for t
    in lo .. hi; without scale (0,) the plain sum."""
    weighted = len(scale) > 0
    for t in range(lo, hi):
        _clear(out, t)
        _add(out, t, own, z, rows[t])
        for e in range(indptr[t], indptr[t + 1]):
            _add(out, t, scale[source[e]] * scale[rows[t]] if weighted else np.float32(1.0), z, source[e])


@njit(nogil=True, cache=True)
def _sum_back(dz, g, indptr, target, rows, scale, own, lo, hi):
    """dz[lo:hi] (M, C) <- the gradient of each source, from those g (T, C) of the targets that its edges lead to, and
    own times its own, where it is one of them."""
    weighted = len(scale) > 0
    t = np.searchsorted(rows, lo)
    for i in range(lo, hi):
        _clear(dz, i)
        if t < len(rows) and rows[t] == i:
            _add(dz, i, own, g, t)
            t += 1
        for k in range(indptr[i], indptr[i + 1]):
            _add(dz, i, scale[i] * scale[rows[target[k]]] if weighted else np.float32(1.0), g, target[k])


@njit(nogil=True, cache=True)
def _attend(out, alpha, z, step, logits, indptr, source, rows, slope, factors, lo, hi):
    """out[t] (T, H C) <- for each head the mean over the edges of t of z[source], weighed by the softmax of
    LeakyReLU(logits[source, h] + logits[rows[t], H + h]); head h reads columns h * step on. alpha (E, H) <- the
    weights, with a minus where dropout takes one out: where its factors (E H,) are 0 ((0,): no dropout)."""
    heads = alpha.shape[1]
    width = out.shape[1] // heads
    drops, factor = len(factors) > 0, np.float32(1.0)
    for t in range(lo, hi):
        out[t] = 0.0
        for h in range(heads):
            own, most = logits[rows[t], heads + h], np.float32(-np.inf)
            for e in range(indptr[t], indptr[t + 1]):
                s = logits[source[e], h] + own
                s = s if s > 0 else slope * s
                alpha[e, h] = s
                most = max(most, s)
            total = np.float32(0.0)
            for e in range(indptr[t], indptr[t + 1]):
                a = np.exp(alpha[e, h] - most)
                alpha[e, h] = a
                total += a
            into = out[t, h * width : (h + 1) * width]
            for e in range(indptr[t], indptr[t + 1]):
                a = alpha[e, h] / total
                if drops:
                    factor = factors[e * heads + h]
                    if factor == 0:
                        alpha[e, h] = -a
                        continue
                alpha[e, h] = a
                row = z[source[e], h * step : h * step + width]
                w = a * factor
                for c in range(width):
                    into[c] += w * row[c]


@njit(nogil=True, cache=True, fastmath=_SUMS)
def _dot(x, y):
    total = np.float32(0.0)
    for c in range(len(x)):
        total += x[c] * y[c]
    return total


@njit(nogil=True, cache=True)
def _attend_logits(back, own, alpha, g, z, step, logits, indptr, source, rows, slope, grow, lo, hi):
    """back (E, H) <- the gradient of each edge's logit, own (T, H) <- the sum over a target's edges, for lo .. hi."""
    heads = alpha.shape[1]
    width = g.shape[1] // heads
    for t in range(lo, hi):
        for h in range(heads):
            mean = np.float32(0.0)
            row = g[t, h * width : (h + 1) * width]
            for e in range(indptr[t], indptr[t + 1]):
                d = np.float32(0.0)
                if alpha[e, h] > 0:
                    d = grow * _dot(row, z[source[e], h * step : h * step + width])
                    mean += alpha[e, h] * d
                back[e, h] = d
            total = np.float32(0.0)
            for e in range(indptr[t], indptr[t + 1]):
                d = abs(alpha[e, h]) * (back[e, h] - mean)
                if logits[source[e], h] + logits[rows[t], heads + h] <= 0:
                    d *= slope
                back[e, h] = d
                total += d
            own[t, h] = total


@njit(nogil=True, cache=True)
def _attend_back(dz, dlogits, back, alpha, g, step, indptr, edge, target, grow, lo, hi):
    """dz[lo:hi] (M, ...), dlogits[lo:hi, :H] <- the gradients of each source, from the edges that leave it."""
    heads = alpha.shape[1]
    width = g.shape[1] // heads
    for i in range(lo, hi):
        dz[i] = 0.0
        dlogits[i, :heads] = 0.0
        for k in range(indptr[i], indptr[i + 1]):
            e = edge[k]
            for h in range(heads):
                dlogits[i, h] += back[e, h]
                if alpha[e, h] > 0:
                    w = grow * alpha[e, h]
                    into = dz[i, h * step : h * step + width]
                    row = g[target[k], h * width : (h + 1) * width]
                    for c in range(width):
                        into[c] += w * row[c]


@njit(nogil=True, cache=True)
def _turn(indptr, source, size):
    """The same edges by source: borders (M + 1,), and of each its number and its target, in the order of targets."""
    borders = np.zeros(size + 1, np.int64)
    for e in range(len(source)):
        borders[source[e] + 1] += 1
    borders = np.cumsum(borders)
    at = borders[:-1].copy()
    edge, target = np.empty_like(source), np.empty_like(source)
    for t in range(len(indptr) - 1):
        for e in range(indptr[t], indptr[t + 1]):
            edge[at[source[e]]] = e
            target[at[source[e]]] = t
            at[source[e]] += 1
    return borders, edge, target


def fits(*tensors: Tensor) -> bool:
    """Whether the kernels read these: on the CPU, and nobody traces."""
    return all(t.device.type == "cpu" for t in tensors) and not torch.compiler.is_compiling()


@dataclass(frozen=True)
class Edges:
    """Edges onto T of M tokens, for the kernels: target t is token `rows[t]` and has edges `indptr[t]:indptr[t + 1]`,
    from tokens `source` (E,), of `size` tokens M."""

    indptr: Ints
    source: Ints
    rows: Ints
    size: int

    @cached_property
    def outgoing(self) -> tuple[Ints, Ints, Ints]:
        """The same edges by source: borders (M + 1,), and of each its number and its target."""
        found: tuple[Ints, Ints, Ints] = _turn(self.indptr, self.source, self.size)
        return found

    def shares(self, borders: Ints, width: int) -> list[int]:
        """Runs of targets or of sources, one a thread, with about as many edges each. An addition is little work."""
        return balanced(borders, threads(len(self.source) * width, ENOUGH))


def gathered(z: Tensor | Chain, edges: Edges, scale: Tensor | None = None, own: float = 0.0) -> Chain:
    """Sum over incoming edges, and `own` times the target's row: (T, C) of z (M, C). With `scale` (M,) an edge counts
    scale[source] scale[target]. Differentiable in z, in float32 whatever z is."""
    return Chain.of(z).then(_Gathered(edges, scale, own))


class _Gathered(Stage):
    def __init__(self, edges: Edges, scale: Tensor | None, own: float):
        weights = np.empty(0, np.float32) if scale is None else scale.float().numpy()
        self.edges, self.how = edges, (weights, np.float32(own))

    def shape(self, given: Shape) -> Shape:
        return len(self.edges.rows), given[1]

    def forward(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Any]:
        edges, out = self.edges, empty((len(self.edges.rows), x.shape[1]), np.float32)
        args = out, x.numpy(), edges.indptr, edges.source, edges.rows, *self.how
        each(lambda lo, hi: _sum(*args, lo, hi), edges.shares(edges.indptr, x.shape[1]))
        return torch.from_numpy(out), None

    def backward(
        self, kept: Any, grad: Tensor, weights: Sequence[Tensor], wants: Sequence[bool]
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        edges, g = self.edges, grad.numpy()
        borders, _, target = edges.outgoing
        dz = empty((edges.size, g.shape[1]), np.float32)
        args = dz, g, borders, target, edges.rows, *self.how
        each(lambda lo, hi: _sum_back(*args, lo, hi), edges.shares(borders, g.shape[1]))
        return torch.from_numpy(dz), ()


def attended(
    z: Tensor, logits: Tensor, edges: Edges, heads: int, *, slope: float, p: float = 0.0, shared: bool = False
) -> Tensor:
    """Mean over incoming edges by attention (Velickovic et al., GAT, ICLR 2018, equations 1 to 6): (T, H C).

    z: (M, H C), of which each head reads columns of its own; with `shared` (M, C), which all read, so that their
    products can follow the mean. logits: (M, 2 H), of each token as a source, then as a target. slope: of the leaky
    rectifier. p: dropout of the weights. Differentiable in z and logits, in float32 whatever they are.
    """
    kept = threshold(p) if p else 65536
    out: Tensor = _Attended.apply(z.float(), logits.float(), edges, heads, slope, kept, shared)
    return out


class _Attended(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, logits: Tensor, edges: Edges, heads: int, slope: float, kept: int, shared: bool
    ) -> Tensor:
        z, logits = z.detach().contiguous(), logits.detach().contiguous()
        step = 0 if shared else z.shape[1] // heads
        out = empty((len(edges.rows), z.shape[1] * (heads if shared else 1)), np.float32)
        alpha = np.empty((len(edges.source), heads), np.float32)
        factors = np.ones(0 if kept == 65536 else alpha.size, np.float32)
        if len(factors):
            grow = np.float32(65536 / kept)
            drop(factors, factors, 0, -(-alpha.size // RUN), *key_words(draw_key()), np.uint64(kept), grow)
        args = out, alpha, z.numpy(), step, logits.numpy(), edges.indptr, edges.source, edges.rows
        how = np.float32(slope), factors
        each(lambda lo, hi: _attend(*args, *how, lo, hi), edges.shares(edges.indptr, out.shape[1]))
        ctx.save_for_backward(z, logits)
        ctx.alpha, ctx.step, ctx.edges = alpha, step, edges
        ctx.how = np.float32(slope), np.float32(65536 / kept)
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, logits = (part.numpy() for part in ctx.saved_tensors)
        alpha, step, edges, (slope, grow) = ctx.alpha, ctx.step, ctx.edges, ctx.how
        g = grad.contiguous().numpy()
        back, own = np.empty_like(alpha), np.empty((len(g), alpha.shape[1]), np.float32)
        args = back, own, alpha, g, z, step, logits, edges.indptr, edges.source, edges.rows, slope, grow
        each(lambda lo, hi: _attend_logits(*args, lo, hi), edges.shares(edges.indptr, g.shape[1]))
        borders, edge, target = edges.outgoing
        dz, dlogits = empty(z.shape, np.float32), np.zeros_like(logits)
        dlogits[edges.rows, own.shape[1] :] = own
        to = dz, dlogits, back, alpha, g, step, borders, edge, target, grow
        each(lambda lo, hi: _attend_back(*to, lo, hi), edges.shares(borders, g.shape[1]))
        return torch.from_numpy(dz), torch.from_numpy(dlogits), *[None] * 5
