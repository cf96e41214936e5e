from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

import structmae
from structmae import masking, resolve
from structmae.errors import StructmaeError, UsageError
from structmae.masking import Spec, draw, layout, to_torch
from structmae.model import Batch
from structmae.nn.base import Encoded
from structmae.objectives import average
from structmae.planning import Planner
from structmae.run import build
from structmae.tokens.graph import GraphSource, NodeTokenizer

BASE = {"encoder.hidden": 8, "encoder.heads": 2}


def read(model, tokens, plans):
    return model.encoder.read(tokens, plans, dict(model.tokens.items()))


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
            read(model, {"node": replace(tokens["node"], values=values)}, plans).latent["node"]
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
    latent = {"node": torch.randn(34, 8, generator=torch.Generator().manual_seed(visit))}
    unscored = torch.ones(34, dtype=torch.bool)
    unscored[plan.scored] = False
    other = tokens["node"].values.clone()
    other[unscored] = 9.0

    def loss(values):
        given_tokens = {"node": replace(tokens["node"], values=values)}
        batch = Batch(given_tokens, {"node": plan})
        return head(Encoded(latent, given_tokens, tokens, {"node": None}), batch, {}, plan)

    with torch.no_grad():
        first = loss(tokens["node"].values)
        assert torch.equal(first, loss(other))
        other[plan.scored[0]] = -torch.arange(34.0)
        assert not torch.equal(first, loss(other))


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


def test_two_heads_add_up(karate, tmp_path):
    file = tmp_path / "two.toml"
    file.write_text('recipe = "graphmae"\n[heads.again]\nloss = "mse"\nlayer = "gcn"\nweight = 0.25\n')
    recipe = resolve(file, BASE)
    tokenizer = NodeTokenizer.fit(karate, recipe)
    model, source = build(recipe, tokenizer).eval(), GraphSource(karate, tokenizer)
    tokens = source.everything()
    losses = model(Batch(tokens, Planner(recipe.mask, 0).draw(tokens, visit=0, step=0)))
    torch.testing.assert_close(losses.total, losses.terms["features"] + 0.25 * losses.terms["again"])


def test_an_empty_plan_has_no_loss(molecules):
    _recipe, model, source = parts(molecules)
    tokens = source.batch(torch.arange(6))
    part = tokens["node"]
    plan = draw(layout(part.ptr.numpy()), Spec(ratio=0.0), seed=0, visit=0)
    losses = model(Batch(tokens, {"node": to_torch(plan)}))
    assert losses.total is None
    assert losses.terms == {}


@pytest.mark.parametrize("remask", ["hidden", "random", "none"])
def test_the_decoder_is_not_given_what_is_remasked(karate, remask):
    """Other latents there leave every prediction as it is: no latent of a hidden node, or of K draws, gets through."""
    settings = {"heads.features.remask": remask, "heads.features.remask_draws": 3, "heads.features.remask_ratio": 0.3}
    recipe, model, source = parts(karate, **settings)
    tokens = source.everything()
    planner = Planner(recipe.mask, 0, heads=recipe.heads)
    plan = planner.draw(tokens, visit=0, step=0)["node"]
    again = planner.redraw(tokens, visit=0, step=0)
    assert [len(p.hidden) for p in again.get("features", [])] == ([10] * 3 if remask == "random" else [])
    places = {"hidden": [plan.hidden], "none": [None], "random": [p.hidden for p in again.get("features", [])]}[remask]
    latent, every = torch.randn(34, 8), torch.arange(34)
    decoder = model.heads["features"].decoder
    with torch.no_grad():
        for at in places:
            other = latent.clone()
            other[torch.arange(34) if at is None else at] += 5.0
            one, two = (
                decoder(Encoded({"node": z}, tokens, tokens, {"node": None}), every, at) for z in (latent, other)
            )
            assert torch.equal(one, two) == (at is not None)
        losses = model(Batch(tokens, {"node": plan}, again))
        seen = read(model, tokens, {"node": plan})
        head = model.heads["features"]
        target, observed = head.target(seen, {}, plan.scored)
        singly = [
            average(head.loss, head.decoder(seen, plan.scored, at), target, head.options.gamma, observed)
            for at in places
        ]
        torch.testing.assert_close(losses.total, torch.stack(singly).mean())


def edge_parts(molecules, **settings):
    return parts(molecules, **{"mask.edge_ratio": 0.4, **settings})


@given(visit=st.integers(0, 1000), layer=st.sampled_from(["gat", "gin"]))
def test_hidden_edge_attributes_reach_neither_encoder_nor_decoder(molecules, visit, layer):
    """Neither by the edge, nor by its other direction, nor by a self-loop, whose attributes are the others' mean."""
    recipe, model, source = edge_parts(molecules, **{"encoder.layer": layer, "heads.edges.layer": layer})
    tokens = source.batch(torch.arange(6))
    plans = Planner(recipe.mask, 0).draw(tokens, visit=visit, step=0)
    changed = tokens["edge"].values.clone()
    changed[plans["edge"].hidden] = torch.randn(len(plans["edge"].hidden), changed.shape[1])
    outs = []
    for values in (tokens["edge"].values, changed):
        edges = tokens["node"].relations["edges"].with_attributes(values)  # the relation holds them as well
        node = replace(tokens["node"], relations={"edges": edges})
        given_tokens = {"node": node, "edge": replace(tokens["edge"], values=values)}
        with torch.no_grad():
            encoded = read(model, given_tokens, plans)
            rebuilt = model.rebuild(Batch(given_tokens, plans))
            outs.append([encoded.latent["node"], rebuilt["features"], rebuilt["edges"]])
    assert all(torch.equal(one, two) for one, two in zip(*outs, strict=True))


