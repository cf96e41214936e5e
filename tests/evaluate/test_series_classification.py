import numpy as np
import pytest
import torch
from series_cases import Encoder, Source, panel, real, samples, waves
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from structmae.errors import StructmaeError, UsageError
from structmae.evaluate import few as few_labels
from structmae.evaluate import rocket
from structmae.evaluate.few import COSTS, few, logistic
from structmae.evaluate.series_classification import check, evaluate, raw, vectors
from structmae.options import EncoderOptions
from structmae.recipe import Recipe

RECIPE = Recipe(modality="series", encoder=EncoderOptions(pool="mean"))


class Mean(Encoder):
    """Its vector of a window: mean and spread of each channel's observed values."""

    def represent(self, tokens):
        x, observed = tokens["segment"]
        count = observed.sum(-1).clamp_min(1)
        mean = x.sum(-1) / count
        return torch.cat([mean, x.square().sum(-1) / count], 1)


class Constant(Encoder):
    def represent(self, tokens):
        return tokens["segment"][0].new_ones(len(tokens["segment"][0]), 3)


def recordings(each=12, seed=0):
    """Two classes of recordings of 8 to 15 rows, which differ by their spread."""
    rng = np.random.default_rng(seed)
    y = np.tile([0, 1], each)
    lengths = rng.integers(8, 16, len(y))
    values = np.concatenate(
        [(1 + 2 * label) * rng.standard_normal((n, 2)) for label, n in zip(y, lengths, strict=True)]
    )
    half = len(y) // 2
    return samples(values, lengths, y, split={"train": np.arange(half), "test": np.arange(half, len(y))})


@pytest.fixture
def no_rocket(monkeypatch):
    monkeypatch.setattr(few_labels, "FOLDS", 2)
    monkeypatch.setattr(rocket, "available", lambda: False)


def test_the_object(no_rocket):
    data, lines = recordings(), []
    found = evaluate(Mean(), Constant(), Source(data), data, RECIPE, progress=lines.append)
    assert [row["features"] for row in found["rows"]] == ["pretrained", "random_init", "raw"]
    assert found["pretrained"] >= 0.75
    assert found["random_init"] == 0.5
    assert [(row["labels"], row["n"]) for row in found["few_labels"][:2]] == [(1, 5), (5, 5)]
    assert len(found["few_labels"]) == 6
    assert all(row["std"] >= 0 for row in found["few_labels"])
    assert any("tsai" in note for note in found["notes"])
    assert any(note.startswith("left out: 10 labels") for note in found["notes"])
    assert len(lines) == 3
    assert found == evaluate(Mean(), Constant(), Source(data), data, RECIPE)


def test_a_recording_is_the_mean_of_its_windows_by_rows():
    data = recordings()
    short, long = Source(data, context=4), Source(data, context=16)
    torch.testing.assert_close(vectors(Mean(), short), vectors(Mean(), long))
    torch.testing.assert_close(vectors(Mean(), short, at_once=2), vectors(Mean(), short))
    rows = data.values[data.ptr[3] : data.ptr[4]]
    np.testing.assert_allclose(vectors(Mean(), short)[3, :2], rows.mean(0), rtol=1e-4, atol=1e-6)


def test_raw_values_are_filled_up_with_zeros():
    data = recordings()
    padded = raw(Source(data))
    assert padded.shape == (24, 2, np.diff(data.ptr).max())
    length = int(np.diff(data.ptr)[5])
    np.testing.assert_array_equal(padded[5, :, :length].T, data.values[data.ptr[5] : data.ptr[6]])
    assert not padded[5, :, length:].any()


def test_subsets_are_of_each_class_and_always_the_same():
    y = np.array([0] * 30 + [1] * 12 + [-1] * 5)
    fitted = np.flatnonzero(y >= 0)
    subsets, notes = few(y, fitted)
    assert list(subsets) == [1, 5, 10]
    assert len(notes) == 1
    for size, each in subsets.items():
        assert len({tuple(part) for part in each}) == 5
        for part in each:
            assert np.bincount(y[part]).tolist() == [size, size]
    assert all(np.array_equal(a, b) for a, b in zip(subsets[5], few(y, fitted)[0][5], strict=True))


@pytest.mark.parametrize("each", [2, 3, 9])
def test_the_cost_is_chosen_where_a_class_has_three_labels(each):
    rng = np.random.default_rng(each)
    y, y_test = np.arange(3 * each) % 3, np.arange(300) % 3
    centres = rng.normal(size=(3, 5))
    x, x_test = (2 * centres[labels] + 3 * rng.normal(size=(len(labels), 5)) for labels in (y, y_test))
    library = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    if each > 2:
        folds = StratifiedKFold(min(5, each), shuffle=True, random_state=0)
        library = GridSearchCV(library, {"logisticregression__C": list(COSTS)}, cv=folds)
    assert logistic(x, y, x_test, y_test) == library.fit(x, y).score(x_test, y_test)


def test_test_labels_change_the_score_alone(no_rocket):
    data = recordings()
    found = evaluate(Mean(), Constant(), Source(data), data, RECIPE)
    data.y[data.split["test"]] = 1 - data.y[data.split["test"]]
    flipped = evaluate(Mean(), Constant(), Source(data), data, RECIPE)
    for a, b in zip(found["rows"], flipped["rows"], strict=True):
        assert a["value"] == pytest.approx(1 - b["value"])


def test_unlabelled_recordings_are_left_out(no_rocket):
    data = recordings()
    data.y[[0, 1, -1]] = -1
    assert evaluate(Mean(), Constant(), Source(data), data, RECIPE)["rows"][0]["n"] == 11


def test_what_does_not_fit_is_refused(no_rocket):
    data = recordings()
    with pytest.raises(UsageError, match="forecasting"):
        check(panel(waves()), RECIPE)
    with pytest.raises(StructmaeError, match="no labels"):
        check(samples(waves(), [200, 200], None, split={}), RECIPE)
    with pytest.raises(UsageError, match=r"encoder\.pool=mean"):
        check(data, Recipe(modality="series"))
    data.y[data.y == 1] = 0
    with pytest.raises(StructmaeError, match="two classes"):
        evaluate(Mean(), Constant(), Source(data), data, RECIPE)


@pytest.mark.parametrize("channels", ["independent", "mixed"])
def test_the_encoder_of_the_toolkit(channels, no_rocket):
    data = recordings()
    source, (encoder, initial), recipe = real(data, channels, pool="mean")
    found = evaluate(encoder, initial, source, data, recipe)
    assert 0 <= found["pretrained"] <= 1
    assert vectors(encoder.eval(), source).shape == (24, 8 if channels == "mixed" else 16)
