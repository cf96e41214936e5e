from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from structmae.data import Series, SeriesSchema
from structmae.data.series_loading import load_series
from structmae.errors import StructmaeError, UsageError


def packed(lengths: list[int], channels: int = 3, seed: int = 0, level: str = "sample", **changes: Any) -> Series:
    """Recordings of these lengths with a tenth of their values missing; the first half of them train."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(sum(lengths), channels)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    names = tuple(f"c{index}" for index in range(channels))
    half = (len(lengths) + 1) // 2
    sample = {
        "train": np.arange(half),
        "validation": np.zeros(0, np.int64),
        "test": np.arange(half, len(lengths)),
    }
    rows = len(values)
    panel = {
        key: np.array(span) for key, span in zip(sample, ((0, rows // 2), (rows // 2, rows), (rows, rows)), strict=True)
    }
    settings: dict[str, Any] = {
        "name": "packed",
        "values": values,
        "ptr": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "level": level,
        "channels": names,
        "stamps": None,
        "step": None,
        "period": 1,
        "y": None,
        "classes": (),
        "split": sample if level == "sample" else panel,
        "split_source": "test",
        "horizons": (),
        "schema": SeriesSchema(names),
        "spec": {},
        "notes": (),
    }
    return Series(**{**settings, **changes})


def naive(series: Series, starts: list[int], length: int) -> NDArray[np.float32]:
    """Windows one value at a time."""
    out = np.full((len(starts), series.num_channels, length), np.nan, np.float32)
    for window, start in enumerate(starts):
        inside = [s for s in range(series.num_items) if series.ptr[s] <= start < series.ptr[s + 1]]
        recording = inside[0] if inside else (0 if start < 0 else series.num_items - 1)
        for offset in range(length):
            if series.ptr[recording] <= start + offset < series.ptr[recording + 1]:
                out[window, :, offset] = series.values[start + offset]
    return out


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    picks=st.lists(st.floats(-0.2, 1.2), max_size=8),
    length=st.integers(1, 15),
)
def test_windows_are_those_of_a_loop(lengths: list[int], picks: list[float], length: int) -> None:
    series = packed(lengths)
    starts = [int(pick * series.num_rows) for pick in picks]
    found = series.windows(np.array(starts, np.int64), length)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, naive(series, starts, length))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ">f4", np.int16])
def test_windows_of_any_number_type_are_float32(dtype: Any) -> None:
    series = packed([20], values=np.arange(60).reshape(20, 3).astype(dtype))
    for starts in ([0, 5], [0, 19]):  # all inside; one beyond the end
        found = series.windows(np.array(starts), 4)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, naive(series, starts, 4))


def test_windows_are_copies_and_have_a_length() -> None:
    series = packed([20])
    before = series.values.copy()
    series.windows(np.array([3]), 4)[:] = 7.0
    np.testing.assert_array_equal(series.values, before)
    assert series.windows(np.zeros(0, np.int64), 4).shape == (0, 3, 4)
    with pytest.raises(UsageError, match="length is 0; it must be at least 1"):
        series.windows(np.array([3]), 0)


@given(
    lengths=st.lists(st.integers(1, 12), min_size=2, max_size=6),
    level=st.sampled_from(["panel", "sample"]),
    block=st.integers(1, 20),
)
def test_the_scale_is_of_observed_train_values(lengths: list[int], level: str, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("structmae.data.series._BLOCK", block)
        series = packed(lengths if level == "sample" else [sum(lengths)], level=level)
        mean, deviation = series.scale()
    rows = series.split["train"][1] if level == "panel" else series.ptr[len(series.split["train"])]
    for channel in range(series.num_channels):
        seen = series.values[:rows, channel].astype(np.float64)
        seen = seen[~np.isnan(seen)]
        assert mean[channel] == pytest.approx(seen.mean() if seen.size else 0.0, abs=1e-12)
        spread = seen.std() if seen.size else 0.0
        assert deviation[channel] == pytest.approx(spread if spread > 0 else 1.0, rel=1e-9)


@pytest.mark.parametrize("level", ["panel", "sample"])
def test_later_rows_cannot_change_the_scale(level: str) -> None:
    series = packed([10] * 6 if level == "sample" else [60], level=level)
    changed = series.values.copy()
    changed[30:] = 1e6
    again = packed([10] * 6 if level == "sample" else [60], level=level, values=changed)
    for one, two in zip(series.scale(), again.scale(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_scale_of_recordings_that_are_not_neighbours() -> None:
    series = packed(
        [4, 5, 6, 7], split={"train": np.array([0, 2, 3]), "validation": np.array([1]), "test": np.array([])}
    )
    rows = np.r_[0:4, 9:22]
    np.testing.assert_allclose(series.scale()[0], np.nanmean(series.values[rows].astype(np.float64), 0))


def test_constant_and_empty_channels_have_deviation_one() -> None:
    values = np.stack([np.full(40, 0.1), np.full(40, np.nan), np.full(40, 1e9)], 1).astype(np.float32)
    mean, deviation = packed([40], level="panel", values=values).scale()
    assert deviation.tolist() == [1.0, 1.0, 1.0]
    assert mean.tolist() == [float(np.float32(0.1)), 0.0, 1e9]


def test_a_large_offset_does_not_spoil_the_deviation() -> None:
    rng = np.random.default_rng(0)
    values = (2.0**20 + rng.integers(0, 8, (10_000, 3))).astype(np.float32)
    deviation = packed([10_000], level="panel", values=values).scale()[1]
    np.testing.assert_allclose(deviation, values[:5000].astype(np.float64).std(0), rtol=1e-12)


def test_the_fingerprint_is_of_values_labels_and_split_alone() -> None:
    series = packed([5, 6])
    assert series.fingerprint() == packed([5, 6], name="other", notes=("n",), card="x").fingerprint()
    changed = series.values.copy()
    changed[3, 1] = 7
    others = [
        packed([5, 6], values=changed),
        packed([6, 5], values=series.values),
        packed([5, 6], y=np.array([0, 1])),
        packed([5, 6], split={**series.split, "train": np.array([1])}),
        packed([5, 6], values=series.values.astype(np.float64)),
    ]
    assert len({series.fingerprint(), *(other.fingerprint() for other in others)}) == 6


def test_the_fingerprint_of_a_large_array_reads_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.zeros((4_000_000, 1), np.float32)
    series = packed([4_000_000], 1, values=values)
    whole = series.fingerprint()
    monkeypatch.setattr("structmae.data.series.FINGERPRINT_WHOLE", 1 << 20)
    pages = series.fingerprint()
    assert pages == series.fingerprint()
    for row in (0, 3_999_999):  # the first and the last page are among them
        values[row] = 1
        assert series.fingerprint() != pages
        values[row] = 0
    monkeypatch.undo()
    assert series.fingerprint() == whole


def test_the_stamps_that_follow() -> None:
    series = packed([20], level="panel")
    assert list(series.following(2)) == [20, 21]
    numbered = packed([20], level="panel", stamps=pd.RangeIndex(100, 200, 5), step=5)
    assert list(numbered.following(2)) == [200, 205]
    months = pd.date_range("2024-01-31", periods=20, freq="ME")
    dated = packed([20], level="panel", stamps=months, step=pd.offsets.MonthEnd())
    assert [str(stamp.date()) for stamp in dated.following(2)] == ["2025-09-30", "2025-10-31"]
    assert len(dated.following(0)) == 0
    with pytest.raises(UsageError, match="0 or more, of a panel"):
        packed([5, 5]).following(1)


def test_the_schema_goes_through_json() -> None:
    import json

    schema = SeriesSchema(("a", "b"), "long", "ds", "unique_id", "y")
    again = SeriesSchema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again.to_json() == schema.to_json()
    assert again.channels == ("a", "b")


def sparse(path: Path, rows: int, channels: int = 4, dtype: Any = np.float32) -> np.memmap[Any, Any]:
    """A .npy file of zeros that takes no room on the disk."""
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(rows, channels))


def resident(array: NDArray[Any]) -> int:
    """Bytes of this process that lie in memory for the file behind an array, from /proc."""
    name = str(array.filename)  # type: ignore[attr-defined]
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and not line.split()[0].endswith(":"):
            ours = line.endswith(name)
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
def test_a_file_of_ten_million_rows_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "big.npy"
    written = sparse(path, 10_000_000)
    written[5_000_000] = 3.0
    del written
    series = load_series(path)
    assert series.values.shape == (10_000_000, 4)
    assert series.split["test"].tolist() == [8_000_000, 10_000_000]
    assert series.horizons == (96, 192, 336, 720)
    series.fingerprint()
    windows = series.windows(np.arange(0, 10_000_000, 400_000) + 1, 96)
    assert windows.shape == (25, 4, 96)
    assert series.windows(np.array([4_999_990]), 20)[0, 0, 10] == 3.0
    assert resident(series.values) < 40 << 20  # of 160 MB; the kernel maps 16 pages for each that is touched


def test_a_mapped_file_keeps_its_type_and_infinite_values_are_refused_when_read(tmp_path: Path) -> None:
    array = sparse(tmp_path / "x.npy", 100, dtype=np.float64)
    array[:] = np.arange(400).reshape(100, 4)
    array[50, 2] = np.inf
    array.flush()
    series = load_series(tmp_path / "x.npy", channels="c1,c2")
    assert isinstance(series.values, np.memmap)
    np.testing.assert_array_equal(series.windows(np.array([3]), 2)[0], [[13, 17], [14, 18]])
    for read in (lambda: series.windows(np.array([0, 45]), 10), series.scale):
        with pytest.raises(StructmaeError, match=r"x: channel 'c2' is infinite in row 50\. Values must be finite"):
            read()
    with pytest.raises(UsageError, match="not evenly spaced in the file"):
        load_series(tmp_path / "x.npy", channels="c3,c1")
