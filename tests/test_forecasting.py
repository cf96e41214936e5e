"""`run.forecast`: what is read, which head it is, and that the table comes out as one went in."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import structmae
from structmae.data import load_series
from structmae.errors import StructmaeError, UsageError
from structmae.forecasting import lay_out

CONTEXT, ROWS, HORIZON = 48, 400, 12
SETTINGS = {
    "tokens.context": CONTEXT,
    "tokens.segment": 6,
    "encoder.hidden": 8,
    "encoder.heads": 2,
    "encoder.layers": 1,
    "train.epochs": 1,
    "train.items": 32,
}
HOURS = pd.date_range("2024-03-01", periods=ROWS, freq="h")


def planted(rows=ROWS, noise=0.05, seed=0):
    """(rows, 2): a day of 24 rows, half a day of 12 at another level and scale."""
    t = np.arange(rows)
    clean = np.stack([np.sin(2 * np.pi * t / 24), 30 + 5 * np.cos(2 * np.pi * t / 12)], 1)
    return clean + noise * np.array([1, 5]) * np.random.default_rng(seed).standard_normal(clean.shape)


def wide(rows=slice(None)):
    return pd.DataFrame(planted(), columns=["a", "b"], index=HOURS).iloc[rows]


def long(frame):
    return frame.rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y")


@pytest.fixture(scope="module")
def run():
    return structmae.pretrain(wide(), "patchtst", settings=SETTINGS, progress=False)


@pytest.fixture(scope="module")
def expected(run):
    """(HORIZON, 2) that every layout of the same values must give."""
    return run.forecast(horizon=HORIZON)


AFTER = pd.date_range(HOURS[-1], periods=HORIZON + 1, freq="h")[1:]


def test_the_index_goes_on_and_the_forecast_is_close(run, expected):
    assert isinstance(expected.index, pd.DatetimeIndex)
    assert expected.index.equals(AFTER)
    assert list(expected.columns) == ["a", "b"]
    clean = planted(ROWS + HORIZON, noise=0)[ROWS:]
    error = np.abs(expected.to_numpy() - clean).mean(0)
    assert (error < [0.1, 0.5]).all(), error
    assert expected.attrs["head"] == "a ridge on the frozen encoder, fitted on the training rows of table"
    assert expected.attrs["horizon"] == HORIZON


TABLES = {
    "index with a name": lambda f: f.rename_axis("when"),
    "column of stamps": lambda f: f.reset_index(names="date"),
    "column in the middle": lambda f: f.reset_index(names="date")[["b", "date", "a"]],
    "text stamps": lambda f: f.reset_index(names="date").astype({"date": str}),
    "a zone": lambda f: f.tz_localize("UTC").tz_convert("Asia/Tokyo"),
    "periods": lambda f: f.to_period("h"),
    "column of periods": lambda f: f.to_period("h").reset_index(names="ds"),
    "no stamps": lambda f: f.reset_index(drop=True),
    "numbers": lambda f: f.set_axis(np.arange(len(f)) * 10 + 5),
    "column of numbers": lambda f: f.reset_index(drop=True).assign(time=np.arange(len(f)) * 10 + 5),
    "numbers as names": lambda f: f.set_axis([7, 9], axis=1),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_wide_table_comes_out_as_it_went_in(run, expected, name):
    before = TABLES[name](wide())
    made = run.forecast(before, HORIZON)
    assert list(made.columns) == list(before.columns)
    assert made.index.name == before.index.name
    if name != "text stamps":
        joined = pd.concat([before, made])
        assert (joined.dtypes == before.dtypes).all()
        assert joined.index.dtype == before.index.dtype
    if "time" in made or name == "numbers":
        stamps = made.get("time", made.index)
        assert list(stamps) == list((ROWS + np.arange(HORIZON)) * 10 + 5)
    if name == "no stamps":
        assert made.index.equals(pd.RangeIndex(ROWS, ROWS + HORIZON))
    for label in ("date", "ds"):
        if label in made:
            found = made[label].dt.to_timestamp() if label == "ds" else made[label]
            assert list(found) == list(AFTER)
    values = made[[7, 9] if name == "numbers as names" else ["a", "b"]]
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


def test_a_long_table_comes_out_long(run, expected):
    table = long(wide())
    made = run.forecast(table, HORIZON)
    assert list(made.columns) == ["ds", "unique_id", "y"]
    assert (made.dtypes == table.dtypes).all()
    np.testing.assert_allclose(made.pivot(index="ds", columns="unique_id", values="y"), expected, rtol=1e-5)
    by = run.forecast(table.set_index(["unique_id", "ds"]), HORIZON)
    assert by.index.names == ["unique_id", "ds"]
    assert by["y"].tolist() == made["y"].tolist()
    other = run.forecast(table.set_index("ds"), HORIZON)
    assert other.index.name == "ds"
    assert list(other.columns) == ["unique_id", "y"]
    numbered = table.assign(unique_id=table["unique_id"].map({"a": 1, "b": 2}))
    assert run.forecast(numbered, HORIZON)["unique_id"].dtype == numbered["unique_id"].dtype


def test_channels_that_end_before_the_others_are_forecast_for_the_same_rows(run):
    table = long(wide())
    short = table[(table["unique_id"] == "a") | (table["ds"] < HOURS[-6])]
    made = run.forecast(short, HORIZON)
    assert (made.groupby("unique_id")["ds"].agg(["min", "max"]) == [AFTER[0], AFTER[-1]]).all(axis=None)
    assert made["y"].notna().all()


@pytest.mark.parametrize(
    "stamps",
    [
        pd.date_range("2024-01-01 06:00", periods=90, freq="15min"),
        pd.date_range("2024-02-20", periods=90, freq="D"),
        pd.date_range("2023-01-02", periods=90, freq="W-MON"),
        pd.date_range("2015-01-31", periods=90, freq="ME"),
        pd.date_range("2015-01-01", periods=90, freq="MS"),
        pd.date_range("2000-03-31", periods=90, freq="QE"),
        pd.date_range("2024-01-01", periods=90, freq="B"),
        pd.date_range("2024-03-25", periods=90, freq="D", tz="Europe/Berlin"),
        pd.Index(np.arange(90) * 4 - 100),
    ],
    ids=lambda stamps: str(getattr(stamps, "freqstr", "numbers")),
)
@pytest.mark.parametrize("column", [False, True])
def test_the_rows_after_a_cut_are_the_rows_that_were_cut(stamps, column):
    """Whatever the clock: the first 70 rows, and a forecast that knows, are the whole table."""
    whole = pd.DataFrame({"x": np.arange(90.0), "y2": np.arange(90.0) ** 2}, index=stamps.rename("time"))
    whole = whole.reset_index() if column else whole
    series = load_series(whole.iloc[:70])
    made = lay_out(series, whole.iloc[70:][["x", "y2"]].to_numpy())
    if column:
        made.index += 70
    pd.testing.assert_frame_equal(made, whole.iloc[70:], check_freq=False, check_index_type=False)


def test_a_table_in_a_file_and_back(run, expected, tmp_path):
    for table, name in ((wide().reset_index(names="date"), "wide"), (long(wide()), "long")):
        for suffix, write, read in (
            ("csv", lambda t, p: t.to_csv(p, index=False), lambda p: pd.read_csv(p, parse_dates=[0])),
            ("parquet", lambda t, p: t.to_parquet(p), pd.read_parquet),
        ):
            path = tmp_path / f"{name}.{suffix}"
            write(table, path)
            made = run.forecast(path, HORIZON)
            assert list(made.columns) == list(table.columns)
            value = made[["a", "b"]] if name == "wide" else made.pivot(index="ds", columns="unique_id", values="y")
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)
            ahead = tmp_path / f"ahead.{suffix}"
            write(made, ahead)
            np.testing.assert_allclose(read(ahead).iloc[:, -1], made.iloc[:, -1])


def test_arrays_have_row_numbers(run, expected):
    made = run.forecast(wide().to_numpy(), HORIZON)
    assert made.index.equals(pd.RangeIndex(ROWS, ROWS + HORIZON))
    np.testing.assert_allclose(made, expected, rtol=1e-5)
    alone = run.forecast(wide()["a"], HORIZON)  # each series is read on its own
    assert list(alone.columns) == ["a"]


def test_only_the_last_window_is_read(run):
    """Of data with a head of the run's own rows: what lies before the window, and how much of it, is of no account."""
    base = wide(slice(200, 250))
    made = run.forecast(base, HORIZON)
    assert made.attrs["head"].endswith("the run's own data, table")
    assert "a window needs 48 + 12 rows of the train part, which has 35" in made.attrs["notes"][0]
    window = run.forecast(wide(slice(202, 250)), HORIZON)
    pd.testing.assert_frame_equal(made, window, check_freq=False)
    changed = base.copy()
    changed.iloc[:2] += 100
    pd.testing.assert_frame_equal(made, run.forecast(changed, HORIZON), check_freq=False)
    changed = base.copy()
    changed.iloc[2:10] += 1
    assert not np.allclose(made, run.forecast(changed, HORIZON))
    later = run.forecast(wide(slice(200, 252)), HORIZON)
    assert later.index[0] == made.index[2]


