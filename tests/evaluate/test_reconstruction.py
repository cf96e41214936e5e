from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rebuild_cases import images, run, texts

import structmae
from structmae.cli_tables import table
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate.reconstruction import check, evaluate
from structmae.masking import VALIDATION, Act
from structmae.planning import Planner


def scored(made, **options):
    """The evaluation of a run, of data of its own."""
    data = made.data()
    return evaluate(made.encoder, made.initial_encoder(), made.source(data), data, made.recipe, run=made, **options)


def held(made, rows, encoder=None):
    """Test items, all at once: their tokens, the plan, and what the first head rebuilds."""
    source, model = made.source(made.data()), made.model
    source.rows = rows
    batch = Planner.of(made.recipe).batch(source, torch.arange(len(rows)), visit=VALIDATION, step=0)
    training = model.training
    model.eval()
    with torch.no_grad():
        rebuilt = model.rebuild(batch)
    model.train(training)
    name = next(iter(rebuilt))
    of = made.recipe.heads[name].of
    return batch.tokens[of], batch.plans[of], rebuilt[name]


@pytest.fixture(scope="module")
def mae():
    return run(images(missing=0.1), "mae")


@pytest.fixture(scope="module")
def bert():
    return run(texts(), "bert", tokens__context=24, tokens__vocabulary=300, train__epochs=3)


def test_squared_error_and_the_mean_of_each_place(mae):
    data = mae.data()
    part, plan, rebuilt = held(mae, data.split["test"])
    rows, there = plan.scored, part.observed[plan.scored]
    error = (rebuilt[rows] - part.values[rows])[there].square().mean()
    source = mae.source(data)
    training = source.at(data.split["train"])["patch"]
    total, count = np.zeros((4, 4)), np.zeros((4, 4))
    for place, values, seen in zip(training.position, training.values, training.observed, strict=True):
        total[place] += np.where(seen, values, 0)
        count[place] += seen.numpy()
    mean = torch.from_numpy(total / count)[part.position[rows]]
    row = scored(mae)["rows"][0]
    assert (row["head"], row["target"], row["metric"], row["better"]) == ("pixels", "values", "mse", "lower")
    assert row["n"] == int(there.sum()) < there.numel()
    assert row["value"] == pytest.approx(float(error), rel=1e-5)
    assert row["position_mean"] == pytest.approx(float((mean - part.values[rows])[there].square().mean()), rel=1e-5)
    assert row["ratio"] == pytest.approx(row["value"] / row["position_mean"])


def test_before_training_is_the_model_that_training_began_with(mae):
    untrained = structmae.run.Run(
        mae.recipe, structmae.run.build(mae.recipe, mae.encoder.tokenizer), mae.config, mae.data()
    )
    row = scored(untrained)["rows"][0]
    assert row["value"] == row["random_init"] == pytest.approx(scored(mae)["rows"][0]["random_init"])
    assert row["value"] != scored(mae)["rows"][0]["value"]


