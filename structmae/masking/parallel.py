"""Several threads over one draw: plain threads over kernels that release the GIL.

Numba's own parallel loops would need a second compilation of each kernel, run on the main thread only (its workqueue
layer is not thread-safe) and never after a fork (GNU OpenMP aborts). Plain threads have none of that, at a
latency that only large draws are worth.
"""

import os
import threading
from collections.abc import Callable
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

BIG = 100_000  # units below which waking threads costs more than it saves
ALONE = 4_000_000  # tokens below which one pass over their codes does too


class _Workers:
    """Daemon threads that wait for work: a queue and no futures, for latency is what small draws feel."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[tuple[Callable[[int, int], None], int, int, SimpleQueue[BaseException | None]]] = (
            SimpleQueue()
        )
        self.number = 0

    def grow(self, number: int) -> None:
        while self.number < number:
            threading.Thread(target=self._work, name="structmae-masking", daemon=True).start()
            self.number += 1  # after, so that a thread that could not start is not waited for

    def _work(self) -> None:
        while True:
            task, lo, hi, done = self.jobs.get()
            try:
                task(lo, hi)
            except BaseException as error:
                done.put(error)
            else:
                done.put(None)


_workers: dict[int, _Workers] = {}  # by process, since threads do not outlive a fork


def threads(work: int, least: int = BIG) -> int:
    """How many threads to use for `work` units: Numba's count (numba.set_num_threads), or 1 for few."""
    return int(numba.get_num_threads()) if work > least else 1


def each(task: Callable[[int, int], Any], borders: list[int]) -> None:
    """task(lo, hi) for each run between borders: the first here, the others on threads. Raises what a task raises."""
    runs = list(pairwise(borders))
    if not runs:
        return
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    if len(runs) > 1:
        workers = _workers.setdefault(os.getpid(), _Workers())
        workers.grow(len(runs) - 1)
        for lo, hi in runs[1:]:
            workers.jobs.put((task, lo, hi, done))
    try:
        task(*runs[0])
    finally:  # the others write to the same arrays: none may be left behind
        errors = [done.get() for _ in runs[1:]]
    for error in errors:
        if error is not None:
            raise error


def even(size: int, parts: int) -> list[int]:
    """Borders of `parts` runs of about as many out of `size`."""
    return [size * part // parts for part in range(parts + 1)]


def balanced(ptr: NDArray[np.int64], parts: int) -> list[int]:
    """Borders of runs of strata ptr (S+1,) that hold about as many units each."""
    if parts == 1:
        return [0, len(ptr) - 1]
    inner = np.searchsorted(ptr, ptr[-1] * np.arange(1, parts) // parts).tolist()
    return sorted({0, *inner, len(ptr) - 1})
