"""tsai both ways. What needs tsai itself runs in a process of its own: importing it takes long and changes what other
libraries do."""

import doctest
import subprocess
import sys

import numpy as np
import pytest
import torch

import structmae
import structmae.tsai
from structmae import StructmaeError, UsageError
from structmae.evaluate import rocket
from structmae.tsai import from_tsai, splitter, to_tsai

SMALL = {
    "encoder.layers": 1, "encoder.hidden": 8, "encoder.heads": 2, "encoder.feed_forward": 8, "tokens.context": 16,
    "tokens.segment": 4, "train.epochs": 2,
}  # fmt: skip
SPLITS = (list(range(8)), list(range(8, 12)))


def samples(steps=16, channels=2, seed=0):
    """X (12, channels, steps) with values missing, and labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(12, channels, steps)).astype(np.float32)
    return np.where(rng.random(x.shape) < 0.05, np.nan, x).astype(np.float32), np.array(["sit", "run"] * 6)


@pytest.fixture(scope="module")
def run():
    return structmae.pretrain(from_tsai(*samples(), SPLITS), "patchtst", settings=SMALL, progress=False)


def test_the_example_runs():
    assert doctest.testmod(structmae.tsai) == doctest.TestResults(0, 7)


def test_arrays_become_series_and_load_data_reads_the_same():
    x, y = samples()
    series = from_tsai(x, y, SPLITS, name="my steps")
    assert (series.name, series.level, series.classes) == ("my-steps", "sample", ("run", "sit"))
    assert {key: part.tolist() for key, part in series.split.items()} == {
        "train": SPLITS[0], "validation": [], "test": SPLITS[1]
    }  # fmt: skip
    np.testing.assert_array_equal(series.windows(series.ptr[:-1], 16), x)
    assert series.fingerprint() == structmae.load_data((x, y, SPLITS)).fingerprint()
    three = from_tsai(x, y, (SPLITS[0], [8, 9], [10, 11]))
    assert [len(three.split[key]) for key in ("train", "validation", "test")] == [8, 2, 2]
    assert from_tsai(x).y is None


def test_data_sets_that_bring_labels_are_given_alone():
    class Datasets:
        tls = ()

    with pytest.raises(UsageError, match="Datasets brings its own labels"):
        from_tsai(Datasets(), y=[1])


def test_embeddings_are_the_encoders_own(run):
    x = torch.from_numpy(samples(seed=1)[0])
    model = to_tsai(run, 3, pool=None)
    torch.testing.assert_close(model.backbone(x), run.encoder(x), rtol=0, atol=0)
    assert model(x).shape == (12, 3)
    largest = to_tsai(run, 3, pool="max")
    assert not torch.equal(largest.backbone(x), run.encoder(x))
    assert run.encoder.pool == "mean"


def test_training_it_leaves_the_run_as_it_is(run):
    before = {name: value.clone() for name, value in run.encoder.state_dict().items()}
    model = to_tsai(run, 2).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(torch.from_numpy(samples()[0])).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.backbone.encoder.position, before["position"])
    for name, value in run.encoder.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_frozen_backbone_stays_still_until_it_is_unfrozen(run):
    model = to_tsai(run, 2, freeze=True).train()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    model(torch.from_numpy(samples()[0])).sum().backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
    assert model.head.training
    model.backbone.requires_grad_(True)
    assert model.train().backbone.training


def test_the_splitter_has_every_parameter_once(run):
    model = to_tsai(run, 2)
    body, head = splitter(model)
    assert [id(p) for p in (*body, *head)] == [id(p) for p in model.parameters()]
    assert head == list(model.head.parameters())


def test_long_windows_are_read_side_by_side(run):
    x = torch.from_numpy(samples(40)[0]).nan_to_num()
    x[:, :, 38:] = torch.nan  # rows of which nothing was observed do not count
    parts = [run.encoder(part) for part in torch.split(x, 16, dim=-1)]
    wanted = (16 * parts[0] + 16 * parts[1] + 6 * parts[2]) / 38
    torch.testing.assert_close(to_tsai(run, 2).backbone(x), wanted)


def test_other_channels_need_an_encoder_that_reads_each_alone(run):
    x = torch.from_numpy(samples(channels=5)[0])
    alone = structmae.pretrain(
        from_tsai(*samples(), SPLITS), "patchtst", settings={**SMALL, "tokens.window_norm": True}, progress=False
    )
    assert to_tsai(alone, 2, channels=5)(x).shape == (12, 2)
    mixed = structmae.pretrain(
        from_tsai(*samples(), SPLITS), "spans", settings={**SMALL, "tokens.segment": 1}, progress=False
    )
    with pytest.raises(UsageError, match="channels=5: this encoder reads the 2"):
        to_tsai(mixed, 2, channels=5)
    assert to_tsai(mixed, 2)(torch.from_numpy(samples()[0])).shape == (12, 2)


def test_a_saved_run_is_taken_by_its_folder(run, tmp_path):
    x = torch.from_numpy(samples()[0])
    model = to_tsai(run.save(tmp_path / "run"), 2)
    torch.testing.assert_close(model.backbone(x), run.encoder(x), rtol=0, atol=0)
    with pytest.raises(StructmaeError, match="is not a run"):
        to_tsai(tmp_path, 2)


@pytest.mark.parametrize(
    ("options", "words"), [({"classes": 0}, "classes=0"), ({"classes": 2, "pool": "none"}, "pool='none'")]
)
def test_wrong_options(run, options, words):
    with pytest.raises(UsageError, match=words):
        to_tsai(run, **options)


def test_graphs_are_refused(tiny):
    graph = structmae.pretrain("karate", settings={**tiny, "train.epochs": 1}, progress=False)
    with pytest.raises(UsageError, match="tsai reads series"):
        to_tsai(graph, 2)


LEARNER = """
import warnings
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")  # fastai's import
warnings.filterwarnings("ignore", message="The 'mode.chained_assignment' option is deprecated")  # the same
import numpy as np, torch
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from tsai.data.core import TSClassification, TSDataLoaders, TSDatasets
from tsai.learner import ts_learner
import structmae
from structmae.tsai import from_tsai, splitter, to_tsai

