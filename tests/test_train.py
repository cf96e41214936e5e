import json
import math
import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structmae import masking, resolve, train
from structmae.checkpoint import Checkpoint
from structmae.errors import StructmaeError
from structmae.run import build
from structmae.tokens.graph import GraphSource, NodeTokenizer
from structmae.train import Interrupted, _batches, fit

CPU = torch.device("cpu")


def ready(graphs, **changes):
    base = {"encoder.hidden": 8, "encoder.heads": 2, "train.epochs": 6, "train.batch_size": 4, "train.save_every": 2}
    recipe = resolve("graphmae", {**base, **changes}, level=graphs.level)
    tokenizer = NodeTokenizer.fit(graphs, recipe)
    return build(recipe, tokenizer), GraphSource(graphs, tokenizer), recipe


def trained(graphs, folder=None, **changes):
    model, source, recipe = ready(graphs, **changes)
    checkpoint = None if folder is None else Checkpoint(folder)
    position = fit(model, source, recipe, device=CPU, checkpoint=checkpoint, progress=False)
    return model.state_dict(), position


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_training_is_a_function_of_the_seed_and_leaves_the_generators_alone(molecules):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - it is the global generator that must not move
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, _ = trained(molecules)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    torch.manual_seed(6)
    assert same(one, trained(molecules)[0])
    assert not same(one, trained(molecules, **{"train.seed": 1})[0])


@pytest.mark.parametrize("stop_after", [2, 3, 5])
def test_a_stopped_run_goes_on_to_the_same_bits(karate, molecules, tmp_path, monkeypatch, stop_after):
    """Killed in the middle of an epoch, without warning: the state is that of the last multiple of save_every."""
    for graphs in (karate, molecules):
        folder = tmp_path / graphs.level
        folder.mkdir()
        whole, position = trained(graphs)
        real, calls = train._epoch, iter(range(100))

        def dies(*args, real=real, calls=calls):
            if next(calls) == stop_after:
                raise RuntimeError("power cut")
            return real(*args)

        monkeypatch.setattr(train, "_epoch", dies)
        with pytest.raises(RuntimeError, match="power cut"):
            trained(graphs, folder)
        monkeypatch.setattr(train, "_epoch", real)
        state, resumed = trained(graphs, folder)
        assert same(whole, state)
        assert (resumed.loss_first, resumed.loss_last, resumed.step) == (
            position.loss_first, position.loss_last, position.step,
        )  # fmt: skip
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
        assert lines[-1]["loss"] == position.loss_last
        assert lines[0].keys() >= {"epoch", "loss", "time", "lr"}


@pytest.mark.parametrize("epoch", [3, 6])
def test_a_signal_saves_and_says_so(karate, tmp_path, monkeypatch, epoch):
    """In the last epoch as well: what comes after training is not to be started."""
    real, calls = train._epoch, iter(range(1, 100))

    def told(*args):
        if next(calls) == epoch:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(train, "_epoch", told)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=f"epoch {epoch} of 6") as stopped:
        trained(karate, tmp_path)
    assert stopped.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is handler
    monkeypatch.setattr(train, "_epoch", real)
    assert same(trained(karate)[0], trained(karate, tmp_path)[0])


