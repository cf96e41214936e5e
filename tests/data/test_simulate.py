import time

import numpy as np
import pytest
import torch

from structmae.data import catalog, load
from structmae.data.graphs import Graphs
from structmae.data.simulate import CITATION_SHARES, planted_citations, sbm
from structmae.errors import UsageError


@pytest.fixture(scope="module")
def citations() -> Graphs:
    return load("citations")


def test_citations_have_the_statistics_of_their_card(citations: Graphs) -> None:
    card = catalog.resolve("citations").statistics
    assert citations.num_nodes == card["nodes"] == 2000
    assert citations.num_edges == 2 * card["edges"] == 7800
    assert citations.x.shape == (2000, card["features"])
    assert citations.split is not None
    assert {key: len(index) for key, index in citations.split.items()} == {
        "train": 140,
        "validation": 500,
        "test": 1000,
    }
    assert citations.y is not None
    assert torch.bincount(citations.y[citations.split["train"]]).tolist() == [20] * 7
    assert torch.bincount(citations.y).tolist() == [round(2000 * share) for share in CITATION_SHARES]


def test_edges_stay_in_their_class_as_often_as_asked(citations: Graphs) -> None:
    assert citations.y is not None
    source, target = citations.edge_index
    # Repeats are drawn again, and there are more of them inside a class than outside.
    assert (citations.y[source] == citations.y[target]).float().mean().item() == pytest.approx(0.81)


def test_words_follow_the_class(citations: Graphs) -> None:
    assert citations.y is not None
    assert set(citations.x.unique().tolist()) == {0.0, 1.0}
    assert 15 < citations.x.sum(1).mean() < 19  # 19 draws on average, some of them the same word
    assert citations.x.sum(1).min() >= 1
    # Class means are further apart than those of random groups of the same sizes.
    means = torch.stack([citations.x[citations.y == c].mean(0) for c in range(7)])
    shuffled = citations.y[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    random = torch.stack([citations.x[shuffled == c].mean(0) for c in range(7)])
    assert means.var(0).sum() > 5 * random.var(0).sum()


def test_degrees_are_heavy_tailed(citations: Graphs) -> None:
    degree = torch.bincount(citations.edge_index[1], minlength=2000).float()
    assert degree.max() > 8 * degree.mean()


def test_citations_are_the_same_whatever_the_global_seeds(citations: Graphs) -> None:
    np.random.seed(7)  # noqa: NPY002 - must not matter
    torch.manual_seed(7)
    assert load("Citations").fingerprint() == citations.fingerprint()


def test_citations_do_not_change_between_versions(citations: Graphs) -> None:
    # Published results name this graph. If a NumPy changes the stream of its Generator, the graph needs a new name.
    assert citations.fingerprint() == "e5a729462f55fa11fbdba747d47f6da321146ddfb30ea820391fa76c403611aa"


def test_sbm_reads_its_settings() -> None:
    graphs = load("sbm:n=300, classes=3, degree=6, within=1, words=50, seed=4")
    assert graphs.x.shape == (300, 50)
    assert graphs.num_edges == 300 * 6
    assert graphs.y is not None
    assert torch.bincount(graphs.y).tolist() == [100] * 3
    assert bool((graphs.y[graphs.edge_index[0]] == graphs.y[graphs.edge_index[1]]).all())
    assert graphs.split is not None
    assert [len(index) for index in graphs.split.values()] == [60, 75, 150]
    assert load(**graphs.spec).fingerprint() == graphs.fingerprint()
    other = load("sbm:n=300,classes=3,degree=6,within=1,words=50,seed=5")
    assert other.fingerprint() != graphs.fingerprint()


def test_no_edge_stays_where_within_is_none() -> None:
    graphs = load("sbm:n=300,within=0")
    assert graphs.y is not None
    assert not bool((graphs.y[graphs.edge_index[0]] == graphs.y[graphs.edge_index[1]]).any())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sbm:nodes=5", r"unknown setting 'nodes=5'\. The settings are n=, classes=, degree=, within=, words=, seed="),
        ("sbm:n", "unknown setting 'n'"),
        ("sbm:n=ten", "n is 'ten'; it must be a whole number"),
        ("sbm:within=1.5", r"within is 1\.5; it must lie in 0\.0\.\.1\.0"),
        ("sbm:degree=nan", "degree is nan; it must lie in"),
        ("sbm:classes=0", "classes is 0"),
        ("sbm:n=10,classes=4", r"n is 10; it must lie in 12\.\."),
        ("sbm:n=20,degree=19", "190 edges do not fit 20 nodes"),
    ],
)
def test_wrong_settings_are_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sbm(text)


def test_one_class_works() -> None:
    draft = planted_citations(60, (1.0,), degree=4, words=30)
    assert draft.edge_index.shape == (2, 240)


def test_a_hundred_thousand_nodes_take_seconds() -> None:
    start = time.perf_counter()
    draft = sbm("sbm:n=100000,words=200,seed=1")
    assert time.perf_counter() - start < 20
    assert draft.edge_index.size(1) == 390_000
