"""What heads rebuild: values by their own scale, ids, codes, latents of a view, degrees."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_images import batch_of, drawn, images, ready
from small_series import drawn as drawn_series
from small_series import parts, values

from structmae import resolve
from structmae.data.series_loading import load_series
from structmae.errors import StructmaeError
from structmae.run import build
from structmae.targets import scaled
from structmae.tokens.graph import GraphSource, NodeTokenizer
from structmae.train import fit

CODES = {"heads.pixels.target": "code", "heads.pixels.loss": "ce", "heads.pixels.codes": 6}
CPU = torch.device("cpu")


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), shift=st.sampled_from([0.0, 5.0]))
def test_a_token_is_scaled_by_what_was_observed_of_it(seed, share, shift):
    """Against a loop. What was not observed is 0 and has no part in it."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 6, generator=generator, dtype=torch.float64) + shift
    there = torch.rand(5, 6, generator=generator) < share
    found = scaled(x.where(there, 0.0), there)
    for row in range(5):
        own = x[row, there[row]].numpy()
        if len(own):
            expected = (own - own.mean()) / np.sqrt(own.var() + 1e-6)
            np.testing.assert_allclose(found[row, there[row]], expected, atol=1e-9)
    assert not found[~there].any()
    torch.testing.assert_close(scaled(x, None), scaled(x, torch.ones_like(there)))


