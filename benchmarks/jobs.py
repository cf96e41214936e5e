"""Work that is done here, or in several processes, and handed over as it gets done."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from measure import quiet
from tqdm.auto import tqdm

from structmae.errors import StructmaeError, UsageError

INTERRUPTED = 130  # exit code of the package's own Interrupted, which it takes torch to import
Item, Result = TypeVar("Item"), TypeVar("Result")


def exit_code(script: str, work: Callable[[], int]) -> int:
    """What `work` gives, or that of the error which ends it: said in one line."""
    try:
        return work()
    except StructmaeError as error:
        said = str(error)
        if error.exit_code == INTERRUPTED:
            said = f"{said.partition(': go on')[0]}; the same command goes on"
        elif isinstance(error, UsageError):
            said += f" (see {script} --help)"
        print(f"{script}: {said}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{script}: interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED


def begin() -> None:
    """In a process of the pool: a signal that no training catches, to save its state, is the end of it, in order where
    it can be. Where it can't, which is where C has called Python, as a compiler does, it is the end all the same."""
    quiet()
    tqdm.set_lock(threading.RLock())  # one of processes would outlive this one, and be complained of
    sys.unraisablehook = _unraisable
    threading.Thread(target=_orphaned, daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))


def _orphaned() -> None:
    """Ends a process whose pool was killed: it would wait for work for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _unraisable(lost: Any) -> None:
    if isinstance(lost.exc_value, SystemExit):
        os._exit(int(lost.exc_value.code or 0))
    sys.__unraisablehook__(lost)


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started in here ignores SIGINT until it begins, where Python would print where it is."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def done(
    work: Callable[..., Result], items: Sequence[Item], *how: Any, jobs: int, fits: Callable[[Item], bool]
) -> Iterator[tuple[Item, Result]]:
    """`work(item, *how)` of every item that `fits` when its turn comes, so many at once: as they end. Raises
    StructmaeError where a process dies."""
    if jobs == 1:
        for item in items:
            if fits(item):
                yield item, work(item, *how)
        return
    context = multiprocessing.get_context("spawn")  # a fork would take OpenMP's threads along, half of them dead
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=begin) as pool:
        queue, running = deque(items), dict[Future[Result], Item]()
        try:
            while queue or running:
                while queue and len(running) < jobs:
                    item = queue.popleft()
                    if fits(item):
                        with _deaf():
                            running[pool.submit(work, item, *how)] = item
                for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                    yield running.pop(future), future.result()
        except BrokenProcessPool:
            raise StructmaeError(
                "a process ended, perhaps for lack of memory: lower --jobs; the same goes on"
            ) from None
        except BaseException:  # also where nobody wants the rest; those that train save what they have
            for child in multiprocessing.active_children():
                if child.pid:
                    os.kill(child.pid, signal.SIGTERM)
            raise
        finally:
            pool.shutdown(cancel_futures=True)
