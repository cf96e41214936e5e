from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_series import OF, VARIANTS, drawn, parts, values

from structmae import masking
from structmae.data.series_loading import load_series
from structmae.model import Batch
from structmae.planning import Planner

some_visits = settings(max_examples=8)


def read(model, tokens, plans):
    return model.encoder.read(tokens, plans, dict(model.tokens.items()))


def latent(model, tokens, plans):
    with torch.no_grad():
        return next(iter(read(model, tokens, plans).latent.values()))


def altered(part, rows, seed):
    """Other values in these rows, and others of them observed."""
    generator = torch.Generator().manual_seed(seed)
    new = torch.randn(len(rows), part.values.shape[1], generator=generator) * 50
    observed = part.observed
    if observed is not None:
        shuffled = observed[rows][:, torch.randperm(observed.shape[1], generator=generator)]
        new, observed = new.where(shuffled, 0.0), observed.index_copy(0, rows, shuffled)
    return replace(part, values=part.values.index_copy(0, rows, new), observed=observed)


@pytest.mark.parametrize("variant", VARIANTS)
@some_visits
@given(visit=st.integers(0, 1000))
def test_hidden_values_cannot_reach_the_encoder(variant, visit):
    """Nor which of them were observed. To the last bit, so window statistics are of visible values too."""
    recipe, model, source = parts(variant)
    tokens, plans = drawn(recipe, source, visit)
    part, plan = tokens["segment"], plans["segment"]
    assert len(plan.hidden)
    expected = latent(model, tokens, plans)
    assert torch.equal(expected, latent(model, {"segment": altered(part, plan.hidden, visit)}, plans))
    seen = altered(part, plan.visible[:1], visit)
    assert torch.equal(seen.values, part.values) or not torch.equal(expected, latent(model, {"segment": seen}, plans))


@pytest.mark.parametrize("variant", VARIANTS)
def test_values_that_were_not_observed_change_nothing(variant):
    """Neither latents nor the loss nor a gradient."""
    recipe, model, source = parts(variant)
    starts = torch.tensor([3, 40, 11])
    x, observed = source.values(starts, source.context)
    assert not observed.all()
    outcomes = []
    for garbage in (0.0, 99.0, torch.nan):
        tokens = source.tokenizer.tokens(x.where(observed, garbage), observed, starts)
        plans = drawn(recipe, source)[1]
        outcomes.append((latent(model, tokens, plans), *gradients(model, tokens, plans)))
    for other in outcomes[1:]:
        assert all(torch.equal(one, two) for one, two in zip(outcomes[0], other, strict=True))


def gradients(model, tokens, plans):
    """The loss, and its gradient by every parameter that has one."""
    loss = model(Batch(tokens, plans)).total
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return loss.detach(), *(gradient for gradient in found if gradient is not None)


@pytest.mark.parametrize("variant", VARIANTS)
@some_visits
@given(visit=st.integers(0, 1000))
def test_the_loss_is_of_what_is_scored_and_observed(variant, visit):
    """Other targets elsewhere leave it, and its gradient, as they are; one there does not."""
    recipe, model, source = parts(variant)
    tokens, plans = drawn(recipe, source, visit)
    encoded = read(model, tokens, plans)
    (head,), scored = model.heads.values(), plans["segment"].scored
    part = encoded.tokens["segment"]
    batch = Batch(tokens, plans, Planner.of(recipe).redraw(tokens, visit=visit, step=0))
    counted = torch.zeros_like(part.values, dtype=torch.bool)
    counted[scored] = True if part.observed is None else part.observed[scored]

    def loss(target):
        given_tokens = replace(encoded, tokens={"segment": replace(part, values=target)})
        return head(given_tokens, batch, {}, plans["segment"])

    first, other = loss(part.values), loss(part.values.where(counted, 31.0))
    assert torch.equal(first, other)
    wanted = [p for p in head.parameters() if p.requires_grad]
    one, two = (torch.autograd.grad(each, wanted, allow_unused=True, retain_graph=True) for each in (first, other))
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(one, two, strict=True))
    changed = part.values.clone()
    changed[tuple(counted.nonzero()[0])] += 1.0
    assert not torch.equal(first, loss(changed))


@pytest.mark.parametrize("variant", VARIANTS)
@some_visits
@given(visit=st.integers(0, 1000))
def test_the_decoder_is_given_nothing_of_the_hidden_either(variant, visit):
    recipe, model, source = parts(variant)
    tokens, plans = drawn(recipe, source, visit)
    other = {"segment": altered(tokens["segment"], plans["segment"].hidden, visit)}
    with torch.no_grad():
        one, two = (next(iter(model.rebuild(Batch(each, plans)).values())) for each in (tokens, other))
    assert one.shape == tokens["segment"].values.shape
    assert torch.equal(one, two)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rebuilt_tokens_are_those_that_the_loss_scores(variant):
    recipe, model, source = parts(variant)
    tokens, plans = drawn(recipe, source)
    (options,), (head,) = recipe.heads.values(), model.heads.values()
    scored = plans["segment"].scored
    with torch.no_grad():
        (rebuilt,) = model.rebuild(Batch(tokens, plans)).values()
        encoded = read(model, tokens, plans)
        zeroed = plans["segment"].hidden if options.remask == "hidden" else None
        prediction = head.decoder(encoded, scored, zeroed)
    torch.testing.assert_close(rebuilt[scored], prediction)


