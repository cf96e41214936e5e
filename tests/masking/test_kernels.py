"""Selection on ranks that Philox would never give (ties), bounds checks, and what importing costs."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structmae.masking import kernels

ROOT = Path(__file__).parents[2]


@settings(deadline=None)
@given(st.data())
def test_select_breaks_ties_by_position(data):
    """Few distinct ranks, so that most tie; sizes on both sides of every branch."""
    few = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4))
    sizes = data.draw(st.lists(st.one_of(st.integers(0, 30), st.integers(200, 300)), max_size=4))
    ptr = np.cumsum([0, *sizes])
    rank = np.array(few, np.uint32)[np.random.default_rng(len(sizes)).integers(0, len(few), ptr[-1])]
    k = np.array([data.draw(st.integers(0, n)) for n in sizes], np.int64)
    expected = np.full(len(rank), 5)
    for s, n in enumerate(sizes):
        best = sorted(range(n), key=lambda p: (rank[ptr[s] + p], p))[: k[s]]
        expected[[ptr[s] + p for p in best]] = 1
    assert kernels.select(rank, ptr, k, np.uint8(1), np.uint8(5)).tolist() == expected.tolist()


@pytest.mark.parametrize("n", [16, 17, 24, 25, 2048, 2049, 100_000])
@pytest.mark.parametrize("kind", ["all equal", "one apart", "low bits", "spread"])
def test_select_at_every_depth(n, kind):
    rng = np.random.default_rng(n)
    rank = {
        "all equal": np.full(n, 0xFFFFFFFF),
        "one apart": 0x80000000 - (rng.permutation(n) % 2),
        "low bits": rng.permutation(n),
        "spread": rng.integers(0, 2**32, n),
    }[kind].astype(np.uint32)
    order = np.argsort(rank, kind="stable")
    for k in (1, n // 3, n - 1):
        code = kernels.select(rank, np.array([0, n]), np.array([k]), np.uint8(1), np.uint8(0))
        assert np.array_equal(np.flatnonzero(code), np.sort(order[:k]))


def run(code, **environment):
    """A fresh interpreter's output."""
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


BOUNDS = """
import numba, numpy as np
from structmae.masking import Spec, draw, layout, kernels
@numba.njit
def outside(a):
    return a[len(a)]
try:
    outside(np.zeros(3))
except IndexError:
    print("checked")
edges = [[0], [0, 0], [0, 1], [0, 0, 1, 1, 25, 26], [0, 3000, 3001]]
for ptr in edges:
    for valid in (None, np.zeros(ptr[-1], bool), np.arange(ptr[-1]) % 3 > 0):
        for group in (None, np.arange(ptr[-1]) // 2):
            at = layout(ptr, valid=valid, group=group, set_id=np.arange(len(ptr) - 1) // 2)
            for ratio in (0, 0.3, 1):
                for scope in ("item", "batch", "set"):
                    for source in ("visible", "any"):
                        spec = Spec(ratio=ratio, random=0.5, keep=0.2, random_from=source, scope=scope)
                        plan = draw(at, spec, seed=0, visit=1, step=2)
                        plan.scored, plan.hidden, plan.visible, plan.kept, plan.restore
compiled = {name: len(k.signatures) for name, k in vars(kernels).items() if hasattr(k, "signatures")}
assert max(compiled.values()) == 1, compiled
assert not kernels.ranks_parallel.signatures and not kernels.select_parallel.signatures
print("done")
"""


def test_no_kernel_leaves_its_arrays(tmp_path):
    """With bounds checks, and a cache folder of its own: neither code may be taken for the other."""
    assert run(BOUNDS, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path)) == ["checked", "done"]


IMPORT = """
import sys
import structmae.masking
from structmae.masking import Spec, layout, Act, count
Spec(), layout([0, 3])
print("numba" in sys.modules, "torch" in sys.modules)
from structmae.masking import draw, rng, kernels
print("numba" in sys.modules, "torch" in sys.modules)
print(sum(len(k.signatures) for k in vars(kernels).values() if hasattr(k, "signatures")))
import structmae.masking.layout
print(callable(structmae.masking.layout))
"""


def test_importing_loads_and_compiles_nothing():
    assert run(IMPORT) == ["False", "False", "True", "False", "0", "True"]
