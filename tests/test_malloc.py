"""`tune_cpu`, each time in a process of its own: it cannot be undone."""

import ctypes
import json
import platform
import subprocess
import sys

import pytest

import structmae
from structmae import cli, malloc

FAULTS = """
import json, resource, threading
import torch
import structmae, structmae.pretraining

torch.set_num_threads(1)
a, b = torch.ones(10 << 20), torch.ones(10 << 20)  # 40 MiB each, above glibc's own highest threshold

def faults():
    for _ in range(12):  # small blocks may take what the first ones leave
        a + b
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        a + b
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 4

before = faults()
took = [structmae.tune_cpu(), structmae.tune_cpu()]
elsewhere = []
thread = threading.Thread(target=lambda: elsewhere.append(float((a + b).sum())))
thread.start()
thread.join()
print(json.dumps({"before": before, "took": took, "after": faults(), "elsewhere": elsewhere}))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tunes the GNU C library")
def test_large_temporaries_find_their_pages_again(offline_environment):
    """Before the call they do not: importing the package tunes nothing."""
    shown = subprocess.check_output([sys.executable, "-c", FAULTS], env=offline_environment, text=True)
    found = json.loads(shown)
    pages = (40 << 20) // 4096
    assert found["took"] == [True, True]
    assert found["before"] > pages / 10  # a tenth, for a system with larger pages
    assert found["after"] < found["before"] / 10
    assert found["elsewhere"] == [2.0 * (10 << 20)]


@pytest.mark.parametrize("missing", ["gnu_get_libc_version", "mallopt"])
def test_another_c_library_is_left_alone(monkeypatch, missing):
    class Library:
        def __getattr__(self, name):
            if name == missing:
                raise AttributeError(name)
            return lambda *arguments: 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    assert malloc.tune_cpu.__wrapped__() is False


def test_no_c_library_at_all(monkeypatch):
    def fails(name):
        raise TypeError("as on Windows")

    monkeypatch.setattr(ctypes, "CDLL", fails)
    assert malloc.tune_cpu.__wrapped__() is False


def test_commands_that_compute_tune(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(cli, "tune_cpu", lambda: calls.append(None))
    assert cli.main(["recipes"]) == cli.main(["data", "karate"]) == 0
    assert not calls
    assert cli.main(["pretrain", "--data", "no-such-data"]) == 2
    assert len(calls) == 1
    assert structmae.tune_cpu is malloc.tune_cpu
