"""Several threads over one draw: kernels that release the GIL, on the threads that torch has.

Numba's own parallel loops would need a second compilation of each kernel, run on the main thread only (its workqueue
layer is not thread-safe) and never after a fork (GNU OpenMP aborts). Threads of our own lose half of their time after
each of torch's operations, whose OpenMP threads go on spinning for some ms in wait for the next. So the runs are given
to that same team, where there is one; a hand-over costs some 25 us. Elsewhere (no GNU OpenMP loaded yet, another
system, a forked process, whose team is gone) plain threads take them.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
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
    if work <= least:
        return 1
    _start(os.getpid())
    return int(numba.get_num_threads())


@cache
def _start(process: int) -> None:
    """Has Numba start its threads. Where they are OpenMP's that sets the number of torch's too: it is put back."""
    team = _team(process)
    before = None if team is None else team.omp_get_max_threads()
    numba.get_num_threads()
    if team is not None:
        team.omp_set_num_threads(before)


def each(task: Callable[[int, int], Any], borders: list[int]) -> None:
    """task(lo, hi) for each run between borders, the first of them here. Raises what a task raises."""
    runs = list(pairwise(borders))
    if len(runs) < 2:
        for run in runs:
            task(*run)
    elif (team := _team(os.getpid())) is not None:
        _on_team(team, task, runs)
    else:
        _on_threads(task, runs)


def _on_threads(task: Callable[[int, int], Any], runs: list[tuple[int, int]]) -> None:
    done: SimpleQueue[BaseException | None] = SimpleQueue()
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


_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_home = os.getpid()


def _team(process: int) -> Any:
    """GNU OpenMP as torch has loaded it, or None."""
    if process != _home or "torch" not in sys.modules:
        return None
    return _openmp()


@cache
def _openmp() -> Any:
    try:
        found = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD)
        found.GOMP_parallel.argtypes = [_CALLBACK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        found.GOMP_parallel.restype = None
    except (OSError, AttributeError):
        return None
    return found


def _on_team(team: Any, task: Callable[[int, int], Any], runs: list[tuple[int, int]]) -> None:
    errors: dict[int, BaseException] = {}

    def work(data: object) -> None:
        # A nested team, or a limit on threads, may be smaller than what was asked for.
        for run in range(team.omp_get_thread_num(), len(runs), team.omp_get_num_threads()):
            try:
                task(*runs[run])
            except BaseException as error:
                errors[run] = error

    call = _CALLBACK(work)
    team.GOMP_parallel(call, None, len(runs), 0)
    if errors:
        raise errors[min(errors)]


def even(size: int, parts: int) -> list[int]:
    """Borders of `parts` runs of about as many out of `size`."""
    return [size * part // parts for part in range(parts + 1)]


def balanced(ptr: NDArray[np.int64], parts: int) -> list[int]:
    """Borders of runs of strata ptr (S+1,) that hold about as many units each."""
    if parts == 1:
        return [0, len(ptr) - 1]
    inner = np.searchsorted(ptr, ptr[-1] * np.arange(1, parts) // parts).tolist()
    return sorted({0, *inner, len(ptr) - 1})
