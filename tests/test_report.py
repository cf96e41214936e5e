"""Pictures of series say what the data and the model say."""

import sys

import numpy as np
import pandas as pd
import pytest

import structmae
from structmae.errors import StructmaeError, UsageError
from structmae.report import plot_forecast

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

SETTINGS = {
    "encoder.hidden": 8,
    "encoder.heads": 2,
    "encoder.layers": 1,
    "train.epochs": 1,
    "train.items": 32,
}
HOURS = pd.date_range("2024-03-01", periods=300, freq="h")


def table():
    rng = np.random.default_rng(0)
    values = np.sin(2 * np.pi * np.arange(300)[:, None] / [24, 12]) * [1, 5] + [0, 30]
    return pd.DataFrame(values + 0.1 * rng.standard_normal((300, 2)), columns=["a", "b"], index=HOURS)


def trained(recipe, **more):
    return structmae.pretrain(table(), recipe, settings={**SETTINGS, **more}, progress=False)


@pytest.fixture(scope="module")
def run():
    return trained("patchtst", **{"tokens.context": 48, "tokens.segment": 6})


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def lines(ax):
    """Those that show values, by label."""
    return {line.get_label(): np.asarray(line.get_ydata()) for line in ax.lines if len(line.get_ydata())}


@pytest.mark.parametrize("channel", [0, "b"])
def test_a_window_with_what_is_hidden_and_rebuilt(run, channel):
    ax = run.plot_reconstruction(start=200, channel=channel)
    place = 1 if channel == "b" else 0
    shown = lines(ax)
    np.testing.assert_allclose(shown["true"], table().iloc[200:248, place], rtol=1e-4, atol=1e-4)
    rebuilt = np.isfinite(shown["rebuilt"])
    assert rebuilt.sum() == 18  # 40% of 8 segments of 6 rows
    assert (rebuilt.reshape(8, 6).all(1) == rebuilt.reshape(8, 6).any(1)).all()
    shaded = sum(patch.get_width() for patch in ax.patches)
    assert shaded == pytest.approx(18 / 24)  # days
    low = ax.patches[0].get_x() * 24
    ends = matplotlib.dates.date2num(HOURS.to_numpy()[200:248][rebuilt]) * 24
    assert low == pytest.approx(ends.min() - 0.5)
    # An untrained network is poor, and in the units of the data all the same.
    assert abs(np.nanmean(shown["rebuilt"]) - table().iloc[200:248, place].mean()) < 3 * table().iloc[:, place].std()
    assert ax.get_title(loc="left").startswith(f"table, {'ab'[place]}: 38% hidden, mse of the hidden ")
    assert ax.get_xlabel() == "time"


def test_the_same_window_has_the_same_picture(run):
    one, two = (lines(run.plot_reconstruction(start=100)) for _ in range(2))
    np.testing.assert_array_equal(one["rebuilt"], two["rebuilt"])
    assert not run.model.training
    first = lines(run.plot_reconstruction())["true"]  # the first test window
    np.testing.assert_allclose(first, table().iloc[240:288, 0], rtol=1e-4, atol=1e-4)


def test_what_is_missing_is_not_drawn(run):
    gaps = table()
    gaps.iloc[210:220, 0] = np.nan
    shown = lines(run.plot_reconstruction(gaps, start=200))
    assert np.flatnonzero(np.isnan(shown["true"])).tolist() == list(range(10, 20))
    short = run.plot_reconstruction(table().iloc[:30])  # filled up before its first row
    assert np.isnan(lines(short)["true"]).sum() == 18
    assert short.get_xlabel() == "row"


