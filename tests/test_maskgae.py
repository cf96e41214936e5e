"""The mechanisms of maskgae_edge and maskgae_path: edges that are hidden both ways, pairs, lost degrees."""

import pytest
import torch
from torch_geometric.data import Data

import structmae
from structmae import resolve, train
from structmae.checkpoint import Checkpoint
from structmae.planning import Planner
from structmae.run import build
from structmae.tokens.graph import GraphSource, NodeTokenizer
from structmae.train import fit

NAMES = ("maskgae_edge", "maskgae_path")


def ready(graphs, name="maskgae_path", **changes):
    base = {"encoder.hidden": 8, "train.epochs": 6, "train.save_every": 2, "train.batch_size": 4}
    recipe = resolve(name, {**base, "encoder.pool": "none", **changes}, level=graphs.level)
    tokenizer = NodeTokenizer.fit(graphs, recipe)
    return build(recipe, tokenizer), GraphSource(graphs, tokenizer), recipe


def drawn(graphs, name, visit=0, **changes):
    """A model in evaluation, its recipe, and a batch of all graphs."""
    model, source, recipe = ready(graphs, name, **changes)
    model.eval()
    return model, recipe, Planner.of(recipe).batch(source, torch.arange(source.num_items), visit=visit, step=0)


def hidden_pairs(batch):
    return batch.tokens["edge"].ends[:, batch.plans["edge"].hidden]


def one_each(pairs):
    """Unordered pairs."""
    return {frozenset(pair) for pair in pairs.T.tolist()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("visit", [0, 1])
def test_hidden_edges_reach_the_encoder_neither_way(karate, name, visit):
    """Its latents are, to the bit, those of the graph that never had the hidden edges; and of another such graph."""
    model, _, batch = drawn(karate, name, visit)
    encoded = model.encode(batch.tokens, batch.plans)
    hidden = one_each(hidden_pairs(batch))
    assert len(hidden) == round(0.7 * 78)
    seen = encoded.seen["node"].relations["edges"].edge_index
    between = seen[:, seen[0] != seen[1]]
    assert not one_each(between) & hidden
    assert one_each(between) | hidden == one_each(karate.edge_index)
    assert {tuple(pair) for pair in between.T.tolist()} == {tuple(pair) for pair in between.flip(0).T.tolist()}
    without = structmae.load_data(Data(x=karate.x, edge_index=between))
    alone = model.encode(GraphSource(without, model.encoder.tokenizer).everything())
    assert torch.equal(encoded.latent["node"], alone.latent["node"])
    assert not torch.equal(encoded.latent["node"], model.encode(batch.tokens).latent["node"])


@pytest.mark.parametrize("name", NAMES)
def test_pairs_that_are_none_are_as_many_and_no_edges_of_the_same_graph(molecules, name):
    _, _, batch = drawn(molecules, name)
    ptr, edge = batch.tokens["node"].ptr, batch.tokens["edge"]
    negatives = batch.negatives
    assert not one_each(negatives) & one_each(edge.ends)
    assert bool((negatives[0] != negatives[1]).all())
    graph = torch.bucketize(negatives, ptr[1:], right=True)
    assert torch.equal(graph[0], graph[1])
    lost = torch.bucketize(hidden_pairs(batch), ptr[1:], right=True)[0]
    assert torch.equal(torch.bincount(graph[0], minlength=6), torch.bincount(lost, minlength=6))


def test_the_loss_of_pairs_asks_whether_they_are_hidden_edges(karate):
    """A decoder that knows the graph has none; one that says the opposite has its logits' size."""
    model, _, batch = drawn(karate, "maskgae_edge")
    edges = one_each(karate.edge_index)

    class Known(torch.nn.Module):
        def forward(self, encoded, scored, zeroed):
            told = [self.sign if frozenset(pair) in edges else -self.sign for pair in scored.T.tolist()]
            return 20.0 * torch.tensor(told)[:, None]

    known = model.heads["edges"].decoder = Known()
    for sign, loss in ((1.0, 0.0), (-1.0, 20.0)):
        known.sign = sign
        assert float(model(batch).terms["edges"]) == pytest.approx(loss, abs=1e-5)


def test_the_decoder_of_pairs_is_the_same_both_ways(karate):
    model, _, batch = drawn(karate, "maskgae_path")
    encoded, pairs = model.encode(batch.tokens, batch.plans), hidden_pairs(batch)
    decoder = model.heads["edges"].decoder
    assert torch.equal(decoder(encoded, pairs, None), decoder(encoded, pairs.flip(0), None))
    assert len(decoder(encoded, pairs, None).unique()) > 1


@pytest.mark.parametrize("name", NAMES)
def test_the_degree_that_is_rebuilt_is_the_count_of_hidden_edges(karate, name):
    model, _, batch = drawn(karate, name)
    encoded, head = model.encode(batch.tokens, batch.plans), model.heads["degree"]
    rows = head.query(encoded, batch.plans)
    assert torch.equal(rows, torch.arange(34))
    expected = torch.bincount(hidden_pairs(batch).flatten(), minlength=34).float()
    assert torch.equal(head.target(encoded, {}, rows)[0][:, 0], expected)
    assert expected.sum() == 2 * round(0.7 * 78)


def test_paths_are_hidden_where_the_recipe_says_so(karate):
    """Edges of one walk hang together, so that fewer hidden edges than of a uniform draw stand alone."""
    edge, path = resolve("maskgae_edge"), resolve("maskgae_path")
    assert (edge.mask.strategy, path.mask.strategy, path.mask.length) == ("uniform", "walk", 3)
    alone = {}
    for name in NAMES:
        alone[name] = 0
        for visit in range(40):
            pairs = hidden_pairs(drawn(karate, name, visit, **{"mask.ratio": 0.15})[2])
            ends = torch.bincount(pairs.flatten(), minlength=34)
            alone[name] += int((ends[pairs] == 1).all(0).sum())
    assert alone["maskgae_path"] < 0.7 * alone["maskgae_edge"]


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_goes_on_to_the_same_bits(karate, molecules, tmp_path, monkeypatch, name):
    real = train._epoch
    for graphs in (karate, molecules):
        model, source, recipe = ready(graphs, name)
        fit(model, source, recipe, device=torch.device("cpu"), progress=False)
        folder = tmp_path / graphs.level
        folder.mkdir()
        calls = iter(range(9))

        def dies(*args, calls=calls):
            if next(calls) == 3:
                raise RuntimeError("power cut")
            return real(*args)

        for epoch in (dies, real):
            monkeypatch.setattr(train, "_epoch", epoch)
            again = ready(graphs, name)[0]
            arguments = {"device": torch.device("cpu"), "checkpoint": Checkpoint(folder), "progress": False}
            if epoch is dies:
                with pytest.raises(RuntimeError, match="power cut"):
                    fit(again, source, recipe, **arguments)
            else:
                fit(again, source, recipe, **arguments)
        state, other = model.state_dict(), again.state_dict()
        assert all(torch.equal(state[key], other[key]) for key in state)


def test_with_edges_held_out_no_plan_and_no_negative_of_training_knows_them_as_edges(karate):
    """What training asks about are training edges, and pairs that are none of these."""
    from structmae.data.links import hold_out

    split = hold_out(karate)
    kept = one_each(split.edge_index)
    _, source, recipe = ready(split)
    planner = Planner.of(recipe)
    for visit in range(10):
        batch = planner.batch(source, torch.arange(1), visit=visit, step=visit)
        assert one_each(batch.tokens["edge"].ends) == kept
        assert one_each(hidden_pairs(batch)) < kept
        assert not one_each(batch.negatives) & kept