def test_a_damaged_state_is_named(karate, tmp_path):
    (tmp_path / "resume.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(StructmaeError, match=r"resume\.pt cannot be read"):
        trained(karate, tmp_path)


@given(items=st.integers(1, 100), size=st.integers(1, 40), epoch=st.integers(0, 5))
def test_batches_hold_every_item_once(items, size, epoch):
    options = resolve("graphmae", {"train.batch_size": size}).train
    batches = list(_batches(items, options, epoch))
    assert sorted(torch.cat(batches).tolist()) == list(range(items))
    assert all(len(batch) <= size + 1 for batch in batches)
    assert size == 1 or items == 1 or all(len(batch) > 1 for batch in batches)


@given(items=st.integers(1, 60), some=st.integers(1, 70), size=st.integers(1, 20))
def test_an_epoch_of_some_items_has_so_many_and_the_next_has_others(items, some, size):
    options = resolve("graphmae", {"train.batch_size": size, "train.items": some}).train
    epochs = [torch.cat(list(_batches(items, options, epoch))).tolist() for epoch in range(40)]
    assert all(len(set(each)) == len(each) == min(some, items) for each in epochs)
    if some < items:
        assert any(set(each) != set(epochs[0]) for each in epochs)
    if 4 * some >= items:  # an item is left out of 40 epochs once in 10,000 or less
        assert set().union(*map(set, epochs)) == set(range(items))


def test_the_schedule_is_a_half_cosine(karate, tmp_path):
    trained(karate, tmp_path, **{"train.lr": 0.5})
    rates = [json.loads(line)["lr"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(rates, [0.25 * (1 + math.cos(math.pi * e / 6)) for e in range(6)])


def test_the_rate_rises_over_the_warmup(karate, tmp_path):
    trained(karate, tmp_path, **{"train.lr": 0.4, "train.warmup": 3, "train.schedule": "constant"})
    rates = [json.loads(line)["lr"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_gradients_are_cut_to_the_clip(karate, monkeypatch):
    """To that norm, over all weights, in the same direction; smaller ones stay."""
    norms = {}

    def watched(clip):
        found = norms.setdefault(clip, [])
        real = torch.optim.Adam.step

        def step(self, *args, **kwargs):
            gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            found.append((float(torch.cat([g.flatten() for g in gradients]).norm()), gradients[0].clone()))
            return real(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.Adam, "step", step)
            return trained(karate, **{"train.clip": clip, "train.epochs": 2, "heads.features.loss": "mse"})[0]

    free, wide, narrow = watched(0.0), watched(1e6), watched(1e-3)
    assert same(free, wide)
    assert not same(free, narrow)
    assert norms[0.0][0][0] > 1e-3
    assert norms[1e-3][0][0] == pytest.approx(1e-3, rel=1e-3)
    shrunk = norms[0.0][0][1] * 1e-3 / norms[0.0][0][0]
    torch.testing.assert_close(norms[1e-3][0][1], shrunk, rtol=1e-3, atol=1e-9)


def plain_adam(monkeypatch):
    """Adam as torch has it without a kernel of its own."""
    real = torch.optim.Adam

    def plain(*arguments, fused, **options):
        assert fused
        return real(*arguments, foreach=False, **options)

    monkeypatch.setattr(torch.optim, "Adam", plain)


@pytest.mark.parametrize("changes", [{}, {"train.weight_decay": 1e-2, "train.clip": 0.1, "train.warmup": 2}])
def test_the_fused_optimizer_is_the_plain_one(karate, monkeypatch, changes):
    fused, position = trained(karate, **changes)
    plain_adam(monkeypatch)
    plain, expected = trained(karate, **changes)
    assert position.loss_last == pytest.approx(expected.loss_last, rel=1e-4)
    for name, value in plain.items():
        torch.testing.assert_close(fused[name], value, rtol=1e-3, atol=1e-4)


def test_a_state_of_the_plain_optimizer_is_gone_on_with(karate, tmp_path, monkeypatch):
    """As runs from before have it, up to rounding."""
    whole, _ = trained(karate)
    real, calls = train._epoch, iter(range(9))

    def dies(*args):
        if next(calls) == 4:
            raise RuntimeError("power cut")
        return real(*args)

    with monkeypatch.context() as patch:
        plain_adam(patch)
        patch.setattr(train, "_epoch", dies)
        with pytest.raises(RuntimeError, match="power cut"):
            trained(karate, tmp_path)
    state, position = trained(karate, tmp_path)
    assert position.epoch == 6
    for name, value in whole.items():
        torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-4)


def validated(graphs, scores, folder=None):
    """Trained, with these scores of the start and the epochs: final weights, position, and the weights at each."""
    model, source, recipe = ready(graphs)
    after, scores = [], iter(scores)

    def validate():
        after.append({name: value.clone() for name, value in model.state_dict().items()})
        model.eval()  # as a score has it; training goes on all the same
        return next(scores)

    checkpoint = None if folder is None else Checkpoint(folder)
    position = fit(model, source, recipe, device=CPU, checkpoint=checkpoint, progress=False, validate=validate)
    assert not model.training
    return model.state_dict(), position, after


@settings(max_examples=6)
@given(scores=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=7, max_size=7))
def test_the_weights_that_stay_are_those_of_the_best_epoch(molecules, scores):
    """The first of equals, the start among them; and the score has no part in training."""
    state, position, after = validated(molecules, scores)
    best = scores.index(min(scores))
    assert (position.best_epoch, position.validation, position.epoch) == (best, scores[best], 6)
    assert same(after[best], state)
    assert same(trained(molecules)[0], after[-1])


@pytest.mark.parametrize(
    ("best", "scores"),
    [
        (0, (1.0, 3.0, 1.0, 2.0, 4.0, 1.0, 2.0)),
        (2, (3.0, 2.0, 1.0, 2.0, 4.0, 1.0, 2.0)),
        (5, (3.0, 2.0, 1.0, 2.0, 4.0, 0.5, 2.0)),
    ],
)
def test_a_stopped_run_still_knows_its_best_epoch(molecules, tmp_path, monkeypatch, best, scores):
    whole, position, _ = validated(molecules, scores)
    real, calls = train._epoch, iter(range(9))

    def dies(*args):
        if next(calls) == 4:
            raise RuntimeError("power cut")
        return real(*args)

    monkeypatch.setattr(train, "_epoch", dies)
    with pytest.raises(RuntimeError, match="power cut"):
        validated(molecules, scores, tmp_path)
    monkeypatch.setattr(train, "_epoch", real)
    state, resumed, _ = validated(molecules, scores[5:], tmp_path)
    assert same(whole, state)
    assert (resumed.best_epoch, resumed.validation) == (position.best_epoch, position.validation)
    assert position.best_epoch == best
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["validation"] for line in lines] == list(scores[1:])
    again, kept, after = validated(molecules, [], tmp_path)  # nothing is left to do, and the best weights come back
    assert same(whole, again)
    assert (kept.best_epoch, after) == (position.best_epoch, [])


def test_nothing_to_hide_is_an_error():
    from torch_geometric.data import Data

    import structmae

    single = structmae.load_data([Data(x=torch.rand(1, 3), edge_index=torch.zeros(2, 0, dtype=torch.long))] * 3)
    with pytest.raises(StructmaeError, match="hides no token"):
        trained(single, **{"mask.ratio": 0.25, "encoder.norm": "none"})


def test_a_loss_that_is_not_finite_stops(karate):
    with pytest.raises(StructmaeError, match="lower the learning rate"):
        trained(karate, **{"train.lr": 1e30, "heads.features.loss": "mse"})


def test_the_plan_of_an_item_does_not_depend_on_its_batch(molecules):
    _, source, recipe = ready(molecules)
    planner = train.Planner(recipe.mask, 3)
    together = source.batch(torch.tensor([4, 1, 2]))
    plans = planner.draw(together, visit=7, step=0)["node"].plan
    alone = source.batch(torch.tensor([1]))
    start, stop = together["node"].ptr[1:3].tolist()
    inside = (plans.scored >= start) & (plans.scored < stop)
    single = planner.draw(alone, visit=7, step=99)["node"].plan
    assert (plans.scored[inside] - start).tolist() == single.scored.tolist()
    assert plans.act[inside].tolist() == single.act.tolist()
    assert isinstance(single, masking.Plan)


WAYS = {
    "uniform": {},
    "weighted by degree": {"mask.strategy": "weighted", "mask.power": -1.0},
    "weighted by pagerank": {"mask.strategy": "weighted", "mask.weights": "pagerank"},
    "weighted by variance": {"mask.strategy": "weighted", "mask.weights": "variance"},
    "block": {"mask.strategy": "block", "mask.blocks": 2},
    "span": {"mask.strategy": "span", "mask.length": 2},
    "walk": {"mask.strategy": "walk", "mask.start": "edge"},
    "curriculum": {"mask.curriculum": "linear", "mask.ratio_first": 0.2, "mask.ratio": 0.8},
    "edges": {"mask.edge_ratio": 0.4},
    "random re-mask": {"heads.features.remask": "random", "heads.features.remask_draws": 2},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_hide_trains_and_resumes_to_the_same_bits(molecules, tmp_path, monkeypatch, way):
    whole, position = trained(molecules, **WAYS[way])
    assert position.loss_last < position.loss_first
    # On rings of one-hot nodes all weigh the same, and equal weights are the uniform draw.
    assert same(whole, trained(molecules)[0]) == (way == "uniform" or way.startswith("weighted"))
    real, calls = train._epoch, iter(range(100))

    def dies(*args):
        if next(calls) == 3:
            raise RuntimeError("power cut")
        return real(*args)

    monkeypatch.setattr(train, "_epoch", dies)
    with pytest.raises(RuntimeError, match="power cut"):
        trained(molecules, tmp_path, **WAYS[way])
    monkeypatch.setattr(train, "_epoch", real)
    assert same(whole, trained(molecules, tmp_path, **WAYS[way])[0])


@pytest.mark.parametrize("way", ["uniform", "edges", "random re-mask"])
def test_plans_made_ahead_are_the_same(molecules, monkeypatch, way):
    """What a GPU gets, tried on the CPU."""
    expected, _ = trained(molecules, **WAYS[way])
    monkeypatch.setattr(train, "_on_gpu", lambda source: True)
    assert same(expected, trained(molecules, **WAYS[way])[0])


def test_a_curriculum_moves_ratio_and_power_over_epochs(karate):
    _, source, recipe = ready(karate, **WAYS["curriculum"])
    planner = train.Planner(recipe.mask, 0, epochs=5)
    tokens = source.everything()
    shares = [len(planner.draw(tokens, visit=epoch, step=0)["node"].hidden) for epoch in range(5)]
    assert shares == [masking.count(ratio, 34) for ratio in (0.2, 0.35, 0.5, 0.65, 0.8)]
    validation = planner.draw(tokens, visit=masking.VALIDATION, step=0)["node"]
    assert len(validation.hidden) == shares[-1]


def test_weights_and_blocks_follow_the_graph(karate):
    """Heavily weighted: the nodes of highest degree are hidden; one block: the hidden nodes are connected."""
    degree = torch.bincount(karate.edge_index[0], minlength=34)
    _, source, recipe = ready(karate, **{"mask.strategy": "weighted", "mask.power": 16.0, "mask.ratio": 0.1})
    hidden = train.Planner(recipe.mask, 0).draw(source.everything(), visit=0, step=0)["node"].hidden
    assert set(hidden.tolist()) <= set(degree.topk(5).indices.tolist())
    _, source, recipe = ready(karate, **{"mask.strategy": "block", "mask.ratio": 0.3})
    for visit in range(20):
        hidden = train.Planner(recipe.mask, 0).draw(source.everything(), visit=visit, step=0)["node"].hidden
        inside = torch.isin(karate.edge_index, hidden).all(0)
        reached, edges = {int(hidden[0])}, karate.edge_index[:, inside].T.tolist()
        for _ in range(34):
            reached |= {b for a, b in edges if a in reached}
        assert reached == set(hidden.tolist())
