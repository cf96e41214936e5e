"""The runner: what is measured, once, and goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import structmae
from structmae import train

RUN = Path(__file__).parents[2] / "benchmarks" / "run.py"


def results_of(found):
    return {(line["data"], line["recipe"], line["seed"]): line["value"] for line in found}


def test_a_line_a_result_and_none_twice(run, table, tmp_path, monkeypatch, lines):
    mine = table(data=["karate", "sbm:n=120,seed=1"])
    code, summary, _ = run(mine)
    assert code == 0
    assert (summary["ran"], summary["lines"], summary["there"], summary["skipped"]) == (4, 8, 0, [])
    found = lines(tmp_path)
    assert set(results_of(found)) == {
        (data, recipe, seed)
        for data in ("karate", "sbm:n=120,seed=1")
        for recipe in ("graphmae", "raw")
        for seed in (0, 1)
    }
    for line in found:
        assert (line["table"], line["metric"], line["split"]) == ("mine", "accuracy", "test")
        assert 0 <= line["value"] <= 1
        assert line["settings"] == run.settings
        assert (line["device"], line["threads"], line["size"]) == ("cpu", 1, "tiny")
        assert {"structmae", "torch", "python"} <= set(line["versions"])
        assert line["revision"] is None or re.fullmatch("[0-9a-f]{40}(-dirty)?", line["revision"])
        assert line["n"] > 0
        assert set(line["probe"]) == {"lr", "weight_decay", "epoch"}
        assert 0 <= line["validation"] <= 1
        if line["recipe"] == "graphmae":
            assert line["epochs"] == 2
            assert line["seconds"] > 0
            assert line["peak_memory"] > 0
        else:
            assert (line["epochs"], line["seconds"], line["peak_memory"]) == (0, 0, None)
    assert [entry.name for entry in (tmp_path / "out" / "runs").iterdir()] == ["mine.lock"]

    real = structmae.pretrain
    monkeypatch.setattr(structmae, "pretrain", lambda *args, **more: pytest.fail("a finished cell ran again"))
    before = (tmp_path / "out" / "mine.jsonl").read_bytes()
    code, summary, _ = run(mine)
    assert (code, summary["ran"], summary["there"]) == (0, 0, 4)
    assert (tmp_path / "out" / "mine.jsonl").read_bytes() == before
    monkeypatch.setattr(structmae, "pretrain", real)
    assert run(mine, "--seeds", "3", "--only", "sbm")[1]["lines"] == 2
    assert len(lines(tmp_path)) == 10


def test_the_value_is_the_packages_own(run, table, tmp_path, lines):
    run(table(seeds=1))
    own = structmae.pretrain("karate", settings={**run.settings, "probe.search": True}, progress=False).evaluate()
    assert results_of(lines(tmp_path)) == {
        ("karate", "graphmae", 0): own["pretrained"],
        ("karate", "raw", 0): own["raw_features"],
    }


def test_settings_that_change_nothing_are_the_same_cell(run, table, tmp_path, lines):
    mine = table(seeds=1)
    assert run(mine)[1]["ran"] == 1
    assert run(mine, "--set", "mask.ratio=0.50", "--set", "probe.search=true")[1]["there"] == 1
    assert run(mine, "--set", "mask.ratio=0.75")[1]["ran"] == 1
    assert [line["settings"].get("mask.ratio") for line in lines(tmp_path)] == [None, None, 0.75, 0.75]


def test_a_size_is_told_from_its_settings(script, table, tmp_path):
    settle = script("cells")._settle
    mine = script("definition").read(table(data=["mutag"], task="graph_classification"))
    assert settle(mine, "mutag", "graphmae", {}, {})[1] == {}
    assert settle(mine, "mutag", "graphmae", {"train.epochs": "20"}, {})[1] == {}
    assert settle(mine, "mutag", "graphmae", {"size": "tiny"}, {})[1] == {"size": "tiny"}
    both = settle(mine, "mutag", "graphmae", {"size": "tiny", "train.lr": "5e-4"}, {})[1]
    assert both == {"size": "tiny", "train.lr": 5e-4}


def test_a_torn_line_is_made_again(run, table, tmp_path, lines):
    mine = table()
    run(mine)
    path, whole = tmp_path / "out" / "mine.jsonl", lines(tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    code, summary, err = run(mine)
    assert (code, summary["ran"], summary["lines"]) == (0, 1, 1)
    assert "cut short" in err
    assert results_of(lines(tmp_path)) == results_of(whole)

    path.write_bytes(path.read_bytes()[:-1])  # only the line end is missing
    assert run(mine)[1]["there"] == 2
    assert len(lines(tmp_path)) == 4
    assert path.read_bytes().endswith(b"\n")


def test_a_damaged_line_is_named_and_left_alone(run, table, tmp_path):
    path = tmp_path / "out" / "mine.jsonl"
    path.parent.mkdir()
    path.write_text("half\n{}\n")
    code, summary, err = run(table())
    assert (code, summary) == (1, None)
    assert "line 1 is no result" in err
    assert path.read_text() == "half\n{}\n"


@pytest.mark.parametrize("changed", ["threads", "data", ""])
def test_an_interruption_goes_on(run, table, tmp_path, monkeypatch, lines, changed):
    """Or begins anew, where the run would not go on with what there is now."""
    mine, more = table(seeds=1), ["--set", "train.epochs=6", "--set", "train.save_every=1"]
    settings = [word for word in run.words if word not in ("train.epochs=2",)]
    settings.remove("--set")
    real, epochs = train._epoch, []

    def counted(*args):
        epochs.append(1)
        if len(epochs) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(train, "_epoch", counted)
    code, summary, err = run(mine, *more, settings=settings)
    assert (code, summary) == (130, None)
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out" / "mine.jsonl").exists()
    if changed:
        (file,) = (tmp_path / "out" / "runs").glob("*/config.json")
        config = json.loads(file.read_text())
        config |= {"threads": 2} if changed == "threads" else {"data": {**config["data"], "fingerprint": "none"}}
        file.write_text(json.dumps(config))
    assert run(mine, *more, settings=settings)[0] == 0
    assert len(epochs) == (9 if changed else 6)
    resumed = results_of(lines(tmp_path))
    (tmp_path / "out" / "mine.jsonl").unlink()
    assert run(mine, *more, settings=settings)[0] == 0
    assert results_of(lines(tmp_path)) == resumed


def test_a_killed_run_goes_on(run, table, tmp_path, monkeypatch, offline_environment, lines):
    mine, epochs = table(seeds=1), 400
    words = [word.replace("epochs=2", f"epochs={epochs}") for word in run.words] + ["--set", "train.save_every=5"]
    command = [sys.executable, str(RUN), mine, *words, "--results", str(tmp_path / "out")]
    child = subprocess.Popen(command, env=offline_environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while not list((tmp_path / "out").glob("runs/*/resume.pt")):
        assert child.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.005)
    child.kill()
    child.wait()
    assert not (tmp_path / "out" / "mine.jsonl").exists()
    real, ran = train._epoch, []
    monkeypatch.setattr(train, "_epoch", lambda *args: (ran.append(1), real(*args))[1])
    assert run(mine, settings=words)[0] == 0
    assert 0 < len(ran) < epochs
    assert len(lines(tmp_path)) == 2
    assert [entry.name for entry in (tmp_path / "out" / "runs").iterdir()] == ["mine.lock"]


def test_kept_encoders_serve_other_tables(run, table, tmp_path, lines, monkeypatch):
    data, methods = ["sbm:n=200,classes=2,seed=1"], {"graphmae": 'recipe = "graphmae"'}
    one, two = (
        table("one", seeds=1, data=data, methods=methods),
        table("two", seeds=1, data=data, methods=methods, splits="random"),
    )
    assert run(two)[0] == 0
    without = lines(tmp_path, "two")
    (tmp_path / "out" / "two.jsonl").unlink()
    assert run(one, "--keep")[0] == 0
    real, ran = train._epoch, []
    monkeypatch.setattr(train, "_epoch", lambda *args: (ran.append(1), real(*args))[1])
    assert run(two, "--keep")[0] == 0
    assert not ran
    free = ("seconds", "peak_memory")
    same = [
        [{key: value for key, value in line.items() if key not in free} for line in some]
        for some in (without, lines(tmp_path, "two"))
    ]
    assert same[0] == same[1]
    assert lines(tmp_path, "two")[0]["seconds"] == lines(tmp_path, "one")[0]["seconds"]
    assert run(two, "--keep", "--seeds", "2")[0] == 0
    assert len(ran) == run.settings["train.epochs"]
    assert len(list((tmp_path / "out" / "runs" / "kept").iterdir())) == 2


@pytest.mark.parametrize("but", ["threads", "device", "config", "result", "data"])
def test_what_does_not_serve_is_trained_anew(run, table, tmp_path, lines, monkeypatch, but):
    mine = table("one", seeds=1, methods={"graphmae": 'recipe = "graphmae"'})
    assert run(mine, "--keep")[0] == 0
    (kept,) = (tmp_path / "out" / "runs" / "kept").iterdir()
    config = json.loads((kept / "config.json").read_text())
    if but == "config":
        (kept / "config.json").write_text("{")
    elif but == "result":
        (kept / "result.json").unlink()
    else:
        changed = config["data"] if but == "data" else config
        changed["fingerprint" if but == "data" else but] = {"threads": 2, "device": "cuda", "data": "none"}[but]
        (kept / "config.json").write_text(json.dumps(config))
    (first,) = lines(tmp_path, "one")
    (tmp_path / "out" / "one.jsonl").unlink()
    real, ran = train._epoch, []
    monkeypatch.setattr(train, "_epoch", lambda *args: (ran.append(1), real(*args))[1])
    assert run(mine, "--keep", "--device", "cpu")[0] == 0
    assert len(ran) == run.settings["train.epochs"]
    assert lines(tmp_path, "one")[0]["value"] == first["value"]


def test_a_kept_encoder_says_what_trained_it(run, table, script, tmp_path, lines):
    mine = table("one", seeds=1, methods={"graphmae": 'recipe = "graphmae"'})
    assert run(mine, "--keep")[0] == 0
    (kept,) = (tmp_path / "out" / "runs" / "kept").iterdir()
    (kept / "revision").write_text("before")
    (tmp_path / "out" / "one.jsonl").unlink()
    assert run(mine)[0] == 0
    assert lines(tmp_path, "one")[0]["revision"] == "before"


def test_a_folder_killed_at_its_making_is_no_obstacle(run, script, table, tmp_path):
    mine = table(seeds=1)
    asked = {key: str(value) for key, value in run.settings.items()}
    planned = script("cells").plan(script("definition").read(mine), 1, asked, [], tmp_path / "out" / "runs")
    next(iter(planned)).folder.mkdir(parents=True)
    assert run(mine)[0] == 0


def test_what_is_missing_is_skipped_and_the_rest_made(run, table, tmp_path, lines):
    (tmp_path / "edges.csv").write_text("src,dst\n0,1\n1,2\n")  # no labels
    code, summary, err = run(table(data=["nowhere.csv", "edges.csv", "karate"]))
    assert code == 1
    assert (summary["ran"], len(summary["skipped"])) == (2, 4)
    assert {skip["data"] for skip in summary["skipped"]} == {"nowhere.csv", "edges.csv"}
    assert err.count("no such file") == 1  # once for all seeds
    assert "needs node labels" in err
    assert {line["data"] for line in lines(tmp_path)} == {"karate"}
    assert not list((tmp_path / "out" / "runs").glob("*edges*"))


def test_only(run, script, table, tmp_path):
    methods = {"one": 'recipe = "graphmae"', "one_more": 'recipe = "gmae"'}
    mine = table(data=["karate", "sbm:n=120,seed=1"], seeds=1, methods=methods)
    cells = script("cells")
    read = script("definition").read(mine)

    def chosen(*only):
        return [(cell.data, cell.recipe) for cell in cells.plan(read, 1, {}, only, tmp_path)]

    karate, one, more = *read.data[:1], "graphmae", "gmae"
    assert chosen("KAR") == [(karate, one), (karate, more)]
    assert len(chosen("sbm", "karate")) == 4
    assert {recipe for _, recipe in chosen("one")} == {one}  # a name means itself alone
    assert {recipe for _, recipe in chosen("one_")} == {more}
    assert chosen("karate/one") == [(karate, one)]
    assert chosen("karate/o") == [(karate, one), (karate, more)]
    code, summary, err = run(mine, "--only", "karate", "citations")
    assert (code, summary) == (2, None)
    assert "--only citations matches no cell" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["node_clasification"], "did you mean node_classification"),
        (["node_classification", "--set", "train.epoch=3"], "did you mean train.epochs"),
        (["node_classification", "--set", "train.epochs"], "write KEY=VALUE"),
        (["node_classification", "--set", "train.seed=3"], "give --seeds"),
        (["node_classification", "--set", "mask.ratio=1.5"], "out of range"),
    ],
)
def test_usage_errors_are_one_line(script, tmp_path, capsys, words, said):
    assert script("run").main([*words, "--results", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_seeds_must_be_a_number(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script("run").main(["node_classification", "--seeds", "0"])
    assert stop.value.code == 2
    assert "whole number" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="no flock there")
def test_two_runners_of_a_table_do_not_mix(run, script, table, tmp_path):
    out = tmp_path / "out"
    with script("results").writing(out / "mine.jsonl", out / "runs" / "mine.lock"):
        code, _, err = run(table())
    assert code == 1
    assert "another runner" in err


def test_jobs_give_the_same_and_a_budget_leaves_the_rest(run, table, tmp_path, lines):
    mine = table(seeds=3)
    code, summary, _ = run(mine, "--budget", "0s")
    assert (code, summary["ran"], summary["left"]) == (0, 0, 3)
    run(mine, "--seeds", "1")
    first = results_of(lines(tmp_path))
    (tmp_path / "out" / "mine.jsonl").unlink()
    code, summary, _ = run(mine, "--jobs", "2")
    assert (code, summary["ran"], summary["left"]) == (0, 3, 0)
    together = results_of(lines(tmp_path))
    assert len(together) == 6
    assert {name: together[name] for name in first} == first
    with pytest.raises(SystemExit):
        run(mine, "--budget", "soon")
