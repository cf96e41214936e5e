"""Work that is done here, or in several processes, and handed over as it gets done."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, TypeVar

from measure import quiet

Item, Result = TypeVar("Item"), TypeVar("Result")


def done(
    work: Callable[..., Result], items: Sequence[Item], *how: Any, jobs: int, fits: Callable[[Item], bool]
) -> Iterator[tuple[Item, Result]]:
    """`work(item, *how)` of every item that `fits` when its turn comes, so many at once: as they end."""
    if jobs == 1:
        for item in items:
            if fits(item):
                yield item, work(item, *how)
        return
    context = multiprocessing.get_context("spawn")  # a fork would take OpenMP's threads along, half of them dead
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=quiet) as pool:
        queue, running = deque(items), dict[Future[Result], Item]()
        try:
            while queue or running:
                while queue and len(running) < jobs:
                    item = queue.popleft()
                    if fits(item):
                        running[pool.submit(work, item, *how)] = item
                for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                    yield running.pop(future), future.result()
        finally:
            pool.shutdown(cancel_futures=True)
