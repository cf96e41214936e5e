import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from series_cases import SPLIT, Encoder, Source, panel, real, samples, waves

from structmae.errors import StructmaeError, UsageError
from structmae.evaluate import imputation
from structmae.evaluate.heads import Parts
from structmae.evaluate.imputation import Gaps, Reader, check, evaluate, fit
from structmae.masking import Spec
from structmae.options import TokenOptions
from structmae.recipe import Recipe

RECIPE = Recipe(modality="series")
PARTS = Parts.of(SPLIT)
POINT, SPAN = Spec("uniform", 0.25), Spec("span", 0.25, length=3)


def run(encoder, values=None, **options):
    source = Source(panel(waves() if values is None else values))
    initial = Encoder(mixed=encoder.mixed, seed=1)
    return evaluate(encoder, initial, source, source.series, RECIPE, **{"length": 3, **options})


@pytest.fixture(params=[False, True], ids=["independent", "mixed"])
def encoder(request):
    return Encoder(mixed=request.param)


def test_the_object(encoder):
    lines = []
    found = run(encoder, progress=lines.append)
    assert [row["gaps"] for row in found["rows"]] == ["point", "span"]
    # 80 test rows: six windows of 12 rows lose 3 values of a series, the last, of 8 rows, loses 2.
    assert [row["n_values"] for row in found["rows"]] == [40, 40]
    for arm in ("pretrained", "random_init", "linear", "last_value", "mean"):
        key = "mse" if arm == "pretrained" else arm
        assert found[arm] == pytest.approx(np.mean([row[key] for row in found["rows"]]))
    assert found["pretrained"] < found["mean"]
    assert len(lines) == 2


@pytest.mark.parametrize("spec", [POINT, SPAN], ids=["point", "span"])
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_gaps_lie_in_their_part_and_among_what_was_observed(part, spec):
    values = waves()
    values[np.random.default_rng(0).random(values.shape) < 0.1] = np.nan
    gaps = Gaps(Source(panel(values)), spec, PARTS)
    starts = gaps.starts(part)
    x, seen, taken = gaps.windows(starts, part)
    rows = starts[:, None] + torch.arange(12)
    low, high = SPLIT[part]
    there = torch.from_numpy(~np.isnan(values))
    for window, at in enumerate(rows):
        for row, place in zip(at.tolist(), range(12), strict=True):
            inside = low <= row < high
            known = there[row] if inside else torch.zeros(2, dtype=torch.bool)
            assert torch.equal(seen[window, :, place] | taken[window, :, place], known)
    assert not (seen & taken).any()
    assert not x[~(seen | taken)].any()


@settings(max_examples=20)
@given(st.integers(0, 6), st.integers(1, 7))
def test_a_gap_does_not_depend_on_the_batch(first, size):
    gaps = Gaps(Source(panel(waves())), POINT, PARTS)
    starts = gaps.starts("test")
    whole = gaps.windows(starts, "test")[2]
    part = gaps.windows(starts[first : first + size], "test")[2]
    assert torch.equal(part, whole[first : first + size])


@pytest.mark.parametrize("spec", [POINT, SPAN], ids=["point", "span"])
@pytest.mark.parametrize("part", ["validation", "test"])
@settings(max_examples=10, deadline=None)
@given(st.sampled_from([3, 6, 12, 24, 48, 96]))
def test_gaps_are_the_same_whatever_the_windows(part, spec, context):
    values = waves()
    values[np.random.default_rng(0).random(values.shape) < 0.1] = np.nan
    assert torch.equal(taken_out(values, spec, part, context), taken_out(values, spec, part, 12))


def taken_out(values, spec, part, context):
    """(rows, channels), of all rows."""
    gaps = Gaps(Source(panel(values), context=context), spec, PARTS)
    starts = gaps.starts(part)
    found = torch.zeros(len(values) + context, 2, dtype=torch.bool)
    for start, window in zip(starts.tolist(), gaps.windows(starts, part)[2], strict=True):
        found[start : start + context] |= window.T
    return found[: len(values)]


