"""The mechanisms of mae, cmae, multimae and igpt, on small images."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_images import MAPS, SMALL, batch_of, drawn, images, ready

import structmae
from structmae import masking, resolve, train
from structmae.checkpoint import Checkpoint, load_weights, save_weights
from structmae.masking import Act
from structmae.planning import Planner
from structmae.run import build
from structmae.train import fit

CPU = torch.device("cpu")
few = settings(max_examples=15)
IMAGES = [name for name in SMALL if name != "bert"]
fixed = cache(ready)


def latent(model, tokens, plans):
    with torch.no_grad():
        return model.encode(tokens, plans).latent["patch"]


def altered(part, rows, seed):
    """Other content in these rows: values, which of them were observed, ids."""
    generator = torch.Generator().manual_seed(seed)
    if part.ids is not None:
        other = (part.ids[rows] + 1 + torch.randint(0, 3, (len(rows),), generator=generator)) % 5
        return replace(part, ids=part.ids.index_copy(0, rows, other))
    new = torch.randn(len(rows), part.values.shape[1], generator=generator) * 50
    observed = part.observed
    if observed is not None:
        shuffled = observed[rows][:, torch.randperm(observed.shape[1], generator=generator)]
        new, observed = new.where(shuffled, 0.0), observed.index_copy(0, rows, shuffled)
    return replace(part, values=part.values.index_copy(0, rows, new), observed=observed)


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


# igpt


@few
@given(place=st.integers(0, 35), seed=st.integers(0, 10**6))
def test_a_pixel_changes_what_is_said_after_it_only(place, seed):
    """Logits up to and with its own place are as they were; that of the next one is not."""
    model, source, recipe = fixed("igpt")
    model.eval()
    batch = batch_of(source, recipe, [seed % 20])
    other = {"patch": altered(batch.tokens["patch"], torch.tensor([place]), seed)}
    with torch.no_grad():
        one = model.rebuild(batch)["colours"]
        two = model.rebuild(replace(batch, tokens=other))["colours"]
    torch.testing.assert_close(one[: place + 1], two[: place + 1], rtol=0, atol=1e-6)
    if place < 35:
        assert not torch.allclose(one[place + 1], two[place + 1], rtol=0, atol=1e-6)


def test_the_first_pixel_is_told_from_the_start_alone():
    """The same for all images, of the start vector; every pixel is scored, and none is hidden."""
    model, _, batch = drawn("igpt")
    plan = batch.plans["patch"]
    assert torch.equal(plan.scored, torch.arange(8 * 36))
    assert not len(plan.hidden)
    with torch.no_grad():
        first = model.rebuild(batch)["colours"].view(8, 36, 5)[:, 0]
        torch.testing.assert_close(first, first[:1].expand(8, -1))
        model.encoder.start.mul_(-3.0)
        assert not torch.allclose(model.rebuild(batch)["colours"].view(8, 36, 5)[:, 0], first)
        said = model.rebuild(batch)["colours"]
        expected = F.cross_entropy(said, batch.tokens["patch"].ids)
        torch.testing.assert_close(model(batch).total, expected)


def test_the_masked_variant_reads_zeros_and_sees_both_sides():
    model, recipe, batch = drawn("igpt_masked")
    plan = batch.plans["patch"]
    assert torch.bincount(plan.hidden // 36).tolist() == [masking.count(0.15, 36)] * 8
    assert torch.equal(plan.hidden, plan.with_act(Act.ZERO))
    given_to = []
    real = model.encoder.encode
    model.encoder.encode = lambda h, tokens: given_to.append(h["patch"]) or real(h, tokens)
    with torch.no_grad():
        before = latent(model, batch.tokens, batch.plans)
    assert not given_to[0][plan.hidden].any()
    assert torch.equal(given_to[0][plan.visible], model.encoder.embed(batch.tokens)["patch"][plan.visible])
    last = plan.visible[plan.visible < 36][-1:]
    after = latent(model, {"patch": altered(batch.tokens["patch"], last, 0)}, batch.plans)
    assert (before[:36] != after[:36]).any(1).all()  # places before it too
    assert (recipe.encoder.attention, recipe.encoder.shift, model.encoder.start) == ("full", False, None)


# cmae


def test_the_teacher_has_no_gradient_and_is_no_part_of_the_optimizer():
    model, _, batch = drawn("cmae")
    model.train()(batch).total.backward()
    averages = [*model.shadows["teacher"].parameters(), *model.terms["infonce"].shadow.parameters()]
    assert averages
    assert all(weight.grad is None and not weight.requires_grad for weight in averages)
    trained = {id(weight) for group in model.groups() for weight in group["params"]}
    assert not trained & {id(weight) for weight in averages}
    assert len(trained) == sum(weight.requires_grad for weight in model.parameters())
    assert all(bool(weight.grad.any()) for weight in model.encoder.parameters())


def test_the_teacher_and_its_projection_move_by_the_momentum():
    model, source, recipe = ready("cmae", **{"train.epochs": 1, "train.batch_size": 64})
    pairs = [(model.shadows["teacher"], model.encoder), (model.terms["infonce"].shadow, model.terms["infonce"].project)]
    first = [{name: weight.detach().clone() for name, weight in online.named_parameters()} for _, online in pairs]
    fit(model, source, recipe, device=CPU, progress=False)  # one step
    for (shadow, online), before in zip(pairs, first, strict=True):
        moved = 0
        for name, weight in online.named_parameters():
            expected = 0.75 * before[name] + 0.25 * weight.detach()
            torch.testing.assert_close(shadow.module.get_parameter(name), expected)
            moved += not torch.equal(weight, before[name])
        assert moved


def test_the_second_view_is_whole_and_moved_alike_in_any_batch():
    _, source, recipe = ready("cmae")
    together = batch_of(source, recipe, [7, 2, 11], visit=4).views["teacher"]
    alone = batch_of(source, recipe, [2], visit=4).views["teacher"]
    assert together.plans == {}
    assert torch.equal(together.tokens["patch"].values[36:72], alone.tokens["patch"].values)
    plain = source.batch(torch.tensor([2]))["patch"].values
    found = {
        tuple(batch_of(source, recipe, [2], visit=v).views["teacher"].tokens["patch"].values[:, 0].tolist())
        for v in range(30)
    }
    assert len(found) == 9  # one pixel either way along each axis, or none
    assert tuple(plain[:, 0].tolist()) in found


def test_groups_of_four_pixels_are_hidden():
    _, recipe, batch = drawn("cmae")
    hidden = torch.zeros(8 * 36, dtype=torch.bool).index_fill(0, batch.plans["patch"].hidden, True).view(8, 3, 2, 3, 2)
    assert set(hidden.sum((2, 4)).unique().tolist()) == {0, 4}
    assert (hidden.sum((2, 4)) == 4).sum((1, 2)).tolist() == [masking.count(recipe.mask.ratio, 9)] * 8
    assert resolve("cmae", {"size": "published"}).mask.group == "cell"


def test_the_contrast_is_of_the_teachers_vectors():
    """InfoNCE by hand from the parts of the model: prediction of the online projection, projection of the teacher."""
    model, _, batch = drawn("cmae")
    term = model.terms["infonce"]
    with torch.no_grad():
        for module in (model.shadows["teacher"], term.shadow):
            for weight in module.parameters():
                weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
        encoded = model.encode(batch.tokens, batch.plans)
        mine = term.predict(term.project(term._own(model.encoder, encoded)[0]))
        teacher = model.shadows["teacher"].module
        theirs = term.shadow.module(teacher.represent(batch.views["teacher"].tokens))
        alike = F.normalize(mine, dim=1) @ F.normalize(theirs, dim=1).T / term.temperature
        expected = -torch.log_softmax(alike, 1).diag().mean()
        torch.testing.assert_close(model(batch).terms["infonce"], expected)


# multimae


@few
@given(visit=st.integers(0, 1000))
def test_as_many_patches_stay_visible_in_every_image(visit):
    _, source, recipe = fixed("multimae")
    batch = batch_of(source, recipe, range(12), visit)
    part, plan = batch.tokens["patch"], batch.plans["patch"]
    assert torch.bincount(part.batch[plan.kept], minlength=12).tolist() == [27 - masking.count(5 / 6, 27)] * 12


def test_the_maps_shares_of_the_visible_are_drawn_anew():
    _, source, recipe = fixed("multimae")
    batch = batch_of(source, recipe, range(20))
    part, kept = batch.tokens["patch"], batch.plans["patch"].kept
    shares = torch.stack([torch.bincount(part.kind[kept[part.batch[kept] == item]], minlength=3) for item in range(20)])
    assert len(torch.unique(shares, dim=0)) > 4


@pytest.mark.parametrize("present", [(0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)])
def test_any_of_the_maps_may_be_given(present):
    """What stands in those that are missing does not matter; each that is there does."""
    model, source, _ = fixed("multimae")
    encoder, x = model.eval().encoder, source.images.x[:4]
    there = torch.zeros_like(x, dtype=torch.bool)
    there[:, list(present)] = True
    with torch.no_grad():
        found = encoder(x.where(there, torch.nan))
        assert found.shape == (4, 16)
        for garbage in (0.0, 1e4):
            assert torch.equal(found, encoder(x.where(there, garbage), there))
        for kind in range(3):
            other = x.clone()
            other[:, kind] = other[:, kind].flip(1)
            assert torch.equal(found, encoder(other, there)) == (kind not in present)
        one = encoder(x.where(there, torch.nan)[2:3])
    torch.testing.assert_close(one, found[2:3], rtol=1e-4, atol=1e-5)


def test_training_takes_images_that_lack_a_map():
    data = images(maps=MAPS)
    x = data.x.clone()
    for image in range(len(x)):
        x[image, image % 3] = torch.nan
    model, source, recipe = ready("multimae", replace(data, x=x))
    batch = batch_of(source, recipe, range(9))
    part, plan = batch.tokens["patch"], batch.plans["patch"]
    assert torch.bincount(part.batch[plan.kept], minlength=9).tolist() == [18 - masking.count(5 / 6, 18)] * 9
    position = fit(model, source, recipe, device=CPU, progress=False)
    assert np.isfinite(position.loss_last)


def test_each_head_scores_its_own_map():
    """Other targets in another map leave its loss as it is."""
    model, recipe, batch = drawn("multimae")
    encoded, plan = model.encode(batch.tokens, batch.plans), batch.plans["patch"]
    part = encoded.tokens["patch"]
    with torch.no_grad():
        for kind, (name, head) in enumerate(model.heads.items()):
            assert (name, head.kind) == (MAPS[kind][0], kind)
            first = head(encoded, batch, {}, plan)
            for other in range(3):
                changed = part.values.where(part.kind[:, None] != other, 7.0)
                found = head(replace(encoded, tokens={"patch": replace(part, values=changed)}), batch, {}, plan)
                assert torch.equal(first, found) == (other != kind)
        losses = model(batch)
    assert {name: head.loss for name, head in recipe.heads.items()} == {
        "image": "mse",
        "gradient": "l1",
        "threshold": "mse",
    }
    torch.testing.assert_close(losses.total, sum(losses.terms.values()))


def test_what_is_rebuilt_of_an_image_is_its_own():
    """Another image beside it, and other values there, change nothing."""
    model, source, recipe = fixed("multimae")
    model.eval()
    batch = batch_of(source, recipe, range(4))
    with torch.no_grad():
        one = model.rebuild(batch)
        other = altered(batch.tokens["patch"], torch.arange(27, 54), 0)
        two = model.rebuild(replace(batch, tokens={"patch": other}))
        alone = model.rebuild(batch_of(source, recipe, [0]))
    mine = torch.ones(108, dtype=torch.bool)
    mine[27:54] = False
    for name in recipe.heads:
        torch.testing.assert_close(one[name][mine], two[name][mine])
        assert not torch.equal(one[name][27:54], two[name][27:54])
        torch.testing.assert_close(alone[name], one[name][:27], rtol=1e-4, atol=1e-5)
        kind = batch.tokens["patch"].kind
        assert not one[name][kind != list(recipe.heads).index(name)].any()  # rows of other maps are no business of it


def test_a_head_of_a_map_that_is_not_there_is_refused():
    with pytest.raises(structmae.UsageError, match="the data has image"):
        ready("mae", **{"heads.pixels.kind": "depth"})
    assert resolve("mae", {"heads.pixels.kind": "depth"}).heads["pixels"].kind == "depth"
