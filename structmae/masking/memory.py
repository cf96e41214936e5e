"""Memory for large results, used again when they are gone.

Most of a fast pass over fresh memory is the system mapping and clearing it, page by page, on a
virtual machine above all. So blocks from 1 MB on go back to a short list when the last array on them dies, and the next
result of about that size takes one from there. At most LIMIT bytes wait on the list; `clear` lets them go.
"""

import threading
import weakref
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

LEAST = 1 << 20  # bytes from which on a block is kept; below it the allocator does as well
LIMIT = 1 << 29  # bytes kept for later, in all

_free: list[NDArray[np.uint8]] = []
_lock = threading.Lock()


def empty(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """As np.empty: an array of this shape and dtype with anything in it, in C order."""
    kind = np.dtype(dtype)
    count = shape if isinstance(shape, int | np.integer) else prod(shape)
    size = int(count) * kind.itemsize
    if size < LEAST:
        return np.empty(shape, kind)
    loan = _Loan(_take(size))
    return np.asarray(loan)[:size].view(kind).reshape(shape)


class _Loan:
    """What the arrays on a block hold, not the block itself: it dies with the last of them."""

    def __init__(self, block: NDArray[np.uint8]) -> None:
        self.__array_interface__ = block.__array_interface__
        weakref.finalize(self, _give, block).atexit = False


def clear() -> None:
    """Lets go of all memory that waits to be used again."""
    _free.clear()


def _take(size: int) -> NDArray[np.uint8]:
    with _lock:
        for index in range(len(_free) - 1, -1, -1):
            if size <= len(_free[index]) <= 2 * size:
                return _free.pop(index)
        if _free:
            _free.pop(0)  # of another size: the oldest makes room
    step = 1 << max(size.bit_length() - 4, 0)  # an eighth at most is wasted, and sizes that vary a little fit
    return np.empty(-(-size // step) * step, np.uint8)


def _give(block: NDArray[np.uint8]) -> None:
    """Runs whenever a collection does, so it takes no lock: appending needs none."""
    if sum(map(len, _free)) + len(block) <= LIMIT:
        _free.append(block)
