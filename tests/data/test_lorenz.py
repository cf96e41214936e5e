import hashlib

import numpy as np
from numpy.typing import NDArray

from structmae.data import load_series
from structmae.data.lorenz import lorenz96

# Additions and products of float64, one at a time, are the same on every machine; so are numpy's normal draws.
FIRST = [0.700320839881897, -1.354619026184082, 2.5187559127807617, 7.958030700683594]
GOLDEN = "8bce28fbab19e4803594b31dbbc8deba042f47a107846664802f71c4f5556463"


def derivative(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + 8, one channel at a time."""
    n = x.size
    return np.array([(x[(i + 1) % n] - x[i - 2]) * x[i - 1] - x[i] + 8.0 for i in range(n)])


def test_the_settings_stay_fixed() -> None:
    series = load_series("lorenz96")
    assert series.values.shape == (6000, 40)
    assert series.values.dtype == np.float32
    assert series.channels == tuple(f"x{index}" for index in range(40))
    assert {key: part.tolist() for key, part in series.split.items()} == {
        "train": [0, 4200], "validation": [4200, 4800], "test": [4800, 6000],
    }  # fmt: skip
    assert (series.horizons, series.period, series.stamps) == ((6, 12, 24), 1, None)
    np.testing.assert_array_equal(series.values[0, :4], np.float32(FIRST))
    assert hashlib.sha256(series.values.tobytes()).hexdigest() == GOLDEN
    assert load_series("LORENZ96").fingerprint() == series.fingerprint()
    assert series.spec == {"data": "lorenz96"}


def test_the_slope_is_that_of_the_equation() -> None:
    from structmae.data.lorenz import _slope

    x = np.random.default_rng(0).normal(size=40)
    np.testing.assert_allclose(_slope(x), derivative(x), rtol=1e-13)


def test_a_step_is_of_fourth_order() -> None:
    from structmae.data import lorenz

    x = lorenz96().values[100].astype(np.float64)
    fine = x.copy()
    with np.errstate(all="raise"):
        for _ in range(1000):  # Euler in much smaller steps
            fine += lorenz.STEP / 1000 * derivative(fine)
    assert np.abs(lorenz._step(x) - fine).max() < 0.02
    assert np.abs(x + lorenz.STEP * derivative(x) - fine).max() > 0.2


def test_the_attractor_has_its_known_moments() -> None:
    # Mean 2.34 and deviation 3.64 of F = 8, as measured by Lorenz and Emanuel (1998).
    values = lorenz96().values
    assert abs(values.mean() - 2.34) < 0.1
    assert abs(values.std() - 3.64) < 0.1
