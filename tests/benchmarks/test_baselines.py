"""Baselines of few labels, and what all supervised ones are trained on."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import structmae
from structmae.evaluate import few, node_classification
from structmae.evaluate.arms import propagate

SBM = "sbm:n=120,seed=1"


@pytest.fixture
def task(script):
    """A small graph with labels, as baselines take it."""
    graphs = structmae.load_data(SBM)
    recipe = script("encoders").recipe_of(graphs, 0)
    modality = structmae.registry.get("modality", recipe.modality)
    source = modality.source(graphs, modality.fit(graphs, recipe), torch.device("cpu"))
    return script("baselines").Task(graphs, source, recipe.probe)


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setattr("structmae.evaluate.few.SUBSETS", 2)


def test_vectors_of_few_labels_are_read_as_those_of_an_encoder(run, table, script, tmp_path, lines, task, two):
    methods = {f"near_{hops}": f"baseline = 'propagated', settings = {{ hops = {hops} }}" for hops in (1, 3)}
    mine = table(labels=[1, 2], data=[SBM], seeds=2, methods=methods)
    code, summary, err = run(mine, settings=["--threads", "1"])
    assert (code, summary["ran"], summary["lines"]) == (0, 2, 4), err  # no seed matters
    found = {(line["recipe"], line["at"]): line["draws"] for line in lines(tmp_path)}
    for hops in (1, 3):
        x, recipe = propagate(task.source.all["node"], hops), script("encoders").recipe_of(task.graphs, 0)
        for row in node_classification.score({"x": x}, task.graphs, recipe, labels=[1, 2])["few_labels"]:
            assert found[f"near_{hops}", f"{row['labels']} a class"] == row["each"]
    assert found["near_1", "2 a class"] != found["near_3", "2 a class"]


@pytest.mark.parametrize("name", ["label_propagation", "gcn", "gat"])
def test_what_says_classes_learns_from_each_draw(script, monkeypatch, task, two, name):
    baselines, seen = script("baselines"), []
    monkeypatch.setattr(baselines, "EPOCHS", 3)
    real = baselines.BASELINES[name]

    def spy(given, seed):
        made = real(given, seed)
        seen.append((given, made.predicted))
        return made

    monkeypatch.setitem(baselines.BASELINES, name, spy)
    rows = baselines.make(name, task, 0, {}, [1, 3]).few_labels
    train, test = task.part("train").numpy(), task.part("test")
    subsets = few.few(task.y.numpy(), train, [1, 3])[0]
    draws = [draw.tolist() for some in subsets.values() for draw in some]
    assert [given.part("train").tolist() for given, _ in seen] == draws
    assert all(len(given.part("validation")) == 0 for given, _ in seen)
    right = [float((said[test] == task.y[test]).double().mean()) for _, said in seen]
    assert [value for row in rows for value in row["each"]] == pytest.approx(right)

    given, said = seen[-1]  # no label but those of the draw has a say
    others = torch.ones(len(task.y), dtype=torch.bool)
    others[given.part("train")] = False
    y = torch.where(others, (task.y + 1) % len(task.graphs.classes), task.y)
    assert torch.equal(real(replace(given, graphs=replace(given.graphs, y=y)), 0).predicted, said)


def test_supervised_ones_drop_features_anew_each_epoch(script, monkeypatch, task):
    """Zeros need no random number; the rest are dropped with the probability asked for, or scaled up."""
    baselines = script("baselines")
    monkeypatch.setattr(baselines, "EPOCHS", 3)
    features = (torch.rand(len(task.y), 500) < 0.2) * torch.rand(len(task.y), 500)
    monkeypatch.setattr(type(task), "x", features)
    taught, read = [], []

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(500, len(task.graphs.classes))

        def forward(self, x, edge_index):
            (taught if self.training else read).append(x.clone())
            return self.layer(x)

    baselines._supervised(Model(), task, lr=0.01, dropout=0.6, seed=0)
    assert len(taught) == len(read) == 3
    assert all(torch.equal(x, features) for x in read)
    there = features != 0
    for x in taught:
        kept = x != 0
        assert not (kept & ~there).any()
        assert kept.sum() / there.sum() == pytest.approx(0.4, abs=0.02)
        assert torch.allclose(x[kept], features[kept] / 0.4)
    assert not torch.equal(taught[0], taught[1])


def test_settings_that_change_the_data_of_a_baseline_are_a_row_of_their_own(run, table, tmp_path, lines):
    parts = {"raw": "baseline = 'raw'", "near": "baseline = 'propagated', settings = { hops = 1 }"}
    mine = table(data=[SBM], seeds=1, methods={**parts, "both": "of = ['raw', 'near']"})
    more = ["--set", "data.edges=train", "--set", "probe.epochs=3", "--set", "train.epochs=1"]
    assert run(mine, settings=["--threads", "1", *more])[1]["ran"] == 3
    assert run(mine, settings=["--threads", "1"])[1]["ran"] == 3
    found = {(line["recipe"], *line["settings"]) for line in lines(tmp_path)}
    apart = {("raw", "data.edges"), ("near", "data.edges"), ("both", "data.edges", "probe.epochs")}
    assert found == {*apart, ("raw",), ("near",), ("both",)}


def test_a_class_with_fewer_labels_than_any_column_says_so(run, table):
    code, _, err = run(table(labels=[500], methods={"a": "baseline = 'label_propagation'"}))
    assert (code, "labels=[500]: karate has too few" in err) == (1, True)
    code, _, err = run(table(labels=[500]))
    assert (code, "labels=[500]: karate has too few" in err) == (1, True)
