"""The mechanisms of igpt, cmae and multimae, on small images."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_images import MAPS, altered, batch_of, drawn, images, latent, ready

from structmae import masking, resolve
from structmae.masking import Act
from structmae.train import fit

CPU = torch.device("cpu")
few = settings(max_examples=15)
fixed = cache(ready)


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
