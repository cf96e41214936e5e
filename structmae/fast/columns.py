"""Statistics of columns, for batch normalisation (Ioffe and Szegedy, ICML 2015): forward and backward.

They are made in float32 over blocks of rows, as what is off from the block's own mean, and in float64 over blocks (Chan
et al., The American Statistician 1983): nothing large cancels, and sums do not depend on threads.
"""
# mypy: allow-untyped-defs

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor, nn

from structmae.fast.dropout import RUN
from structmae.fast.vectors import add, fused, load16, store, sub
from structmae.masking.parallel import even, threads

Floats = NDArray[np.float32]
BLOCK = RUN  # rows; a whole number of dropout's runs, whatever the width
MEAN, FACTOR, SHIFT, RATE = range(4)  # rows of `columns`: a column becomes (x - mean) * factor + shift


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that reads a single row by its running statistics, for it has no deviation of its own."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or len(x) > 1:
            return super().forward(x)
        given = self.running_mean, self.running_var, self.weight, self.bias
        return nn.functional.batch_norm(x, *given, False, 0.0, self.eps)


def reads(norm: nn.Module, rows: int) -> bool:
    """Whether `settle` does what this norm does of so many rows: by their statistics, with weights of its own."""
    if type(norm) not in (BatchNorm, nn.BatchNorm1d) or not isinstance(norm, nn.BatchNorm1d):
        return False
    usual = norm.training and norm.affine and norm.track_running_stats and norm.momentum is not None
    return usual and rows > 1 and norm.weight.dtype is torch.float32


def blocks(shape: tuple[int, ...]) -> list[int]:
    """Borders of the blocks that each thread makes, of rows (M, C)."""
    return even(-(-shape[0] // BLOCK), threads(shape[0] * shape[1]))


@njit(nogil=True, cache=True)
def moments(sums, x, lo, hi):
    """Blocks lo .. hi of sums (blocks, 3, C): a mean of its rows of x (M, C), roughly, the sum of what they are off
    from it, and of the squares of that."""
    width = x.shape[1]
    for block in range(lo, hi):
        at, first, last = 3 * width * block, block * BLOCK, min(block * BLOCK + BLOCK, len(x))
        sums[block] = 0
        for i in range(first, last):
            for c in range(0, width, 16):
                off = sub(load16(x, i * width + c), load16(x, first * width + c))
                store(sums, at + c, add(load16(sums, at + c), off))
        for c in range(width):
            sums[block, 0, c] = x[first, c] + sums[block, 0, c] / np.float32(last - first)
        for i in range(first, last):
            for c in range(0, width, 16):
                off = sub(load16(x, i * width + c), load16(sums, at + c))
                store(sums, at + width + c, add(load16(sums, at + width + c), off))
                store(sums, at + 2 * width + c, fused(off, off, load16(sums, at + 2 * width + c)))


@njit(nogil=True, cache=True)
def settle(columns, sums, n, bias, weight, shift, mean, variance, momentum, eps):
    """columns (4, C), by what `moments` found of n rows; the running `mean` and `variance`, which are those of the rows
    plus bias, move on."""
    for c in range(columns.shape[1]):
        there, total, squares = 0, 0.0, 0.0
        for block in range(len(sums)):
            many = min(BLOCK, n - there)
            off = np.float64(sums[block, 1, c])
            apart = sums[block, 0, c] + off / many - total
            squares += sums[block, 2, c] - off * off / many + apart * apart * there * many / (there + many)
            total += apart * many / (there + many)
            there += many
        squares = max(squares, 0.0)
        rate = 1 / np.sqrt(squares / n + eps)
        columns[MEAN, c], columns[FACTOR, c], columns[SHIFT, c] = total, rate * weight[c], shift[c]
        columns[RATE, c] = rate
        mean[c] += momentum * (total + bias[c] - mean[c])
        variance[c] += momentum * (squares / (n - 1) - variance[c])


def moving(norm: Any) -> tuple[Floats, Floats, float, float]:
    """What `settle` reads of a norm last; it is told that there is a batch more."""
    norm.num_batches_tracked.add_(1)
    return norm.running_mean.numpy(), norm.running_var.numpy(), norm.momentum, norm.eps


@njit(nogil=True, cache=True)
def turn(back, sums, columns, n):
    """back (2, C): with it the gradient of x is upper * factor + (x - mean) * back[0] + back[1]. `sums` (blocks, S, C)
    are of upper, and of upper times what x is off from its mean; their totals go to the first block's."""
    for c in range(back.shape[1]):
        for part in range(sums.shape[1]):
            total = 0.0
            for block in range(len(sums)):
                total += sums[block, part, c]
            sums[0, part, c] = total
        factor, rate = columns[FACTOR, c], columns[RATE, c]
        back[0, c] = -factor * rate * rate * sums[0, 1, c] / n
        back[1, c] = -factor * sums[0, 0, c] / n
