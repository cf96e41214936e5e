import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

import structmae
from structmae import train
from structmae.recipe import resolve

RUN = Path(__file__).parents[2] / "benchmarks" / "run.py"
SETTINGS = {"train.epochs": 2, "encoder.hidden": 8, "encoder.heads": 2, "probe.epochs": 3}
TINY = ["--threads", "1", *(word for pair in SETTINGS.items() for word in ("--set", "{}={}".format(*pair)))]


@pytest.fixture
def run(script, tmp_path, capsys):
    """Runs the script in this process; gives exit code, summary and what stderr says."""
    main = script("run").main

    def call(table, *words, settings=TINY):
        code = main([table, *settings, "--results", str(tmp_path / "out"), "--json", *words])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return call


def lines(folder, name="mine"):
    return [json.loads(text) for text in (folder / "out" / f"{name}.jsonl").read_text().splitlines()]


def results_of(found):
    return {(line["data"], line["recipe"], line["seed"]): line["value"] for line in found}


def test_a_line_a_result_and_none_twice(run, table, tmp_path, monkeypatch):
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
        assert line["settings"] == SETTINGS
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


def test_the_value_is_the_packages_own(run, table, tmp_path):
    run(table(seeds=1))
    own = structmae.pretrain("karate", settings={**SETTINGS, "probe.search": True}, progress=False).evaluate()
    assert results_of(lines(tmp_path)) == {
        ("karate", "graphmae", 0): own["pretrained"],
        ("karate", "raw", 0): own["raw_features"],
    }


def test_settings_that_change_nothing_are_the_same_cell(run, table, tmp_path):
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


def test_a_torn_line_is_made_again(run, table, tmp_path):
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


def test_an_interruption_goes_on(run, table, tmp_path, monkeypatch):
    mine, more = table(seeds=1), ["--set", "train.epochs=6", "--set", "train.save_every=1"]
    settings = [word for word in TINY if word not in ("train.epochs=2",)]
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
    assert run(mine, *more, settings=settings)[0] == 0
    assert len(epochs) == 6
    resumed = results_of(lines(tmp_path))
    (tmp_path / "out" / "mine.jsonl").unlink()
    assert run(mine, *more, settings=settings)[0] == 0
    assert results_of(lines(tmp_path)) == resumed


def test_a_killed_run_goes_on(run, table, tmp_path, monkeypatch, offline_environment):
    mine, epochs = table(seeds=1), 400
    words = [word.replace("epochs=2", f"epochs={epochs}") for word in TINY] + ["--set", "train.save_every=5"]
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


def test_a_folder_killed_at_its_making_is_no_obstacle(run, script, table, tmp_path):
    mine = table(seeds=1)
    asked = {key: str(value) for key, value in SETTINGS.items()}
    planned = script("cells").plan(script("definition").read(mine), 1, asked, [], tmp_path / "out" / "runs")
    next(iter(planned)).folder.mkdir(parents=True)
    assert run(mine)[0] == 0


def test_what_is_missing_is_skipped_and_the_rest_made(run, table, tmp_path):
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
    mine = table(data=["karate", "sbm:n=120,seed=1"], seeds=1, methods={"one": 'recipe = "graphmae"'})
    cells = script("cells")
    read = script("definition").read(mine)

    def chosen(*only):
        return [cell.data for cell in cells.plan(read, 1, {}, only, tmp_path)]

    assert chosen("KAR") == ["karate"]
    assert chosen("sbm", "karate") == ["karate", "sbm:n=120,seed=1"]
    assert chosen("one") == ["karate", "sbm:n=120,seed=1"]
    assert chosen("karate/one") == ["karate"]
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


def test_graph_level_and_a_recipe_file(run, table, tmp_path):
    generator, graphs = torch.Generator().manual_seed(0), []
    for index in range(8):
        ring = torch.arange(4 + index)
        edges = torch.stack([ring, ring.roll(-1)])
        graphs.append(
            Data(x=torch.rand(len(ring), 3, generator=generator), edge_index=edges, y=torch.tensor([index % 2]))
        )
    torch.save(graphs, tmp_path / "rings.pt")
    (tmp_path / "small.toml").write_text('recipe = "graphmae"\n[encoder]\nhidden = 8\n[train]\nepochs = 2\n')
    mine = table(data=["rings.pt"], task="graph_classification", seeds=1, methods={"small": 'recipe = "small.toml"'})
    code, summary, err = run(mine, settings=["--threads", "1"])
    assert (code, summary["lines"]) == (0, 1), err
    (line,) = lines(tmp_path)
    assert (line["recipe"], line["epochs"], line["settings"]) == ("small", 2, {})
    assert line["value"] == pytest.approx(sum(line["folds"]) / len(line["folds"]))


