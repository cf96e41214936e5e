"""Memory that is used again: never while somebody still reads it."""

import gc
import threading

import numpy as np
import pytest
import torch

from structmae.masking import Spec, draw, layout, memory, take, to_torch


@pytest.fixture(autouse=True)
def nothing_kept():
    gc.collect()
    memory.clear()
    yield
    memory.clear()


def test_a_dead_result_leaves_its_memory_to_the_next():
    first = memory.empty((1 << 18, 2), np.int64)
    where = first.ctypes.data
    first[:] = 7
    other = memory.empty((1 << 18, 2), np.int64)
    assert other.ctypes.data != where  # the first is alive
    part = first[5:, 0]
    del first
    gc.collect()
    assert memory.empty((1 << 18, 2), np.int64).ctypes.data != where  # a view of it is
    tensor = torch.from_numpy(part)
    del part
    gc.collect()
    assert memory.empty((1 << 18, 2), np.int64).ctypes.data != where  # a tensor on the view is
    assert bool((tensor == 7).all())
    del tensor
    gc.collect()
    memory._free[:-1] = []
    again = memory.empty((1 << 18, 2), np.int64)
    assert again.ctypes.data == where
    assert again.flags.writeable
    assert again.flags.c_contiguous


def test_small_or_too_different_sizes_are_new():
    assert memory.empty(10, np.uint8).base is None
    large = memory.empty(8 << 20, np.uint8)
    del large
    assert len(memory._free) == 1
    assert memory.empty(2 << 20, np.uint8).size == 2 << 20  # not out of one four times as large, which makes room
    assert memory.empty((0, 5), np.int64).shape == (0, 5)


def test_no_more_than_the_limit_is_kept(monkeypatch):
    monkeypatch.setattr(memory, "LIMIT", 5 << 20)
    results = [memory.empty(2 << 20, np.uint8) for _ in range(4)]
    del results
    gc.collect()
    assert sum(map(len, memory._free)) <= 5 << 20
    assert memory._free


def test_plans_that_are_alive_stay_what_they_are():
    """Many at once, on several threads, each compared with one drawn when nothing is kept."""
    at, spec, wrong = layout(np.arange(0, 1_200_001, 300)), Spec(ratio=0.6, act="drop"), []
    x = torch.arange(1_200_000.0)[:, None].expand(-1, 2).contiguous()
    expected = [draw(at, spec, seed=0, visit=visit).hidden.sum() for visit in range(4)]

    def work(visit):
        for _ in range(6):
            plan = draw(at, spec, seed=0, visit=visit)
            rows = take(x, to_torch(plan).visible)
            if plan.hidden.sum() != expected[visit] or not torch.equal(rows[:, 0].long(), to_torch(plan).visible):
                wrong.append(visit)

    workers = [threading.Thread(target=work, args=(visit,)) for visit in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
