"""What a table compares, and how each kind of table is measured."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

import structmae
from structmae.recipe import resolve

RUN = Path(__file__).parents[2] / "benchmarks" / "run.py"


def test_graph_level_and_a_recipe_file(run, table, tmp_path, lines):
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
        "ablation_graphs",
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


def test_baselines(run, table, tmp_path, script, monkeypatch, lines):
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


def test_random_splits_differ_by_seed(run, table, tmp_path, script, lines):
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


def test_a_recipe_file_joins_a_table(run, table, tmp_path, script, lines):
    recipe = tmp_path / "wider.toml"
    recipe.write_text('recipe = "graphmae"\n\n[encoder]\nactivation = "elu"\n')
    mine = table(seeds=1)
    code, summary, err = run(mine, "--add", str(recipe), "--only", "karate/wider")
    assert (code, summary["ran"], [line["recipe"] for line in lines(tmp_path)]) == (0, 1, ["wider"]), err
    assert run(mine, "--add", str(tmp_path / "none.toml"))[0] == 2
    (tmp_path / "raw.toml").write_text(recipe.read_text())
    code, _, err = run(mine, "--add", str(tmp_path / "raw.toml"))
    assert (code, "has a method raw" in err) == (2, True)


def test_scores_of_baselines_are_by_their_seed(run, script, table, monkeypatch):
    """Folds of a set of graphs are shuffled by it."""
    seeds, baselines = [], script("baselines")
    monkeypatch.setattr(baselines, "EPOCHS", 2)
    real = baselines.score

    def score(made, data, recipe, labels):
        seeds.append(recipe.train.seed)
        return real(made, data, recipe)

    monkeypatch.setattr(baselines, "score", score)
    assert (
        run(table(methods={"raw": 'baseline = "raw"', "gcn": 'baseline = "gcn"'}), settings=["--threads", "1"])[0] == 0
    )
    assert seeds == [0, 0, 1]


def test_links_have_two_metrics(run, table, tmp_path, lines):
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


def test_forecasts_tuned_and_supervised(run, table, tmp_path, lines):
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
        assert found["supervised", at]["epochs"] == 0
        assert 0 < found["supervised", at]["seconds"] != found["finetuned", at]["seconds"]
        assert found["finetuned", at]["seconds"] > 0
        assert found["finetuned", at]["epochs"] == 1
        assert found["nlinear", at]["look_back"] > 0
        assert found["nlinear", at]["seconds"] == 0
    assert not list((tmp_path / "out" / "runs").glob("*/"))


def test_few_labels_are_columns(run, table, tmp_path, monkeypatch, lines):
    monkeypatch.setattr("structmae.evaluate.few.SUBSETS", 2)
    mine = table(labels=[1, 2], data=["sbm:n=120,seed=1"], seeds=1)
    code, summary, err = run(mine)
    assert (code, summary["ran"], summary["lines"]) == (0, 1, 4), err
    found = {(line["recipe"], line["at"]): line for line in lines(tmp_path)}
    own = structmae.pretrain("sbm:n=120,seed=1", settings=run.settings, progress=False, threads=1).evaluate(
        labels=[1, 2]
    )
    for row in own["few_labels"]:
        method = {"pretrained": "graphmae", "raw_features": "raw"}.get(row["features"])
        if method:
            line = found[method, f"{row['labels']} a class"]
            assert (line["value"], line["over_subsets"], line["subsets"]) == (row["value"], row["std"], 2)
            assert sum(line["draws"]) / 2 == pytest.approx(line["value"])
    assert run(mine)[1]["there"] == 1


def test_few_labels_of_recordings(run, script, tmp_path, monkeypatch, lines):
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
        ({"methods": {"a": "recipe = 'graphmae', settings = { encoder.layers = 3 }"}}, "write its name in quotes"),
        ({"methods": {"a": "recipe = 'graphmae', settings = { 'encoder.layers' = [3] }"}}, "must be one value"),
        ({"task": "link_prediction"}, "metrics='accuracy' is not one of this table's: there are auc, ap"),
        (
            {"methods": {"a": "recipe = 'patchtst'"}},
            "its recipe is for series data, and node_classification is of graph",
        ),
        ({"labels": [1], "task": "graph_classification"}, "are for node_classification and classification"),
        ({"labels": [1], "methods": {"a": "baseline = 'propagated'"}}, "give settings = { hops = 2 }"),
        ({"methods": {"a": "baseline = 'raw', settings = { hops = 2 }"}}, "raw has no option hops: it has none"),
        ({"methods": {"a": "baseline = 'propagated', settings = { hops = -1 }"}}, "hops=-1 must be a whole number"),
        ({"methods": {"raw": "baseline = 'raw'", "a": "of = ['raw']"}}, "must name two methods or more"),
        ({"methods": {"raw": "baseline = 'raw'", "a": "of = ['raw', 'rat']"}}, "did you mean raw"),
        ({"methods": {"gcn": "baseline = 'gcn'", "raw": "baseline = 'raw'", "a": "of = ['raw', 'gcn']"}}, "no vectors"),
        ({"methods": {"a": "recipe = 'graphmae', grid = {'mask.ratio' = 0.5}"}}, "must be a list of values"),
        ({"methods": {"a": "recipe = 'graphmae', grid = {'mask.rate' = [0.5]}"}}, "mask.rate"),
    ],
)
def test_a_definition_says_what_is_wrong_with_it(run, table, change, said):
    code, _, err = run(table(**change))
    assert code in (1, 2)
    assert said in err
    assert err.count("\n") == 1


def test_a_table_that_is_called_like_one_of_the_toolkit_s(run, table):
    """Its lines would be taken for the other's."""
    code, _, err = run(table("node_classification"))
    assert code == 2
    assert "node_classification is a table of the toolkit's" in err


