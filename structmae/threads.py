"""How many threads torch, Numba and BLAS use, together."""

from collections.abc import Iterator
from contextlib import contextmanager

import numba
import torch

from structmae.errors import UsageError


def counts() -> tuple[int, int]:
    """The threads of torch and of Numba, in this thread.

    Numba starts its own when it is first asked for their number. Where they are OpenMP's, that sets the number for
    torch too, whose library is the same: it is put back.
    """
    of_torch = torch.get_num_threads()
    of_numba = int(numba.get_num_threads())
    torch.set_num_threads(of_torch)
    return of_torch, of_numba


# Multiply-adds of a step's largest product, below which handing parts of a step to a second thread costs more than it
# takes over.
SMALL = 1 << 21


def threads_of(wanted: int | None) -> int:
    """So many, or as many as torch has. Raises UsageError for what is no number of threads."""
    if wanted is None:
        return counts()[0]
    if type(wanted) is not int or wanted < 1:
        raise UsageError(f"threads={wanted!r}: must be a whole number from 1 on; leave it out for all cores")
    return wanted


@contextmanager
def worth(work: int) -> Iterator[None]:
    """One thread of torch and Numba while open, where the largest product has few multiply-adds."""
    before = counts()
    if work < SMALL:
        _set(1, 1)
    try:
        yield
    finally:
        _set(*before)


@contextmanager
def thread_limit(wanted: int) -> Iterator[None]:
    """Torch, Numba, and the BLAS of NumPy and scikit-learn, on `wanted` threads while open."""
    from threadpoolctl import threadpool_limits

    before = counts()
    _set(wanted, min(wanted, numba.config.NUMBA_NUM_THREADS))
    try:
        with threadpool_limits(wanted, user_api="blas"):
            yield
    finally:
        _set(*before)


def _set(of_torch: int, of_numba: int) -> None:
    torch.set_num_threads(of_torch)
    numba.set_num_threads(of_numba)