def test_the_decoder_is_not_given_what_is_remasked():
    """Other latents at the hidden places leave every prediction as it is."""
    recipe, model, source = parts("re-masked")
    tokens, plans = drawn(recipe, source)
    (head,), plan = model.heads.values(), plans["segment"]
    encoded = read(model, tokens, plans)
    z = encoded.latent["segment"].detach()
    place = plan.restore[plan.hidden] if encoded.kept["segment"] is not None else plan.hidden
    other = z.index_fill(0, place, 5.0)
    for zeroed, same in ((plan.hidden, True), (None, False)):
        one, two = (
            head.decoder(replace(encoded, latent={"segment": each}), plan.scored, zeroed) for each in (z, other)
        )
        assert torch.equal(one, two) == same


@pytest.mark.parametrize("variant", ["rows", "columns", "cells"])
def test_patches_are_hidden_in_groups(variant):
    """Of the grid of 2 frequencies x 6 times: whole rows, whole columns, squares of 2 x 2."""
    recipe, _, source = parts(variant, load_series(values()))
    for visit in range(5):
        tokens, plans = drawn(recipe, source, visit)
        hidden = torch.zeros(len(tokens["segment"]), dtype=torch.bool)
        hidden[plans["segment"].hidden] = True
        grids = hidden.view(-1, 2, 6)
        for grid in grids:
            if variant == "rows":
                assert (grid.sum(1) % 6 == 0).all()
            else:
                assert torch.equal(grid[0], grid[1])
            if variant == "cells":
                assert torch.equal(grid[:, ::2], grid[:, 1::2])
        assert 0 < int(hidden.sum()) < len(hidden)


@pytest.mark.parametrize("scope", ["item", "set", "batch"])
def test_a_draw_is_shared_by_a_window_or_a_batch(scope):
    recipe, _, source = parts("patchtst", load_series(values()), **{"mask.scope": scope})
    found = {}
    for visit in range(4):
        tokens, plans = drawn(recipe, source, visit)
        hidden = torch.zeros(len(tokens["segment"]), dtype=torch.bool)
        hidden[plans["segment"].hidden] = True
        of = hidden.view(3, 3, 8)  # windows, channels, segments
        assert (of.sum(2) == masking.count(recipe.mask.ratio, 8)).all()
        found.setdefault("set", []).append(torch.equal(of, of[:, :1].expand_as(of)))
        found.setdefault("batch", []).append(torch.equal(of, of[:1, :1].expand_as(of)))
    assert all(found["set"]) == (scope in ("set", "batch"))
    assert all(found["batch"]) == (scope == "batch")


def test_variance_weights_find_the_lively_segments():
    recipe, _, source = parts("variance", load_series(values()), **{"mask.power": 16.0, "mask.ratio": 0.25})
    tokens, plans = drawn(recipe, source)
    spread = tokens["segment"].values.var(1)
    hidden = torch.zeros(len(spread), dtype=torch.bool)
    hidden[plans["segment"].hidden] = True
    assert spread[hidden].mean() > 1.5 * spread[~hidden].mean()


@pytest.mark.parametrize("variant", ["tsformer", "spectrogram", "mixed and dropped"])
@pytest.mark.parametrize("missing", [False, True])
def test_all_may_be_hidden_or_missing(variant, missing):
    """Every token is dropped; a window without a value has none to hide, and no loss."""
    x = values()
    if missing:
        x[:90] = torch.nan
    recipe, model, source = parts(variant, load_series(x, split="0.9/0.05/0.05"))
    if not missing:  # no recipe may ask for it, but an item of one token comes to it
        recipe = replace(recipe, mask=replace(recipe.mask, ratio=1.0))
    tokens, plans = drawn(recipe, source, items=(3, 20))
    losses = model.train()(Batch(tokens, plans))
    if missing:
        assert losses.total is None
        with torch.no_grad():
            assert not model.eval().encoder.features(tokens).any()
            (rebuilt,) = model.rebuild(Batch(tokens, plans)).values()
        assert torch.isfinite(rebuilt).all()
        assert rebuilt.shape == tokens["segment"].values.shape
        return
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", OF)
def test_every_weight_of_the_encoder_learns(name):
    """But the map of missing values where a token has all or none of them."""
    recipe, model, source = parts(name)
    tokens, plans = drawn(recipe, source)
    model.train()(Batch(tokens, plans)).total.backward()
    idle = [key for key, p in model.encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == (["missing.weight"] if name == "spectrogram" else [])