@given(order=st.permutations(range(6)), visit=st.integers(0, 100))
def test_edges_are_hidden_exactly_and_both_ways(molecules, order, visit):
    recipe, model, source = edge_parts(molecules)
    tokens = source.batch(torch.tensor(order))
    node, edge = tokens["node"], tokens["edge"]
    plan = Planner(recipe.mask, 0).draw(tokens, visit=visit, step=0)["edge"]
    for item, number in enumerate(edge.ptr.diff().tolist()):
        chosen = ((plan.scored >= edge.ptr[item]) & (plan.scored < edge.ptr[item + 1])).sum()
        assert chosen == masking.count(0.4, number)
    relation = node.relations["edges"]
    source_node, target = relation.edge_index
    token = relation.token
    assert torch.equal(token < 0, source_node == target)
    lower, upper = torch.minimum(source_node, target), torch.maximum(source_node, target)
    assert torch.equal(edge.ends[:, token[token >= 0]], torch.stack([lower, upper])[:, token >= 0])
    assert torch.equal(torch.bincount(token[token >= 0]), torch.full((len(edge),), 2))
    torch.testing.assert_close(relation.attributes, relation.with_attributes(edge.values).attributes)
    assert "edges" in model(Batch(tokens, Planner(recipe.mask, 0).draw(tokens, visit=visit, step=0))).terms


def test_the_edge_head_does_not_care_which_end_comes_first(molecules):
    _recipe, model, source = edge_parts(molecules)
    tokens = source.batch(torch.arange(6))
    latent = {"node": torch.randn(len(tokens["node"]), 8)}
    turned = {**tokens, "edge": replace(tokens["edge"], ends=tokens["edge"].ends.flip(0))}
    with torch.no_grad():
        decoder, every = model.heads["edges"].decoder, torch.arange(len(tokens["edge"]))
        one, two = (decoder(Encoded(latent, given, given, {"node": None}), every, None) for given in (tokens, turned))
    torch.testing.assert_close(one, two)


def test_without_hidden_edges_there_is_no_edge_head(molecules):
    _recipe, model, source = parts(molecules, **{"encoder.edge_features": True})
    assert list(model.heads) == ["features"]
    assert list(source.batch(torch.arange(2))) == ["node"]


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


def test_edges_of_both_directions_are_hidden_together_where_they_are_tokens_of_their_own():
    """A directed graph that lists both: one left visible would give the other away."""
    ring = torch.arange(6)
    there = torch.stack([ring, (ring + 1) % 6])
    data = Data(x=torch.eye(6), edge_index=torch.cat([there, there.flip(0)], 1), edge_attr=torch.rand(12, 2))
    graphs = structmae.load_data(data, undirected=False)
    recipe, _, source = parts(graphs, **{"data.undirected": False, "mask.edge_ratio": 0.5})
    tokens = source.everything()
    plan = Planner(recipe.mask, 0).draw(tokens, visit=0, step=0)["edge"]
    ends = tokens["edge"].ends[:, plan.hidden].T.tolist()
    assert len(ends) == 6
    assert sorted(ends) == sorted([b, a] for a, b in ends)


def test_graphs_without_edges_train_beside_others_with_hidden_edges():
    none = Data(x=torch.rand(3, 2), edge_index=torch.zeros(2, 0, dtype=torch.long), edge_attr=torch.zeros(0, 2))
    some = Data(x=torch.rand(3, 2), edge_index=torch.tensor([[0, 1], [1, 2]]), edge_attr=torch.rand(2, 2))
    recipe, model, source = parts(structmae.load_data([none, some]), **{"mask.edge_ratio": 0.5})
    for items, terms in (([0], {"features"}), ([1], {"features", "edges"}), ([0, 1], {"features", "edges"})):
        tokens = source.batch(torch.tensor(items))
        assert set(model(Batch(tokens, Planner(recipe.mask, 0).draw(tokens, visit=0, step=0))).terms) == terms


def test_a_loss_of_directions_is_refused_where_there_is_one_column():
    lengths = Data(x=torch.rand(3, 2), edge_index=torch.tensor([[0, 1], [1, 2]]), edge_attr=torch.rand(2, 1))
    graphs = structmae.load_data(lengths)
    with pytest.raises(UsageError, match=r"set heads\.edges\.loss=mse"):
        parts(graphs, **{"mask.edge_ratio": 0.5})
    parts(graphs, **{"mask.edge_ratio": 0.5, "heads.edges.loss": "mse"})
