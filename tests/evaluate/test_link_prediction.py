from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import structmae
from structmae import resolve
from structmae.cli_tables import table
from structmae.data.links import hold_out, scored_pairs
from structmae.errors import UsageError
from structmae.evaluate import link_prediction
from structmae.evaluate.arms import embed
from structmae.evaluate.link_prediction import auc, check, evaluate
from structmae.run import build
from structmae.tokens.graph import GraphSource, NodeTokenizer

SMALL = {"encoder.hidden": 16, "train.epochs": 3, "data.edges": "train"}


@pytest.fixture(scope="module")
def communities():
    """Many edges inside of each, few between."""
    return structmae.load_data("sbm:n=120,seed=3")


@pytest.fixture(scope="module")
def run(communities):
    return structmae.pretrain(communities, "maskgae_path", settings={**SMALL, "train.epochs": 40}, progress=False)


def parts(graphs, name="maskgae_path"):
    recipe = resolve(name, {"encoder.hidden": 16, "encoder.heads": 2})
    tokenizer = NodeTokenizer.fit(graphs, recipe)
    model = build(recipe, tokenizer)
    model.eval()
    return model, GraphSource(graphs, tokenizer), recipe


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=4, max_size=30))
def test_auc_is_the_chance_that_an_edge_scores_above_one_that_is_none(cases):
    cases = [*cases, (2, True), (3, False)]
    scores = torch.tensor([float(score) for score, _ in cases])
    labels = torch.tensor([float(label) for _, label in cases])
    above = scores[labels == 1][:, None] - scores[labels == 0]
    expected = ((above > 0).double() + (above == 0).double() / 2).mean()
    assert auc(scores, labels) == pytest.approx(float(expected))


def test_the_result_has_every_arm_and_prints(run):
    scored = run.evaluate(task="link_prediction")
    arms = [
        "pretrained", "random_init", "raw_features", "propagated_features", "own_decoder",
        "common_neighbours", "adamic_adar", "preferential_attachment",
    ]  # fmt: skip
    assert [row["features"] for row in scored["rows"]] == arms
    assert (scored["metric"], scored["better"], scored["split"]) == ("auc", "higher", "test")
    assert "85/5/10" in scored["split_source"]
    for row in scored["rows"]:
        assert scored[row["features"]] == row["value"]
        assert scored["ap"][row["features"]] == row["ap"]
        assert 0 <= min(row["value"], row["ap"], row["validation"]) <= max(row["value"], row["ap"]) <= 1
        assert row["n"] == 2 * run.data().held_out["test"].shape[1]
    shown = table(scored)
    assert all(arm.replace("_", " ") in shown for arm in arms)


def test_counts_of_neighbours_are_those_of_the_training_edges(communities):
    split = hold_out(communities)
    near = {node: set(split.edge_index[0, split.edge_index[1] == node].tolist()) for node in range(split.num_nodes)}
    pairs = scored_pairs(split)["test"][0]
    found = {name: score(pairs).tolist() for name, score in link_prediction._of_neighbours(split).items()}
    for at, (a, b) in enumerate(pairs.T.tolist()):
        both = near[a] & near[b]
        assert found["common_neighbours"][at] == len(both)
        rare = sum(1 / torch.tensor(float(len(near[node]))).log() for node in both)
        assert found["adamic_adar"][at] == pytest.approx(float(rare), abs=1e-5)
        assert found["preferential_attachment"][at] == len(near[a]) * len(near[b])


def test_which_edges_are_held_out_changes_no_vector(communities):
    """Vectors come of training edges alone: with none of the others known they are the same."""
    split = hold_out(communities)
    model, source, _ = parts(split)
    alone = GraphSource(replace(split, held_out=None), model.encoder.tokenizer)
    assert torch.equal(embed(model.encoder, source), embed(model.encoder, alone))
    seen = {frozenset(pair) for pair in source.all["node"].relations["edges"].edge_index.T.tolist()}
    assert not seen & {frozenset(pair) for part in split.held_out.values() for pair in part.T.tolist()}


def test_test_pairs_choose_nothing(communities, monkeypatch):
    """With other test pairs the same head is chosen of each arm, and validation scores are the same."""
    split = hold_out(communities)
    model, source, recipe = parts(split)
    real = link_prediction.scored_pairs
    one = evaluate(model.encoder, model.encoder, source, split, recipe)
    monkeypatch.setattr(
        link_prediction, "scored_pairs", lambda graphs: {**real(graphs), "test": real(graphs)["validation"]}
    )
    other = evaluate(model.encoder, model.encoder, source, split, recipe)
    for a, b in zip(one["rows"], other["rows"], strict=True):
        assert (a["validation"], a.get("head")) == (b["validation"], b.get("head"))
        assert b["value"] == b["validation"]
        assert "own_decoder" not in (a["features"], b["features"])


def test_a_vector_that_tells_edges_is_found_by_a_head(communities):
    """Of one-hot communities a ridge, or the cosine, knows which pairs lie inside: as well as those who know it."""
    split = hold_out(communities)
    z = torch.nn.functional.one_hot(split.y).float()
    pairs = scored_pairs(split)
    row = link_prediction._of_vectors("known", z, link_prediction._fitted_pairs(split), pairs)
    test, labels = pairs["test"]
    inside = (split.y[test[0]] == split.y[test[1]]).float()
    assert row["value"] >= auc(inside, labels) - 0.02 > 0.6


def test_the_own_decoder_is_that_of_the_run(run):
    split = run.data()
    scored = evaluate(run.encoder, run.encoder, run.source(split), split, run.recipe, run=run)
    pairs, labels = scored_pairs(split)["test"]
    encoded = run.model.encode(run.source(split).everything())
    with torch.no_grad():
        found = run.model.heads["edges"].decoder(encoded, pairs, None)[:, 0]
    assert scored["own_decoder"] == auc(found, labels)
    bare = SimpleNamespace(model=SimpleNamespace(heads={}))
    assert "own_decoder" not in evaluate(run.encoder, run.encoder, run.source(split), split, run.recipe, run=bare)


def test_a_run_that_saw_every_edge_is_refused(karate, molecules):
    recipe = resolve("maskgae_path")
    with pytest.raises(UsageError, match=r"--set data\.edges=train"):
        check(karate, recipe)
    with pytest.raises(UsageError, match="set of graphs"):
        check(molecules, recipe)
    with pytest.raises(UsageError, match=r"encoder\.pool=mean"):
        check(hold_out(karate), resolve("graphmae", {"encoder.pool": "mean"}))


def test_tasks_of_graphs_without_labels_begin_with_links(karate, molecules):
    from structmae.graph import tasks

    split = hold_out(karate)
    assert tasks(karate)[:2] == tasks(split)[:2] == ("node_classification", "link_prediction")
    assert tasks(replace(split, y=None, split=None))[0] == "link_prediction"
    assert "link_prediction" not in tasks(molecules)


def test_a_saved_run_is_scored_by_the_same_split(tmp_path):
    run = structmae.pretrain("karate", "maskgae_edge", settings=SMALL, out=tmp_path / "run", progress=False)
    again = structmae.load(tmp_path / "run").evaluate(task="link_prediction")
    assert again == run.evaluate(task="link_prediction")
