"""Features that are mostly zeros, as a first layer reads them: some rows hidden, some elements dropped, times a weight.

A bag of words has some 1% of its columns in use. Its product with a weight is a sum over those, and only the rows that
a learned token replaces are dense: with dropout each is the token times a mask of its own.
"""
# mypy: allow-untyped-defs

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from structmae.fast.dropout import RUN, draw_key, drop_run, keep, key_words, masked, threshold
from structmae.fast.products import low, times
from structmae.masking.memory import empty
from structmae.masking.parallel import balanced, each, even, threads
from structmae.masking.strategies import Act
from structmae.masking.torch import TorchPlan

WIDE = 64  # columns from which on a product over zeros is worth avoiding
FULL = 0.2  # share of non-zeros from which on a dense product is as fast
TOKEN, ZERO = -1, -2  # in the place of a row's number


@njit(nogil=True, cache=True)
def _compress(indptr, indices, data, of, k0, k1, kept, width, out_indptr, out_indices, out_data):
    """The entries of the rows `of`, one after another, without those that dropout takes; what is kept is scaled."""
    drops, grow = kept < np.uint64(65536), np.float32(65536.0 / kept)
    at = 0
    for i in range(len(of)):
        if of[i] >= 0:
            for e in range(indptr[of[i]], indptr[of[i] + 1]):
                if drops and not keep(k0, k1, np.uint64(i * width + indices[e]), kept):
                    continue
                out_indices[at] = indices[e]
                out_data[at] = data[e] * grow
                at += 1
        out_indptr[i + 1] = at


@njit(nogil=True, cache=True)
def _product(out, weight, indptr, indices, data, lo, hi):
    """out[lo:hi] (M, K) <- rows of the sparse matrix times weight (P, K)."""
    for i in range(lo, hi):
        into = out[i]
        into[:] = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            v, row = data[e], weight[indices[e]]
            for c in range(len(into)):
                into[c] += v * row[c]


@njit(nogil=True, cache=True)
def _product_back(dweight, g, indptr, indices, data, lo, hi):
    """Columns lo .. hi of dweight (P, K) += the sparse matrix transposed times g (M, K)."""
    for i in range(len(indptr) - 1):
        row = g[i, lo:hi]
        for e in range(indptr[i], indptr[i + 1]):
            v, into = data[e], dweight[indices[e], lo:hi]
            for c in range(len(into)):
                into[c] += v * row[c]


