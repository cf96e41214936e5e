"""Methods of a table whose vectors stand side by side."""

import pytest
import torch

import structmae
from structmae import train
from structmae.evaluate import node_classification
from structmae.evaluate.arms import propagate
from structmae.recipe import resolve


@pytest.mark.parametrize("labels", [[], [1, 2]])
def test_vectors_side_by_side(run, script, table, tmp_path, lines, labels, monkeypatch):
    """As a person would put them there; and encoders that are kept are not trained again."""
    data = "sbm:n=200,classes=2,seed=1"
    other = 'baseline = "propagated"' + (", settings = { hops = 2 }" if labels else "")
    parts = {"graphmae": 'recipe = "graphmae"', "other": other}
    changes = {"labels": labels} if labels else {}
    mine = table(data=[data], seeds=1, methods={"both": 'of = ["other", "graphmae"]', **parts}, **changes)
    code, summary, err = run(mine, "--only", "both")
    assert (code, summary["ran"]) == (0, 1), err
    found = lines(tmp_path)
    assert {line["recipe"] for line in found} == {"both"}
    assert found[0]["epochs"] == run.settings["train.epochs"]
    assert found[0]["seconds"] > 0
    assert found[0]["settings"] == run.settings

    graphs = structmae.load_data(data)
    asked = {**script("cells").protocol("graphmae"), **{key: str(value) for key, value in run.settings.items()}}
    made = structmae.pretrain(graphs, "graphmae", settings=asked, seed=0, threads=1, progress=False)
    source, recipe = made.source(graphs), resolve("graphmae", asked)
    plain = script("encoders").recipe_of(graphs, 0)  # a baseline is the same with any settings
    task = script("baselines").Task(graphs, source, plain.probe)
    spread = propagate(source.all["node"]) if labels else script("baselines").propagated(task, 0).vectors
    beside = torch.cat([x / x.norm(dim=1, keepdim=True) for x in (spread, made.embed())], 1)
    scored = node_classification.score({"x": beside}, graphs, recipe, labels=labels)
    wanted = [row["value"] for row in (scored["few_labels"] if labels else scored["rows"])]
    assert [line["value"] for line in found] == pytest.approx(wanted)

    (tmp_path / "out" / "mine.jsonl").unlink()
    assert run(mine, "--keep")[0] == 0
    (tmp_path / "out" / "mine.jsonl").unlink()
    ran = []
    monkeypatch.setattr(train, "_epoch", lambda *args: ran.append(1))
    assert run(mine)[0] == 0
    assert not ran
    again = [line["value"] for line in lines(tmp_path) if line["recipe"] == "both"]
    assert again == [line["value"] for line in found]


SBM = "sbm:n=200,classes=2,seed=1"


def test_side_by_side_on_random_splits(run, script, table, tmp_path, lines):
    """Of each seed its own split, also where a part depends on nothing else; it costs what all parts do."""
    parts = {"one": 'recipe = "graphmae"', "two": 'recipe = "maskgae_edge"', "plain": 'baseline = "propagated"'}
    mine = table(data=[SBM], methods={**parts, "all": 'of = ["one", "plain", "two"]'}, splits="random")
    words = ["--threads", "1", "--set", "train.epochs=2", "--set", "encoder.hidden=8", "--set", "probe.epochs=3"]
    code, summary, err = run(mine, settings=words)
    assert (code, summary["lines"]) == (0, 8), err
    found = {(line["recipe"], line["seed"]): line for line in lines(tmp_path)}
    graphs = structmae.load_data(SBM)
    asked = {"train.epochs": "2", "encoder.hidden": "8", "probe.epochs": "3"}
    for seed in (0, 1):
        line, split = found["all", seed], script("measure").drawn(graphs, seed)
        runs = [
            structmae.pretrain(
                graphs, name, settings={**script("cells").protocol(name), **asked}, seed=seed, threads=1, progress=False
            )
            for name in ("graphmae", "maskgae_edge")
        ]
        recipe = script("encoders").recipe_of(graphs, seed, asked)
        plain = script("encoders").recipe_of(graphs, seed)
        task = script("baselines").Task(split, runs[0].source(graphs), plain.probe)
        parts = [runs[0].embed(), runs[1].embed(), script("baselines").propagated(task, seed).vectors]
        beside = torch.cat([x / x.norm(dim=1, keepdim=True) for x in parts], 1)
        assert line["value"] == node_classification.score({"x": beside}, split, recipe)["rows"][0]["value"]
        assert line["epochs"] == 4
        assert line["threads"] == 1
