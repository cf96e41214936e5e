"""In a process of its own: importing tsai takes long and changes what other libraries do."""

import subprocess
import sys

import pytest

from structmae.evaluate import rocket

SCRIPT = """
import numpy as np
from structmae.evaluate.rocket import features
rng = np.random.default_rng(0)
x = rng.standard_normal((12, 2, 7)).astype(np.float32)
before = np.random.get_state()[1].copy()
a, b = features(x[:8], x[8:], seed=0)
assert (np.random.get_state()[1] == before).all()
assert a.shape == (8, 9996) and b.shape == (4, 9996)
assert np.array_equal(a, features(x[:8], x, seed=0, at_once=3)[1][:8])
assert features(x[:8], x[:0], seed=0)[1].shape == (0, 9996)
"""


@pytest.mark.slow
@pytest.mark.skipif(not rocket.available(), reason="needs the extra tsai")
def test_features():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
