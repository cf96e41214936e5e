"""Other looks at the same items, and the moving average that reads them."""

import pytest
import torch
from small_images import batch_of, drawn, ready
from torch import nn

from structmae.nn.base import Encoder
from structmae.train import fit
from structmae.views import Shadow

SECOND = {"terms.infonce.weight": 0.1, "terms.infonce.hidden": 8}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_shadow_follows_by_its_momentum(momentum):
    """Weights as by the formula, over several steps; buffers as they are. It starts as what it follows."""
    online = network()
    shadow = Shadow(online, momentum)
    expected = {name: weight.detach().clone() for name, weight in online.named_parameters()}
    assert all(torch.equal(weight, expected[name]) for name, weight in shadow.module.named_parameters())
    for _ in range(3):
        online(torch.randn(8, 3))
        with torch.no_grad():
            for name, weight in online.named_parameters():
                weight.add_(torch.randn_like(weight))
                expected[name] = momentum * expected[name] + (1 - momentum) * weight
        shadow.follow(online)
    for name, weight in shadow.module.named_parameters():
        torch.testing.assert_close(weight, expected[name])
        assert not weight.requires_grad
    for name, value in online.named_buffers():
        assert torch.equal(shadow.module.get_buffer(name), value)
    assert all(weight.requires_grad for weight in online.parameters())


def test_a_shadow_stays_in_evaluation():
    shadow = Shadow(network(), 0.5)
    nn.Sequential(shadow).train()
    assert not any(module.training for module in shadow.modules())
    x = torch.randn(5, 3)
    assert torch.equal(shadow.module(x), shadow.module(x))


def test_a_redrawn_view_is_another_plan_of_the_same_tokens():
    _, _, batch = drawn("mae", **SECOND)
    assert list(batch.views) == ["second"]
    view = batch.views["second"]
    assert view.tokens["patch"] is batch.tokens["patch"]
    one, other = batch.plans["patch"], view.plans["patch"]
    hidden = [torch.bincount(batch.tokens["patch"].batch[plan.hidden], minlength=8) for plan in (one, other)]
    assert torch.equal(*hidden)  # as many in each item
    assert not torch.equal(one.hidden, other.hidden)


def test_views_of_two_names_are_two_draws():
    changes = {**SECOND, "heads.pixels.target": "latent", "heads.pixels.view": "whole", "views.whole.plan": "redraw"}
    _, _, batch = drawn("mae", **changes)
    assert list(batch.views) == ["second", "whole"]
    plans = [batch.plans, *(view.plans for view in batch.views.values())]
    hidden = [tuple(plan["patch"].hidden.tolist()) for plan in plans]
    assert len(set(hidden)) == 3


@pytest.mark.parametrize("name", ["mae", "cmae", "bert"])
def test_the_view_of_an_item_is_the_same_in_any_batch(name):
    """Its plan, and its tokens where they are moved; another visit has another."""
    _, source, recipe = ready(name, **(SECOND if name != "cmae" else {}))
    (key,) = recipe.reads()
    part_name = next(iter(source.batch(torch.arange(1))))
    found = {}
    for items in ([5], [1, 5, 7], [5, 2]):
        view = batch_of(source, recipe, items, visit=3).views[key]
        part, at = view.tokens[part_name], items.index(5)
        first, last = part.ptr[at : at + 2].tolist()
        plan = view.plans.get(part_name)
        hidden = [] if plan is None else [row - first for row in plan.hidden.tolist() if first <= row < last]
        found[tuple(items)] = hidden, part.values[first:last], part.ids
    (hidden, values, _), *others = found.values()
    for other in others:
        assert other[0] == hidden
        assert torch.equal(other[1], values)
    assert (hidden == []) == (name == "cmae")  # its view is whole
    later = [batch_of(source, recipe, [5, 2], visit=visit).views[key] for visit in range(4, 12)]
    if name == "cmae":
        assert any(not torch.equal(view.tokens[part_name].values[: len(values)], values) for view in later)
    else:
        assert any(view.plans[part_name].hidden[: len(hidden)].tolist() != hidden for view in later)


CLUSTERS = {"terms.clustering.weight": 0.1, "terms.clustering.clusters": 3, "terms.clustering.start": 0.0}


@pytest.mark.parametrize(
    ("changes", "views", "reads"),
    [
        ({}, [], 1),
        ({"terms.uniformity.weight": 0.1}, [], 1),
        (SECOND, ["second"], 2),
        (CLUSTERS, ["whole"], 2),
        ({**SECOND, **CLUSTERS}, ["second", "whole"], 3),
        ({**SECOND, **CLUSTERS, "terms.infonce.view": "whole"}, ["whole"], 2),
    ],
)
def test_views_that_nothing_reads_are_not_made(monkeypatch, changes, views, reads):
    """And one that several read is read once."""
    model, source, recipe = ready("mae", **changes)
    model.begin(0, source)
    batch = batch_of(source, recipe, torch.arange(8))
    assert list(batch.views) == views
    calls = []
    real = Encoder.read
    monkeypatch.setattr(Encoder, "read", lambda self, *args: calls.append(self) or real(self, *args))
    model(batch)
    assert len(calls) == reads
    assert not model.shadows


def test_a_view_is_not_read_before_its_term_begins(monkeypatch):
    model, source, recipe = ready("mae", **{**CLUSTERS, "terms.clustering.start": 0.5, "train.epochs": 4})
    batch = batch_of(source, recipe, torch.arange(8))
    calls, real = [], Encoder.read
    for epoch, reads in ((0, 1), (1, 1), (2, 2)):
        model.begin(epoch, source)
        with monkeypatch.context() as patch:
            patch.setattr(Encoder, "read", lambda self, *args: calls.append(self) or real(self, *args))
            model(batch)
        assert len(calls) == reads
        calls.clear()


def test_a_view_whose_encoder_is_an_average_has_no_gradient_and_one_that_learns_has():
    for encoder in ("online", "ema"):
        model, _, batch = drawn("mae", **SECOND, **{"views.second.encoder": encoder})
        view = model._view("second", batch.views["second"])
        assert view.latent["patch"].requires_grad == (encoder == "online")
        assert ("second" in model.shadows) == (encoder == "ema")
        losses = model(batch)
        (losses.terms["infonce"] + 0 * losses.total).backward()
        assert all(weight.grad is None for weight in model.shadows.parameters())
        assert any(bool(weight.grad.any()) for weight in model.encoder.parameters() if weight.grad is not None)


def test_averages_follow_each_step_of_training():
    model, source, recipe = ready("mae", **SECOND, **{"views.second.encoder": "ema", "views.second.momentum": 0.5})
    before = {name: weight.detach().clone() for name, weight in model.shadows.named_parameters()}
    states = []
    real = model.stepped

    def stepped():
        online = {name: weight.detach().clone() for name, weight in model.encoder.named_parameters()}
        real()
        states.append((online, {n: w.clone() for n, w in model.shadows["second"].module.named_parameters()}))

    model.stepped = stepped
    fit(model, source, recipe, device=torch.device("cpu"), progress=False)
    assert len(states) == 2 * -(-source.num_items // 8)
    last = {name.removeprefix("second.module."): weight for name, weight in before.items()}
    for online, average in states:
        for name, weight in average.items():
            torch.testing.assert_close(weight, 0.5 * last[name] + 0.5 * online[name])
        last = average