def test_normalised_patches_are_compared_as_they_are_trained():
    made = run(images(), "mae", head_normalize=True)
    part, plan, rebuilt = held(made, made.data().split["test"])
    values = part.values[plan.scored]
    wanted = (values - values.mean(1, keepdim=True)) / (values.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    row = scored(made)["rows"][0]
    assert row["value"] == pytest.approx(float((rebuilt[plan.scored] - wanted).square().mean()), rel=1e-4)
    assert 0.5 < row["position_mean"] < 1.5  # a normalised value has variance 1


@pytest.mark.parametrize("name", ["mae", "bert"])
def test_scores_do_not_depend_on_the_batch(name, request):
    made = request.getfixturevalue(name)
    one, other = scored(made, at_once=3)["rows"][0], scored(made, at_once=50)["rows"][0]
    keys = {"value", "random_init", "position_mean", "unigram", "bigram"} & set(one)
    assert len(keys) > 2
    assert {key: one[key] for key in keys} == pytest.approx({key: other[key] for key in keys}, rel=1e-4)
    assert one["n"] == other["n"]


def test_ids_of_text(bert):
    source = bert.source(bert.data())
    part, plan, rebuilt = held(bert, source.parts["test"])
    rows = plan.scored
    hit = rebuilt[rows].argmax(1) == part.ids[rows]
    found = scored(bert)
    row = found["rows"][0]
    assert (row["metric"], row["better"], row["n"]) == ("accuracy", "higher", len(rows))
    assert row["value"] == found["pretrained"] == pytest.approx(float(hit.double().mean()))
    bits = F.cross_entropy(rebuilt[rows], part.ids[rows]) / np.log(2)
    assert row["bits"]["pretrained"] == pytest.approx(float(bits), rel=1e-5)
    training = source.at(source.rows)["piece"].ids
    commonest = torch.bincount(training).argmax()
    assert row["unigram"] == pytest.approx(float((part.ids[rows] == commonest).double().mean()))
    assert row["bigram"] > row["unigram"] + 0.2  # each word has two that may come next
    assert row["bits"]["bigram"] < row["bits"]["unigram"]
    mask = plan.with_act(Act.TOKEN)
    masked = rebuilt[mask].argmax(1) == part.ids[mask]
    assert row["masked"]["pretrained"] == pytest.approx(float(masked.double().mean()))
    assert row["masked"]["n"] == len(mask) < len(rows)


def test_shares_are_those_of_the_plan_over_all_windows(bert):
    shares = scored(bert)["rows"][0]["shares"]
    source, planner, acts = bert.source(bert.data()), Planner.of(bert.recipe), []
    for window in range(len(source.document)):
        tokens = source.at(torch.tensor([window]))
        acts.append(planner.draw(tokens, visit=VALIDATION, step=0)["piece"].plan.act)
    counts = np.bincount(np.concatenate(acts), minlength=5)
    assert shares == {act: counts[Act[act.upper()]] / counts.sum() for act in ("token", "random", "keep")}


def test_the_weight_of_pairs_is_chosen_on_validation_alone(bert, monkeypatch):
    data = bert.data()
    row = scored(bert)["rows"][0]
    few = replace(data, split={**data.split, "test": data.split["test"][:1]})
    one = evaluate(bert.encoder, bert.initial_encoder(), bert.source(few), few, bert.recipe, run=bert)["rows"][0]
    assert one["bigram_strength"] == row["bigram_strength"]
    monkeypatch.setattr("structmae.evaluate.rebuilding.STRENGTHS", (0.5,))
    assert scored(bert)["rows"][0]["bigram_strength"] == 0.5
    none = replace(data, split={**data.split, "validation": data.split["validation"][:0]})
    monkeypatch.setattr("structmae.evaluate.rebuilding.STRENGTHS", (1.0, 7.0, 40.0))
    alone = evaluate(bert.encoder, bert.initial_encoder(), bert.source(none), none, bert.recipe, run=bert)["rows"][0]
    assert alone["bigram_strength"] == 7.0  # the middle one, where there is nothing to choose on


def test_a_causal_model_is_scored_in_bits():
    made = run(images(), "igpt", tokens__palette=4)
    part, _, rebuilt = held(made, made.data().split["test"])
    row = scored(made)["rows"][0]
    assert (row["metric"], row["better"], row["n"]) == ("bits", "lower", 12 * 16)
    assert row["value"] == pytest.approx(float(F.cross_entropy(rebuilt, part.ids)) / np.log(2), rel=1e-5)
    training = made.source(made.data()).at(made.data().split["train"])["patch"].ids.view(-1, 16).numpy()
    test = part.ids.view(-1, 16).numpy()
    single = (np.bincount(training.flatten(), minlength=4) + 1) / (training.size + 4)
    assert row["unigram"] == pytest.approx(-np.log2(single[test]).mean())
    pairs = np.ones((4, 4))
    for image in training:
        for one, two in pairwise(image):
            pairs[one, two] += 1
    pairs /= pairs.sum(1, keepdims=True)
    bits = -np.log2(single[test[:, 0]]).sum() - np.log2(pairs[test[:, :-1], test[:, 1:]]).sum()
    assert row["previous"] == pytest.approx(bits / test.size)
    places = np.ones((16, 4))
    for image in training:
        places[np.arange(16), image] += 1
    places /= places.sum(1, keepdims=True)
    assert row["position"] == pytest.approx(-np.log2(places[np.arange(16), test]).mean())


def test_hidden_ids_of_images_have_the_bigram_too():
    row = scored(run(images(), "igpt_masked", tokens__palette=4))["rows"][0]
    assert row["metric"] == "accuracy"
    assert {"unigram", "bigram"} < set(row)
    assert row["shares"] == {"zero": 1.0}
    assert "masked" not in row  # a mask stands at all


def test_codes_beside_the_commonest():
    made = run(images(), "mae", head_target="code", head_codes=5, head_loss="ce", head_normalize=False)
    part, plan, rebuilt = held(made, made.data().split["test"])
    centres = made.model.heads["pixels"].target.centres
    truth = torch.cdist(part.values[plan.scored], centres).argmin(1)
    row = scored(made)["rows"][0]
    assert row["value"] == pytest.approx(float((rebuilt[plan.scored].argmax(1) == truth).double().mean()))
    training = made.source(made.data()).at(made.data().split["train"])["patch"].values
    counts = torch.bincount(torch.cdist(training, centres).argmin(1), minlength=5)
    assert row["unigram"] == pytest.approx(float((truth == counts.argmax()).double().mean()))
    shares = (counts + 1) / (counts.sum() + 5)
    assert row["bits"]["unigram"] == pytest.approx(float(-shares.log2()[truth].mean()), rel=1e-5)


def test_a_latent_of_another_view_has_a_loss():
    made = run(images(), "mae", head_target="latent", head_view="whole", head_normalize=False)
    row = scored(made, at_once=12)["rows"][0]
    assert (row["target"], row["metric"], row["n"]) == ("latent", "loss", 12)
    source = made.source(made.data())
    source.rows = made.data().split["test"]
    batch = Planner.of(made.recipe).batch(source, torch.arange(12), visit=VALIDATION, step=0)
    with torch.no_grad():
        assert row["value"] == pytest.approx(float(made.model.eval()(batch).terms["pixels"]), rel=1e-5)


@pytest.fixture(scope="module")
def maps():
    data = images(maps=(("image", 1), ("gradient", 2), ("threshold", 1)))
    return run(data, "multimae", mask__ratio=0.5)


def changed(data, kind):
    """The test images with other values in the channels of one map."""
    first = sum(size for _, size in data.maps[:kind])
    x = data.x.clone()
    rows = data.split["test"]
    x[rows, first : first + data.maps[kind][1]] = torch.rand(len(rows), data.maps[kind][1], 4, 4)
    return replace(data, x=x)


def on(made, data):
    source = made.source(data)
    found = evaluate(made.encoder, made.initial_encoder(), source, data, made.recipe, run=made)
    return {row["head"]: row for row in found["rows"]}


def test_maps_alone_together_and_from_others(maps):
    data = maps.data()
    before = on(maps, data)
    assert list(before) == ["image", "gradient", "threshold"]
    other = on(maps, changed(data, 1))
    # Alone, nothing of the other maps is read; with them, it is.
    assert other["image"]["alone"] == before["image"]["alone"]
    assert other["image"]["together"] != before["image"]["together"]
    assert other["image"]["from_others"] != before["image"]["from_others"]
    assert other["gradient"]["alone"] != before["gradient"]["alone"]


def test_maps_by_hand(maps):
    """What is hidden, of the first map: as the plan has it, and all of it."""
    data = maps.data()
    rows, source, model = data.split["test"], maps.source(maps.data()), maps.model.eval()
    row = on(maps, data)["image"]
    x = data.x[rows].clone()
    tokens = source.at(rows)
    plan = Planner.of(maps.recipe).draw(tokens, visit=VALIDATION, step=0)["patch"]
    kind = tokens["patch"].kind
    some = [item for item in range(12) if (kind[plan.visible] == 0)[tokens["patch"].batch[plan.visible] == item].any()]
    assert some
    hidden = plan.scored[(kind[plan.scored] == 0) & torch.isin(tokens["patch"].batch[plan.scored], torch.tensor(some))]
    assert row["n_alone"] == 4 * len(hidden)
    # The encoder of images that lack what is hidden reads what it reads where that is hidden.
    x[:, 1:] = float("nan")
    for token in plan.scored[kind[plan.scored] == 0].tolist():
        item, place = divmod(token, 12)
        y, z = divmod(place, 2)
        x[item, 0, 2 * y : 2 * y + 2, 2 * z : 2 * z + 2] = float("nan")
    with torch.no_grad():
        few = maps.encoder.tokenizer.tokens(maps.encoder.tokenizer.normalize(x), ~x.isnan(), rows)
        encoded = model.encoder.read(few)
        head = model.heads["image"]
        whole = tokens["patch"]
        # Asked as if all of the map were there, for a decoder asks for no token that is not valid.
        seen = replace(encoded.seen["patch"], valid=kind == 0)
        encoded = replace(encoded, seen={"patch": seen})
        values, there = whole.values[hidden], whole.observed[hidden]
        error = (head.decoder(encoded, hidden, None) - values)[there].square().mean()
    assert row["alone"] == pytest.approx(float(error), rel=1e-4)


def test_one_map_has_no_others(mae):
    assert "alone" not in scored(mae)["rows"][0]


def test_what_can_not_be_rebuilt_is_refused(mae, karate):
    with pytest.raises(UsageError, match="images and texts, and karate is neither"):
        check(karate, mae.recipe)
    data = mae.data()
    none = replace(data, split={**data.split, "test": data.split["test"][:0]})
    with pytest.raises(StructmaeError, match="no test items"):
        check(none, mae.recipe)
    tuned = SimpleNamespace(model=torch.nn.Linear(1, 1))
    with pytest.raises(UsageError, match="a fine-tuned run has no heads"):
        evaluate(mae.encoder, mae.initial_encoder(), mae.source(data), data, mae.recipe, run=tuned)


def test_test_items_of_which_nothing_was_observed(mae):
    data = mae.data()
    x = data.x.clone()
    x[data.split["test"]] = float("nan")
    gone = replace(data, x=x)
    with pytest.raises(StructmaeError, match="nothing in the test items was observed"):
        evaluate(mae.encoder, mae.initial_encoder(), mae.source(gone), gone, mae.recipe, run=mae)


def test_a_run_evaluates_and_prints(mae, bert):
    lines = []
    found = mae.evaluate(task="reconstruction", progress=lines.append)
    assert found["pretrained"] == found["rows"][0]["value"]
    assert {"random_init", "position_mean"} < set(found)
    assert lines == [f"pixels: mse {found['pretrained']:.4f}, before training {found['random_init']:.4f}"]
    assert "position mean" in table(found)
    shown = table(scored(bert))
    assert "places where a mask stands" in shown
    assert "% token" in shown
