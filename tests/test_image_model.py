"""What holds for all recipes of images, and the mechanism of mae: hidden patches reach nothing."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_images import MAPS, SMALL, altered, batch_of, drawn, images, latent, ready

import structmae
from structmae import masking, resolve, train
from structmae.checkpoint import Checkpoint, load_weights, save_weights
from structmae.planning import Planner
from structmae.run import build
from structmae.train import fit

CPU = torch.device("cpu")
few = settings(max_examples=15)
IMAGES = [name for name in SMALL if name != "bert"]
fixed = cache(ready)


@pytest.mark.parametrize("name", ["mae", "cmae", "multimae", "igpt_masked"])
@few
@given(visit=st.integers(0, 1000))
def test_hidden_content_cannot_reach_the_encoder(name, visit):
    """To the last bit, nor what a decoder says. A visible one does."""
    model, source, recipe = fixed(name)
    model.eval()
    tokens = source.batch(torch.arange(4))
    part, plans = tokens["patch"], Planner.of(recipe).draw(tokens, visit=visit, step=0)
    hidden = plans["patch"].hidden
    assert len(hidden) == 4 * masking.count(recipe.mask.ratio, len(part) // 4 // (4 if name == "cmae" else 1)) * (
        4 if name == "cmae" else 1
    )
    expected = latent(model, tokens, plans)
    other = {"patch": altered(part, hidden, visit)}
    assert torch.equal(expected, latent(model, other, plans))
    seen = {"patch": altered(part, plans["patch"].visible[:1], visit)}
    assert not torch.equal(expected, latent(model, seen, plans))
    with torch.no_grad():
        one, two = (
            model.rebuild(replace(batch_of(source, recipe, range(4)), tokens=t, plans=plans)) for t in (tokens, other)
        )
    assert all(torch.equal(one[key], two[key]) for key in recipe.heads)


@pytest.mark.parametrize("seed", range(3))
def test_nor_which_of_its_values_were_observed(seed):
    model, _, batch = drawn("mae", images(missing=0.3), visit=seed)
    part, hidden = batch.tokens["patch"], batch.plans["patch"].hidden
    expected = latent(model, batch.tokens, batch.plans)
    assert torch.equal(expected, latent(model, {"patch": altered(part, hidden, seed)}, batch.plans))


@pytest.mark.parametrize("name", IMAGES)
def test_the_loss_is_of_what_is_scored_and_observed(name):
    """Of each head: other targets elsewhere leave it as it is, one there does not."""
    data = images(maps=MAPS if name == "multimae" else (("image", 1),), missing=0.1)
    model, recipe, batch = drawn(name, data)
    encoded, plan = model.encode(batch.tokens, batch.plans), batch.plans["patch"]
    part = encoded.tokens["patch"]
    for key, head in model.heads.items():
        asked = (
            plan.scored if head.kind is None or part.kind is None else plan.scored[part.kind[plan.scored] == head.kind]
        )
        counted = torch.zeros(len(part), dtype=torch.bool).index_fill(0, asked, True)

        def loss(changed, head=head):
            return head(replace(encoded, tokens={"patch": changed}), batch, {}, plan)

        first = loss(part)
        assert torch.equal(first, loss(altered(part, (~counted).nonzero()[:, 0], 0))), key
        one = asked[:1]
        assert not torch.equal(first, loss(altered(part, one, 0))), key
        if part.observed is not None:
            garbage = part.values.where(part.observed, 99.0)
            assert torch.equal(first, loss(replace(part, values=garbage))), key
    assert set(recipe.heads) == set(model.heads)


@pytest.mark.parametrize("name", ["mae", "igpt", "igpt_masked", "multimae"])
def test_an_items_loss_does_not_depend_on_its_batch(name):
    """The mean over a batch is that of its images alone: each has as many scored tokens (of one map)."""
    changes = {"mask.strategy": "uniform", "mask.exact": "kind"} if name == "multimae" else {}
    model, source, recipe = ready(name, **changes)
    model.eval()
    with torch.no_grad():
        together = model(batch_of(source, recipe, [3, 8, 1, 20]))
        alone = [model(batch_of(source, recipe, [item])) for item in (3, 8, 1, 20)]
    for key in together.terms:
        torch.testing.assert_close(together.terms[key], torch.stack([each.terms[key] for each in alone]).mean())


@few
@given(place=st.integers(0, 8), visit=st.integers(0, 100))
def test_any_patch_may_be_missing(place, visit):
    """It is neither read, nor hidden, nor scored."""
    data = images(8)
    x = data.x.clone()
    row, column = place // 3 * 2, place % 3 * 2
    x[:, :, row : row + 2, column : column + 2] = torch.nan
    model, _, _ = fixed("mae")
    source, recipe = (
        type(fixed("mae")[1])(
            replace(data, x=x, split={**data.split, "train": torch.arange(8)}), model.encoder.tokenizer
        ),
        fixed("mae")[2],
    )
    batch = batch_of(source, recipe, range(8), visit)
    plan = batch.plans["patch"]
    assert not (plan.scored % 9 == place).any()
    assert torch.bincount(plan.scored // 9).tolist() == [masking.count(0.75, 8)] * 8
    losses = model.train()(batch)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", ["mae", "multimae"])
def test_a_lonely_patch_does_no_harm(name):
    """All but one patch of every image missing: it is hidden, nothing is left to read, and the loss is finite."""
    maps = MAPS if name == "multimae" else (("image", 1),)
    data = images(maps=maps)
    x = torch.full_like(data.x, torch.nan)
    x[:, 0, :2, :2] = data.x[:, 0, :2, :2]
    model, source, recipe = ready(name, data)
    source.images = replace(data, x=x)
    batch = batch_of(source, recipe, range(4))
    assert batch.tokens["patch"].valid.sum() == 4
    losses = model.train()(batch)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    with torch.no_grad():
        assert all(torch.isfinite(found).all() for found in model.eval().rebuild(batch).values())


def test_the_encoder_is_what_embed_gives(tmp_path):
    """A run's vectors, those of its encoder on raw values, and of the run as it is loaded, are one."""
    data = images(30)
    settings_ = {**SMALL["mae"], "size": "tiny", "encoder.hidden": 16, "encoder.heads": 2, "train.epochs": 2}
    run = structmae.pretrain(data, "mae", settings={**settings_, "train.warmup": 0}, progress=False)
    expected = run.embed()
    assert expected.shape == (30, 16)
    with torch.no_grad():
        torch.testing.assert_close(run.encoder(data.x), expected)
    run.save(tmp_path / "run")
    again = structmae.load(tmp_path / "run")
    with torch.no_grad():
        assert torch.equal(again.encoder(data.x), run.encoder(data.x))
    assert torch.equal(again.embed(data), run.embed(data))