@njit(nogil=True, cache=True)
def _masks(out, places, k0, k1, kept, grow, lo, hi):
    """out[lo:hi] (n, P) <- dropout's factors, 0 or grow, of rows `places` of a matrix of P columns."""
    width = out.shape[1]
    ones, part = np.ones(RUN, np.float32), np.empty(RUN, np.float32)
    for n in range(lo, hi):
        begin = places[n] * width
        for run in range(begin // RUN, (begin + width - 1) // RUN + 1):
            drop_run(part, ones, run, k0, k1, kept, grow)
            # A loop, for the error message of assigning to a slice takes a second to compile.
            for at in range(max(begin, run * RUN), min(begin + width, run * RUN + RUN)):
                out[n, at - begin] = part[at - run * RUN]


@dataclass(frozen=True, eq=False)
class Compressed:
    """A sparse matrix (rows, width) by rows, float32."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    data: NDArray[np.float32]
    width: int

    @cached_property
    def lengths(self) -> Tensor:
        """(rows,) the root of each row's sum of squares."""
        squares = np.add.reduceat(np.append(self.data, 0).astype(np.float64) ** 2, self.indptr[:-1])
        squares[np.diff(self.indptr) == 0] = 0.0  # reduceat gives the next row's first
        return torch.from_numpy(np.sqrt(squares).astype(np.float32))


def compressed(values: Tensor) -> Compressed | None:
    """(M, P) values by their non-zeros; None where a dense product does as well, or gradients go to them."""
    suits = values.device.type == "cpu" and values.dtype is torch.float32 and not values.requires_grad
    if not suits or values.dim() != 2 or values.shape[1] < WIDE:
        return None
    if int(torch.count_nonzero(values)) > FULL * values.numel():
        return None
    array = values.contiguous().numpy()
    rows, columns = array.nonzero()
    indptr = np.searchsorted(rows, np.arange(len(array) + 1)).astype(np.int64)
    return Compressed(indptr, columns, array[rows, columns], array.shape[1])


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Features (M, P) that are never made dense: row i is row `of[i]` of `matrix`; where that is TOKEN it is `token`
    (1, P), which gradients go to, where it is ZERO zeros. `mask` is that of dropout: its key, and how many of 2**16
    values keep an element."""

    matrix: Compressed
    of: NDArray[np.int64]
    token: Tensor | None = None
    mask: tuple[int, int] | None = None

    @classmethod
    def whole(cls, matrix: Compressed) -> "SparseRows":
        """All rows as they are."""
        return cls(matrix, np.arange(len(matrix.indptr) - 1))

    def __len__(self) -> int:
        return len(self.of)

    @property
    def width(self) -> int:
        return self.matrix.width

    def hidden(self, plan: TorchPlan, token: Tensor) -> "SparseRows":
        """As `structmae.masking.torch.apply`: as the encoder sees them."""
        of = self.of.copy()
        of[plan.with_act(Act.RANDOM).numpy()] = self.of[plan.taken.numpy()]
        of[plan.with_act(Act.TOKEN).numpy()] = TOKEN
        for act in (Act.ZERO, Act.DROP):
            of[plan.with_act(act).numpy()] = ZERO
        return replace(self, of=of, token=token)

    def dropped(self, p: float, training: bool) -> "SparseRows":
        """After dropout, with the mask that `dropout` would give the dense rows."""
        return replace(self, mask=(draw_key(), threshold(p))) if training and p else self

    def product(self, weight: Tensor) -> Tensor:
        """(M, K): rows times weight (K, P) transposed. Differentiable in weight and token."""
        token = weight.new_zeros(0) if self.token is None else self.token
        out: Tensor = _Product.apply(weight, token, self)
        return out

    def dense(self) -> Tensor:
        """(M, P) the same as a tensor, for layers that read no others. Differentiable in token."""
        rows, columns = (
            np.repeat(np.arange(len(self.matrix.indptr) - 1), np.diff(self.matrix.indptr)),
            self.matrix.indices,
        )
        every = torch.zeros(len(self.matrix.indptr) - 1, self.width)
        every[torch.from_numpy(rows), torch.from_numpy(columns)] = torch.from_numpy(self.matrix.data)
        of = torch.from_numpy(self.of)
        x = every[of.clamp_min(0)].masked_fill((of < 0)[:, None], 0.0)
        if self.token is not None:
            x = torch.where((of == TOKEN)[:, None], self.token.reshape(1, -1), x)
        return x if self.mask is None else masked(x, *self.mask)

    @property
    def lengths(self) -> Tensor:
        """(M,) the root of each row's sum of squares, of rows that are all the matrix's own."""
        return self.matrix.lengths[torch.from_numpy(self.of)]

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        """What kernels ask for: the key's words, and how many of 2**16 values keep an element."""
        key, kept = (0, 65536) if self.mask is None else self.mask
        return *key_words(key), np.uint64(kept)

    @cached_property
    def entries(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Of the rows that are the matrix's own, what is left: borders (M + 1,), columns, values."""
        counts = np.diff(self.matrix.indptr)[self.of[self.of >= 0]]
        total, indptr = int(counts.sum()), np.zeros(len(self) + 1, np.int64)
        indices, data = np.empty(total, np.int64), np.empty(total, np.float32)
        given = self.matrix.indptr, self.matrix.indices, self.matrix.data, self.of
        _compress(*given, *self._key, self.width, indptr, indices, data)
        return indptr, indices[: indptr[-1]], data[: indptr[-1]]

    @cached_property
    def replaced(self) -> Tensor:
        """(n,) the places of the token."""
        return torch.from_numpy((self.of == TOKEN).nonzero()[0])

    @cached_property
    def factors(self) -> Tensor | None:
        """(n, P) what dropout multiplies the token by, in each of its places."""
        if self.mask is None or not len(self.replaced):
            return None
        out = empty((len(self.replaced), self.width), np.float32)
        args = out, self.replaced.numpy(), *self._key, np.float32(65536 / self.mask[1])
        each(lambda lo, hi: _masks(*args, lo, hi), even(len(out), threads(out.size)))
        return torch.from_numpy(out)


def dense(rows: Any) -> Tensor:
    """A tensor of what may be none yet: SparseRows, or a linear map that is left to do (cosine.py)."""
    found: Tensor = rows if isinstance(rows, Tensor) else rows.dense()
    return found


def product(rows: SparseRows, weight: Tensor) -> Tensor:
    """(M, K): rows, but for those that the token replaces, times weight (P, K), contiguous. Not differentiable."""
    out = empty((len(rows), weight.shape[1]), np.float32)
    indptr, indices, data = rows.entries
    args = out, weight.numpy(), indptr, indices, data
    each(lambda lo, hi: _product(*args, lo, hi), balanced(indptr, threads(len(indices) * weight.shape[1])))
    return torch.from_numpy(out)


def product_back(rows: SparseRows, g: Tensor, dweight: Tensor) -> None:
    """dweight (P, K) += rows transposed times g (M, K), both contiguous. Threads share the columns, by cache lines."""
    indptr, indices, data = rows.entries
    lines = -(-g.shape[1] // 16)
    borders = [min(16 * line, g.shape[1]) for line in even(lines, min(threads(len(indices) * g.shape[1]), lines))]
    args = dweight.numpy(), g.numpy(), indptr, indices, data
    each(lambda lo, hi: _product_back(*args, lo, hi), borders)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, token: Tensor, rows: SparseRows) -> Tensor:
        across = weight.detach().float().t().contiguous()
        made, at = product(rows, across), rows.replaced
        ctx.rows, ctx.low = rows, low()
        ctx.save_for_backward(across, token)
        if len(at) and rows.factors is None:
            made[at] = token.reshape(1, -1).float() @ across
        elif len(at) and rows.factors is not None:
            made[at] = times(rows.factors, token.reshape(-1, 1) * across, ctx.low)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (across, token), rows = ctx.saved_tensors, ctx.rows
        g, dacross, dtoken = grad.contiguous(), torch.zeros_like(across), None
        product_back(rows, g, dacross)
        if len(rows.replaced):
            mine = g[rows.replaced]
            if rows.factors is None:
                total = mine.sum(0)
                dacross.addr_(token.reshape(-1), total)
                dtoken = (across @ total).reshape(token.shape)
            else:
                both = times(rows.factors.t(), mine, ctx.low)
                dacross.addcmul_(token.reshape(-1, 1), both)
                dtoken = (across * both).sum(1).reshape(token.shape)
        elif token.numel():
            dtoken = torch.zeros_like(token)
        return dacross.t(), dtoken, None
