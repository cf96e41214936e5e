"""The mechanisms of duo: nodes and edges hidden at once, each rebuilt by a head of its own; smoothed vectors."""

import pytest
import torch
from torch_geometric.data import Data

import structmae
from structmae import resolve
from structmae.errors import UsageError
from structmae.evaluate.arms import propagate
from structmae.planning import Planner
from structmae.run import build
from structmae.tokens.graph import GraphSource, NodeTokenizer


def drawn(graphs, **changes):
    """A model in evaluation and a batch of all graphs."""
    recipe = resolve("duo", {"encoder.hidden": 16, "encoder.heads": 2, **changes}, level=graphs.level)
    tokenizer = NodeTokenizer.fit(graphs, recipe)
    source = GraphSource(graphs, tokenizer)
    model = build(recipe, tokenizer).eval()
    with torch.no_grad():
        model.tokens["node"].normal_()
    return model, source, Planner.of(recipe).batch(source, torch.arange(source.num_items), visit=0, step=0)


def one_each(pairs):
    return {frozenset(pair) for pair in pairs.T.tolist()}


@pytest.mark.parametrize("strategy", ["uniform", "walk", "block"])
def test_both_are_hidden_and_neither_reaches_the_encoder(karate, strategy):
    halves = {"mask.ratio": 0.5, "mask.edge_ratio": 0.5}
    model, _, batch = drawn(karate, **{**halves, "mask.edge_strategy": strategy, "mask.random": 0.0})
    nodes, edges = batch.plans["node"].hidden, batch.tokens["edge"].ends[:, batch.plans["edge"].hidden]
    assert (len(nodes), edges.shape[1]) == (17, 39)
    encoded = model.encode(batch.tokens, batch.plans)
    seen = encoded.seen["node"].relations["edges"].edge_index
    between = seen[:, seen[0] != seen[1]]
    assert not one_each(between) & one_each(edges)
    assert one_each(between) | one_each(edges) == one_each(karate.edge_index)
    # Another graph, of other features where they are hidden and without the hidden edges, has the same latents.
    x = karate.x.clone()
    x[nodes] = x[nodes].flip(1)
    other = GraphSource(structmae.load_data(Data(x=x, edge_index=between)), model.encoder.tokenizer)
    same = model.encoder.read(
        other.everything() | {"edge": batch.tokens["edge"]},
        {"node": batch.plans["node"]},
        dict(model.tokens.items()),
    )
    assert torch.equal(encoded.latent["node"], same.latent["node"])


def test_both_heads_teach_the_encoder(karate):
    model, _, batch = drawn(karate)
    losses = model.train()(batch)
    assert set(losses.terms) == {"features", "edges"}
    for loss in losses.terms.values():
        grads = torch.autograd.grad(loss, list(model.encoder.parameters()), retain_graph=True, allow_unused=True)
        assert any(grad is not None and bool(grad.any()) for grad in grads)


def test_vectors_are_averaged_over_all_edges(karate):
    rough, source, _ = drawn(karate, **{"encoder.smooth": 0})
    smooth, _, _ = drawn(karate, **{"encoder.smooth": 2})
    smooth.load_state_dict(rough.state_dict())
    whole = source.everything()
    with torch.no_grad():
        found, plain = smooth.encoder.represent(whole), rough.encoder.represent(whole)
    edge_index = whole["node"].relations["edges"].edge_index
    matrix = torch.zeros(34, 34)
    matrix[edge_index[1], edge_index[0]] = 1
    roots = matrix.sum(1).rsqrt()
    matrix = roots[:, None] * matrix * roots
    torch.testing.assert_close(found, matrix @ matrix @ plain, rtol=1e-4, atol=1e-6)
    values = whole["node"].values
    torch.testing.assert_close(propagate(whole["node"], 3), matrix @ matrix @ matrix @ values, rtol=1e-4, atol=1e-6)


def test_vectors_of_length_one(karate):
    rough, source, _ = drawn(karate)
    unit, _, _ = drawn(karate, **{"encoder.unit": True})
    unit.load_state_dict(rough.state_dict())
    with torch.no_grad():
        found, plain = (model.encoder.represent(source.everything()) for model in (unit, rough))
    torch.testing.assert_close(found, plain / plain.norm(dim=1, keepdim=True))


def test_what_does_not_go_together_is_said():
    with pytest.raises(UsageError, match=r"heads\.edges.of=edge rebuilds attributes, and here whole edges are hidden"):
        resolve("graphmae", {"mask.edge_ratio": 0.5, "mask.edge_act": "drop"})
    with pytest.raises(UsageError, match=r"heads\.edges.of=pair tells hidden edges .* or mask.edge_ratio with"):
        resolve("duo", {"mask.edge_ratio": 0.0})
    with pytest.raises(UsageError, match=r"heads\.edges.of=pair tells"):
        resolve("duo", {"mask.edge_act": "token"})


def test_a_run_from_start_to_end(karate):
    settings = {"train.epochs": 3, "encoder.hidden": 16, "encoder.heads": 2, "probe.epochs": 5}
    run = structmae.pretrain("karate", "duo", settings=settings, progress=False)
    assert {"loss_first", "loss_last"} <= set(run.result)
    assert 0 <= run.evaluate()["pretrained"] <= 1
