import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structmae.data.calendar import on_grid, parse_dates, season
from structmae.errors import StructmaeError

STEPS = [
    "h",
    "15min",
    "s",
    "100ms",
    "6h",
    "7h",
    "D",
    "2D",
    "W-WED",
    "B",
    "MS",
    "ME",
    "2MS",
    "BME",
    "QS",
    "QE",
    "YS",
    "YE",
]


def place(row: int) -> str:
    return f"row {row}"


@given(
    step=st.sampled_from(STEPS),
    drop=st.sets(st.integers(1, 58), max_size=4),
    zone=st.sampled_from([None, "Europe/Berlin"]),
)
def test_a_clock_with_gaps_is_filled_up(step: str, drop: set[int], zone: str | None) -> None:
    whole = pd.date_range("2020-01-01", periods=60, freq=step, tz=zone)
    grid = on_grid(whole.delete(sorted(drop)), "x", place)
    assert list(grid.index) == list(whole)
    assert set(np.flatnonzero(grid.take < 0)) == drop
    assert grid.take[grid.take >= 0].tolist() == list(range(60 - len(drop)))
    assert len(grid.notes) == (1 if drop else 0)
    following = pd.date_range(grid.index[-1], periods=2, freq=grid.step)[1]
    assert following == pd.date_range("2020-01-01", periods=61, freq=step, tz=zone)[-1]


@given(first=st.integers(-1000, 1000), step=st.integers(1, 90), drop=st.sets(st.integers(1, 38), max_size=3))
def test_whole_numbers_are_a_clock_too(first: int, step: int, drop: set[int]) -> None:
    whole = pd.Index(first + step * np.arange(40))
    grid = on_grid(whole.delete(sorted(drop)), "x", place)
    assert list(grid.index) == list(whole)
    assert grid.step == step


def test_holidays_are_missing_business_days() -> None:
    days = pd.bdate_range("2024-01-01", periods=200)
    grid = on_grid(days.delete([10, 50, 51, 120]), "x", place)
    assert isinstance(grid.step, pd.offsets.BusinessDay)
    assert grid.notes == ["4 missing stamps (the first: 2024-01-15 00:00:00): their rows are not observed"]
    assert season(grid.step) == 5


def test_a_stamp_off_the_grid_is_left_out_with_a_note() -> None:
    stamps = pd.date_range("2024-01-01", periods=40, freq="h").to_series().reset_index(drop=True)
    stamps[7] += pd.Timedelta(minutes=3)
    grid = on_grid(pd.DatetimeIndex(stamps), "x", place)
    assert grid.notes == [
        "1 missing stamps (the first: 2024-01-01 07:00:00): their rows are not observed",
        "1 row left out: not on the grid of the stamps (the first: 2024-01-01 07:03:00)",
    ]


def test_irregular_stamps_are_refused_with_the_first_bad_one() -> None:
    stamps = pd.Timestamp("2024-01-01") + pd.to_timedelta([0, 60, 120, 180, 185, 240, 251, 300], unit="s")
    with pytest.raises(
        StructmaeError, match=r"x: stamps are irregular: the commonest step is 00:01:00, and 2024-01-01"
    ) as raised:
        on_grid(pd.DatetimeIndex(stamps), "x", place)
    assert "2024-01-01 00:03:05 (row 4) is not on its grid" in str(raised.value)
    assert "frame.resample('1min').mean()" in str(raised.value)
    with pytest.raises(StructmaeError, match=r"the commonest step is 5, and 7 \(row 2\) is not on its grid"):
        on_grid(pd.Index([0, 5, 7, 10, 15, 21]), "x", place)


def test_one_stamp_gone_wrong_does_not_fill_the_memory() -> None:
    stamps = pd.DatetimeIndex(["1970-01-01", *pd.date_range("2024-01-01", periods=40, freq="h").astype(str)])
    with pytest.raises(StructmaeError, match=r"41 stamps lie on a grid of .*longest gap is from 1970-01-01.*\(row 1\)"):
        on_grid(stamps, "x", place)


def test_days_of_a_zone_with_summer_time() -> None:
    days = pd.date_range("2024-03-25", periods=14, freq="D", tz="Europe/Berlin")
    for given_days in (days, days.delete([3])):
        grid = on_grid(given_days, "x", place)
        assert list(grid.index) == list(days)
        assert season(grid.step) == 7


@pytest.mark.parametrize(
    ("step", "rows"),
    [
        ("h", 24), ("15min", 96), ("min", 1440), ("10s", 360), ("100ms", 1), ("6h", 4), ("7h", 1), ("D", 7), ("2D", 1),
        ("B", 5), ("W", 52), ("2W", 26), ("MS", 12), ("ME", 12), ("3MS", 4), ("QS", 4), ("QE", 4), ("YS", 1),
        ("5MS", 1), ("BME", 12), ("bh", 8), ("WOM-3FRI", 12), ("YE-JUN", 1), ("W-WED", 52),
    ],
)  # fmt: skip
def test_the_season_of_a_step(step: str, rows: int) -> None:
    offset = pd.tseries.frequencies.to_offset(step)
    assert season(offset) == rows
    if isinstance(offset, pd.offsets.Tick):
        assert season(pd.Timedelta(offset)) == rows


def test_no_season_without_a_clock() -> None:
    assert season(None) == season(5) == 1


DAYS = pd.date_range("2024-01-01", periods=40)


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y%m%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y"]
)
@pytest.mark.parametrize("guess", [False, True])
def test_dates_are_read_in_the_usual_forms(form: str, guess: bool) -> None:
    found = parse_dates(pd.Series(DAYS.strftime(form)), guess)
    assert found is not None
    assert list(found[0]) == list(DAYS)
    assert found[1] == []


@pytest.mark.parametrize("form", ["%Y-%m", "%Y/%m", "%b %Y", "%B %Y", "%b-%y"])
def test_months_are_read(form: str) -> None:
    months = pd.date_range("2020-01-01", periods=30, freq="MS")
    found = parse_dates(pd.Series(months.strftime(form)), guess=True)
    assert found is not None
    assert list(found[0]) == list(months)


@pytest.mark.parametrize(("form", "way"), [("%d/%m/%Y", "day"), ("%m/%d/%Y", "month")])
def test_day_and_month_by_the_more_regular_clock(form: str, way: str) -> None:
    days = pd.date_range("2024-01-03", periods=9)
    found = parse_dates(pd.Series(days.strftime(form)))
    assert found is not None
    assert list(found[0]) == list(days)
    assert found[1] == [f"dates such as {days[0].strftime(form)} are read with the {way} first"]


def test_offsets_become_utc() -> None:
    found = parse_dates(pd.Series(["2024-03-31 01:00+01:00", "2024-03-31 03:00+02:00"]))
    assert found is not None
    assert [str(stamp) for stamp in found[0]] == ["2024-03-31 00:00:00+00:00", "2024-03-31 01:00:00+00:00"]
    assert found[1] == ["stamps have several offsets from UTC: read as UTC"]


@pytest.mark.parametrize(
    "cells", [["x", "y"], ["2024-01-01", "soon"], ["May", "June"], ["10:30", "10:31"], ["1.5", "2.5"]]
)
def test_what_is_no_date(cells: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_dates(pd.Series(cells), guess=True) is None
