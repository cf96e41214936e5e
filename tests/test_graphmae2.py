"""The mechanisms of graphmae2: several random re-masks, and latents of an averaged encoder as a target."""

import pytest
import torch

from structmae import masking, resolve, train
from structmae.checkpoint import Checkpoint
from structmae.planning import Planner
from structmae.run import build
from structmae.tokens.graph import GraphSource, NodeTokenizer
from structmae.train import fit

MOMENTUM = 0.75


def ready(graphs, **changes):
    base = {"encoder.hidden": 8, "encoder.heads": 2, "train.epochs": 6, "train.batch_size": 4, "train.save_every": 2}
    base["views.teacher.momentum"] = MOMENTUM
    recipe = resolve("graphmae2", {**base, **changes}, level=graphs.level)
    tokenizer = NodeTokenizer.fit(graphs, recipe)
    return build(recipe, tokenizer), GraphSource(graphs, tokenizer), recipe


def drawn(graphs, **changes):
    model, source, recipe = ready(graphs, **changes)
    return model, Planner.of(recipe).batch(source, torch.arange(source.num_items), visit=0, step=0)


def test_each_decoding_zeroes_another_random_half(karate, molecules):
    for graphs in (karate, molecules):
        batch = drawn(graphs)[1]
        sets = [set(plan.hidden.tolist()) for plan in batch.remasks["features"]]
        assert len(sets) == 3
        assert sets[0] != sets[1] != sets[2] != sets[0]
        assert set(batch.plans["node"].hidden.tolist()) not in sets
        node = batch.tokens["node"]
        counts = [masking.count(0.5, size) for size in node.ptr.diff().tolist()]
        for plan in batch.remasks["features"]:
            assert torch.bincount(node.batch[plan.hidden]).tolist() == counts


def test_the_loss_is_the_mean_over_decodings(karate):
    model, batch = drawn(karate)
    model.eval()
    encoded, head = model.encode(batch.tokens, batch.plans), model.heads["features"]
    scored = batch.plans["node"].scored
    errors = []
    for plan in batch.remasks["features"]:
        said = head.decoder(encoded, scored, plan.hidden)
        cosine = torch.nn.functional.cosine_similarity(said, encoded.tokens["node"].values[scored])
        errors.append(((1 - cosine) ** 3).mean())
    assert len({error.item() for error in errors}) == 3
    torch.testing.assert_close(model(batch).terms["features"], torch.stack(errors).mean())


def test_latents_of_the_whole_graph_are_the_target_and_get_no_gradient(karate):
    model, batch = drawn(karate)
    assert batch.views["teacher"].plans == {}
    teacher = model.shadows["teacher"]
    losses = model(batch)
    assert set(losses.terms) == {"features", "latent"}
    losses.terms["latent"].backward()
    assert all(weight.grad is None and not weight.requires_grad for weight in teacher.parameters())
    assert any(bool(weight.grad.any()) for weight in model.encoder.parameters() if weight.grad is not None)
    trained = {id(weight) for group in model.groups() for weight in group["params"]}
    assert not trained & {id(weight) for weight in teacher.parameters()}

    view = teacher.module.read(batch.tokens)
    scored = batch.plans["node"].scored
    encoded = model.encode(batch.tokens, batch.plans)
    target, observed = model.heads["latent"].target(encoded, {"teacher": view}, scored)
    assert not target.requires_grad
    assert observed is None
    assert torch.equal(target, view.latent["node"][scored].detach())
    assert torch.equal(model.heads["latent"].query(encoded, batch.plans), scored)


def test_the_average_sees_hidden_features_and_the_encoder_does_not(karate):
    """So the target says something that the encoder can't copy."""
    model, batch = drawn(karate, **{"mask.random": 0.0})
    model.eval()
    node, hidden = batch.tokens["node"], batch.plans["node"].hidden
    other = {"node": type(node)(node.values.index_fill(0, hidden, 0.5), node.ptr, node.item_id, node.relations)}
    before, after = (model.encode(tokens, batch.plans).latent["node"] for tokens in (batch.tokens, other))
    assert torch.equal(before, after)
    teacher = model.shadows["teacher"].module
    before, after = (teacher.read(tokens).latent["node"] for tokens in (batch.tokens, other))
    assert not torch.equal(before, after)


def test_the_average_moves_by_its_momentum(karate):
    model, source, recipe = ready(karate, **{"train.epochs": 1, "encoder.norm": "batchnorm"})
    first = {name: weight.clone() for name, weight in model.encoder.named_parameters()}
    shadow = model.shadows["teacher"].module
    assert all(torch.equal(first[name], weight) for name, weight in shadow.named_parameters())
    fit(model, source, recipe, device=torch.device("cpu"), progress=False)  # one step
    moved = 0
    for name, weight in model.encoder.named_parameters():
        expected = MOMENTUM * first[name] + (1 - MOMENTUM) * weight.detach()
        torch.testing.assert_close(shadow.get_parameter(name), expected)
        moved += int(not torch.equal(weight, first[name]))
    assert moved > 5
    assert all(torch.equal(shadow.get_buffer(name), value) for name, value in model.encoder.named_buffers())


def test_the_average_is_read_without_dropout(karate):
    model, batch = drawn(karate, **{"encoder.dropout": 0.5})
    model.train()
    one, other = (model._view("teacher", batch.views["teacher"]).latent["node"] for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(model.encode(batch.tokens).latent["node"], model.encode(batch.tokens).latent["node"])


def test_a_stopped_run_goes_on_to_the_same_bits(karate, molecules, tmp_path, monkeypatch):
    """The average among them."""
    real = train._epoch
    for graphs in (karate, molecules):
        model, source, recipe = ready(graphs)
        fit(model, source, recipe, device=torch.device("cpu"), progress=False)
        folder = tmp_path / graphs.level
        folder.mkdir()
        calls = iter(range(9))

        def dies(*args, calls=calls):
            if next(calls) == 3:
                raise RuntimeError("power cut")
            return real(*args)

        monkeypatch.setattr(train, "_epoch", dies)
        stopped, checkpoint = ready(graphs)[0], Checkpoint(folder)
        with pytest.raises(RuntimeError, match="power cut"):
            fit(stopped, source, recipe, device=torch.device("cpu"), checkpoint=checkpoint, progress=False)
        monkeypatch.setattr(train, "_epoch", real)
        again = ready(graphs)[0]
        fit(again, source, recipe, device=torch.device("cpu"), checkpoint=Checkpoint(folder), progress=False)
        state, other = model.state_dict(), again.state_dict()
        assert any(name.startswith("shadows.") for name in state)
        assert all(torch.equal(state[name], other[name]) for name in state)
