"""Where chance comes from: Philox4x32-10, a block cipher used as a random function of a key and a counter.

J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC11). A value depends on nothing but its key and
counter: it is the same in any order, on any thread, after any resume, and no generator's state is read or advanced.

The rank of a token is word `local % 4` of Philox with

    key      (seed, stream)
    counter  (item id low 32 bits, item id high 32 bits, visit, local // 4)

where `local` is the token's position within its item.
"""
# mypy: allow-untyped-defs

import operator
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numba import njit

from structmae.errors import UsageError

VALIDATION = 0xFFFFFFFF
"""The visit of every validation draw. Training visits (epochs) are below it."""


class Purpose(IntEnum):
    """What a stream of numbers is for. Part of the contract of a draw: never renumber, only add (up to 15)."""

    HIDE = 0  # which groups are chosen
    SHARE = 1  # how a share of a few tokens is rounded
    SWAP = 2  # which of the chosen get RANDOM, KEEP or the rest
    SOURCE = 3  # whose content a RANDOM token gets
    REMASK = 4  # which groups are hidden from the decoder
    NEGATIVES = 5  # sampled non-edges
    ORDER = 6  # the order of items in an epoch
    BUDGET = 7  # how many of each stratum stay visible; the counter is the stratum's number within its item


def word(name: str, value: Any, bits: int = 32) -> int:
    """`value` as an int of `bits` bits. Raises UsageError where it is no integer or out of range."""
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < 1 << bits:
        raise UsageError(f"{name} = {value!r}: must be an integer from 0 to 2**{bits} - 1; choose another")
    return number


def stream(view: int = 0, token_set: int = 0, purpose: Purpose = Purpose.HIDE, draw: int = 0) -> int:
    """The second key word: which of many independent sequences under one seed.

    Bits, high to low: view 4, token_set 8, purpose 4, draw 16. `draw` in plan.py takes draws of 15 bits: with the 16th
    set they are the SHARE, SWAP, SOURCE and BUDGET of a re-mask. Raises UsageError where a part does not fit.
    """
    high = word("view", view, 4) << 28 | word("token_set", token_set, 8) << 20
    return high | word("purpose", purpose, 4) << 16 | word("draw", draw, 16)


# Everything is uint64 that holds 32 bits: one multiply gives both halves of a product, and Numba would turn a
# mix of uint64 and int64 into float64, so the constants are typed too. LLVM makes it SIMD (vpmuludq).
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


# Inlined by Numba, not left to LLVM: only then is a loop over it SIMD, 5 times faster. Numba's disk cache of kernels.py
# does not notice a change here: after one, delete the .nbi files.
@njit(nogil=True, cache=True, inline="always")
def philox(c0, c1, c2, c3, k0, k1):
    """Four 32-bit words from a counter and a key; for kernels. Arguments and results are uint64 below 2**32."""
    for _ in range(10):
        a = _M0 * c0
        b = _M1 * c2
        c0, c1, c2, c3 = (b >> HALF) ^ c1 ^ k0, b & LOW, (a >> HALF) ^ c3 ^ k1, a & LOW
        k0 = (k0 + _W0) & LOW
        k1 = (k1 + _W1) & LOW
    return c0, c1, c2, c3


def philox4x32(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 from Python: four counter words and two key words to four words, all below 2**32.

    Raises UsageError where a word does not fit.
    """
    words = [np.uint64(word("counter or key word", w)) for w in (*counter, *key)]
    if len(counter) != 4 or len(key) != 2:
        raise UsageError(f"{len(counter)} counter and {len(key)} key words: Philox4x32 takes 4 and 2; pad with 0")
    w0, w1, w2, w3 = philox(*words)
    return int(w0), int(w1), int(w2), int(w3)
