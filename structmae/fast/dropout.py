"""Dropout whose mask is a function of a key and the element's number, drawn in parallel and never stored.

torch draws its mask by one generator on one thread, which costs more than the product that the dropout follows. Here a
key is drawn from torch's generator once a call, and what an element does is decided by Philox (rng.py) of the key and
its number: any thread can make any part of the mask, and the backward pass makes it again instead of reading it.

An element uses 16 bits, so that a block of Philox serves 8: the probability of being kept is a multiple of 2**-16, and
what is kept is scaled by exactly that one, so that expectations are exact.

Element i is number r = i % 128 of run i // 128. A run is 16 blocks, `16 * run + r % 16`, and uses half `r // 16` of
each: then 16 blocks side by side, which is how the processor makes them, are 16 neighbours.
"""
# mypy: allow-untyped-defs

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor, nn

from structmae.masking.memory import empty
from structmae.masking.parallel import each, even, threads
from structmae.masking.rng import HALF, LOW, philox

RUN = 128  # elements of a run
_LANES = np.uint64(16)
_ZERO = np.uint64(0)
_BITS16, _LOW16 = np.uint64(16), np.uint64(0xFFFF)


def draw_key() -> int:
    """63 bits that name a mask, from torch's generator: a run that is resumed draws the same ones."""
    return int(torch.empty((), dtype=torch.int64).random_())


def threshold(p: float) -> int:
    """Of 2**16 values, how many mean that an element is kept, where it is dropped with probability 0 < p < 1."""
    return min(max(round((1 - p) * 65536), 1), 65535)


def key_words(key: int) -> tuple[np.uint64, np.uint64]:
    """A key as kernels take it: its low and its high 32 bits."""
    return np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32 & 0xFFFFFFFF)


@njit(nogil=True, cache=True, inline="always")
def halves(block, k0, k1):
    """The 8 numbers of 16 bits of a block, for kernels. All uint64."""
    w0, w1, w2, w3 = philox(block & LOW, block >> HALF, _ZERO, _ZERO, k0, k1)
    return (
        w0 & _LOW16, w0 >> _BITS16, w1 & _LOW16, w1 >> _BITS16, w2 & _LOW16, w2 >> _BITS16, w3 & _LOW16, w3 >> _BITS16
    )  # fmt: skip


@njit(nogil=True, cache=True, inline="always")
def keep(k0, k1, index, kept):
    """Whether element `index` is kept, for kernels that want single ones; a whole block is made for each. All uint64,
    `kept` as `threshold` gives it. With `kept` / 2**16 as the probability, what is kept is to be divided by it."""
    place = index & np.uint64(127)
    w0, w1, w2, w3 = philox(
        (index >> np.uint64(7)) * _LANES + (place & np.uint64(15)) & LOW,
        (index >> np.uint64(7)) * _LANES >> HALF,
        _ZERO,
        _ZERO,
        k0,
        k1,
    )
    which = place >> np.uint64(5)  # the word; then which half of it
    low = w0 if which == 0 else w1
    high = w2 if which == 2 else w3
    word = low if which < 2 else high
    return (word >> (_BITS16 * (place >> np.uint64(4) & np.uint64(1)))) & _LOW16 < kept


@njit(nogil=True, cache=True)
def drop_run(out, x, run, k0, k1, kept, scale):
    """out (128,) <- x (128,) scaled where it is kept, 0 elsewhere, as run number `run`."""
    zero = scale * 0
    first = np.uint64(run) * _LANES
    for i in range(16):
        a, b, c, d, e, f, g, h = halves(first + np.uint64(i), k0, k1)
        out[i] = x[i] * scale if a < kept else zero
        out[i + 16] = x[i + 16] * scale if b < kept else zero
        out[i + 32] = x[i + 32] * scale if c < kept else zero
        out[i + 48] = x[i + 48] * scale if d < kept else zero
        out[i + 64] = x[i + 64] * scale if e < kept else zero
        out[i + 80] = x[i + 80] * scale if f < kept else zero
        out[i + 96] = x[i + 96] * scale if g < kept else zero
        out[i + 112] = x[i + 112] * scale if h < kept else zero


@njit(nogil=True, cache=True)
def drop(out, x, lo, hi, k0, k1, kept, scale):
    """Runs lo .. hi of out (n,) <- x (n,) where it is kept, times scale; 0 elsewhere."""
    n = len(x)
    for run in range(lo, min(hi, n // 128)):
        drop_run(out[128 * run : 128 * run + 128], x[128 * run : 128 * run + 128], run, k0, k1, kept, scale)
    if 128 * hi > n:  # the last run is short
        last = 128 * (n // 128)
        part = np.zeros(128, x.dtype)
        for i in range(last, n):  # not by slices, whose error message takes a second to compile
            part[i - last] = x[i]
        drop_run(part, part, n // 128, k0, k1, kept, scale)
        for i in range(last, n):
            out[i] = part[i - last]


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """x with each element 0 with probability p and else divided by that of being kept; x itself in evaluation.

    As torch.nn.functional.dropout, which it calls where x is not on the CPU or is being compiled. The mask depends on
    torch's generator and the numbers of the elements (row-major) alone: not on dtype, strides or threads.
    """
    if not training or p == 0:
        return x
    if p == 1 or not _covered(x):
        return F.dropout(x, p, training)
    return masked(x, draw_key(), threshold(p))


def masked(x: Tensor, key: int, kept: int) -> Tensor:
    """Dropout by a mask that is known by its key; `kept` as `threshold` gives it."""
    dropped: Tensor = _Dropout.apply(x, key, kept)
    return dropped


class Dropout(nn.Module):
    """`dropout` as a module, in the place of torch.nn.Dropout."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


_KERNELS = {
    torch.float32: np.float32,
    torch.float64: np.float64,
}  # dtypes that the kernels take; others by way of float32


def _covered(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.is_floating_point() and not torch.compiler.is_compiling()


def _dropped(x: Tensor, key: int, kept: int) -> Tensor:
    kind = _KERNELS.get(x.dtype)
    if kind is None:
        return _dropped(x.float(), key, kept).to(x.dtype)
    given = x.detach().contiguous().view(-1).numpy()
    out = empty(given.shape, kind)
    how = *key_words(key), np.uint64(kept), kind(65536 / kept)
    borders = even(-(-given.size // RUN), threads(given.size))
    each(lambda lo, hi: drop(out, given, lo, hi, *how), borders)
    return torch.from_numpy(out).view(x.shape)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, key: int, kept: int) -> Tensor:
        ctx.mask = key, kept
        return _dropped(x, key, kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Dropout.apply(grad, *ctx.mask), None, None
