"""Several threads: every part is done, errors come out, and neither forks nor callers at once disturb it."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from masking_cases import cycle, on_threads, run

from structmae.masking import Spec, count, draw, layout, parallel
from structmae.masking.parallel import balanced, each, even, threads
from structmae.masking.strategies import STRATEGIES


@given(st.integers(0, 1000), st.integers(1, 20))
def test_even_runs(size, parts):
    borders = even(size, parts)
    assert (borders[0], borders[-1], len(borders)) == (0, size, parts + 1)
    assert np.ptp(np.diff(borders)) <= 1


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 9))
def test_balanced_runs(sizes, parts):
    """All strata once; no run has more than its part and one stratum."""
    ptr = np.cumsum([0, *sizes])
    borders = balanced(ptr, parts)
    assert borders[0] == 0
    assert borders[-1] == len(sizes)
    assert all(type(b) is int for b in borders)
    assert parts == 1 or sorted(set(borders)) == borders
    assert len(borders) <= parts + 1
    if parts > 1:
        assert (np.diff(ptr[borders]) <= ptr[-1] / parts + max(sizes, default=0) + 1).all()


@pytest.fixture(params=["torch's threads", "threads of its own"])
def carrier(request, monkeypatch):
    """Whose threads take the runs."""
    import torch  # loads OpenMP  # noqa: F401

    if request.param == "threads of its own":
        monkeypatch.setattr(parallel, "_team", lambda process: None)
    elif parallel._team(os.getpid()) is None:
        pytest.skip("torch has no GNU OpenMP here")


@pytest.mark.usefixtures("carrier")
@pytest.mark.parametrize("parts", [1, 2, 5, 40])
def test_each_run_is_done_once(parts):
    done = np.zeros(40, int)

    def task(lo, hi):
        done[lo:hi] += 1

    each(task, even(40, parts))
    assert (done == 1).all()
    each(task, [])
    each(task, [3])
    assert (done == 1).all()


@pytest.mark.usefixtures("carrier")
@pytest.mark.parametrize("bad", [{0}, {2}, {0, 3}, {1, 2, 3}])
def test_an_error_comes_out_after_all_are_done(bad):
    """They write to the caller's arrays: none may be left behind."""
    done = []

    def task(lo, hi):
        if lo in bad:
            raise KeyError(lo)
        time.sleep(0.02 * lo)
        done.append(lo)

    with pytest.raises(KeyError) as caught:
        each(task, [0, 1, 2, 3, 4])
    assert caught.value.args[0] == min(bad)
    assert set(done) == {0, 1, 2, 3} - bad
    done.clear()
    bad = set()
    each(task, [0, 1, 2, 3, 4])  # the workers live on
    assert set(done) == {0, 1, 2, 3}


def test_a_thread_that_can_not_start_is_not_waited_for(monkeypatch):
    workers = parallel._Workers()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("can't start")))
        with pytest.raises(RuntimeError, match="can't start"):
            workers.grow(1)
    assert workers.number == 0
    monkeypatch.setattr(parallel, "_workers", {parallel.os.getpid(): workers})
    monkeypatch.setattr(parallel, "_team", lambda process: None)
    each(lambda lo, hi: None, [0, 1, 2])
    assert workers.number == 1


def test_a_forked_process_has_no_team():
    """The threads of its parent are gone: it would wait for them for ever."""
    code = """
import os, torch
from structmae.masking.parallel import each
torch.ones(500, 500) @ torch.ones(500, 500)
each(lambda lo, hi: None, [0, 1, 2])
child = os.fork()
if not child:
    done = []
    each(lambda lo, hi: done.append(lo), [0, 1, 2])
    os._exit(0 if sorted(done) == [0, 1] else 1)
print(os.waitpid(child, 0)[1])
"""
    assert run(code, "-W", "ignore") == ["0"]


def test_few_units_are_done_on_one_thread():
    with on_threads(7):
        assert (threads(0), threads(1), threads(5, least=5)) == (1, 7, 1)
    assert threads(parallel.BIG) == 1
    assert threads(parallel.BIG + 1) == numba.get_num_threads()