def test_a_data_set_more(run, table, tmp_path, lines):
    """By its name, or by a path from where the person is."""
    folder = tmp_path / "own"
    folder.mkdir()
    nodes = [f"{node},{node % 2},{node % 3},{('train', 'validation', 'test')[node % 3]}" for node in range(60)]
    (folder / "nodes.csv").write_text("\n".join(["id,label,height,split", *nodes]))
    edges = [f"{node},{(node + 2) % 60}" for node in range(60)]
    (folder / "edges.csv").write_text("\n".join(["source,target", *edges]))
    mine = table(seeds=1, methods={"gcn": 'baseline = "gcn"'})
    words = ["--data", "digits", str(folder), "--only", "own"]
    code, summary, err = run(mine, *words, settings=["--threads", "1"])
    assert (code, summary["ran"]) == (0, 1), err
    assert [line["data"] for line in lines(tmp_path)] == ["own"]  # as seen from the table's folder
    assert run(mine, *words, settings=["--threads", "1"])[1]["there"] == 1
    assert run(mine, "--data", str(tmp_path / "none"))[0] == 2


def test_links_are_hidden_from_every_method(run, table, tmp_path, lines):
    """A method that would see them is refused before it trains; a recipe's file gets the option."""
    path = Path(table(data=["sbm:n=120,seed=1"], task="link_prediction", seeds=1))
    path.write_text(path.read_text().replace('["accuracy"]', '["auc"]'))
    code, _, err = run(str(path))
    assert (code, 'give it settings = { "data.edges" = "train" }' in err) == (1, True)
    path.write_text(
        path.read_text().replace('recipe = "graphmae"', 'recipe = "graphmae", settings = { "data.edges" = "train" }')
    )
    mine = tmp_path / "low_pass.toml"
    mine.write_text('recipe = "graphmae"\n[encoder]\nlayer = "gcn"\n')
    code, summary, err = run(str(path), "--add", str(mine), "--only", "low_pass")
    assert (code, summary["lines"]) == (0, 1), err
    assert lines(tmp_path)[0]["recipe"] == "low_pass"


@pytest.mark.parametrize(("text", "said"), [('recipe = "graphmai"', "graphmae"), ("[encoder]\nlayr = 1", "layr")])
def test_an_added_file_that_is_no_recipe_is_named(run, table, tmp_path, text, said):
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    code, _, err = run(table(), "--add", str(file))
    assert code in (1, 2)
    assert f"--add {file}: " in err
    assert said in err


def test_a_definition_that_is_not_there_or_not_toml(run, tmp_path):
    assert "No such file" in run(str(tmp_path / "none.toml"))[2]
    (tmp_path / "bad.toml").write_text("title = ")
    assert "is not TOML" in run(str(tmp_path / "bad.toml"))[2]