def test_training_windows_are_few_and_evenly_spaced(monkeypatch):
    monkeypatch.setattr(imputation, "TOKENS", 80)  # of 8 tokens a window
    starts = Gaps(Source(panel(waves())), POINT, PARTS).starts("train")
    assert len(starts) == 10
    assert (int(starts[0]), int(starts[-1])) == (0, 228)
    assert int((starts.diff() - starts.diff()[0]).abs().max()) <= 1


def test_what_is_hidden_is_not_read(encoder):
    """Values in the gaps change the targets, and nothing that a ridge reads."""
    source = Source(panel(waves()))
    gaps = Gaps(source, SPAN, PARTS)
    other = waves()
    starts = gaps.starts("test")
    taken = gaps.windows(starts, "test")[2]
    for window, channel, place in taken.nonzero().tolist():
        other[int(starts[window]) + place, channel] += 5.0
    with torch.no_grad():
        encoder.eval()
        before = list(Reader(encoder, gaps).blocks("test"))
        after = list(Reader(encoder, Gaps(Source(panel(other)), SPAN, PARTS)).blocks("test"))
    for (rows, values, _), (rows2, values2, mask2) in zip(before, after, strict=True):
        torch.testing.assert_close(rows, rows2)
        assert float((values - values2)[mask2].abs().min()) > 4.0


def test_baselines_by_hand():
    values = np.arange(400.0)[:, None] * np.array([1.0, -2.0])
    found = run(Encoder(), values)
    for row in found["rows"]:
        assert row["linear"] < row["last_value"] < row["mean"]


def test_the_size_of_a_batch_does_not_change_the_score(encoder):
    few, many = run(encoder, at_once=50), run(encoder, at_once=1000)
    for a, b in zip(few["rows"], many["rows"], strict=True):
        assert a["n_values"] == b["n_values"]
        assert a["mse"] == pytest.approx(b["mse"], rel=1e-4)
        assert a["linear"] == pytest.approx(b["linear"])


def test_later_rows_do_not_change_the_ridge(encoder):
    encoder.eval().requires_grad_(False)
    values = waves()
    base = fit(Reader(encoder, Gaps(Source(panel(values)), POINT, PARTS)))
    values[320:] = 7.0
    assert torch.equal(base, fit(Reader(encoder, Gaps(Source(panel(values)), POINT, PARTS))))


def test_neighbours_help_inside_long_gaps(encoder):
    """Spans hide whole tokens; a slow wave can then be read from the tokens around them."""
    values = np.sin(np.arange(400)[:, None] / 9 + np.array([0.0, 1.0]))
    source = Source(panel(values), context=24)
    initial = Encoder(mixed=encoder.mixed, seed=1)
    row = evaluate(encoder, initial, source, source.series, RECIPE, ratio=0.15, length=6)["rows"][1]
    assert row["mse"] < 0.5 * row["mean"]


def test_what_does_not_fit_is_refused(monkeypatch):
    with pytest.raises(UsageError, match="classification"):
        check(samples(waves(), [200, 200], [0, 1], split={"train": [0, 1]}), RECIPE)
    with pytest.raises(UsageError, match=r"tokens\.spectrum=8"):
        check(panel(waves()), Recipe(modality="series", tokens=TokenOptions(spectrum=8)))
    for ratio in (0.0, 1.0):
        with pytest.raises(UsageError, match="ratio"):
            run(Encoder(), ratio=ratio)
    values = waves()
    values[320:] = np.nan
    with pytest.raises(StructmaeError, match="test rows"):
        run(Encoder(), values)
    monkeypatch.setattr(imputation, "MEMORY", 100)
    with pytest.raises(StructmaeError, match=r"lower encoder\.hidden"):
        run(Encoder())


@pytest.mark.parametrize("channels", ["independent", "mixed"])
def test_the_encoder_of_the_toolkit(channels):
    values = 5.0 + 3.0 * waves()
    values[np.random.default_rng(0).random(values.shape) < 0.05] = np.nan
    source, (encoder, initial), recipe = real(panel(values), channels)
    found = evaluate(encoder, initial, source, source.series, recipe, length=6)
    assert found["pretrained"] < found["mean"]