@pytest.mark.parametrize(
    "name",
    [
        "node_classification",
        "node_classification_random",
        "graph_classification",
        "link_prediction",
        "forecasting",
        "imputation",
        "few_label",
        "few_label_series",
        "ablation",
    ],
)
def test_the_tables_that_come_with_it(script, tmp_path, name):
    table = script("definition").read(name)
    planned = sorted(script("cells").plan(table, 2, {}, [], tmp_path), key=lambda cell: cell.cost)
    assert len({cell.folder for cell in planned}) == len(planned)
    assert {cell.data for cell in planned} == set(table.data)
    assert {method for cell in planned for method in cell.missing} == set(table.methods)
    assert all(paper.source for paper in table.published)


def test_a_method_has_as_many_seeds_as_the_table_says(script, tmp_path, table):
    path = Path(table(data=["karate", "sbm"], methods={"graphmae": 'recipe = "graphmae"', "gcn": 'baseline = "gcn"'}))
    path.write_text(path.read_text().replace("[methods]", '[seeds_of]\nsbm = 3\n"sbm/gcn" = 1\n[methods]'))
    planned = list(script("cells").plan(script("definition").read(str(path)), None, {}, [], tmp_path))
    seeds = [(cell.data, cell.missing[0].name) for cell in planned if cell.missing]
    assert {name: seeds.count(name) for name in seeds} == {
        ("karate", "graphmae"): 2, ("karate", "gcn"): 2, ("sbm", "graphmae"): 3, ("sbm", "gcn"): 1,
    }  # fmt: skip


BASELINES = ("raw", "propagated", "label_propagation", "gcn", "gat", "dgi")


def test_baselines(run, table, tmp_path, script, monkeypatch):
    monkeypatch.setattr(script("baselines"), "EPOCHS", 30)
    monkeypatch.setattr(script("baselines"), "MOST", 30)
    mine = table(data=["sbm:n=400,seed=1"], methods={name: f'baseline = "{name}"' for name in BASELINES})
    code, summary, _ = run(mine, settings=["--threads", "1"])
    assert (code, summary["ran"]) == (0, 9)  # what depends on no seed is made once
    found = lines(tmp_path)
    assert {line["recipe"] for line in found} == set(BASELINES)
    unpacked = script("ties").unpacked
    for line in found:
        right = unpacked(line["right"], line["n"])
        assert sum(right) / len(right) == line["value"]
        assert line["value"] > 0.3
        assert 0 <= line["validation"] <= 1
    trained = [line for line in found if line["recipe"] in ("gcn", "gat", "dgi")]
    assert all(line["epochs"] > 0 and line["seconds"] > 0 for line in trained)
    assert next(line for line in found if line["recipe"] == "propagated")["chosen"]["hops"] > 0


def test_random_splits_differ_by_seed(run, table, tmp_path, script):
    path = Path(table(data=["sbm:n=400,seed=1"], methods={"raw": 'baseline = "raw"'}))
    path.write_text(path.read_text().replace("[methods]", 'splits = "random"\n[methods]').replace("0.01", "0.02"))
    text = path.read_text().replace('splits = "random"\n', "")
    path.write_text('splits = "random"\n' + text)
    assert run(str(path), settings=["--threads", "1"])[1]["ran"] == 2
    assert len({line["value"] for line in lines(tmp_path)}) == 2
    graphs = structmae.load_data("sbm:n=400,seed=1")
    drawn = [script("measure").drawn(graphs, seed) for seed in (0, 1, 0)]
    for one in drawn:
        every = torch.cat(list(one.split.values()))
        assert sorted(every.tolist()) == list(range(400))
        for name, count in (("train", 20), ("validation", 30)):
            assert torch.bincount(graphs.y[one.split[name]]).tolist() == [count] * len(graphs.classes)
    assert torch.equal(drawn[0].split["test"], drawn[2].split["test"])
    assert not torch.equal(drawn[0].split["test"], drawn[1].split["test"])
    with pytest.raises(structmae.StructmaeError, match="a random split takes 50"):
        script("measure").drawn(structmae.load_data("karate"), 0)


