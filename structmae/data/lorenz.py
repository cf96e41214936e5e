"""`lorenz96`: 40 coupled channels on a ring, simulated. The settings stay fixed, so that results can be compared."""

import numpy as np
from numpy.typing import NDArray

from structmae.data.series import SeriesSchema
from structmae.data.series_build import SeriesDraft

CHANNELS, FORCING, STEP, ROWS, BURN_IN, SEED = 40, 8.0, 0.05, 6000, 1000, 0
HORIZONS = (6, 12, 24)
_AFTER, _BEFORE, _SECOND_BEFORE = (np.roll(np.arange(CHANNELS), shift) for shift in (-1, 1, 2))


def lorenz96() -> SeriesDraft:
    """6,000 steps of dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + 8, 40 channels, after 1,000 of burn-in.

    Runge-Kutta of order 4 in float64 with steps of 0.05, from 8 with normal noise of deviation 0.01, seed 0.

    Returns:
        A draft with values (6000, 40) float32, channels x0..x39.
    """
    x = FORCING + 0.01 * np.random.default_rng(SEED).standard_normal(CHANNELS)
    values = np.empty((ROWS, CHANNELS), np.float32)
    for row in range(-BURN_IN, ROWS):
        x = _step(x)
        if row >= 0:
            values[row] = x
    channels = tuple(f"x{index}" for index in range(CHANNELS))
    schema = SeriesSchema(channels, "array")
    return SeriesDraft("lorenz96", "lorenz96", values, channels, schema, period=1, horizons=HORIZONS)


def _step(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """One step of Runge-Kutta of order 4."""
    one = _slope(x)
    two = _slope(x + STEP / 2 * one)
    three = _slope(x + STEP / 2 * two)
    four = _slope(x + STEP * three)
    return x + STEP / 6 * (one + 2 * two + 2 * three + four)


def _slope(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return (x[_AFTER] - x[_SECOND_BEFORE]) * x[_BEFORE] - x + FORCING
