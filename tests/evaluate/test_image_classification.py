from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rebuild_cases import images, run

from structmae.cli_tables import table
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate.image_classification import check, draws, evaluate, pixels, score
from structmae.recipe import ProbeOptions, Recipe

RECIPE = Recipe(modality="image", probe=ProbeOptions(epochs=40, labels=4, subsets=3))


def arms(data, *, seed=0):
    """Features that say the label, and ones that don't."""
    noise = torch.randn(data.num_items, 4, generator=torch.Generator().manual_seed(seed))
    return F.one_hot(data.y.clamp_min(0), 2).repeat(1, 2) + 0.01 * noise, noise


def test_what_says_the_label_is_right_and_noise_is_not():
    data = images()
    good, noise = arms(data)
    found = score({"pretrained": [good], "random_init": [noise]}, data, RECIPE)
    assert found["pretrained"] == 1
    assert 0.2 < found["random_init"] < 0.8
    assert [(row["n"], row["labels"], row["subsets"], row["layer"]) for row in found["rows"]] == [(12, 4, 3, None)] * 2
    assert found["rows"][0]["std"] == 0 < found["rows"][1]["std"]


def test_mean_and_deviation_over_draws():
    data = images()
    noise = arms(data)[1]
    whole = score({"pretrained": [noise]}, data, RECIPE)["rows"][0]
    alone = []
    for some in draws(data, RECIPE):
        # The same draw alone: the only labelled training images.
        y = data.y.clone()
        y[data.split["train"][~torch.isin(data.split["train"], some)]] = -1
        one = replace(RECIPE, probe=replace(RECIPE.probe, subsets=1))
        row = score({"pretrained": [noise]}, replace(data, y=y), one)["rows"][0]
        assert row["std"] is None
        alone.append(row["value"])
    assert whole["value"] == pytest.approx(np.mean(alone))
    assert whole["std"] == pytest.approx(np.std(alone, ddof=1))


def test_draws_are_exact_and_settled_by_the_seed():
    data = images()
    one, again = draws(data, RECIPE), draws(data, RECIPE)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    for some in one:
        assert torch.isin(some, data.split["train"]).all()
        assert torch.bincount(data.y[some]).tolist() == [4, 4]
    assert not torch.equal(one[0], one[1])
    other = draws(data, replace(RECIPE, train=replace(RECIPE.train, seed=1)))
    assert not torch.equal(one[0], other[0])


def test_unlabelled_images_are_neither_learned_from_nor_scored():
    data = images()
    y = data.y.clone()
    gone = torch.cat([data.split["train"][:6], data.split["test"][:5]])
    y[gone] = -1
    some = replace(data, y=y)
    assert not any(torch.isin(gone, chosen).any() for chosen in draws(some, RECIPE))
    assert score({"pretrained": [arms(data)[0]]}, some, RECIPE)["rows"][0]["n"] == 7


def test_validation_chooses_the_layer():
    data = images()
    good, noise = arms(data)
    # One layer knows the test labels alone: that is no reason to choose it.
    cheat = noise.clone()
    cheat[data.split["test"]] = good[data.split["test"]]
    row = score({"pretrained": [cheat, noise, good, noise]}, data, RECIPE)["rows"][0]
    assert row["layer"] == 3
    assert row["value"] == 1
    empty = replace(data, split={**data.split, "validation": torch.zeros(0, dtype=torch.int64)})
    assert score({"pretrained": [good, noise]}, empty, RECIPE)["rows"][0]["layer"] == 2  # the last


def test_the_probe_reads_no_scale():
    data = images()
    noise = arms(data)[1]
    moved = 1e3 * noise * torch.tensor([1.0, 10.0, 0.1, 3.0]) - 50
    found = score({"pretrained": [noise], "random_init": [moved]}, data, RECIPE)
    assert found["pretrained"] == pytest.approx(found["random_init"], abs=1e-9)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"y": None}, "has no labels"),
        ({"classes": ("top",)}, "two classes"),
        ({"y": torch.full((60,), -1)}, "two classes and labelled test images; made has 2 and 0"),
    ],
)
def test_data_without_labels(changed, said):
    with pytest.raises(StructmaeError, match=said):
        check(replace(images(), **changed), RECIPE)


def test_too_few_labels_of_a_class():
    few = replace(RECIPE, probe=ProbeOptions(labels=30))
    with pytest.raises(StructmaeError, match=r"probe.labels=30, but class top of made has 18 .* set probe.labels=18"):
        check(images(), few)
    y = images().y.clone()
    y[y == 1] = -1
    y[images().split["test"]] = 1
    with pytest.raises(StructmaeError, match=r"class bottom of made has 0 .* give labelled images of it"):
        check(replace(images(), y=y), RECIPE)


def test_other_data_are_refused():
    with pytest.raises(UsageError, match="no set of images"):
        check(SimpleNamespace(level="node", name="karate"), RECIPE)


def test_pixels_are_scaled_and_what_is_missing_is_the_mean():
    made = run(images(20, missing=0.2), "mae")
    data, tokenizer = made.data(), made.encoder.tokenizer
    found, raw = pixels(data, tokenizer), data.x.flatten(1)
    missing = raw.isnan()
    assert missing.any()
    assert (found[missing] == 0).all()
    torch.testing.assert_close(found[~missing], ((raw - tokenizer.mean) / tokenizer.deviation)[~missing])


@pytest.mark.parametrize(("recipe", "layers"), [("mae", None), ("igpt", {1, 2}), ("igpt_masked", {1, 2})])
def test_a_run_is_scored_whatever_the_batch(recipe, layers):
    made = run(images(), recipe, encoder__layers=2)
    found = made.evaluate(task="image_classification")
    assert [row["features"] for row in found["rows"]] == ["pretrained", "random_init", "raw_features"]
    assert found["raw_features"] == 1  # top and bottom
    for row in found["rows"][:2]:
        assert row["layer"] is None if layers is None else row["layer"] in layers
        assert 0 < row["effective_rank"] <= 12
        assert 0 < row["spread"] <= 1
    data = made.data()
    parts = made.encoder, made.initial_encoder(), made.source(data), data, made.recipe
    again, lines = evaluate(*parts, at_once=7), []
    evaluate(*parts, at_once=64, progress=lines.append)
    for one, other in zip(found["rows"], again["rows"], strict=True):
        assert one["value"] == pytest.approx(
            other["value"], abs=1 / 12 / 3 + 1e-9
        )  # one image of one draw, by rounding
        assert one["effective_rank"] == pytest.approx(other["effective_rank"], rel=1e-3)
    assert len(lines) == 3
    shown = table(found)
    assert "5 labels a class; mean and standard deviation over 3 draws" in shown
    assert "layer" in shown if layers else "layer" not in shown
