"""Known figures of ETTh1 (rows 8640/11520/14400): what the simple methods score, every test window counted."""

import os

import pytest
from series_cases import real

from structmae.data.series_loading import load_series
from structmae.evaluate import forecasting
from structmae.evaluate.forecasting import naive, nlinear
from structmae.evaluate.heads import Parts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("STRUCTMAE_DATA" not in os.environ, reason="needs the data sets of $STRUCTMAE_DATA"),
]
HORIZONS = (96, 192, 336, 720)


@pytest.fixture(scope="module")
def panel():
    series = load_series("etth1")
    return real(series)[0], Parts.of(series.split)


def test_naive_forecasts(panel):
    errors = naive(*panel, HORIZONS, 24, 24)
    assert [errors["last_value"][h].windows for h in HORIZONS] == [2785, 2689, 2545, 2161]
    assert [round(errors["last_value"][h].mse, 3) for h in HORIZONS] == [1.294, 1.325, 1.330, 1.335]
    assert [round(errors["seasonal_naive"][h].mse, 3) for h in HORIZONS] == [0.512, 0.581, 0.650, 0.655]


@pytest.mark.parametrize(
    ("look_back", "known"), [(336, (0.370, 0.403, 0.426, 0.430)), (512, (0.363, 0.396, 0.419, 0.428))]
)
def test_nlinear(panel, look_back, known, monkeypatch):
    monkeypatch.setattr(forecasting, "LOOK_BACKS", ())
    errors, look_backs = nlinear(*panel, HORIZONS, look_back)
    assert set(look_backs.values()) == {look_back}
    assert [errors[h].mse for h in HORIZONS] == pytest.approx(known, abs=0.003)
