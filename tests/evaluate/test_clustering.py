from dataclasses import replace

import numpy as np
import pytest
import torch
from rebuild_cases import images, run, texts
from series_cases import samples, waves
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import structmae
from structmae.cli_tables import table
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate.clustering import agreement, check
from structmae.evaluate.frozen import frozen
from structmae.evaluate.vectors import item_vectors

TERM = {"terms.clustering.weight": 0.1, "terms.clustering.clusters": 3, "terms.clustering.start": 0.3}


def rows(found):
    return {row["features"]: row for row in found["rows"]}


def test_agreement_by_hand():
    # Of 4 + 1 items the last has no label: pairs in one cluster and of one class 1, in one cluster 2, of one class 2.
    found = agreement(np.array([0, 0, 1, 2, 2]), np.array([1, 1, 0, 0, -1]), 4)
    expected = 1 * 2 / 6
    assert found["value"] == pytest.approx((1 - expected) / ((1 + 2) / 2 - expected))
    assert found["n"] == 4
    assert found["clusters"] == 4
    assert found["occupancy"] == pytest.approx([0.4, 0.4, 0.2, 0.0])
    assert found["smallest_share"] == 0


def test_agreement_does_not_know_the_clusters_names():
    rng = np.random.default_rng(0)
    y, cluster = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    one, other = agreement(cluster, y, 4), agreement(3 - cluster, y, 4)
    assert one.pop("occupancy") == other.pop("occupancy")
    assert one == pytest.approx(other)
    assert one["value"] == pytest.approx(adjusted_rand_score(y, cluster))
    perfect = agreement(3 - y, y, 4)
    assert (perfect["value"], perfect["nmi"]) == (pytest.approx(1), pytest.approx(1))


@pytest.fixture(scope="module")
def plain():
    return run(images(), "mae")


@pytest.fixture(scope="module")
def clustered():
    return run(images(), "mae", **{key.replace(".", "__"): value for key, value in TERM.items()})


def test_a_run_without_terms_has_no_other_to_stand_beside(plain):
    lines = []
    found = plain.evaluate(task="clustering", progress=lines.append)
    assert list(rows(found)) == ["pretrained", "random_init", "raw_features"]
    assert found["raw_features"] == 1  # top and bottom
    assert [row["clusters"] for row in found["rows"]] == [2] * 3
    assert [row["n"] for row in found["rows"]] == [60] * 3
    assert (found["metric"], found["better"], found["split"]) == ("ari", "higher", "all")
    assert len(lines) == 3
    assert "by k-means" in table(found)
    for row in found["rows"]:
        assert sum(row["occupancy"]) == pytest.approx(1)
        assert row["occupancy"] == sorted(row["occupancy"], reverse=True)
        assert row["smallest_share"] == row["occupancy"][-1]


def test_k_means_of_the_encoders_vectors(plain):
    source = plain.source(plain.data())
    with frozen(plain.encoder):
        vectors = item_vectors(plain.encoder, source)
    cluster = KMeans(2, n_init=10, random_state=plain.recipe.train.seed).fit_predict(vectors.numpy())
    found = plain.evaluate(task="clustering")
    assert found["pretrained"] == pytest.approx(adjusted_rand_score(plain.data().y.numpy(), cluster))
    assert plain.evaluate(task="clustering", at_once=7)["pretrained"] == pytest.approx(found["pretrained"])


def test_what_the_term_assigns_and_the_same_recipe_without_it(clustered):
    found = rows(clustered.evaluate(task="clustering"))
    assert list(found) == ["pretrained", "assigned", "plain", "random_init", "raw_features"]
    assert {arm: row["clusters"] for arm, row in found.items()} == {
        "pretrained": 2, "assigned": 3, "plain": 2, "random_init": 2, "raw_features": 2,
    }  # fmt: skip
    with frozen(clustered.encoder):
        vectors = item_vectors(clustered.encoder, clustered.source(clustered.data()))
        nearest = torch.cdist(vectors, clustered.model.terms["clustering"].centres).argmin(1).numpy()
    assert found["assigned"]["value"] == pytest.approx(adjusted_rand_score(clustered.data().y.numpy(), nearest))
    counts = np.sort(np.bincount(nearest, minlength=3))[::-1] / 60
    assert found["assigned"]["occupancy"] == pytest.approx(counts.tolist())


