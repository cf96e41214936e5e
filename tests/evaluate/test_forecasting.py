import numpy as np
import pytest
import torch
from series_cases import Encoder, Source, panel, real, samples, waves

from structmae.errors import StructmaeError, UsageError
from structmae.evaluate import forecasting
from structmae.evaluate.forecasting import check, evaluate, fit_head
from structmae.recipe import ProbeOptions, Recipe

RECIPE = Recipe(modality="series", probe=ProbeOptions(skip=False))
SKIP = Recipe(modality="series", probe=ProbeOptions(skip=True))


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(forecasting, "LOOK_BACKS", (18,))


@pytest.fixture(params=[False, True], ids=["independent", "mixed"])
def encoder(request):
    return Encoder(mixed=request.param)


def run(encoder, values=None, recipe=RECIPE, **options):
    source = Source(panel(waves() if values is None else values))
    initial = Encoder(mixed=encoder.mixed, seed=1)
    return evaluate(encoder, initial, source, source.series, recipe, **options)


def test_the_object(encoder):
    lines = []
    found = run(encoder, progress=lines.append)
    assert [row["horizon"] for row in found["rows"]] == [4, 8]
    assert [row["n_windows"] for row in found["rows"]] == [77, 73]
    for arm in ("pretrained", "random_init", "last_value", "seasonal_naive", "nlinear"):
        key = "mse" if arm == "pretrained" else arm
        assert found[arm] == pytest.approx(np.mean([row[key] for row in found["rows"]]))
    assert found["pretrained"] < found["last_value"]
    assert found["rows"][0]["nlinear_look_back"] in (12, 18)
    assert len(lines) == 5


def test_naive_forecasts_are_those_of_a_loop():
    values = waves().astype(np.float32).astype(float)
    found = run(Encoder(), values)["rows"][0]
    last, season = [], []
    for origin in range(320, 400 - 4 + 1):
        target = values[origin : origin + 4]
        last.append((target - values[origin - 1]) ** 2)
        season.append((target - values[origin - 6 : origin - 2]) ** 2)
    assert found["last_value"] == pytest.approx(np.mean(last), rel=1e-5)
    assert found["seasonal_naive"] == pytest.approx(np.mean(season), rel=1e-5)


def test_the_size_of_a_batch_does_not_change_the_score(encoder):
    few, many = run(encoder, at_once=2), run(encoder, at_once=1000)
    for a, b in zip(few["rows"], many["rows"], strict=True):
        assert a["mse"] == pytest.approx(b["mse"], rel=1e-5)
        assert a["mae"] == pytest.approx(b["mae"], rel=1e-5)


def test_the_window_itself_helps_an_encoder_that_forgets(encoder):
    with torch.no_grad():
        encoder.matrix.zero_()
    assert run(encoder, recipe=SKIP)["pretrained"] < 0.8 * run(encoder)["pretrained"]


def test_the_encoder_is_frozen_and_left_as_it_was(encoder):
    before = encoder.matrix.detach().clone()
    assert run(encoder) == run(encoder)  # no dropout
    assert encoder.training
    assert torch.equal(encoder.matrix, before)
    assert encoder.matrix.grad is None


def test_a_head_forecasts_what_was_scored(encoder):
    source = Source(panel(waves()))
    head = fit_head(encoder, source, 4, RECIPE)
    starts = torch.arange(320 - 12, 400 - 12 - 4 + 1)
    predicted = head.predict(encoder, source, starts)
    assert predicted.shape == (77, 2, 4)
    mse = float((predicted - source.values(starts + 12, 4)[0]).square().mean())
    assert mse == pytest.approx(run(encoder)["rows"][0]["mse"], rel=1e-4)
    assert head.predict(encoder, source, torch.tensor([388])).shape == (1, 2, 4)  # beyond the end


def test_a_linear_process_is_solved():
    time = np.arange(400)[:, None]
    values = 3.0 + np.array([1.0, 5.0]) * np.sin(2 * np.pi * time / 12 + np.array([0.0, 1.0]))
    found = run(Encoder(width=3), values)  # an invertible map of a segment
    assert found["pretrained"] < 1e-3
    assert found["last_value"] > 0.1


def test_horizons():
    assert run(Encoder(), horizons=[3])["rows"][0]["horizon"] == 3
    with pytest.raises(StructmaeError, match=r"horizon 81.*80.*shorter"):
        run(Encoder(), horizons=[4, 81])
    with pytest.raises(UsageError, match="1 or more"):
        run(Encoder(), horizons=[0])
    source = Source(panel(waves(), horizons=(4, 81)))
    found = evaluate(Encoder(), Encoder(), source, source.series, RECIPE)
    assert [row["horizon"] for row in found["rows"]] == [4]
    assert "81" in found["notes"][0]


def test_missing_values_everywhere_are_no_obstacle(encoder):
    values = waves()
    values[np.random.default_rng(0).random(values.shape) < 0.05] = np.nan
    found = run(encoder, values)
    assert np.isfinite([found[arm] for arm in ("pretrained", "random_init", "nlinear")]).all()
    assert found["rows"][0]["n_windows"] == 77


def test_what_does_not_fit_is_refused():
    values = waves()
    values[320:] = np.nan
    with pytest.raises(StructmaeError, match="test part"):
        run(Encoder(), values)
    with pytest.raises(UsageError, match="classification"):
        check(samples(waves(), [200, 200], [0, 1], split={"train": [0, 1]}), RECIPE)
    with pytest.raises(StructmaeError, match="too few"):
        check(panel(waves(), horizons=()), RECIPE)


@pytest.mark.parametrize("channels", ["independent", "mixed"])
def test_the_encoder_of_the_toolkit(channels):
    values = 5.0 + 3.0 * waves()
    values[np.random.default_rng(0).random(values.shape) < 0.05] = np.nan
    source, (encoder, initial), recipe = real(panel(values), channels)
    found = evaluate(encoder, initial, source, source.series, recipe)
    assert found["pretrained"] < found["last_value"]