def test_the_order_of_rows_and_columns_does_not_matter(run, expected):
    order = np.random.default_rng(0).permutation(ROWS)
    made = run.forecast(wide().iloc[order], HORIZON)
    pd.testing.assert_frame_equal(made, expected, check_freq=False, rtol=1e-5)
    assert "rows sorted by time" in made.attrs["notes"]
    turned = run.forecast(wide()[["b", "a"]], HORIZON)
    assert list(turned.columns) == ["b", "a"]
    np.testing.assert_allclose(turned[["a", "b"]], expected, rtol=1e-5)
    pd.testing.assert_frame_equal(run.forecast(horizon=HORIZON), expected)


def test_fewer_rows_than_a_window(run):
    made = run.forecast(wide(slice(0, 30)), 5)
    assert made.notna().all(axis=None)
    assert f"30 rows, and a window has {CONTEXT}: those before them count as not observed" in made.attrs["notes"]


def test_what_is_not_observed(run, expected):
    gaps = wide()
    gaps.iloc[-30:, 0] = np.nan
    gaps.iloc[-70:, 1] = np.nan
    made = run.forecast(gaps, HORIZON)
    assert made.notna().all(axis=None)
    assert [text for text in made.attrs["notes"] if "nothing to go by" in text] == [
        f"channel 'b' has no value in the last {CONTEXT} rows: its forecast has nothing to go by"
    ]
    said = []
    never = run.forecast(wide().assign(b=np.nan), HORIZON, note=said.append)
    assert never["b"].isna().all()
    np.testing.assert_allclose(never["a"], expected["a"], atol=0.1)
    assert "channel 'b' is never observed: its forecast is NaN" in said
    assert said[0].startswith("head: ")