rng = np.random.default_rng(0)
y = np.array(["low", "high"] * 20)
x = rng.normal(size=(40, 2, 16)).astype(np.float32) + np.where(y == "high", 3.0, 0.0)[:, None, None]
x = x.astype(np.float32)
x[rng.random(x.shape) < 0.05] = np.nan
splits = (list(range(0, 28)), list(range(28, 40)))
dsets = TSDatasets(x, y, tfms=[None, TSClassification()], splits=splits)
dls = TSDataLoaders.from_dsets(dsets.train, dsets.valid, bs=[14, 12], num_workers=0, device=torch.device("cpu"))

series = from_tsai(dsets, name="tsai")
plain = from_tsai(x, y, splits)
for other in (series, from_tsai(dls)):
    assert other.fingerprint() == plain.fingerprint() and other.classes == plain.classes == ("high", "low")
few = TSDatasets(x, y, tfms=[None, TSClassification()], splits=splits, sel_vars=[1], sel_steps=slice(4, 12))
assert np.array_equal(from_tsai(few).windows(np.arange(0, 320, 8), 8), x[:, 1:, 4:12], equal_nan=True)
assert from_tsai(TSDatasets(x)).y is None

settings = {
    "encoder.layers": 1, "encoder.hidden": 8, "encoder.heads": 2, "encoder.feed_forward": 8, "tokens.context": 16,
    "tokens.segment": 4, "train.epochs": 2, "tokens.window_norm": False,
}
run = structmae.pretrain(series, "patchtst", settings=settings, progress=False)
own = run.encoder(torch.from_numpy(x[28:]))
body = lambda model: torch.cat([p.detach().flatten().clone() for p in model.backbone.parameters()])

loss = CrossEntropyLossFlat()
learn = ts_learner(dls, to_tsai(run, dls.c), loss_func=loss, metrics=accuracy, lr=0.05, train_bn=False)
with torch.no_grad():
    batch = dls.valid.one_batch()[0]
    assert torch.equal(learn.model.backbone(batch), own), "embeddings through tsai"
with learn.no_bar(), learn.no_logging():
    before = body(learn.model)
    learn.freeze()
    learn.fit(1)
    assert torch.equal(body(learn.model), before), "the backbone is frozen"
    learn.unfreeze()
    learn.fit(3)
    assert not torch.equal(body(learn.model), before)
    score = learn.validate()
assert score[1] >= 0.9, score

learn = Learner(dls, to_tsai(run, dls.c, freeze=True), loss_func=loss, splitter=splitter)
assert len(learn.opt_func(learn.splitter(learn.model), lr=0.1).param_lists) == 2
with learn.no_bar(), learn.no_logging():
    learn.fine_tune(1, freeze_epochs=1)
assert torch.equal(run.encoder(torch.from_numpy(x[28:])), own), "the run is as it was"
"""


@pytest.mark.slow
@pytest.mark.skipif(not rocket.available(), reason="needs the extra tsai")
def test_a_learner_trains_it():
    done = subprocess.run([sys.executable, "-W", "error", "-c", LEARNER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
