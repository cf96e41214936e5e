from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structmae import resolve
from structmae.errors import StructmaeError, UsageError
from structmae.masking import Act, Spec, draw, layout, to_torch
from structmae.model import hide
from structmae.run import build
from structmae.tokens.graph import GraphSource, NodeTokenizer
from structmae.train import Planner

BASE = {"encoder.hidden": 8, "encoder.heads": 2}


def parts(graphs, **settings):
    recipe = resolve("graphmae", {**BASE, **settings}, level=graphs.level)
    tokenizer = NodeTokenizer.fit(graphs, recipe)
    return recipe, build(recipe, tokenizer).eval(), GraphSource(graphs, tokenizer)


@given(visit=st.integers(0, 1000))
def test_hidden_content_cannot_reach_the_encoder(karate, visit):
    recipe, model, source = parts(karate, **{"mask.random": 0.2, "mask.random_from": "visible"})
    tokens = source.everything()
    plans = Planner(recipe.mask, 0).draw(tokens, visit=visit, step=0)
    changed = tokens["node"].values.clone()
    changed[plans["node"].hidden] = torch.randn(len(plans["node"].hidden), changed.shape[1])
    with torch.no_grad():
        latents = [
            model.encoder.encode(
                {"node": hide(values, plans["node"], model.tokens["node"])},
                {"node": replace(tokens["node"], values=values)},
            )["node"]
            for values in (tokens["node"].values, changed)
        ]
    assert torch.equal(*latents)


@given(visit=st.integers(0, 1000), keep=st.sampled_from([0.0, 0.3]))
def test_the_loss_does_not_see_unscored_nodes(karate, visit, keep):
    """Other targets, and other latents after the decoder, at nodes that are not scored leave the loss as it is."""
    recipe, model, source = parts(karate, **{"mask.keep": keep})
    tokens = source.everything()
    plan = Planner(recipe.mask, 0).draw(tokens, visit=visit, step=0)["node"]
    head = model.heads["features"]
    latent = torch.randn(34, 8, generator=torch.Generator().manual_seed(visit))
    unscored = torch.ones(34, dtype=torch.bool)
    unscored[plan.scored] = False
    other = tokens["node"].values.clone()
    other[unscored] = 9.0
    with torch.no_grad():
        assert torch.equal(
            head(latent, tokens["node"], plan), head(latent, replace(tokens["node"], values=other), plan)
        )
        other[plan.scored[0]] = -torch.arange(34.0)
        assert not torch.equal(
            head(latent, tokens["node"], plan), head(latent, replace(tokens["node"], values=other), plan)
        )


def test_hide_does_what_the_plan_says():
    h = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    token = torch.full((1, 3), 7.0)
    spec = Spec(ratio=0.8, act="zero", random=0.3, keep=0.2, random_from="visible")
    for act in ("zero", "token"):
        plan = draw(layout([0, 40]), replace(spec, act=act), seed=1, visit=2)
        out = hide(h, to_torch(plan), token)
        expected = h.clone()
        for position, what, source in zip(plan.scored, plan.act, plan.source, strict=True):
            match Act(what):
                case Act.TOKEN:
                    expected[position] = token
                case Act.ZERO:
                    expected[position] = 0
                case Act.RANDOM:
                    expected[position] = h[source]
        assert torch.equal(out, expected)
        assert len(plan.with_act(Act.KEEP)) > 0


@settings(max_examples=30)
@given(ratio=st.floats(0.05, 1), visit=st.integers(0, 100), order=st.permutations(range(6)))
def test_counts_are_exact_for_each_graph_of_a_batch(molecules, ratio, visit, order):
    recipe, _, source = parts(molecules, **{"mask.ratio": ratio})
    tokens = source.batch(torch.tensor(order))
    plan = Planner(recipe.mask, 0).draw(tokens, visit=visit, step=0)["node"]
    counts = torch.bincount(tokens["node"].batch[plan.scored], minlength=6)
    for count, size in zip(counts.tolist(), tokens["node"].ptr.diff().tolist(), strict=True):
        expected = int(ratio * size + 0.5 + 1e-9)
        assert count == (size if ratio == 1 else min(max(expected, 1), size - 1))


def test_dropped_tokens_are_refused_rather_than_leaked():
    plan = draw(layout([0, 10]), Spec(ratio=0.5, act="drop"), seed=0, visit=0)
    with pytest.raises(UsageError, match="drop"):
        hide(torch.randn(10, 2), to_torch(plan), torch.zeros(1, 2))


def test_two_heads_add_up(karate, tmp_path):
    file = tmp_path / "two.toml"
    file.write_text('recipe = "graphmae"\n[heads.again]\nloss = "mse"\nlayer = "gcn"\nweight = 0.25\n')
    recipe = resolve(file, BASE)
    tokenizer = NodeTokenizer.fit(karate, recipe)
    model, source = build(recipe, tokenizer).eval(), GraphSource(karate, tokenizer)
    tokens = source.everything()
    losses = model(tokens, Planner(recipe.mask, 0).draw(tokens, visit=0, step=0))
    torch.testing.assert_close(losses.total, losses.terms["features"] + 0.25 * losses.terms["again"])


def test_an_empty_plan_has_no_loss(molecules):
    _recipe, model, source = parts(molecules)
    tokens = source.batch(torch.arange(6))
    part = tokens["node"]
    plan = draw(layout(part.ptr.numpy()), Spec(ratio=0.0), seed=0, visit=0)
    losses = model(tokens, {"node": to_torch(plan)})
    assert losses.total is None
    assert losses.terms == {}


def test_remask_zeroes_hidden_places_before_the_decoder(karate):
    recipe, model, source = parts(karate)
    tokens = source.everything()
    plan = Planner(recipe.mask, 0).draw(tokens, visit=0, step=0)["node"]
    latent = torch.randn(34, 8)
    other = latent.clone()
    other[plan.hidden] = 5.0
    head = model.heads["features"]
    with torch.no_grad():
        assert torch.equal(head(latent, tokens["node"], plan), head(other, tokens["node"], plan))
    _, model, _ = parts(karate, **{"heads.features.remask": False})
    head = model.heads["features"]
    with torch.no_grad():
        assert not torch.equal(head(latent, tokens["node"], plan), head(other, tokens["node"], plan))


def test_seeds_settle_the_weights(karate):
    torch.manual_seed(1)
    one = parts(karate)[1].state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = parts(karate)[1].state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], again[name]) for name in one)
    other = parts(karate, **{"train.seed": 1})[1].state_dict()
    assert not torch.equal(one["heads.features.decoder.bridge.weight"], other["heads.features.decoder.bridge.weight"])


def test_unreadable_normalisation_is_refused(karate):
    with pytest.raises(StructmaeError, match="0 or more"):
        parts(replace(karate, x=karate.x - 0.5), **{"tokens.normalize": "row"})