def test_labels_are_read_for_the_score_alone(plain):
    data = plain.data()
    y = data.y.clone()
    y[:10] = -1
    found, before = rows(plain.evaluate(replace(data, y=y), task="clustering")), rows(plain.evaluate(task="clustering"))
    for arm, row in found.items():
        assert row["n"] == 50
        assert row["occupancy"] == before[arm]["occupancy"]  # of all items still
    flipped = rows(plain.evaluate(replace(data, y=1 - data.y), task="clustering"))
    assert {arm: row["value"] for arm, row in flipped.items()} == pytest.approx(
        {arm: row["value"] for arm, row in before.items()}
    )


def test_nodes_of_a_graph(karate, tiny):
    made = structmae.pretrain(karate, recipe="graphmae", settings={**tiny, **TERM}, progress=False)
    found = rows(made.evaluate(task="clustering"))
    assert list(found) == ["pretrained", "assigned", "plain", "random_init", "raw_features"]
    assert {row["n"] for row in found.values()} == {34}
    cluster = KMeans(len(karate.classes), n_init=10, random_state=0).fit_predict(made.embed().numpy())
    assert found["pretrained"]["value"] == pytest.approx(adjusted_rand_score(karate.y.numpy(), cluster))


def test_graphs_of_a_set(molecules, tiny):
    made = structmae.pretrain(molecules, recipe="graphmae", settings=tiny, progress=False)
    found = rows(made.evaluate(task="clustering"))
    assert {row["n"] for row in found.values()} == {6}
    mean = torch.stack([part.mean(0) for part in made.encoder.tokenizer.values(molecules.x).split([4, 5, 6, 7, 8, 9])])
    cluster = KMeans(2, n_init=10, random_state=0).fit_predict(mean.numpy())
    assert found["raw_features"]["value"] == pytest.approx(adjusted_rand_score(molecules.y.numpy(), cluster))


@pytest.mark.parametrize("lengths", [[48] * 8, [48] * 4 + [60] * 4])
def test_recordings(lengths):
    y, rng = np.arange(8) % 2, np.random.default_rng(0)
    values = np.concatenate([waves(rows=n)[:n] * (1 + 9 * label) for n, label in zip(lengths, y, strict=True)])
    values = values + 0.01 * rng.standard_normal(values.shape)
    split = {"train": range(6), "test": range(6, 8)}
    settings = {
        "tokens.segment": 6, "tokens.context": 24, "encoder.hidden": 16, "encoder.heads": 2, "encoder.layers": 1,
        "encoder.pool": "mean", "train.epochs": 2, **TERM,
    }  # fmt: skip
    data = samples(values, lengths, y, split=split)
    made = structmae.pretrain(data, recipe="tsformer", settings=settings, progress=False)
    found = rows(made.evaluate(task="clustering"))
    equal = len(set(lengths)) == 1
    # Recordings of several windows have no one cluster of the term's.
    assert list(found) == ["pretrained", "plain", "random_init", *(["raw_features"] if equal else [])]
    assert {row["n"] for row in found.values()} == {8}
    assert not equal or found["raw_features"]["value"] == 1


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"y": None}, StructmaeError, "has no labels"),
        ({"y": torch.zeros(60, dtype=torch.int64)}, StructmaeError, "two classes or more"),
        ({"y": torch.full((60,), -1)}, StructmaeError, "two classes or more"),
    ],
)
def test_data_without_labels(plain, change, error, said):
    with pytest.raises(error, match=said):
        check(replace(plain.data(), **change), plain.recipe)


def test_recipes_whose_vectors_are_of_something_else(karate, molecules):
    nodes = structmae.resolve("graphmae", {"encoder.pool": "mean"})
    with pytest.raises(UsageError, match="one vector a graph"):
        check(karate, nodes)
    with pytest.raises(UsageError, match="one vector a node"):
        check(molecules, structmae.resolve("graphmae", {"encoder.pool": "none"}))
    with pytest.raises(UsageError, match="needs items with labels"):
        check(structmae.load_data(texts()), nodes)


def test_fewer_items_than_classes(plain):
    data = plain.data()
    few = replace(data, x=data.x[:2], y=data.y[:2], classes=("a", "b", "c"), split=data.split)
    with pytest.raises(StructmaeError, match="2 items can't make 3 clusters"):
        plain.evaluate(few, task="clustering")