SIZE = 400_000
BIG = [
    layout([0, SIZE], weight=np.arange(SIZE) % 9, adjacency=cycle(SIZE)),
    layout(np.minimum(np.arange(0, 90_000 * 5, 5), SIZE), weight=np.ones(SIZE)),  # with empty items at the end
    layout([0, 0, 65_537, 65_537, 65_539, SIZE], valid=np.arange(SIZE) % 7 > 0, weight=np.ones(SIZE)),
    layout([0, 300_000, SIZE], stratum=np.arange(SIZE) % 3, group=np.arange(SIZE) // 2, weight=np.ones(SIZE)),
    layout(np.arange(0, SIZE + 1, 400), shape=(20, 20), weight=np.ones(SIZE)),
    layout(
        np.arange(0, SIZE + 1, SIZE // 5),
        shape=(2, 100, 400),
        stratum=np.arange(SIZE) % 3 + np.arange(SIZE) // SIZE * 2,
        valid=np.arange(SIZE) % 7 > 0,
        weight=np.ones(SIZE),
    ),
]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("at", BIG, ids=repr)
@pytest.mark.parametrize("share", [0, 0.1])
def test_threads_do_not_change_a_plan(at, strategy, share):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core: Numba has one thread")
    if (at.neighbours is None and strategy in ("block", "walk")) or (at.shape is None and strategy == "rectangle"):
        return
    spec = Spec(strategy, 0.3, random=share, keep=share)
    before, plans = numba.get_num_threads(), []
    try:
        for number in (1, 2):
            numba.set_num_threads(number)
            assert threads(at.size) == number
            plans.append(draw(at, spec, seed=1, visit=2))
    finally:
        numba.set_num_threads(before)
    with ThreadPoolExecutor(1) as pool:
        plans.append(pool.submit(draw, at, spec, seed=1, visit=2).result())
    for name in ("code", "source", "kept", "hidden", "visible", "restore"):
        one, *others = [getattr(plan, name) for plan in plans]
        assert all(np.array_equal(one, other) for other in others)
    units = np.append(plans[0].code, 6)[at.units.lead] if at.units.lead is not None else plans[0].code
    borders = at.units.ptr[at.units.item_strata] if strategy == "dirichlet" else at.units.ptr
    assert (units <= 4).sum() == count(spec.ratio, np.diff(borders)).sum()


@pytest.mark.parametrize("size", [5000, 150_000])
def test_plans_made_at_once_by_many_threads(size):
    at, spec = layout(np.arange(0, size + 1, 50)), Spec(random=0.1)
    with on_threads(2, large=1 << 18), ThreadPoolExecutor(4) as pool:
        plans = list(pool.map(lambda v: draw(at, spec, seed=0, visit=v), range(24)))
    for visit, plan in enumerate(plans):
        alone = draw(at, spec, seed=0, visit=visit)
        assert np.array_equal(plan.code, alone.code)
        assert np.array_equal(plan.source, alone.source)


FORK = """
import multiprocessing, zlib
import numba
from masking_cases import cycle
from structmae.masking import Spec, draw, layout, parallel
def look(pipe):
    found = []
    for strategy in ("uniform", "span", "walk"):
        plan = draw(at, Spec(strategy, random=0.1), seed=0, visit=0)
        found.append([zlib.crc32(a) for a in (plan.code, plan.source, plan.kept, plan.hidden, plan.restore)])
    pipe.send((found, parallel.threads(at.size), len(parallel._workers)))
if __name__ == "__main__":
    at = layout([0, 300_000], adjacency=cycle(300_000))
    ours, other = multiprocessing.Pipe()
    look(other)
    here = ours.recv()
    assert here[1:] == (2, 1), here
    for _ in range(3):
        child = multiprocessing.get_context("fork").Process(target=look, args=(other,))
        child.start()
        assert ours.poll(60), "the child hangs"
        there = ours.recv()
        assert there == (here[0], 2, 2), there  # with threads of its own
        child.join()
        assert child.exitcode == 0
    print("done")
"""


def test_after_a_fork():
    """As data loaders do: threads do not outlive it, and the child has its own."""
    assert run(FORK, "-W", "ignore", NUMBA_NUM_THREADS="2") == ["done"]