@pytest.mark.parametrize("name", IMAGES)
def test_a_saved_model_says_the_same(name, tmp_path):
    """Weights of averages, embeddings, decoders and centres among them, by names alone."""
    model, source, recipe = ready(name)
    fit(model, source, recipe, device=CPU, progress=False)
    save_weights(tmp_path / "model.safetensors", model)
    again = build(recipe, source.tokenizer.config())
    load_weights(tmp_path / "model.safetensors", again)
    batch = batch_of(source, recipe, range(6))
    with torch.no_grad():
        one, two = model.eval()(batch), again.eval()(batch)
    assert torch.equal(one.total, two.total)
    assert all(torch.equal(one.terms[key], two.terms[key]) for key in one.terms)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["mae", "cmae", "multimae", "igpt"])
def test_a_stopped_run_goes_on_to_the_same_bits(name, tmp_path, monkeypatch):
    changes = {"train.epochs": 3, "encoder.dropout": 0.1}
    whole, source, recipe = ready(name, **changes)
    fit(whole, source, recipe, device=CPU, progress=False)
    real, calls = train._epoch, iter(range(9))

    def dies(*args):
        if next(calls) == 2:
            raise RuntimeError("power cut")
        return real(*args)

    for epoch in (dies, real):
        monkeypatch.setattr(train, "_epoch", epoch)
        model = ready(name, **changes)[0]
        arguments = {"device": CPU, "checkpoint": Checkpoint(tmp_path), "progress": False}
        if epoch is dies:
            with pytest.raises(RuntimeError, match="power cut"):
                fit(model, source, recipe, **arguments)
        else:
            fit(model, source, recipe, **arguments)
    state, other = whole.state_dict(), model.state_dict()
    assert all(torch.equal(state[key], other[key]) for key in state)
    assert any(key.startswith("shadows.teacher.") for key in state) == (name == "cmae")


CONTRAST = {
    "train.epochs": 60, "train.batch_size": 14, "train.lr": 3e-3, "mask.group": "token", "terms.infonce.weight": 1.0,
    "terms.infonce.hidden": 32, "terms.infonce.temperature": 0.2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes"),
    [("mae", {}), ("multimae", {}), ("igpt", {}), ("igpt_masked", {}), ("cmae", CONTRAST)],
)
def test_each_part_of_the_loss_falls(name, changes):
    """On one and the same batch."""
    model, source, recipe = ready(name, **{"train.epochs": 25, "train.lr": 5e-3, "encoder.hidden": 32, **changes})
    batch = batch_of(source, recipe, range(24))
    with torch.no_grad():
        before = model.eval()(batch).terms
    fit(model, source, recipe, device=CPU, progress=False)
    with torch.no_grad():
        after = model.eval()(batch).terms
    assert set(after) == set(before) == {*model.heads, *model.terms}
    for key, loss in before.items():
        assert after[key] < 0.93 * loss, key


def test_a_head_of_a_map_that_is_not_there_is_refused():
    with pytest.raises(structmae.UsageError, match="no such map in the data: image"):
        ready("mae", **{"heads.pixels.kind": "depth"})
    assert resolve("mae", {"heads.pixels.kind": "depth"}).heads["pixels"].kind == "depth"
