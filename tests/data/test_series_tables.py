import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structmae.data import Series, load_series
from structmae.errors import StructmaeError

N = 60
HOURS = pd.date_range("2024-01-01", periods=N, freq="h")


def wide(index: Any = None, **columns: Any) -> pd.DataFrame:
    """Two channels of 60 rows, and more columns."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.random(N), "b": rng.random(N)}, index=index)
    return frame.assign(**columns)


def long(frame: pd.DataFrame | None = None) -> pd.DataFrame:
    frame = wide(HOURS) if frame is None else frame
    return frame.rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y")


def same(one: Series, two: Series) -> None:
    np.testing.assert_array_equal(one.values, two.values)
    assert one.channels == two.channels
    assert (one.stamps is None) == (two.stamps is None)
    assert one.stamps is None or two.stamps is None or list(one.stamps) == list(two.stamps)
    assert (one.period, one.split_source) == (two.period, two.split_source)


def test_every_layout_gives_the_same_series(tmp_path: Path) -> None:
    frame = wide(HOURS)
    frame.iloc[7, 1] = np.nan
    column = frame.rename_axis("date").reset_index()
    column.to_csv(tmp_path / "t.csv", index=False)
    column.to_csv(tmp_path / "t.csv.gz", index=False)
    column.to_parquet(tmp_path / "t.parquet")
    frame.to_parquet(tmp_path / "index.parquet")
    long(frame).to_csv(tmp_path / "long.csv", index=False)
    expected = load_series(frame)
    assert expected.values.dtype == np.float32
    np.testing.assert_array_equal(expected.values, frame.to_numpy(np.float32))
    assert expected.period == 24
    layouts: list[Any] = [
        column,
        column.assign(date=column["date"].astype(str)),
        column.rename(columns={"date": "when"}),
        long(frame),
        long(frame).set_index(["unique_id", "ds"]),
        *(tmp_path / name for name in ("t.csv", "t.csv.gz", "t.parquet", "index.parquet", "long.csv")),
    ]
    for layout in layouts:
        same(load_series(layout), expected)
    named = long(frame).set_axis(["when", "sensor", "reading"], axis=1)
    same(load_series(named, id="sensor"), expected)
    same(load_series(named, id="sensor", time="when", value="reading"), expected)


@given(st.permutations(range(N)))
def test_rows_in_any_order_are_the_same_series(order: list[int]) -> None:
    found = load_series(wide(HOURS).iloc[order])
    same(found, load_series(wide(HOURS)))
    assert found.notes == (() if order == sorted(order) else ("rows sorted by time",))


@settings(max_examples=20)
@given(st.permutations(range(2 * N)))
def test_a_long_table_in_any_order_has_the_same_channels(order: list[int]) -> None:
    schema = load_series(long()).schema
    same(load_series(long().iloc[order], schema=schema), load_series(long()))


def test_the_layout_is_kept_in_the_schema() -> None:
    assert vars(load_series(wide(HOURS)).schema) == {
        "channels": ("a", "b"), "layout": "wide", "time": "time", "id": None, "value": None,
    }  # fmt: skip
    assert load_series(wide(HOURS.rename("when"))).schema.time == "when"
    assert load_series(wide()).schema.time is None
    schema = load_series(long()).schema
    assert (schema.layout, schema.time, schema.id, schema.value) == ("long", "ds", "unique_id", "y")


def test_a_table_without_stamps_has_numbered_rows() -> None:
    series = load_series(wide())
    assert (series.stamps, series.step, series.period) == (None, None, 1)
    same(load_series(wide(HOURS), time="none"), series)
    skipped = load_series(wide(date=HOURS.astype(str)), time="none")
    assert skipped.notes == ("left out: column 'date' is text",)


@pytest.mark.parametrize(
    ("frame", "first", "step"),
    [
        (wide(pd.RangeIndex(100, 100 + N)), 100, 1),
        (wide(time=5 * np.arange(N)), 0, 5),
        (wide(timestamp=1_700_000_000 + 3600 * np.arange(N)), 1_700_000_000, 3600),
        (wide(time=5.0 * np.arange(N)), 0, 5),
        (wide(time=0.05 * np.arange(N)), 0, 1),
    ],
)
def test_numbers_as_stamps(frame: pd.DataFrame, first: int, step: int) -> None:
    series = load_series(frame)
    assert series.stamps is not None
    assert (series.stamps[0], series.step) == (first, step)
    assert series.channels == ("a", "b")


def test_a_day_as_one_number_is_a_date() -> None:
    series = load_series(wide(date=pd.date_range("2024-01-01", periods=N).strftime("%Y%m%d").astype(int)))
    assert series.stamps is not None
    assert str(series.stamps[-1]) == "2024-02-29 00:00:00"


def test_zones_and_periods() -> None:
    berlin = pd.date_range("2024-03-01", periods=N, freq="D", tz="Europe/Berlin")
    assert str(load_series(wide(berlin)).following(1)[0]) == "2024-04-30 00:00:00+02:00"
    assert load_series(wide(pd.period_range("2020-01", periods=N, freq="M"))).period == 12


def test_gaps_become_rows_that_are_not_observed() -> None:
    series = load_series(wide(HOURS).drop(HOURS[[7, 20]]))
    assert series.values.shape == (N, 2)
    assert np.flatnonzero(np.isnan(series.values).all(1)).tolist() == [7, 20]
    assert series.notes == (
        "2 missing stamps (the first: 2024-01-01 07:00:00): their rows are not observed",
        "4 of 120 values are not observed (3.3 %)",
    )


def test_repeated_rows_are_merged_or_refused() -> None:
    frame = wide(HOURS)
    frame.iloc[3, 0] = np.nan
    merged = load_series(pd.concat([frame, frame.iloc[[3, 9]]]))
    same(merged, load_series(frame))
    assert "2 repeated rows merged" in merged.notes
    with pytest.raises(
        StructmaeError, match=r"the stamp 2024-01-01 09:00:00 is on row 9 and on row 60, with different"
    ):
        load_series(pd.concat([frame, frame.iloc[[9]] + 1]))


def test_channels_of_different_length() -> None:
    series = load_series(long().iloc[:-20])
    assert np.isnan(series.values[-20:, 1]).all()
    assert not np.isnan(series.values[:, 0]).any()
    assert series.notes[0] == (
        "channels of different length: not observed outside their span (the shortest, 'b': 40 of 60 rows)"
    )


def test_ids_are_text() -> None:
    ids = {"a": 1, "b": 2}
    assert load_series(long().assign(unique_id=long()["unique_id"].map(ids))).channels == ("1", "2")
    assert load_series(long().assign(unique_id=long()["unique_id"].map({"a": 1.0, "b": 2.0}))).channels == ("1", "2")


def test_ids_of_a_file_keep_their_zeros(tmp_path: Path) -> None:
    long().assign(unique_id=long()["unique_id"].map({"a": "007", "b": "08"})).to_csv(tmp_path / "t.csv", index=False)
    assert load_series(tmp_path / "t.csv").channels == ("007", "08")


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        ([True, False] * 30, [1, 0] * 30),
        (["True", "false"] * 30, [1, 0] * 30),
        ([True, None] * 30, [1, np.nan] * 30),
        ([" 1.5 ", "", None, "NA", "2e1"] * 12, [1.5, np.nan, np.nan, np.nan, 20] * 12),
        ([decimal.Decimal("1.5")] * N, [1.5] * N),
        (pd.array([1, None] * 30, dtype="Int64"), [1, np.nan] * 30),
        (pd.array([1.5, None] * 30, dtype="Float32"), [1.5, np.nan] * 30),
    ],
)
def test_cells_that_are_numbers(cells: Any, values: list[float]) -> None:
    series = load_series(wide(q=cells))
    np.testing.assert_array_equal(series.values[:, 2], np.float32(values))


def test_columns_that_are_left_out_or_noted() -> None:
    frame = wide(
        name="x", kind=pd.Categorical(["u", "v"] * 30), when=HOURS, span=pd.Timedelta(hours=1), z=1j, still=3.3
    )
    series = load_series(frame, time="none")
    assert series.channels == ("a", "b", "still")
    assert series.notes == (
        "left out: column 'name' is text",
        "left out: column 'kind' is text",
        "left out: column 'when' is dates",
        "left out: column 'span' is durations",
        "left out: column 'z' is complex numbers",
        "constant in the train part: 'still'",
    )
    extra = load_series(long().assign(z=1.0, k="u"))
    assert extra.notes == ("left out: z, k (a long table is read by unique_id, ds, y)",)


def test_chosen_channels_are_read_alone_and_in_their_order() -> None:
    series = load_series(wide(HOURS, bad=["x"] + ["1"] * (N - 1)), channels="b,a")
    assert series.channels == series.schema.channels == ("b", "a")
    np.testing.assert_array_equal(series.values, wide()[["b", "a"]].to_numpy(np.float32))
    assert load_series(long(), channels=["b"]).channels == ("b",)


def but(column: str, row: int, cell: Any) -> pd.DataFrame:
    frame = wide(HOURS)
    frame[column] = frame[column].astype(object)
    frame.iloc[row, frame.columns.get_loc(column)] = cell
    return frame


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (pd.DataFrame(), {}, "the table: no columns: it is empty"),
        (wide().iloc[:0], {}, "the table: no rows: it is empty"),
        (wide(HOURS).iloc[:1], {}, "the table: one row"),
        (wide().iloc[:1], {}, "the table: one row"),
        (wide().iloc[:4], {}, "the table: 4 rows, too few rows: the test part of the split has none"),
        (wide()[["a"]].astype(str) + "x", {}, "no numeric column for a series: columns are a.*--kind graph"),
        (pd.DataFrame({"date": HOURS}), {}, "no numeric column for a series"),
        (wide().set_axis(["a", "a"], axis=1), {}, "two columns are named 'a'"),
        (but("b", 5, "1,5"), {}, r"column 'b' holds '1,5' in row 5, which is no number\. Correct the cell"),
        (but("b", 5, np.inf), {}, "column 'b' holds inf in row 5. Values must be finite"),
        (wide(q=[1.0] * 8 + [1e300] + [2.0] * (N - 9)), {}, r"column 'q' holds 1e\+300 in row 8.*fit float32"),
        (wide(q=None), {}, "channel 'q' has no observed value in the train part"),
        (wide(q=[np.nan] * 50 + [1.0] * 10), {}, "channel 'q' has no observed value in the train part"),
        (wide(date=[None, *HOURS[1:]]), {}, "row 0 has no stamp in column 'date'"),
        (wide(date=["", *HOURS[1:].astype(str)]), {}, "row 0 has no stamp in column 'date'"),
        (wide(time=[np.nan, *range(1, N)]), {}, "row 0 has no stamp in column 'time'"),
        (wide(pd.DatetimeIndex([None, *HOURS[1:]])), {}, "row 0 has no stamp in the index"),
        (wide(date=[*HOURS[:-1].astype(str), "x"]), {}, "column 'date' holds 'x' in row 59, which is no date"),
        (wide(time=np.cumsum(np.r_[0.0, 0.1, np.full(N - 2, 0.25)])), {}, r"irregular: column 'time' goes on by 0\.25"),
        (wide(HOURS), {"time": "when"}, "no column 'when' for data.time; columns are a, b"),
        (wide(HOURS), {"id": "sensor"}, "no column 'sensor' for data.id"),
        (wide(HOURS), {"value": "a"}, "value 'a' without an id"),
        (wide(HOURS), {"channels": "a,z"}, "no channel 'z'; columns are 'a', 'b'"),
        (wide(HOURS), {"channels": "a,a"}, "name each channel once"),
        (wide(HOURS, q="x"), {"channels": "q"}, "column 'q' is text; a channel holds numbers"),
        (long(), {"channels": "z"}, "no channel 'z'; there are 'a', 'b'"),
        (
            pd.concat([long(), long().iloc[[3]]]),
            {},
            r"unique_id 'a' has the stamp 2024-01-01 03:00:00 on row 3 and on row 120",
        ),
        (long().assign(unique_id=[None, *["a"] * (2 * N - 1)]), {}, "row 0 has no unique_id"),
        (long().drop(columns="ds"), {}, r"a long table \(id 'unique_id'\) needs stamps"),
        (long().rename(columns={"y": "w"}).assign(z=1.0), {}, "which column holds the values of the long table: w, z"),
        (long().assign(y="u"), {}, "column 'y' is text; the value column of a long table is numbers"),
    ],
)
def test_refusals(frame: pd.DataFrame, options: dict[str, Any], message: str) -> None:
    with pytest.raises(StructmaeError, match=message):
        load_series(frame, **options)


def test_a_second_table_is_read_as_the_first() -> None:
    schema = load_series(wide(HOURS)).schema
    other = wide(HOURS.rename("time"), extra=1.0)[["extra", "b", "a"]]
    found = load_series(other, schema=schema)
    assert found.channels == ("a", "b")
    assert found.schema is schema
    assert "left out: 'extra' (the model does not read it)" in found.notes
    same(load_series(long(), schema=schema), load_series(wide(HOURS)))
    with pytest.raises(StructmaeError, match=r"no channel 'b'; the model reads 'a', 'b'"):
        load_series(wide(HOURS)[["a"]], schema=schema)
    # An array has no names: the number of channels decides.
    assert load_series(wide().to_numpy(), schema=schema).channels == ("a", "b")
    with pytest.raises(StructmaeError, match="no channel 'a', 'b'"):
        load_series(np.zeros((20, 3)), schema=schema)


def test_a_second_table_may_be_short_and_lack_values() -> None:
    schema = load_series(wide(HOURS)).schema
    short = wide(HOURS).iloc[:3].assign(b=np.nan)
    found = load_series(short, schema=schema)
    assert found.values.shape == (3, 2)
    assert found.horizons == ()


def test_a_second_table_finds_the_columns_of_the_first() -> None:
    first = long().set_axis(["when", "sensor", "reading"], axis=1)
    schema = load_series(first, id="sensor").schema
    same(load_series(first.assign(date="x"), schema=schema), load_series(first, id="sensor"))


def test_what_float32_is_too_coarse_for_is_said():
    time = np.arange(60)
    frame = pd.DataFrame({"pressure": 100_000 + 0.005 * np.sin(time), "fine": np.sin(time)})
    (note,) = [note for note in load_series(frame).notes if "float32" in note]
    assert note.startswith("'pressure' varies by 0.0035 about 100000")


def test_rows_without_stamps_are_said_to_be_read_in_order():
    time = np.arange(60.0)
    assert any("no column of stamps" in note for note in load_series(pd.DataFrame({"a": np.sin(time)})).notes)
    hours = pd.date_range("2024-01-01", periods=60, freq="h")
    assert not any("stamps" in note for note in load_series(pd.DataFrame({"a": np.sin(time)}, index=hours)).notes)


def test_a_csv_with_two_columns_of_one_name_is_refused(tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text("c,c,y\n" + "".join(f"{row},{row},{row}\n" for row in range(40)))
    with pytest.raises(StructmaeError, match="two columns are named 'c'"):
        load_series(path)