def test_a_trained_head_comes_first(run, monkeypatch):
    calls = []

    def predict(encoder, source, starts):
        calls.append((encoder is run.encoder, starts.tolist()))
        return torch.ones(1, 2, 20)

    monkeypatch.setattr(run, "head_forecast", SimpleNamespace(horizon=20, predict=predict), raising=False)
    made = run.forecast(horizon=5)
    assert calls == [(True, [ROWS - CONTEXT])]
    assert made.attrs["head"] == "the fine-tuned one"
    tokenizer = run.encoder.tokenizer
    np.testing.assert_allclose(made.iloc[3], (tokenizer.mean + tokenizer.deviation).tolist(), rtol=1e-6)
    assert len(run.forecast()) == 20  # its own horizon
    longer = run.forecast(horizon=21)
    assert "ridge" in longer.attrs["head"]
    assert longer.attrs["notes"][0] == "the fine-tuned head forecasts 20 rows, not 21: a ridge takes its place"


def test_other_channels_have_a_scale_of_their_own(run):
    """And a run that mixes channels reads its own alone."""
    other = 1e4 * wide().set_axis(["u", "v"], axis=1)
    made = run.forecast(other, HORIZON)
    clean = planted(ROWS + HORIZON, noise=0)[ROWS:]
    assert (np.abs(made.to_numpy() / 1e4 - clean).mean(0) < [0.1, 0.5]).all()
    mixed = structmae.pretrain(
        wide(), "spans", settings={**SETTINGS, "tokens.context": 24, "tokens.segment": 1}, progress=False
    )
    assert list(mixed.forecast(wide()[["b", "a"]].assign(c=1.0), 4).columns) == ["b", "a"]
    with pytest.raises(StructmaeError, match="no channel 'a', 'b'"):
        mixed.forecast(other, 4)
    short = mixed.forecast(wide(slice(0, 20)), 4)
    assert "the run's own data" in short.attrs["head"]


def test_refusals(run, karate, tiny):
    graphs = structmae.pretrain(karate, settings=tiny, progress=False)
    with pytest.raises(UsageError, match="forecast: graphmae reads graph data"):
        graphs.forecast(horizon=4)
    with pytest.raises(UsageError, match="horizon=0: must be 1 or more"):
        run.forecast(horizon=0)
    with pytest.raises(
        StructmaeError, match=r"horizon 300: a window needs 48 \+ 300 rows of the train part, which has 280"
    ):
        run.forecast(horizon=300)
    with pytest.raises(
        StructmaeError, match=r"no head can be fitted: .* has 70\; .* Nor on the run's own data: .* 280"
    ):
        run.forecast(wide(slice(0, 100)), horizon=300)
    with pytest.raises(UsageError, match="set of recordings"):
        run.forecast(np.random.default_rng(0).standard_normal((20, 2, 60)), 4)


@pytest.mark.parametrize("freq", ["M", "Q", "Y", "W", "D", "h"])
def test_periods_go_on_as_periods(freq):
    index = pd.period_range("1700-01", periods=60, freq=freq)
    series = load_series(pd.DataFrame({"a": np.arange(60.0)}, index=index))
    table = lay_out(series, np.arange(3.0)[:, None])
    assert isinstance(table.index, pd.PeriodIndex)
    assert list(table.index) == list(pd.period_range(index[-1], periods=4, freq=freq)[1:])


@pytest.mark.parametrize("horizon", [0, -1])
def test_a_horizon_is_a_whole_number(run, horizon):
    with pytest.raises(UsageError, match="horizon"):
        run.forecast(horizon=horizon)
