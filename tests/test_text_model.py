"""The mechanisms of bert, on a little text."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_images import batch_of, documents, ready

import structmae
from structmae import masking, train
from structmae.checkpoint import Checkpoint, load_weights, save_weights
from structmae.masking import Act
from structmae.planning import Planner
from structmae.run import build
from structmae.train import fit

CPU = torch.device("cpu")
few = settings(max_examples=15)
fixed = cache(ready)


def everything(visit=0):
    """A model in evaluation, and all training windows with their plan."""
    model, source, recipe = fixed("bert")
    return model.eval(), batch_of(source, recipe, torch.arange(source.num_items), visit)


def latent(model, part, plans):
    with torch.no_grad():
        return model.encode({"piece": part}, plans).latent["piece"]


def changed(part, rows, seed):
    """Other ids there."""
    step = torch.randint(1, 280, (len(rows),), generator=torch.Generator().manual_seed(seed))
    return replace(part, ids=part.ids.index_copy(0, rows, (part.ids[rows] + step) % 280))


@few
@given(visit=st.integers(0, 1000))
def test_shares_are_floor_or_ceiling_in_every_window(visit):
    _, batch = everything(visit)
    part, plan = batch.tokens["piece"], batch.plans["piece"]
    items = len(part.item_id)
    scored = torch.bincount(part.batch[plan.scored], minlength=items)
    assert scored.tolist() == [masking.count(0.15, int(size)) for size in part.ptr.diff()]
    assert len(part.ptr.diff().unique()) > 2
    for act, share in ((Act.TOKEN, 0.8), (Act.RANDOM, 0.1), (Act.KEEP, 0.1)):
        counts = torch.bincount(part.batch[plan.with_act(act)], minlength=items)
        assert ((counts - share * scored).abs() < 1 + 1e-9).all()


def test_shares_are_80_10_10_over_the_corpus():
    counts = torch.zeros(3)
    for visit in range(60):
        _, batch = everything(visit)
        plan = batch.plans["piece"]
        counts += torch.tensor([len(plan.with_act(act)) for act in (Act.TOKEN, Act.RANDOM, Act.KEEP)])
    assert counts.sum() > 5000
    torch.testing.assert_close(counts / counts.sum(), torch.tensor([0.8, 0.1, 0.1]), atol=0.01, rtol=0)


def test_what_the_encoder_reads():
    """At random places the vector of an id of the vocabulary, at most others their own, and where pieces are hidden one
    learned vector."""
    model, batch = everything()
    part, plan = batch.tokens["piece"], batch.plans["piece"]
    torch.nn.init.normal_(model.tokens["piece"])
    given_to = []
    encoder, real = model.encoder, model.encoder.encode
    encoder.encode = lambda h, tokens: given_to.append(h["piece"]) or real(h, tokens)
    latent(model, part, batch.plans)
    del encoder.encode
    read = given_to[0]
    at, ids = plan.with_act(Act.RANDOM), plan.random_ids(280)
    token = plan.with_act(Act.TOKEN)
    with torch.no_grad():
        assert len(at)
        assert torch.equal(read[at], encoder.embedding(ids))
        assert torch.equal(read[token], model.tokens["piece"].expand(len(token), -1))
        assert torch.equal(read[plan.visible], encoder.embedding(part.ids[plan.visible]))
        torch.nn.init.zeros_(model.tokens["piece"])
    kept = plan.with_act(Act.KEEP)
    assert torch.isin(kept, plan.visible).all()
    assert len(read) == len(plan.visible) + len(at) + len(token)


def test_random_pieces_are_of_the_whole_vocabulary():
    """Each as likely: 30 draws reach more than all the pieces of the text, and the mean is the middle."""
    ids = torch.cat([everything(visit)[1].plans["piece"].random_ids(280) for visit in range(80)])
    source = fixed("bert")[1]
    assert 0 <= int(ids.min()) < 10
    assert 270 <= int(ids.max()) < 280
    assert len(ids.unique()) > len(source.flat.unique())
    assert float(ids.float().mean()) == pytest.approx(139.5, abs=4 * 81 / len(ids) ** 0.5)


def test_the_random_pieces_of_a_window_are_the_same_in_any_batch():
    _, source, recipe = fixed("bert")
    together, alone = (batch_of(source, recipe, items, visit=3).plans["piece"] for items in ([4, 0, 9], [0]))
    first, last = source.at(source.rows[[4, 0, 9]])["piece"].ptr[1:3].tolist()
    at = together.with_act(Act.RANDOM)
    inside = (at >= first) & (at < last)
    assert torch.equal(at[inside] - first, alone.with_act(Act.RANDOM))
    assert torch.equal(together.random_ids(280)[inside], alone.random_ids(280))


@few
@given(visit=st.integers(0, 1000))
def test_hidden_pieces_cannot_reach_the_encoder_and_kept_ones_do(visit):
    model, batch = everything(visit)
    part, plan = batch.tokens["piece"], batch.plans["piece"]
    expected = latent(model, part, batch.plans)
    assert torch.equal(expected, latent(model, changed(part, plan.hidden, visit), batch.plans))
    kept = plan.with_act(Act.KEEP)
    assert not torch.equal(expected, latent(model, changed(part, kept[:1], visit), batch.plans))


def test_windows_do_not_read_each_other():
    model, batch = everything()
    part = batch.tokens["piece"]
    first = torch.arange(int(part.ptr[1]))
    one, two = latent(model, part, batch.plans), latent(model, changed(part, first, 0), batch.plans)
    assert torch.equal(one[int(part.ptr[1]) :], two[int(part.ptr[1]) :])
    assert not torch.equal(one, two)


def test_the_loss_is_cross_entropy_at_scored_pieces():
    """Hidden, random and kept ones; ids elsewhere change nothing of it but by what is read."""
    model, batch = everything()
    part, plan = batch.tokens["piece"], batch.plans["piece"]
    with torch.no_grad():
        rebuilt = model.rebuild(batch)["pieces"]
        expected = F.cross_entropy(rebuilt[plan.scored], part.ids[plan.scored])
        torch.testing.assert_close(model(batch).total, expected)
        encoded, head = model.encode(batch.tokens, batch.plans), model.heads["pieces"]
        every = torch.ones(len(part), dtype=torch.bool).index_fill(0, plan.scored, False)
        other = replace(encoded, tokens={"piece": changed(part, every.nonzero()[:, 0], 1)})
        assert torch.equal(head(encoded, batch, {}, plan), head(other, batch, {}, plan))
        other = replace(encoded, tokens={"piece": changed(part, plan.with_act(Act.KEEP)[:1], 1)})
        assert not torch.equal(head(encoded, batch, {}, plan), head(other, batch, {}, plan))


def test_the_head_is_tied_to_the_embedding():
    """Scores are products with it; its gradient reaches it by the head too; it is one weight, saved once."""
    model, batch = everything()
    encoder, decoder = model.encoder, model.heads["pieces"].decoder
    encoded = model.encode(batch.tokens, batch.plans)
    scored = batch.plans["piece"].scored
    with torch.no_grad():
        by_hand = decoder.before(encoded.latent["piece"][scored]) @ encoder.embedding.weight.T + decoder.out.bias
        torch.testing.assert_close(decoder(encoded, scored, None), by_hand)
    frozen = replace(encoded, latent={"piece": encoded.latent["piece"].detach()})
    error = F.cross_entropy(decoder(frozen, scored, None), batch.tokens["piece"].ids[scored])
    (gradient,) = torch.autograd.grad(error, encoder.embedding.weight)
    assert gradient.any(1).all()
    state = model.state_dict()
    assert [key for key, value in state.items() if value.shape == (280, 16)] == ["encoder.embedding.weight"]
    assert sum(weight is encoder.embedding.weight for group in model.groups() for weight in group["params"]) == 1


def test_a_copy_of_a_tied_model_is_tied_to_its_own_embedding():
    model, batch = everything()
    copied = deepcopy(model)
    with torch.no_grad():
        before = model(batch).total
        copied.encoder.embedding.weight.zero_()
        copied.heads["pieces"].decoder.out.bias.zero_()
        assert not copied.rebuild(batch)["pieces"].any()
        assert torch.equal(model(batch).total, before)


def test_a_saved_model_says_the_same(tmp_path):
    model, source, recipe = ready("bert")
    fit(model, source, recipe, device=CPU, progress=False)
    save_weights(tmp_path / "model.safetensors", model)
    again = build(recipe, source.tokenizer.config())
    load_weights(tmp_path / "model.safetensors", again)
    batch = batch_of(source, recipe, range(6))
    with torch.no_grad():
        assert torch.equal(model.eval()(batch).total, again.eval()(batch).total)
        assert torch.equal(model.encoder(["red tin oak"]), again.encoder(["red tin oak"]))


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    changes = {"train.epochs": 3, "encoder.dropout": 0.1}
    whole, source, recipe = ready("bert", **changes)
    fit(whole, source, recipe, device=CPU, progress=False)
    real, calls = train._epoch, iter(range(9))

    def dies(*args):
        if next(calls) == 2:
            raise RuntimeError("power cut")
        return real(*args)

    for epoch in (dies, real):
        monkeypatch.setattr(train, "_epoch", epoch)
        model = ready("bert", **changes)[0]
        arguments = {"device": CPU, "checkpoint": Checkpoint(tmp_path), "progress": False}
        if epoch is dies:
            with pytest.raises(RuntimeError, match="power cut"):
                fit(model, source, recipe, **arguments)
        else:
            fit(model, source, recipe, **arguments)
    state, other = whole.state_dict(), model.state_dict()
    assert all(torch.equal(state[key], other[key]) for key in state)


def test_it_learns_to_say_what_is_hidden():
    """Better than the commonest piece, which is all that a model without context could say."""
    model, source, recipe = ready("bert", **{"train.epochs": 30, "train.lr": 1e-2, "encoder.hidden": 32})
    position = fit(model, source, recipe, device=CPU, progress=False)
    assert position.loss_last < 0.7 * position.loss_first
    tokens = source.at(source.parts["test"])
    plans = Planner.of(recipe).draw(tokens, visit=masking.VALIDATION, step=0)
    batch = replace(batch_of(source, recipe, [0]), tokens=tokens, plans=plans)
    hidden, ids = plans["piece"].with_act(Act.TOKEN), tokens["piece"].ids
    with torch.no_grad():
        right = (model.rebuild(batch)["pieces"][hidden].argmax(1) == ids[hidden]).float().mean()
    commonest = torch.bincount(source.flat).argmax()
    assert right > (ids[hidden] == commonest).float().mean() + 0.1


def test_vectors_of_a_run_are_those_of_its_encoder(tmp_path):
    from small_images import SMALL

    settings = {**SMALL["bert"], "size": "tiny", "encoder.hidden": 16, "encoder.heads": 2, "encoder.pool": "mean"}
    settings |= {"train.epochs": 1, "tokens.context": 256}
    texts = documents(10, 20)
    run = structmae.pretrain(texts, "bert", settings=settings, progress=False)
    with torch.no_grad():
        torch.testing.assert_close(run.encoder(texts), run.embed(), rtol=1e-4, atol=1e-5)
    run.save(tmp_path / "run")
    with torch.no_grad():
        assert torch.equal(structmae.load(tmp_path / "run").encoder(texts), run.encoder(texts))
