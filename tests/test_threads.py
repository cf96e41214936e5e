"""Counts of threads: in a process of its own, since Numba starts its threads once."""

import json
import os
import subprocess
import sys

import numba
import pytest
import torch

import structmae
from structmae.errors import UsageError
from structmae.threads import SMALL, counts, thread_limit, worth

FRESH = """
import json, os
import torch
torch.set_num_threads(1)
torch.ones(2).sum()
"""
needs_two = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")


def fresh(code, env):
    env = {**env, "OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}
    return json.loads(subprocess.check_output([sys.executable, "-W", "ignore", "-c", FRESH + code], env=env, text=True))


@needs_two
def test_numba_may_start_and_torch_keeps_its_threads(offline_environment):
    code = """
from structmae.threads import counts, thread_limit
started = counts()
with thread_limit(2):
    inside = counts()
    torch.ones(2).sum()
print(json.dumps([started, inside, counts(), torch.get_num_threads()]))
"""
    assert fresh(code, offline_environment) == [[1, 2], [2, 2], [1, 2], 1]


@needs_two
def test_a_run_takes_the_number_that_torch_has(offline_environment):
    """Which it has afterwards as well, with Numba started in between."""
    code = """
import structmae
settings = {"train.epochs": 1, "encoder.hidden": 8, "encoder.heads": 2}
run = structmae.pretrain("karate", settings=settings, progress=False)
print(json.dumps([run.config["threads"], torch.get_num_threads()]))
"""
    assert fresh(code, offline_environment) == [1, 1]


@pytest.mark.parametrize("wanted", [1, 3])
def test_a_limit_is_for_both_and_ends(wanted):
    before = counts()
    with thread_limit(wanted):
        assert torch.get_num_threads() == wanted
        assert numba.get_num_threads() == min(wanted, numba.config.NUMBA_NUM_THREADS)
    assert counts() == before
    with pytest.raises(KeyError), thread_limit(wanted):
        _ = {}["a key"]
    assert counts() == before


@needs_two
def test_a_run_of_small_products_takes_one_thread(monkeypatch):
    from structmae import train

    seen, epoch = [], train._epoch
    monkeypatch.setattr(train, "_epoch", lambda *args: (seen.append(counts()), epoch(*args))[1])
    for hidden in (8, 2048):  # 34 nodes of karate: 34 x hidden x hidden
        settings = {"train.epochs": 1, "encoder.hidden": hidden, "encoder.heads": 2}
        structmae.pretrain("karate", settings=settings, threads=2, progress=False)
    assert seen == [(1, 1), (2, min(2, numba.config.NUMBA_NUM_THREADS))]


def test_few_threads_end():
    before = counts()
    with pytest.raises(KeyError) as error, worth(SMALL - 1):
        raise KeyError(counts())
    assert error.value.args == ((1, 1),)
    assert counts() == before
    with worth(SMALL):
        assert counts() == before


@pytest.mark.parametrize("wanted", [0, -3, 1.5, "x", True])
def test_what_is_no_number_of_threads_is_refused(wanted):
    with pytest.raises(UsageError, match=r"threads=.*from 1 on"):
        structmae.pretrain("karate", threads=wanted, progress=False)


def test_what_is_no_device_is_refused():
    with pytest.raises(UsageError, match=r"device='tpu'.*cuda"):
        structmae.pretrain("karate", device="tpu", progress=False)
