import pytest
import torch

import structmae
from structmae import resolve
from structmae.planning import Planner
from structmae.recipes.gmae import RECIPE
from structmae.run import build
from structmae.tokens.graph import GraphSource, NodeTokenizer
from structmae.tokens.neighbourhoods import NeighbourhoodSource

SMALL = {
    "size": "tiny",
    "encoder.hidden": 16,
    "encoder.heads": 2,
    "encoder.layers": 2,
    "train.epochs": 4,
    "train.batch_size": 8,
    "tokens.neighbours": 12,
}


@pytest.fixture(scope="module")
def run(karate):
    return structmae.pretrain("karate", RECIPE, settings=SMALL, threads=1, progress=False, evaluate=True)


def test_it_learns_and_is_scored(run):
    assert run.recipe.tokens.hops == 2
    assert run.result["loss_last"] < 0.9 * run.result["loss_first"]
    evaluation = run.result["evaluation"]
    assert evaluation["task"] == "node_classification"
    assert {row["features"] for row in evaluation["rows"]} >= {"pretrained", "random_init", "propagated_features"}


def test_the_encoder_gives_what_embed_gives_and_so_does_one_that_is_loaded(run, karate, tmp_path):
    vectors = run.embed()
    assert vectors.shape == (34, 16)
    assert torch.equal(run.encoder(karate.x, karate.edge_index), vectors)
    again = structmae.load(run.save(tmp_path / "run"))
    assert isinstance(again.source(karate), NeighbourhoodSource)
    assert torch.equal(again.embed(), vectors)
    assert torch.equal(again.encoder(karate.x, karate.edge_index), vectors)


def test_the_encoder_gets_three_of_ten_nodes_and_the_decoder_fills_the_rest(run, karate):
    """What a hidden node holds changes neither latents nor predictions; where it is changes both."""
    source = run.source(karate)
    batch = Planner.of(run.recipe).batch(source, torch.arange(34), visit=0, step=0)
    plan, part = batch.plans["node"], batch.tokens["node"]
    counts = part.ptr.diff()
    hidden = torch.bincount(part.batch[plan.hidden], minlength=34)
    assert torch.equal(hidden, (0.7 * counts + 0.5 + 1e-9).long().clamp(torch.ones_like(counts), counts - 1))
    with torch.no_grad():
        encoded = run.model.encode(batch.tokens, batch.plans)
        assert len(encoded.latent["node"]) == int((counts - hidden).sum())
        decoder = run.model.heads["features"].decoder
        before = decoder(encoded, plan.scored, None)
        decoder.token.add_(1.0)
        after = decoder(encoded, plan.scored, None)
        decoder.token.sub_(1.0)
    assert before.shape == (len(plan.scored), 34)
    assert not torch.allclose(before, after)


def test_sets_of_graphs_are_read_whole_and_pooled(molecules):
    recipe = resolve(RECIPE, SMALL, level="graph")
    assert (recipe.tokens.hops, recipe.encoder.pool) == (0, "mean")
    run = structmae.pretrain(molecules, RECIPE, settings=SMALL, threads=1, progress=False)
    assert run.result["loss_last"] < run.result["loss_first"]
    assert type(run.source(molecules)) is GraphSource
    assert run.embed().shape == (6, 16)


@pytest.mark.parametrize("act", ["token", "zero", "drop"])
@pytest.mark.parametrize("hops", [0, 1])
def test_other_ways_to_hide_train_too(karate, act, hops):
    """The graph transformer under GraphMAE's recipe: a gradient for every weight."""
    remask = "none" if act == "drop" else "hidden"
    changes = {"mask.act": act, "tokens.hops": hops, "heads.features.remask": remask, "encoder.laplacian": 2}
    changes |= {"encoder.kind": "graph_transformer", "encoder.hidden": 16, "encoder.heads": 2, "mask.random": 0.0}
    recipe = resolve("graphmae", changes, level="node")
    tokenizer = NodeTokenizer.fit(karate, recipe)
    model = build(recipe, tokenizer)
    source = structmae.graph.source(karate, tokenizer, torch.device("cpu"))
    losses = model(Planner.of(recipe).batch(source, torch.arange(source.num_items), visit=0, step=0))
    losses.total.backward()
    unread = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert ("tokens.node" in unread) == (act != "token")
    assert ("heads.features.decoder.token" in unread) == (act != "drop")
    encoder = {name for name, _ in model.named_parameters() if name.startswith("encoder.")}
    assert unread & encoder <= {"encoder.body.degrees"}


def test_neighbourhoods_are_fine_tuned_and_predicted_a_node_each():
    small = {"train.epochs": 1, "encoder.hidden": 16, "encoder.layers": 1, "encoder.heads": 2}
    run = structmae.pretrain("karate", recipe="gmae", settings=small, progress=False)
    tuned = structmae.finetune(
        run, settings={"finetune.head_epochs": 1, "finetune.epochs": 1, "finetune.dropout": 0.0}, progress=False
    )
    assert list(tuned.predict()["id"]) == list(range(34))
    shares = tuned.predict().filter(like="share_").to_numpy()
    assert abs(shares[0] - shares[33]).max() > 1e-4  # each of its own node


@pytest.mark.slow
def test_citations_beat_the_start_and_the_raw_words():
    run = structmae.pretrain("citations", "gmae", threads=2, progress=False, evaluate=True)
    scored = run.result["evaluation"]
    assert run.result["loss_last"] < 0.9 * run.result["loss_first"]
    assert scored["pretrained"] > scored["random_init"] + 0.2
    assert scored["pretrained"] > scored["raw_features"] + 0.1
