from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structmae import resolve
from structmae.data.series_loading import load_series
from structmae.errors import StructmaeError, UsageError
from structmae.tokens.series import SeriesSource, SeriesTokenizer, normalized


def tokenizer(**changes):
    options = {
        "channels": ("a", "b"), "context": 12, "segment": 3, "spectrum": 0, "bands": 1, "normalize": "standard",
        "window_norm": True,
    }  # fmt: skip
    return SeriesTokenizer(**{**options, **changes})


def windows(seed, *shape, missing=0.0):
    """Values (B, C, T), 0 where not observed, and where they are."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    observed = torch.rand(shape, generator=generator) >= missing
    return x.where(observed, 0.0), observed


def panel(rows=60, channels=2, *, seed=0, split="auto"):
    return load_series(np.random.default_rng(seed).normal(size=(rows, channels)) * 3 + 5, split=split)


def fitted(series, **settings):
    base = {"tokens.context": 12, "tokens.segment": 3}
    return SeriesTokenizer.fit(series, resolve("patchtst", {**base, **settings}, level=series.level))


@given(seed=st.integers(0, 10**6), count=st.integers(1, 4), channels=st.integers(1, 3))
def test_tokens_are_segments_by_window_channel_and_time(seed, count, channels):
    """Against a loop. Joined they are the windows again."""
    made = tokenizer(channels=tuple("abc"[:channels]))
    x, _ = windows(seed, count, channels, 12)
    ids = torch.arange(count) * 7 + 3
    part = made.tokens(x, None, ids)["segment"]
    row = 0
    for window in range(count):
        for channel in range(channels):
            item = window * channels + channel
            assert part.item_id[item] == ids[window] * channels + channel
            assert part.set_id[item] == ids[window]
            assert part.ptr[item] == row
            for place in range(4):
                assert torch.equal(part.values[row], x[window, channel, 3 * place : 3 * place + 3])
                assert part.position[row] == place
                assert part.batch[row] == item
                row += 1
    assert len(part) == part.ptr[-1] == row
    assert (part.grid, part.observed, part.valid) == ((1, 4), None, None)
    assert torch.equal(made.join(part.values, channels), x)


@given(seed=st.integers(0, 10**6), segment=st.sampled_from([1, 2]), bands=st.sampled_from([1, 2, 4]))
def test_patches_of_a_spectrogram_are_those_of_a_loop(seed, segment, bands):
    """NumPy's transform of each frame; a frame with a missing value is not observed, whatever the rest of it is."""
    made = tokenizer(context=32, segment=segment, spectrum=8, bands=bands)
    x, observed = windows(seed, 2, 2, 32, missing=0.03)
    part = made.tokens(x, observed, torch.arange(2))["segment"]
    rows, columns = part.grid
    assert (rows, columns) == (4 // bands, 4 // segment)
    seen = torch.ones_like(part.values, dtype=torch.bool) if part.observed is None else part.observed
    for token in range(len(part)):
        item, place = divmod(token, rows * columns)
        row, column = divmod(place, columns)
        series, there = x[item // 2, item % 2], observed[item // 2, item % 2]
        expected, whole = [], []
        for frame in range(column * segment, (column + 1) * segment):
            inside = slice(8 * frame, 8 * frame + 8)
            field = np.log1p(np.abs(np.fft.rfft(series[inside].double().numpy())))[row * bands : (row + 1) * bands]
            whole.append([bool(there[inside].all())] * bands)
            expected.append(field if whole[-1][0] else np.zeros(bands))
        # A token holds its frequencies one after another, each over its frames.
        np.testing.assert_allclose(part.values[token], np.array(expected).T.reshape(-1), rtol=1e-4, atol=1e-5)
        assert torch.equal(seen[token], torch.tensor(whole).T.reshape(-1))
    assert part.valid is None or torch.equal(part.valid, seen.any(1))
    garbage = x.where(observed, 99.0)
    again = made.tokens(garbage, observed, torch.arange(2))["segment"]
    assert torch.equal(again.values, part.values)
    with pytest.raises(StructmaeError, match="phase"):
        made.join(part.values, 2)


def test_a_sine_is_in_its_own_band():
    made = tokenizer(channels=("a",), context=32, segment=1, spectrum=8, bands=1)
    x = torch.sin(2 * torch.pi * torch.arange(32) * 2 / 8)[None, None]
    part = made.tokens(x, None, torch.zeros(1, dtype=torch.long))["segment"]
    field = part.values.view(4, 4)  # frequencies, frames
    torch.testing.assert_close(field[2], torch.full((4,), 5.0).log())
    assert (field[[0, 1, 3]] < 1e-5).all()


@given(seed=st.integers(0, 10**6), missing=st.sampled_from([0.0, 0.3, 0.9]), hide=st.booleans())
def test_windows_are_normalised_by_what_is_visible_and_observed(seed, missing, hide):
    x, observed = windows(seed, 2, 2, 12, missing=missing)
    part = tokenizer().tokens(x * 5 + 2, observed, torch.arange(2))["segment"]
    part = replace(part, values=part.values if part.observed is None else part.values.where(part.observed, 0.0))
    visible = torch.randperm(16, generator=torch.Generator().manual_seed(seed))[:7].sort().values if hide else None
    found, mean, deviation = normalized(part, visible)
    for item in range(4):
        rows = range(4 * item, 4 * item + 4)
        seen = {row: [True] * 3 if part.observed is None else part.observed[row].tolist() for row in rows}
        shown = set(rows) if visible is None else set(rows) & set(visible.tolist())
        numbers = [float(part.values[row, i]) for row in shown for i in range(3) if seen[row][i]]
        centre = np.mean(numbers) if numbers else 0.0
        spread = np.sqrt(np.var(numbers) + 1e-5) if numbers else 1.0
        assert float(mean[item]) == pytest.approx(centre, abs=1e-4)
        assert float(deviation[item]) == pytest.approx(spread, rel=1e-4)
        for row in rows:
            for i in range(3):
                expected = (float(part.values[row, i]) - centre) / spread if seen[row][i] else 0.0
                assert float(found.values[row, i]) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("huge", [1e30, -3e38])
def test_a_hidden_value_cannot_spoil_the_statistics(huge):
    """Not even one whose square is infinite."""
    x, _ = windows(0, 1, 2, 12)
    part = tokenizer().tokens(x, None, torch.arange(1))["segment"]
    visible = torch.tensor([0, 1, 3, 4, 5, 6, 7])
    values = part.values.clone()
    values[2] = huge
    one, other = (normalized(each, visible) for each in (part, replace(part, values=values)))
    assert torch.equal(one[0].values[visible], other[0].values[visible])
    assert torch.equal(one[1], other[1])
    assert torch.equal(one[2], other[2])


@given(rows=st.integers(1, 12), recordings=st.booleans())
def test_short_windows_are_filled_up_with_what_is_not_valid(rows, recordings):
    """Before them, or of recordings, which end early, after them."""
    x, _ = windows(rows, 2, 2, rows)
    part = tokenizer(recordings=recordings).tokens(x, None, torch.arange(2))["segment"]
    there = torch.zeros(2, 2, 12, dtype=torch.bool)
    place = slice(0, rows) if recordings else slice(12 - rows, 12)
    there[..., place] = True
    if rows == 12:
        assert part.valid is None
        return
    assert torch.equal(part.observed, there.view(-1, 3))
    valid = there.view(-1, 3).any(1)
    assert torch.equal(torch.ones_like(valid) if part.valid is None else part.valid, valid)
    whole = torch.zeros(2, 2, 12)
    whole[..., place] = x
    assert torch.equal(tokenizer().join(part.values, 2), whole)


@pytest.mark.parametrize("rows", [0, 13])
def test_windows_of_a_wrong_length_are_refused(rows):
    with pytest.raises(StructmaeError, match=f"{rows} rows: this encoder reads 1 to 12"):
        tokenizer().tokens(torch.zeros(1, 2, rows), None, torch.arange(1))


@given(rows=st.integers(48, 90), context=st.integers(12, 40), at=st.integers(0, 10**6))
def test_training_windows_lie_in_the_training_rows(rows, context, at):
    """All of them are there, and hold the scaled rows that they are named by."""
    series = panel(rows)
    made = fitted(series, **{"tokens.context": context})
    source = SeriesSource(series, made)
    begin, end = series.split["train"].tolist()
    assert source.rows.tolist() == list(range(begin, end - made.context + 1))
    assert source.num_items == len(source.rows) >= 1
    item = at % source.num_items
    part = source.batch(torch.tensor([item]))["segment"]
    start = int(source.rows[item])
    mean, deviation = series.scale()
    expected = (series.values[start : start + made.context] - mean) / deviation
    np.testing.assert_allclose(made.join(part.values, 2)[0].T, expected, rtol=1e-4, atol=1e-5)
    assert part.set_id.tolist() == [start] * 2
    assert source.target(torch.tensor([item])) is None


@given(rows=st.integers(48, 90), at_once=st.integers(1, 9))
def test_a_sweep_reads_every_row_and_ends_with_the_last(rows, at_once):
    series = panel(rows)
    source = SeriesSource(series, fitted(series))
    parts = [part["segment"] for part in source.sweep(at_once)]
    assert all(len(part.item_id) <= 2 * at_once for part in parts)
    starts = torch.cat([part.set_id[::2] for part in parts]).tolist()
    assert starts == sorted(set(starts))
    read = {row for start in starts for row in range(start, start + 12)}
    assert read == set(range(rows))


def test_a_sweep_of_few_rows_is_one_window_that_is_filled_up():
    source = SeriesSource(panel(60), fitted(panel(60)))
    short = load_series(np.zeros((5, 2)), schema=panel(60).schema)
    (tokens,) = SeriesSource(short, source.tokenizer).sweep()
    assert int(tokens["segment"].observed.sum()) == 10


def recordings(lengths=(12, 7, 9, 12, 5, 8)):
    """Recordings of different length: NaN after their end is how an array holds them."""
    x = np.random.default_rng(0).normal(size=(len(lengths), 2, max(lengths))).astype(np.float32)
    for sample, length in enumerate(lengths):
        x[sample, :, length:] = np.nan
    return load_series((x, np.arange(len(lengths)) % 2, (list(range(4)), [4, 5]))), x


def test_recordings_are_windows_of_their_own():
    series, x = recordings()
    made = fitted(series)
    source = SeriesSource(series, made)
    assert (source.num_items, made.context, made.recordings) == (4, 12, True)
    (everything,) = source.sweep()
    part = everything["segment"]
    assert len(part.item_id) == 12
    there = torch.from_numpy(~np.isnan(x))
    assert torch.equal(part.observed.view(there.shape), there)
    scaled = (torch.from_numpy(x).nan_to_num() - made.mean[:, None]) / made.deviation[:, None]
    torch.testing.assert_close(made.join(part.values, 2), scaled.where(there, 0.0))
    assert int((~part.valid).sum()) == 2 * int(sum((12 - length) // 3 for length in (12, 7, 9, 12, 5, 8)))


def test_missing_values_are_no_values():
    values = np.random.default_rng(0).normal(size=(60, 2))
    values[10:14, 0] = np.nan
    series = load_series(pd.DataFrame(values, columns=["x", "y"]))
    source = SeriesSource(series, fitted(series))
    part = source.at(torch.tensor([6]))["segment"]
    assert part.observed.view(2, 12)[0].tolist() == [True] * 4 + [False] * 4 + [True] * 4
    assert part.observed.view(2, 12)[1].all()
    assert torch.equal(part.values[~part.observed], torch.zeros(4))
    observed = series.values[: series.split["train"][1]]
    np.testing.assert_allclose(source.mean, np.nanmean(observed, 0), rtol=1e-5)
    np.testing.assert_allclose(source.deviation, np.nanstd(observed, 0), rtol=1e-5)


@given(
    seed=st.integers(0, 10**6),
    missing=st.sampled_from([0.0, 0.2]),
    length=st.integers(1, 12),
    starts=st.lists(st.integers(-3, 58), max_size=5),
)
def test_windows_of_the_table_are_rows_that_are_read_and_scaled(seed, missing, length, starts):
    """To the bit, whether they are cut out of it or not: of a panel, of recordings, of a file that is mapped."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(60, 2)).astype(np.float32) * 3 + 5
    values[rng.random(values.shape) < missing] = np.nan
    whole = panel()
    several = replace(whole, values=values, ptr=np.array([0, 20, 60]))
    for series in (replace(whole, values=values), several):
        source = SeriesSource(series, fitted(whole))
        raw = torch.from_numpy(series.windows(np.array(starts, np.int64), length))
        expected = ((raw - source.mean[:, None]) / source.deviation[:, None]).nan_to_num(0.0)
        found = source.values(torch.tensor(starts, dtype=torch.int64), length)
        assert found[0].is_contiguous()
        assert torch.equal(found[0], expected)
        assert torch.equal(found[1], ~raw.isnan())


def test_a_mapped_file_is_not_read_as_a_whole(tmp_path):
    np.save(tmp_path / "rows.npy", panel().values)
    series = replace(panel(), values=np.load(tmp_path / "rows.npy", mmap_mode="r"))
    source, kept = SeriesSource(series, fitted(series)), SeriesSource(panel(), fitted(panel()))
    assert source._table is None
    starts = torch.tensor([0, 31])
    assert torch.equal(source.values(starts, 9)[0], kept.values(starts, 9)[0])


def test_other_series_have_a_scaler_of_their_own():
    """The same channels are scaled as in training; others by their own training rows, or not at all."""
    series = panel(60)
    made = fitted(series)
    same = load_series(np.random.default_rng(1).normal(size=(60, 2)) * 9)
    source = SeriesSource(same, made)
    assert torch.equal(source.mean, made.mean)
    assert torch.equal(source.deviation, made.deviation)
    others = load_series(np.random.default_rng(1).normal(size=(60, 3)) * 9 + 1)
    mean, deviation = others.scale()
    source = SeriesSource(others, made)
    np.testing.assert_allclose(source.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(source.deviation, deviation, rtol=1e-6)
    source = SeriesSource(others, fitted(series, **{"tokens.normalize": "none"}))
    assert torch.equal(source.values(torch.tensor([2]), 5)[0][0].T, torch.from_numpy(others.values[2:7]))


def test_windows_shrink_to_the_data():
    """By whole segments, so that two fit in the training rows; where they can't be long enough, that is said."""
    made = fitted(panel(60), **{"tokens.context": 512})  # 42 training rows
    assert (made.context, made.shrunk_from, made.grid) == (21, 512, (1, 7))
    assert fitted(panel(60), **{"tokens.context": 13}).context == 12
    assert fitted(panel(60), **{"tokens.context": 13}).shrunk_from is None
    with pytest.raises(StructmaeError, match=r"hold 3 segments of 6 rows, and 4 are needed"):
        fitted(panel(60), **{"tokens.context": 512, "tokens.segment": 6})
    with pytest.raises(UsageError, match=r"tokens\.context=15 holds fewer than 4 segments of 4 rows"):
        fitted(panel(60), **{"tokens.context": 15, "tokens.segment": 4})


def test_bands_that_do_not_divide_are_refused():
    recipe = resolve("spectrogram", {"tokens.spectrum": 8, "tokens.bands": 3}, level="panel")
    with pytest.raises(StructmaeError, match=r"tokens\.bands=3 does not divide the 4 frequencies"):
        SeriesTokenizer.fit(panel(400), recipe)


@pytest.mark.parametrize("name", ["patchtst", "tsformer", "spans", "spectrogram"])
def test_a_config_makes_the_tokenizer_again(name):
    series = panel(400)
    made = SeriesTokenizer.fit(series, resolve(name, {"tokens.context": 96}, level="panel"))
    again = SeriesTokenizer.from_config(made.config())
    again.load_state_dict(made.state_dict())
    assert again.config() == made.config()
    one, other = (next(iter(SeriesSource(series, each).sweep()))["segment"] for each in (made, again))
    assert torch.equal(one.values, other.values)
    assert one.grid == other.grid