def test_a_recipe_file_joins_a_table(run, table, tmp_path, script):
    recipe = tmp_path / "wider.toml"
    recipe.write_text('recipe = "graphmae"\n\n[encoder]\nactivation = "elu"\n')
    mine = table(seeds=1)
    code, summary, err = run(mine, "--add", str(recipe), "--only", "karate/wider")
    assert (code, summary["ran"], [line["recipe"] for line in lines(tmp_path)]) == (0, 1, ["wider"]), err
    assert run(mine, "--add", str(tmp_path / "none.toml"))[0] == 2
    (tmp_path / "raw.toml").write_text(recipe.read_text())
    code, _, err = run(mine, "--add", str(tmp_path / "raw.toml"))
    assert (code, "has a method raw" in err) == (2, True)


def test_links_have_two_metrics(run, table, tmp_path):
    settings = 'settings = { "data.edges" = "train" }'
    methods = {
        "edges": f'recipe = "maskgae_edge", {settings}',
        "own": f'recipe = "maskgae_edge", features = "own_decoder", {settings}',
        "common": f'recipe = "maskgae_edge", features = "common_neighbours", {settings}',
    }
    path = Path(table(data=["sbm:n=200,seed=1"], task="link_prediction", seeds=1, methods=methods))
    text = path.read_text().replace('["accuracy"]', '["auc", "ap"]')
    path.write_text(text.replace('"sbm:n=200,seed=1" = [0.9, 0.01]', '"sbm:n=200,seed=1 auc" = 0.9'))
    code, summary, err = run(str(path), settings=["--threads", "1", "--set", "train.epochs=2", "--set", "size=tiny"])
    assert (code, summary["ran"], summary["lines"]) == (0, 1, 6), err
    assert {(line["recipe"], line["metric"]) for line in lines(tmp_path)} == {
        (name, metric) for name in methods for metric in ("auc", "ap")
    }


def test_forecasts_tuned_and_supervised(run, table, tmp_path):
    tune = 'settings = { "finetune.head_epochs" = 0, "finetune.epochs" = 1, "finetune.items" = 8 }'
    methods = {
        "patchtst": 'recipe = "patchtst"',
        "finetuned": f'recipe = "patchtst", features = "finetuned", {tune}',
        "supervised": f'recipe = "patchtst", features = "supervised", {tune}',
        "nlinear": 'recipe = "patchtst", features = "nlinear"',
    }
    path = Path(table(data=["lorenz96"], task="forecasting", seeds=1, methods=methods))
    path.write_text(path.read_text().replace('["accuracy"]', '["mse"]'))
    small = {
        "train.epochs": 1, "train.items": 8, "encoder.layers": 1, "encoder.hidden": 8, "encoder.heads": 2,
        "encoder.feed_forward": 8, "tokens.context": 48,
    }  # fmt: skip
    words = [word for pair in small.items() for word in ("--set", "{}={}".format(*pair))]
    code, summary, err = run(str(path), settings=["--threads", "1", *words])
    assert (code, summary["ran"]) == (0, 2), err
    found = {(line["recipe"], line["at"]): line for line in lines(tmp_path)}
    horizons = {at for _, at in found}
    assert {name for name, _ in found} == set(methods)
    assert len(found) == 4 * len(horizons)
    for at in horizons:
        assert len({found[name, at]["value"] for name in ("patchtst", "finetuned", "supervised")}) > 1
        assert found["supervised", at]["seconds"] > 0
        assert found["nlinear", at]["seconds"] == 0
    assert not list((tmp_path / "out" / "runs").glob("*/"))


def test_few_labels_are_columns(run, table, tmp_path, monkeypatch):
    monkeypatch.setattr("structmae.evaluate.few.SUBSETS", 2)
    mine = table(labels=[1, 2], data=["sbm:n=120,seed=1"], seeds=1)
    code, summary, err = run(mine)
    assert (code, summary["ran"], summary["lines"]) == (0, 1, 4), err
    found = {(line["recipe"], line["at"]): line for line in lines(tmp_path)}
    own = structmae.pretrain("sbm:n=120,seed=1", settings=SETTINGS, progress=False, threads=1).evaluate(labels=[1, 2])
    for row in own["few_labels"]:
        method = {"pretrained": "graphmae", "raw_features": "raw"}.get(row["features"])
        if method:
            line = found[method, f"{row['labels']} a class"]
            assert (line["value"], line["over_subsets"], line["subsets"]) == (row["value"], row["std"], 2)
    assert run(mine)[1]["there"] == 1


