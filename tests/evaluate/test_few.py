"""Few labels of nodes: which are drawn, what is read, what is refused. Of recordings see test_series_classification."""

import numpy as np
import pytest
import torch

import structmae
from structmae.errors import UsageError
from structmae.evaluate import few, node_classification
from structmae.recipe import resolve


@pytest.fixture
def graphs(monkeypatch):
    monkeypatch.setattr(few, "SUBSETS", 3)
    return structmae.load_data("sbm:n=300,seed=1")


def scored(graphs, features, labels=(1, 2)):
    recipe = resolve("graphmae", {"probe.epochs": 2}, level="node")
    return node_classification.score(features, graphs, recipe, labels=labels)


def test_rows_are_of_each_arm_and_size(graphs):
    truth = torch.nn.functional.one_hot(graphs.y).float()
    noise = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    found = scored(graphs, {"truth": truth, "noise": noise})
    assert [(row["features"], row["labels"], row["n"]) for row in found["few_labels"]] == [
        ("truth", 1, 3), ("truth", 2, 3), ("noise", 1, 3), ("noise", 2, 3),
    ]  # fmt: skip
    first, second, third, _ = found["few_labels"]
    assert (first["value"], first["std"], second["value"]) == (1.0, 0.0, 1.0)
    assert 0 < third["value"] < 1
    assert found == scored(graphs, {"truth": truth, "noise": noise})


def test_it_is_the_classifier_on_the_draws(graphs):
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    y, train, test = graphs.y.numpy(), graphs.split["train"].numpy(), graphs.split["test"].numpy()
    subsets, _ = few.few(y, train, [3])
    long = 100 * x.numpy().astype(np.float64) * np.random.default_rng(0).uniform(1, 9, (300, 1))  # no length matters
    values = [few.logistic(long[some], y[some], long[test], y[test], few.unit) for some in subsets[3]]
    row = scored(graphs, {"x": x}, [3])["few_labels"][0]
    assert row["value"] == pytest.approx(np.mean(values))
    assert row["std"] == pytest.approx(np.std(values, ddof=1))


def test_no_validation_node_is_read(graphs):
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    before = scored(graphs, {"x": x})["few_labels"]
    held = graphs.split["validation"]
    graphs.y[held] = graphs.y[held].flip(0)
    x[held] = 100.0
    assert scored(graphs, {"x": x})["few_labels"] == before


def test_sizes_that_are_none_or_too_many(graphs):
    x = torch.randn(300, 6)
    found = scored(graphs, {"x": x}, [1, 10_000])
    assert [row["labels"] for row in found["few_labels"]] == [1]
    assert "left out: 10000 labels a class" in found["notes"][0]
    for labels in ([0], [5, -1]):
        with pytest.raises(UsageError, match="give how many labels a class"):
            scored(graphs, {"x": x}, labels)
    assert "few_labels" not in scored(graphs, {"x": x}, [])


def test_a_run_takes_labels():
    run = structmae.pretrain(
        "citations", settings={"train.epochs": 1, "encoder.hidden": 8, "encoder.heads": 1}, progress=False
    )
    found = run.evaluate(labels=[2])["few_labels"]
    assert [row["features"] for row in found] == ["pretrained", "random_init", "raw_features", "propagated_features"]
