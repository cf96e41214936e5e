"""Settings by validation: what is tried, in what order, and that no test item has a say."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from structmae import train

SPACE = """
"encoder.layer" = ["gcn", "gin"]
"mask.ratio" = [0.3, 0.7]
"train.lr" = [0.01]
"""
RECIPE = """recipe = "graphmae"
[encoder]
hidden = 8
heads = 1
[train]
epochs = 2
"""


@pytest.fixture
def search(script, tmp_path):
    """Runs the search of a small space on a small graph, and gives the lines."""
    module, space, folder = script("search"), tmp_path / "space.toml", tmp_path / "found"
    space.write_text(SPACE)
    (tmp_path / "small.toml").write_text(RECIPE)

    def go(*more, code=0):
        words = [
            str(tmp_path / "small.toml"),
            str(space),
            "--data",
            "citations",
            "--results",
            str(folder),
            "--threads",
            "1",
            *more,
        ]
        assert module.main(words) == code
        lines = folder / "search.jsonl"
        return [json.loads(line) for line in lines.read_text().splitlines()]

    return go


def test_trials_are_the_same_each_time_and_begin_with_the_recipe(script):
    trials = script("search").trials
    space = {"a": [1, 2, 3], "b": [4, 5]}
    assert trials(space, 5)[0] == {}
    assert trials(space, 5) == trials(space, 8)[:5]
    assert len(trials(space, 100)) == 12  # (3 + none) x (2 + none)


def test_what_is_there_is_not_run_again_and_top_adds_seeds_to_the_best(search, capsys):
    first = search("--trials", "4")
    assert len(first) == 4
    assert {line["seed"] for line in first} == {0}
    more = search("--trials", "4", "--seeds", "3", "--top", "2", "--jobs", "2")
    assert more[:4] == first
    value = {json.dumps(line["settings"]): line["value"] for line in first}
    second = [value[json.dumps(line["settings"])] for line in more[4:] if line["seed"] == 1]
    assert sorted(second) == sorted(value.values())[-2:]
    assert len(more) == 4 + 2 * 2
    assert {line["split"] for line in more} == {"rest"}
    assert len(capsys.readouterr().out.splitlines()) == 4 + 2


def test_no_test_item_is_read(script):
    import structmae

    graphs = structmae.load_data("citations")
    settings = {"encoder.hidden": 8, "encoder.heads": 1, "train.epochs": 1}
    before = script("search").validated(graphs, "graphmae", settings, 0, "cpu", 1)
    graphs.y[graphs.split["test"]] = 0
    assert script("search").validated(graphs, "graphmae", settings, 0, "cpu", 1) == before


def test_near_trials_change_a_little_of_the_best(script, search):
    module = script("search")
    space = {key: [1, 2, 3] for key in "abcd"}
    best = [{"a": 1, "b": 1}, {"c": 2}]
    for found in module.beside(best, space, 20, [*best, {"a": 2, "b": 1}]):
        changes = [sum(found.get(key) != one.get(key) for key in space) for one in best]
        assert 1 <= min(changes) <= 2
        assert found != {"a": 2, "b": 1}
    lines = search("--trials", "5", "--near", "2")
    assert len({json.dumps(line["settings"], sort_keys=True) for line in lines}) == len(lines) == 5
    assert search("--trials", "5", "--near", "2") == lines


def test_what_changes_nothing_is_no_trial(search, tmp_path):
    (tmp_path / "space.toml").write_text('"encoder.layer" = ["gat", "gcn"]\n"train.epochs" = [2]')
    found = search("--trials", "9", "--near", "4")
    assert [line["settings"] for line in found] == [{}, {"encoder.layer": "gcn"}]


@pytest.mark.parametrize(
    ("recipe", "space", "data", "said"),
    [
        ("nope", "", "citations", "unknown recipe 'nope'"),
        ("graphmae", '"mask.ratioo" = [0.5]', "citations", "mask.ratioo"),
        ("graphmae", '"mask.ratio" = [0.5, 2]', "citations", "mask.ratio=2"),
        ("graphmae", "", "lorenz96", "is no single graph with labels and a split"),
        ("graphmae", "", "karate", "every node is in a part"),
    ],
)
def test_what_cannot_be_tried_is_said_before_the_first_run(script, tmp_path, capsys, recipe, space, data, said):
    file = tmp_path / "space.toml"
    file.write_text(space)
    assert script("search").main([recipe, str(file), "--data", data, "--results", str(tmp_path)]) in (1, 2)
    out, err = capsys.readouterr()
    assert (out, said in err, err.count("\n")) == ("", True, 1)
    assert not (tmp_path / "search.jsonl").exists()


@pytest.mark.parametrize("group", [True, False])
def test_an_interruption_of_several_runs_is_quiet(tmp_path, offline_environment, group):
    (tmp_path / "space.toml").write_text('"mask.ratio" = [0.3, 0.6]')
    words = ["graphmae", str(tmp_path / "space.toml"), "--data", "citations", "--jobs", "2", "--trials", "3"]
    command = [sys.executable, str(SEARCH), *words, "--results", str(tmp_path)]
    with subprocess.Popen(
        command, env=offline_environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        begin = time.monotonic()
        while not (tmp_path / "runs" / "search.lock").exists():
            assert time.monotonic() - begin < 120
            time.sleep(0.1)
        time.sleep(4)  # processes start, and may train
        (os.killpg if group else os.kill)(run.pid, signal.SIGINT)
        begin = time.monotonic()
        err = run.communicate(timeout=60)[1]
    assert run.returncode == 130
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].endswith("interrupted; the same command goes on")
    assert time.monotonic() - begin < 30


SEARCH = Path(__file__).parents[2] / "benchmarks" / "search.py"


@pytest.mark.parametrize(
    ("space", "said", "code"),
    [
        ('"encoder.hidden" = 3', "must be a list of values", 2),
        ("][", "is not TOML", 1),
        (None, "give a .toml file", 1),
    ],
)
def test_a_space_says_what_is_wrong_with_it(script, tmp_path, capsys, space, said, code):
    file = tmp_path / "space.toml"
    if space is not None:
        file.write_text(space)
    assert script("search").main(["graphmae", str(file), "--results", str(tmp_path)]) == code
    assert said in capsys.readouterr().err


def test_every_choice_of_methods_is_scored_once(script, tmp_path, capsys, monkeypatch):
    import structmae
    from structmae import graph

    joined = script("search_joined")
    monkeypatch.setattr(script("baselines"), "HOPS", (1,))
    words = ["raw", "propagated", "--data", "citations", "--results", str(tmp_path), "--threads", "1"]
    assert joined.main(words) == 0
    lines = [json.loads(line) for line in (tmp_path / "search.jsonl").read_text().splitlines()]
    assert [line["recipe"] for line in lines] == ["propagated", "raw", "propagated+raw"]
    assert {line["split"] for line in lines} == {"rest"}
    best = max(lines, key=lambda line: line["value"])
    assert capsys.readouterr().out.splitlines()[0].endswith(f"  {best['recipe']}")

    graphs = structmae.load_data("citations")
    recipe = script("encoders").recipe_of(graphs, 0)
    source = graph.source(graphs, graph.fit(graphs, recipe), torch.device("cpu"))
    task = script("baselines").Task(graphs, source, recipe.probe)
    parts = [script("baselines").propagated(task, 0).vectors, script("baselines").raw(task, 0).vectors]
    both = torch.cat([x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) for x in parts], 1)
    for line, x in zip(lines, [*parts, both], strict=True):
        assert line["value"] == script("search").score(x, graphs, recipe.probe)
    assert joined.main(words) == 0
    assert len((tmp_path / "search.jsonl").read_text().splitlines()) == 3

    assert joined.main(["propagated", "raw", *words[2:]]) == 0  # the same choices
    assert len((tmp_path / "search.jsonl").read_text().splitlines()) == 3

    assert joined.main(["raw", "raw", "--results", str(tmp_path)]) == 2
    assert joined.main(["raw", "rat", "--results", str(tmp_path)]) == 2
    assert "did you mean raw" in capsys.readouterr().err
    assert joined.main(["raw", "propagated", "--data", "karate", "--results", str(tmp_path)]) == 1


def test_what_is_trained_for_a_choice_is_kept_for_the_tables(script, tmp_path, monkeypatch):
    """Of a small recipe in GraphMAE's place."""
    joined, definition = script("search_joined"), script("definition")
    (tmp_path / "small.toml").write_text(RECIPE)
    table, ran = definition.read("node_classification"), []
    small = definition.Method("small", str(tmp_path / "small.toml"))
    raw = next(method for method in table.methods if method.name == "raw")
    monkeypatch.setattr(definition, "read", lambda name: replace(table, methods=(small, raw)))
    words = ["small", "raw", "--data", "citations", "--results", str(tmp_path), "--threads", "1"]
    assert joined.main(words) == 0
    (kept,) = (tmp_path / "runs" / "kept").iterdir()
    assert "small" in kept.name
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()] == ["kept"]
    first = (tmp_path / "search.jsonl").read_text()
    (tmp_path / "search.jsonl").unlink()
    monkeypatch.setattr(train, "_epoch", lambda *args: ran.append(1))
    assert joined.main(words) == 0
    assert not ran
    values = [
        [json.loads(line)["value"] for line in text.splitlines()]
        for text in (first, (tmp_path / "search.jsonl").read_text())
    ]
    assert values[0] == values[1]