def test_few_labels_of_recordings(run, script, tmp_path, monkeypatch):
    for name, value in {"COSTS": (1.0,), "SUBSETS": 2, "FOLDS": 2}.items():
        monkeypatch.setattr(f"structmae.evaluate.few.{name}", value)
    monkeypatch.setattr("structmae.evaluate.rocket.available", lambda: False)
    rng = np.random.default_rng(0)
    folder = tmp_path / "Small"
    folder.mkdir()
    for part, count in (("TRAIN", 18), ("TEST", 12)):
        text = ["@problemName Small", "@timeStamps false", "@univariate false", "@classLabel true a b c", "@data"]
        for index in range(count):
            rows = rng.normal(size=(2, 40)) + 4 * (index % 3)
            text.append(":".join([*(",".join(f"{x:.3f}" for x in row) for row in rows), "abc"[index % 3]]))
        (folder / f"Small_{part}.ts").write_text("\n".join(text))
    source = script("definition").HERE / "definitions" / "few_label_series.toml"
    mine = tmp_path / "mine.toml"
    text = (
        source.read_text().replace('["basicmotions", "japanesevowels"]', '["Small"]').replace("seeds = 3", "seeds = 1")
    )
    mine.write_text(text.replace("[1, 5, 10, 25]", "[1, 5]").replace("rocket = {", "# rocket = {"))
    small = {
        "train.epochs": 2, "encoder.layers": 1, "encoder.hidden": 8, "encoder.heads": 2, "encoder.feed_forward": 8,
        "tokens.context": 40,
    }  # fmt: skip
    words = [word for pair in small.items() for word in ("--set", "{}={}".format(*pair))]
    code, summary, err = run(str(mine), settings=["--threads", "1", *words])
    assert (code, summary["ran"], summary["lines"]) == (0, 2, 10), err
    found = {(line["recipe"], line["at"]) for line in lines(tmp_path)}
    methods = ("patchtst", "spectrogram", "random_init", "random_init_spectrogram", "raw")
    assert found == {(method, f"{size} a class") for method in methods for size in (1, 5)}


@pytest.mark.parametrize("card", ["basicmotions", "japanesevowels"])
def test_recipes_of_few_labels_have_one_budget(script, card):
    table, settled = script("definition").read("few_label_series"), []
    for method in table.methods:
        options = resolve(method.recipe, dict(method.settings), data=card, level="sample").settings()
        settled.append([options[key] for key in BUDGET])
    assert all(each == settled[0] for each in settled)


BUDGET = (
    "train.epochs", "train.batch_size", "train.items", "train.lr", "encoder.layers", "encoder.hidden", "encoder.heads",
    "encoder.feed_forward",
)  # fmt: skip


def test_jobs_give_the_same_and_a_budget_leaves_the_rest(run, table, tmp_path):
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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "node_clasification"}, "did you mean node_classification"),
        ({"seeds": 0}, "must be 1 or more"),
        ({"seeds": "three"}, "must be of type int"),
        ({"data": ["karate", "karate"]}, "each once"),
        ({"methods": {"a": "recipes = 'graphmae'"}}, "unknown key 'recipes'"),
        ({"methods": {}}, "is empty"),
        ({"methods": {"a": "recipe = 'graphmae', features = 'raw'"}}, "features='raw'"),
        ({"dat": ["karate"]}, "unknown key 'dat'"),
        ({"labels": [0]}, "must be whole numbers from 1 on"),
        ({"labels": [1], "task": "link_prediction"}, "are for node_classification and classification"),
        ({"labels": [1], "methods": {"a": "baseline = 'gcn'"}}, "on all labels, not on few"),
        ({"methods": {"a": "recipe = 'graphmae', grid = {'mask.ratio' = 0.5}"}}, "must be a list of values"),
        ({"methods": {"a": "recipe = 'graphmae', grid = {'mask.rate' = [0.5]}"}}, "mask.rate"),
    ],
)
def test_a_definition_says_what_is_wrong_with_it(run, table, change, said):
    code, _, err = run(table(**change))
    assert code in (1, 2)
    assert said in err
    assert err.count("\n") == 1


def test_a_definition_that_is_not_there_or_not_toml(run, tmp_path):
    assert "No such file" in run(str(tmp_path / "none.toml"))[2]
    (tmp_path / "bad.toml").write_text("title = ")
    assert "is not TOML" in run(str(tmp_path / "bad.toml"))[2]