def test_a_spectrogram_has_three_images():
    run = trained("spectrogram", **{"tokens.context": 96, "tokens.spectrum": 8, "tokens.bands": 2})
    axes = run.plot_reconstruction(start=100)
    images = [np.ma.filled(ax.images[0].get_array().astype(float), np.nan) for ax in axes]
    assert [image.shape for image in images] == [(4, 12)] * 3
    tokenizer = run.encoder.tokenizer
    frames = (table()["a"].to_numpy()[100:196] - tokenizer.mean[0].item()) / tokenizer.deviation[0].item()
    expected = np.log1p(np.abs(np.fft.rfft(frames.reshape(12, 8))))[:, :-1].T
    np.testing.assert_allclose(images[0], expected, rtol=1e-3, atol=1e-4)
    hidden = np.isnan(images[1])
    assert hidden.sum() == round(0.7 * 24) * 2
    np.testing.assert_array_equal(images[2][~hidden], images[0][~hidden])
    assert np.isfinite(images[2]).all()
    assert (images[2][hidden] != images[0][hidden]).all()
    _, panels = pyplot.subplots(3)
    assert run.plot_reconstruction(ax=panels)[0] is panels[0]
    with pytest.raises(UsageError, match="1 axes; a spectrogram has three images"):
        run.plot_reconstruction(ax=panels[0])


def test_recordings_are_shown_by_their_number():
    x = np.random.default_rng(0).standard_normal((12, 2, 30)).astype(np.float32)
    run = structmae.pretrain(
        (x, ["u", "v"] * 6), "patchtst", settings={**SETTINGS, "tokens.segment": 5}, progress=False
    )
    np.testing.assert_allclose(
        lines(run.plot_reconstruction(start=3, channel=1))["true"], x[3, 1], rtol=1e-4, atol=1e-5
    )
    with pytest.raises(UsageError, match=r"start=12: .* has recordings 0 to 11"):
        run.plot_reconstruction(start=12)


def test_a_forecast_after_its_history(run):
    ax = run.plot_forecast(horizon=12, channels=["b"])
    before, after = [line.get_ydata() for line in ax.lines[:2]]
    np.testing.assert_allclose(before, table()["b"].iloc[-36:], rtol=1e-5)
    ahead = run.forecast(horizon=12)
    np.testing.assert_allclose(after, ahead["b"], rtol=1e-5)
    assert ax.lines[1].get_xdata()[0] == (HOURS[-1] + pd.Timedelta(hours=1)).to_datetime64()
    _, own = pyplot.subplots()
    assert run.plot_forecast(horizon=12, ax=own) is own


@pytest.mark.parametrize("shape", ["index", "column", "long", "multiindex", "periods", "none", "file"])
def test_any_layout_of_history_and_forecast(run, shape, tmp_path):
    made = {
        "index": lambda f: f,
        "column": lambda f: f.reset_index(names="date"),
        "long": lambda f: f.rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y"),
        "multiindex": lambda f: f.rename_axis("ds").stack().rename_axis(["ds", "unique_id"]).to_frame("y"),
        "periods": lambda f: f.to_period("h"),
        "none": lambda f: f.reset_index(drop=True),
        "file": lambda f: f.reset_index(names="date"),
    }[shape](table())
    ahead = run.forecast(made, 12)
    if shape == "file":
        made.to_csv(tmp_path / "history.csv", index=False)
        ahead.to_csv(tmp_path / "ahead.csv", index=False)
        made, ahead = pd.read_csv(tmp_path / "history.csv"), pd.read_csv(tmp_path / "ahead.csv")
    ax = plot_forecast(made, ahead, rows=20)
    shown = [line.get_ydata() for line in ax.lines if line.get_label() in ("a", "b")]
    np.testing.assert_allclose(shown, table().iloc[-20:].T, rtol=1e-4, atol=1e-4)
    x = [line.get_xdata() for line in ax.lines[:2]]
    assert len(x[1]) == 12
    assert x[1][0] - x[0][-1] == x[0][-1] - x[0][-2]


def test_refusals(run, karate, tiny, monkeypatch):
    with pytest.raises(UsageError, match="start=253: a window has 48 rows of 300, so 0 to 252"):
        run.plot_reconstruction(start=253)
    with pytest.raises(UsageError, match="channel='c': table has 2: a, b"):
        run.plot_reconstruction(channel="c")
    ahead = run.forecast(horizon=4)
    with pytest.raises(UsageError, match="no channel 'c' in both tables"):
        plot_forecast(table(), ahead, channels=["c"])
    graphs = structmae.pretrain(karate, settings=tiny, progress=False)
    with pytest.raises(UsageError, match="graphmae reads graph data"):
        graphs.plot_forecast()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (lambda: plot_forecast(table(), ahead), run.plot_reconstruction):
        with pytest.raises(StructmaeError, match=r"pip install \"structmae\[plots\]\""):
            draw()
