import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from series_cases import Source, panel, waves

from structmae.evaluate.baselines import NLinear, carried, interpolated, last_value, seasonal_naive, window_mean
from structmae.evaluate.heads import Parts, fit

NAN = float("nan")


def window(*values):
    x = torch.tensor(values).view(1, 1, -1)
    return x.nan_to_num(0.0), ~x.isnan()


gappy = arrays.arrays(np.float32, (2, 3, 9), elements=st.one_of(st.just(NAN), st.floats(-9, 9, width=16)))


def test_last_value_by_hand():
    assert last_value(*window(1.0, 2.0, NAN), 3).flatten().tolist() == [2.0, 2.0, 2.0]
    assert last_value(*window(NAN, NAN), 2).flatten().tolist() == [0.0, 0.0]


def test_seasonal_naive_by_hand():
    assert seasonal_naive(*window(9.0, 1.0, 2.0, 3.0, 4.0), 5, 2).flatten().tolist() == [3.0, 4.0, 3.0, 4.0, 3.0]
    # Place 0 is missing in the last season, place 1 in all.
    assert seasonal_naive(*window(1.0, NAN, NAN, NAN), 3, 2).flatten().tolist() == [1.0, 1.0, 1.0]
    assert seasonal_naive(*window(5.0, NAN, 7.0, NAN), 2, 2).flatten().tolist() == [7.0, 7.0]


@given(gappy, st.integers(1, 12))
def test_a_season_of_one_row_is_the_last_value(raw, horizon):
    x = torch.from_numpy(raw)
    pair = x.nan_to_num(0.0), ~x.isnan()
    assert torch.equal(seasonal_naive(*pair, horizon, 1), last_value(*pair, horizon))


@given(gappy)
def test_imputation_is_that_of_numpy(raw):
    x = torch.from_numpy(raw)
    observed = ~x.isnan()
    line, last, mean = (
        made(x.nan_to_num(0.0), observed).reshape(-1, 9) for made in (interpolated, carried, window_mean)
    )
    for row, seen, a, b, c in zip(raw.reshape(-1, 9), observed.reshape(-1, 9).numpy(), line, last, mean, strict=True):
        at = np.flatnonzero(seen)
        if not len(at):
            assert not torch.stack([a, b, c]).any()
            continue
        np.testing.assert_allclose(a, np.interp(np.arange(9), at, row[at]), atol=1e-5)
        held = [row[at[max(0, np.searchsorted(at, place, side="right") - 1)]] for place in range(9)]
        np.testing.assert_allclose(b, held)
        np.testing.assert_allclose(c, np.full(9, row[at].astype(float).mean()), atol=1e-5)


def test_nlinear_finds_a_linear_process():
    # A noiseless wave obeys y[t + 1] = 2 cos(w) y[t] - y[t - 1] + constant, so two rows tell all that follow.
    time = np.arange(400)[:, None]
    values = 3.0 + np.sin(2 * np.pi * time / 17 + np.array([0.0, 1.0]))
    source = Source(panel(values))
    head = fit(source, NLinear(source, 12), Parts.of(source.series.split), [8])[8]
    assert head.validation < 1e-4


def test_nlinear_reads_zeros_where_nothing_was_observed():
    values = waves()
    values[3, 0] = NAN
    rows, level = NLinear(Source(panel(values)), 4).rows(torch.tensor([0]))
    assert rows.shape == (2, 5)
    assert float(rows[0, 3]) == 0.0
    assert float(level[0, 0]) == float(np.float32(values[2, 0]))
    assert rows[:, 4].tolist() == [1.0, 1.0]
