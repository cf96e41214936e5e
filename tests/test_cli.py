import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import structmae
from structmae.cli import main

COMMANDS = ("pretrain", "evaluate", "finetune", "forecast", "predict", "embed", "recipes", "data")
FAST = ["--set", "train.epochs=2", "--set", "encoder.hidden=8", "--set", "encoder.heads=2"]


def run(*arguments, env=None, **options):
    command = [sys.executable, "-m", "structmae", *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, **options)


def fails(capsys, code, *arguments):
    """Runs in this process; the error, which must be one to three lines and no traceback."""
    try:
        found = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        found = stop.code
    out, err = capsys.readouterr()
    assert found == code, err
    assert out == ""
    assert 1 <= len(err.strip().splitlines()) <= 3, err
    assert "Traceback" not in err
    if code == 2:
        assert "--help" in err
    return err


def test_help_is_quick_and_importing_loads_nothing_heavy(offline_environment):
    code = "import structmae, sys; print([m for m in ('torch', 'numba', 'pandas', 'sklearn') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        shown = run("--help", env=offline_environment)
        times.append(time.perf_counter() - begin)
    assert shown.returncode == 0
    assert all(command in shown.stdout for command in COMMANDS)
    assert min(times) < 0.6


def test_pretrain_evaluate_embed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "--data", "Karate", *FAST, "--seed", "3", "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["out"] == "runs/karate-graphmae-3"
    assert (result["recipe"], result["size"], result["data"], result["seed"]) == ("graphmae", "tiny", "karate", 3)
    assert result["loss_first"] > 0
    assert 'recipe = "graphmae"' in err
    assert "2/2" in err  # the bar
    folder = result["out"]
    assert main(["evaluate", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == result["evaluation"]
    assert main(["evaluate", folder]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in ("pretrained", "random init", "raw features", "propagated features"))
    for file in ("z.npy", "z.csv", "z.parquet"):
        assert main(["embed", folder, "--out", file]) == 0
    capsys.readouterr()
    vectors = structmae.load(folder).embed().numpy()
    assert np.array_equal(np.load("z.npy"), vectors)
    assert np.array_equal(pd.read_parquet("z.parquet").filter(regex="^e").to_numpy(), vectors)
    assert main(["pretrain", "--data", "karate", *FAST, "--no-eval", "--json", "--out", "other"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluation"] is None
    again = ["pretrain", "--out", "other", "--resume", "--json", *FAST, "--data", "karate"]
    assert main([*again, "--no-eval"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluation"] is None
    assert main(again) == 0
    assert json.loads(capsys.readouterr().out)["evaluation"] is not None
    assert "train.epochs was 2, now 3" in fails(
        capsys, 1, "pretrain", "--out", "other", "--resume", "--set", "train.epochs=3"
    )


def test_a_table_of_ones_own(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("edges.csv").write_text("source,target\nann,bob\nbob,cid\ncid,dan\ndan,eve\neve,ann\nfay,gus\n")
    people = ["ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal"]
    rows = [
        f"{name},{i * 0.5},{'red' if i % 2 else 'blue'},{'yes' if i % 2 else 'no'}" for i, name in enumerate(people)
    ]
    Path("nodes.csv").write_text("id,height,colour,label\n" + "\n".join(rows) + "\n")
    assert main(["pretrain", "--data", "edges.csv", "--nodes", "nodes.csv", *FAST, "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert "colour" in err
    assert "1 node" in err  # hal has no edge, which works
    assert main(["embed", result["out"], "--out", "z.parquet"]) == 0
    assert pd.read_parquet("z.parquet")["id"].tolist() == people
    capsys.readouterr()
    Path("more.csv").write_text("source,target\nzoe,yan\n")
    Path("more_nodes.csv").write_text("id,colour,height\nzoe,red,1.5\nyan,blue,0.5\n")
    Path("folder").mkdir()
    Path("more.csv").rename("folder/edges.csv")
    Path("more_nodes.csv").rename("folder/nodes.csv")
    assert main(["embed", result["out"], "--data", "folder", "--out", "more.npy"]) == 0
    assert np.load("more.npy").shape == (2, 8)
    capsys.readouterr()
    Path("folder/nodes.csv").write_text("id,colour,height\nzoe,green,1.5\nyan,blue,0.5\n")
    assert "green" in fails(capsys, 1, "embed", result["out"], "--data", "folder", "--out", "more.npy")


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (2, ["pretrain", "--data", "coraa"], "cora"),
        (2, ["pretrain", "--recipe", "grafmae"], "graphmae"),
        (2, ["pretrain", "--set", "mask.ratoi=1"], "mask.ratio"),
        (2, ["pretrain", "--set", "mask.ratio=1.5"], "at most 1"),
        (2, ["pretrain", "--set", "mask.ratio=0"], "more than 0"),
        (2, ["pretrain", "--set", "train.epochs=ten"], "whole number"),
        (2, ["pretrain", "--set", "train.epochs"], "KEY=VALUE"),
        (2, ["pretrain", "--resume"], "--out"),
        (2, ["pretrain", "--seed", "x"], "--seed"),
        (2, ["pretrain", "--threads", "0"], "1 or more"),
        (2, ["pretrain", "--epochs", "3"], "--epochs"),
        (2, [], "COMMAND"),
        (2, ["pretrian"], "pretrian"),
        (1, ["pretrain", "--data", "missing.csv"], "no such file"),
        (1, ["pretrain", "--recipe", "missing.toml"], "missing.toml"),
        (1, ["pretrain", "--import", "missing.py"], "missing.py"),
        (2, ["pretrain", "--kind", "series", "--recipe", "graphmae"], "is for graph data"),
        (2, ["pretrain", "--data", "karate", "--set", "encoder.pool=mean"], "encoder.pool=none"),
        (2, ["pretrain", "--data", "karate", "--set", "foo.bar=1"], "structmae recipes"),
        (1, ["pretrain", "--data", "karate", "--out", "/dev/null/run"], "cannot be written"),
        (1, ["evaluate", "nothing"], "not a run"),
        (1, ["embed", "nothing", "--out", "z.npy"], "not a run"),
        (2, ["embed", "nothing", "--out", "z.txt"], ".parquet"),
        (1, ["forecast", "nothing", "--out", "f.csv"], "not a run"),
        (2, ["forecast", "nothing", "--out", "f.npy"], ".parquet, .csv"),
        (2, ["forecast", "nothing"], "--out"),
        (2, ["forecast", "nothing", "--out", "f.csv", "--horizon", "0"], "1 or more"),
        (1, ["predict", "nothing", "--out", "p.csv"], "not a run"),
        (2, ["predict", "nothing", "--out", "p.npy"], ".parquet, .csv"),
        (1, ["finetune", "nothing", "--task", "forecasting"], "not a run"),
        (2, ["finetune", "nothing", "--set", "finetune.lr"], "KEY=VALUE"),
        (2, ["evaluate", "nothing", "--task", "imputation", "--horizon", "6"], "--horizon is of the task forecasting"),
        (2, ["recipes", "grafmae"], "graphmae"),
        (2, ["data", "coraa"], "cora"),
    ],
)
def test_bad_input_is_one_clear_line(capsys, tmp_path, monkeypatch, code, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert words in fails(capsys, code, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("edges", "nodes", "words"),
    [
        ("src,dst\na,b\na,zed\n", "id,f\na,1.5\nb,2.5\n", "zed"),
        ("src,dst\na,b\n", "id,f\na,1.5\nb,nan\n", "f"),
        ("src,dst\na,b\n", "id,f\na,1.5\nb,inf\n", "f"),
        ("src,dst\n", None, "no node"),
        ("first,second\na,b\n", None, "--kind graph"),
        ("src;dst\na;b\n", None, "commas"),
        ("date,load\n2020-01-01,3\n", None, "one row"),
        ("", None, "edges.csv"),
    ],
)
def test_bad_tables_are_one_clear_line(capsys, tmp_path, monkeypatch, edges, nodes, words):
    monkeypatch.chdir(tmp_path)
    Path("edges.csv").write_text(edges)
    given = ["--data", "edges.csv"]
    if nodes is not None:
        Path("nodes.csv").write_text(nodes)
        given += ["--nodes", "nodes.csv"]
    assert words in fails(capsys, 1, "pretrain", *given)
    assert not Path("runs").exists()


def test_no_network_says_what_to_do(tmp_path, offline_environment):
    blocked = {**offline_environment, "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    shown = run("pretrain", "--data", "cora", env=blocked, cwd=tmp_path)
    assert shown.returncode == 1
    lines = shown.stderr.strip().splitlines()
    assert 1 <= len(lines) <= 3
    assert "ind.cora" in shown.stderr
    assert "citations" in shown.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_recipes_and_data_list_and_describe(capsys, tmp_path):
    assert main(["recipes"]) == 0
    assert "graphmae" in capsys.readouterr().out
    assert main(["recipes", "graphmae"]) == 0
    file = tmp_path / "again.toml"
    file.write_text(capsys.readouterr().out)
    assert structmae.resolve(file).settings() == structmae.resolve("graphmae", {"size": "published"}).settings()
    assert main(["recipes", "graphmae", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mask"]["ratio"] == 0.5
    assert main(["data", "--json"]) == 0
    names = [each["name"] for each in json.loads(capsys.readouterr().out)]
    assert {"cora", "citations", "mutag", "karate", "digits", "sbm"} <= set(names)
    assert main(["data", "CORA", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about.keys() >= {"statistics", "split", "source", "licence", "where"}
    assert main(["data", "citations"]) == 0
    assert "2000" in capsys.readouterr().out


def test_a_recipe_file_is_the_recipe(capsys, tmp_path):
    main(["recipes", "graphmae"])
    file = tmp_path / "mine.toml"
    file.write_text(capsys.readouterr().out.replace("ratio = 0.5", "ratio = 0.75"))
    arguments = ["pretrain", "--data", "karate", "--recipe", str(file), *FAST, "--out", str(tmp_path / "r"), "--json"]
    assert main(arguments) == 0
    capsys.readouterr()
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["recipe"]["mask"]["ratio"] == 0.75
    assert config["recipe"]["size"] == "published"
    assert main([*arguments, "--resume"]) == 0


def test_imported_parts_work_from_the_command_line(capsys, tmp_path):
    part = tmp_path / "part.py"
    part.write_text(
        "import structmae\n"
        "@structmae.register('loss', 'absolute')\n"
        "def absolute(prediction, target, gamma):\n"
        "    return (prediction - target).abs().mean(-1)\n"
    )
    out = tmp_path / "r"
    chosen = ["--set", "heads.features.loss=absolute"]
    shown = run("pretrain", "--data", "karate", *FAST, *chosen, "--out", out, "--import", part, "--json")
    assert shown.returncode == 0, shown.stderr
    assert "--import" in run("evaluate", out).stderr
    assert run("evaluate", out, "--import", part).returncode == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:\n", "line 1: SyntaxError"),
        ("import nosuchmodule\n", "line 1: ModuleNotFoundError"),
        ("1 / 0\n", "line 1"),
    ],
)
def test_a_broken_import_is_one_clear_line(capsys, tmp_path, text, words):
    (tmp_path / "part.py").write_text(text)
    assert words in fails(capsys, 1, "pretrain", "--import", tmp_path / "part.py")


def test_kind_says_that_a_table_is_a_graph(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").write_text("ann,bob,weight\na,b,1\nb,c,2\n")
    assert main(["pretrain", "--data", "pairs.csv", "--kind", "graph", *FAST, "--out", "r", "--json"]) == 0
    assert "first two columns, ann and bob" in capsys.readouterr().err
    assert main(["embed", "r", "--out", "z.npy"]) == 0
    assert np.load("z.npy").shape == (3, 8)


LONG = [
    "pretrain",
    "--data",
    "karate",
    *FAST[2:],
    "--set",
    "train.epochs=400",
    "--set",
    "train.save_every=7",
    "--no-eval",
]


def start(out, env, until=60):
    """A run in a child process, once its metrics have grown."""
    child = subprocess.Popen(
        [sys.executable, "-m", "structmae", *LONG, "--out", str(out)], env=env, stderr=subprocess.PIPE, text=True
    )
    metrics = Path(out) / "metrics.jsonl"
    deadline = time.monotonic() + until
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("\n") > 10):
        time.sleep(0.01)
    return child


def test_killed_and_interrupted_runs_go_on_to_the_same_weights(tmp_path, offline_environment):
    assert run(*LONG, "--out", tmp_path / "whole", env=offline_environment).returncode == 0
    expected = structmae.load(tmp_path / "whole").model.state_dict()
    for name, number, code in (("killed", signal.SIGKILL, -signal.SIGKILL), ("interrupted", signal.SIGINT, 130)):
        child = start(tmp_path / name, offline_environment)
        os.kill(child.pid, number)
        _, err = child.communicate(timeout=60)
        assert child.returncode == code, err
        assert (tmp_path / name / "resume.pt").exists()
        if code == 130:
            assert "--resume" in err.strip().splitlines()[-1]
        again = run("pretrain", "--out", tmp_path / name, "--resume", "--json", env=offline_environment)
        assert again.returncode == 0, again.stderr
        found = structmae.load(tmp_path / name).model.state_dict()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 401))