def test_patches_by_their_own_mean_and_deviation_are_what_is_scored():
    """Brighter or of more contrast, a hidden patch costs what it did: a target of the paper's, on the model's loss."""
    model, _, batch = drawn("mae", **{"heads.pixels.normalize": True})
    plain, _, _ = drawn("mae")
    part, hidden = batch.tokens["patch"], batch.plans["patch"].hidden
    other = part.values.clone()
    other[hidden] = 3.0 * other[hidden] + 7.0
    moved = replace(batch, tokens={"patch": replace(part, values=other)})
    with torch.no_grad():
        torch.testing.assert_close(model(batch).total, model(moved).total, rtol=1e-3, atol=1e-3)
        assert not torch.isclose(plain(batch).total, plain(moved).total, rtol=0.1)
        encoded, asked = model.encode(batch.tokens, batch.plans), batch.plans["patch"].scored
        target, observed = model.heads["pixels"].target(encoded, {}, asked)
        own = part.values[asked]
        mean, deviation = own.mean(1, keepdim=True), (own.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(target, (own - mean) / deviation)
    assert observed is None


def test_ids_are_those_of_the_tokens():
    model, _, batch = drawn("igpt_masked")
    encoded, asked = model.encode(batch.tokens, batch.plans), batch.plans["patch"].scored
    target, observed = model.heads["colours"].target(encoded, {}, asked)
    assert torch.equal(target, batch.tokens["patch"].ids[asked])
    assert observed is None
    assert model.heads["colours"].decoder(encoded, asked, None).shape == (len(asked), 5)


def fitted(data, **changes):
    model, source, recipe = ready("mae", data, **{**CODES, **changes})
    model.begin(0, source)
    return model, source, recipe


def test_codes_are_learned_once_of_the_training_tokens():
    data = images()
    model, source, _ = fitted(data)
    centres = model.heads["pixels"].target.centres.clone()
    assert centres.shape == (6, 4)
    assert len(torch.unique(centres, dim=0)) == 6
    assert torch.equal(centres, fitted(data)[0].heads["pixels"].target.centres)
    x = data.x.clone()
    x[torch.cat([data.split["validation"], data.split["test"]])] = 9.0
    other = replace(data, x=x)
    assert torch.equal(centres, fitted(other)[0].heads["pixels"].target.centres)
    x = data.x.clone()
    x[data.split["train"]] *= torch.linspace(0.2, 2, 6)
    assert not torch.equal(centres, fitted(replace(data, x=x))[0].heads["pixels"].target.centres)
    model.heads["pixels"].target.centres.zero_()
    model.begin(1, source)
    assert not model.heads["pixels"].target.centres.any()  # not learned again
    assert "heads.pixels.target.centres" in model.state_dict()
    assert "heads.pixels.target.centres" not in dict(model.named_parameters())


def test_a_code_is_the_nearest_centre():
    model, source, recipe = fitted(images())
    head, batch = model.heads["pixels"], batch_of(source, recipe, torch.arange(6))
    encoded, asked = model.encode(batch.tokens, batch.plans), batch.plans["patch"].scored
    found, _ = head.target(encoded, {}, asked)
    own = batch.tokens["patch"].values[asked]
    apart = (own[:, None] - head.target.centres).square().sum(2)
    assert torch.equal(found, apart.argmin(1))
    assert len(found.unique()) > 3
    assert head.decoder(encoded, asked, None).shape == (len(asked), 6)


def test_codes_are_of_tokens_that_are_there():
    """A patch of nothing is zeros, and no centre is drawn to it."""
    data = images()
    x = data.x.clone() + 4.0
    x[:, :, 2:4, 2:4] = torch.nan
    some = fitted(replace(data, x=x), **{"tokens.normalize": "none"})[0]
    assert some.heads["pixels"].target.centres.norm(dim=1).min() > 4.0


def test_too_few_different_tokens_for_the_codes():
    flat = images()
    flat = replace(flat, x=(flat.x > 0.5).float())  # patches of 4 bits: 16 at most
    with pytest.raises(StructmaeError, match=r"codes=64: \d+ tokens are different; lower it"):
        fitted(flat, **{"heads.pixels.codes": 64})


@pytest.mark.parametrize("recipe", ["mae", "patchtst"])
def test_codes_are_learnt_to_be_told(recipe):
    if recipe == "mae":
        model, source, settled = ready("mae", **CODES, **{"train.epochs": 20})
    else:
        codes = {key.replace("pixels", "segments"): value for key, value in CODES.items()}
        series = load_series(values())
        settled, model, source = parts("patchtst", series, **codes, **{"train.epochs": 30, "train.lr": 1e-2})
    position = fit(model, source, settled, device=CPU, progress=False)
    assert position.loss_last < 0.9 * position.loss_first
    name = next(iter(model.heads))
    assert model.heads[name].target.centres.any()


LATENT = {"heads.pixels.target": "latent", "heads.pixels.view": "second", "heads.pixels.loss": "mse"}


@pytest.mark.parametrize("view", ["second", "whole"])
def test_latents_of_a_view_are_a_target_without_gradient(view):
    """Scored where that view has latents: with patches dropped there as well, at some places only."""
    model, _, batch = drawn("mae", **{**LATENT, "heads.pixels.view": view, "mask.ratio": 0.4})
    assert list(batch.views) == [view]
    encoded = model.encode(batch.tokens, batch.plans)
    views = {view: model._view(view, batch.views[view])}
    head, scored = model.heads["pixels"], batch.plans["patch"].scored
    target, observed = head.target(encoded, views, scored)
    assert not target.requires_grad
    assert views[view].latent["patch"].requires_grad
    kept = views[view].kept["patch"]
    if view == "whole":
        assert kept is None
        assert observed is None
        assert torch.equal(target, views[view].latent["patch"][scored].detach())
        return
    there = torch.isin(scored, kept)
    assert 0 < int(there.sum()) < len(scored)
    assert torch.equal(observed, there[:, None].expand(-1, 16))
    spread = model.encoder.spread(views[view]).detach()
    assert torch.equal(target[there], spread[scored[there]])
    said = head.decoder(encoded, scored, None)
    expected = (said - target)[there].square().mean()
    torch.testing.assert_close(head(encoded, batch, views, batch.plans["patch"]), expected)


@pytest.mark.parametrize("name", ["graphmae", "gmae"])
def test_where_no_edges_are_hidden_a_degree_is_that_of_the_graph(karate, name):
    """Whatever else of its structure an encoder makes anew."""
    changes = {"heads.features.target": "degree", "heads.features.loss": "mse", "encoder.layers": 1}
    recipe = resolve(name, {"encoder.hidden": 8, "encoder.heads": 2, **changes}, level="graph")
    tokenizer = NodeTokenizer.fit(karate, recipe)
    model, source = build(recipe, tokenizer).eval(), GraphSource(karate, tokenizer)
    batch = batch_of(source, recipe, torch.arange(1))
    head, every = model.heads["features"], torch.arange(34)
    encoded = model.encode(batch.tokens, batch.plans)
    target, observed = head.target(encoded, {}, every)
    assert torch.equal(target[:, 0], torch.bincount(karate.edge_index[1], minlength=34).float())
    assert observed is None
    assert head.decoder(encoded, every, None).shape == (34, 1)


def test_a_head_of_all_tokens_asks_about_those_that_are_there():
    data = images()
    x = data.x.clone()
    x[:, :, 2:4, 2:4] = torch.nan
    model, _, batch = drawn("mae", replace(data, x=x), **{"heads.pixels.at": "all"})
    asked = model.heads["pixels"].query(model.encode(batch.tokens, batch.plans), batch.plans)
    assert torch.equal(asked, batch.tokens["patch"].valid.nonzero()[:, 0])


def test_series_normalised_by_segment():
    series = load_series(values())
    recipe, model, source = parts("patchtst", series, **{"heads.segments.normalize": True})
    tokens, plans = drawn_series(recipe, source)
    encoded = model.encode(tokens, plans)
    target, _ = model.heads["segments"].target(encoded, {}, plans["segment"].scored)
    torch.testing.assert_close(target.mean(1), torch.zeros(len(target)), atol=1e-4, rtol=0)
    torch.testing.assert_close(target.var(1, unbiased=False), torch.ones(len(target)), atol=1e-2, rtol=0)
