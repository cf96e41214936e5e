"""Tables as pictures: few labels and grids, from definition to file."""

import json

import pytest


def line(data, recipe, seed, value, **changes):
    about = {"table": "mine", "data": data, "recipe": recipe, "seed": seed, "metric": "accuracy", "split": "test"}
    return {**about, "value": value, "settings": {}, "revision": None, "device": "cpu", "threads": 1, **changes}


@pytest.fixture
def draw(script, tmp_path, capsys):
    """Runs tables.py with --plot; gives exit code, stderr and the file."""
    main = script("tables").main

    def call(table, name="out.png"):
        code = main([str(table), "--results", str(tmp_path), "--plot", str(tmp_path / name)])
        return code, capsys.readouterr().err, tmp_path / name

    return call


def written(tmp_path, lines):
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))


def test_few_labels_are_a_curve_each(draw, script, table, tmp_path):
    mine = table(labels=[1, 5], methods={"graphmae": 'recipe = "graphmae"', "duo": 'recipe = "duo"'})
    lines = [
        line("karate", recipe, seed, value + 0.1 * seed, at=f"{size} a class")
        for recipe, value in (("graphmae", 0.2), ("duo", 0.4))
        for size in (1, 5)
        for seed in (0, 1)
    ]
    written(tmp_path, [*lines, line("karate", "duo", 0, 0.9, at="1 a class", settings={"train.lr": 0.1})])
    code, err, file = draw(mine)
    assert code == 0, err
    assert file.read_bytes().startswith(b"\x89PNG")
    definition = script("definition").read(mine)
    first, found = script("pictures").curves(definition, lines)
    assert first == "labels a class"
    assert list(found["karate"]) == ["graphmae", "duo"]
    for point, x in zip(found["karate"]["duo"], (1, 5), strict=True):
        assert (point.x, round(point.mean, 6), round(point.std, 4)) == (x, 0.45, 0.0707)


def test_a_dozen_methods_are_told_apart(script, table, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn, real = [], Axes.errorbar

    def errorbar(self, *args, **options):
        made = real(self, *args, **options)
        drawn.append((options["label"], made[0].get_color(), options["marker"], options["linestyle"]))
        return made

    monkeypatch.setattr(Axes, "errorbar", errorbar)
    names = [f"m{place}" for place in range(12)]
    mine = table(labels=[1], data=["karate", "citations"], methods=dict.fromkeys(names, 'baseline = "raw"'))
    lines = [line("karate", name, 0, 0.5, at="1 a class") for name in names]
    lines += [line("citations", name, 0, 0.5, at="1 a class") for name in names[3:]]  # the same look there
    script("pictures").draw(script("definition").read(mine), lines, tmp_path / "a.png")
    assert len(drawn) == 21
    assert len(set(drawn)) == len({each[1:] for each in drawn}) == 12


GRID = 'recipe = "graphmae", grid = {"mask.ratio" = [0.3, 0.6], "heads.features.loss" = ["sce", "mse"]}'


def test_a_grid_is_drawn_along_its_first_option(draw, script, table, tmp_path):
    mine = table(methods={"graphmae": GRID})
    methods = script("definition").read(mine).methods
    assert [method.name for method in methods] == [
        "ratio=0.3, loss=sce", "ratio=0.3, loss=mse", "ratio=0.6, loss=sce", "ratio=0.6, loss=mse",
    ]  # fmt: skip
    assert dict(methods[3].settings) == {"mask.ratio": 0.6, "heads.features.loss": "mse"}
    lines = [line("karate", method.name, 0, 0.1 * place) for place, method in enumerate(methods)]
    written(tmp_path, lines)
    assert draw(mine)[0] == 0
    first, found = script("pictures").curves(script("definition").read(mine), lines)
    assert "hidden" in first
    assert {label: [point.x for point in points] for label, points in found["karate"].items()} == {
        "loss=sce": [0.3, 0.6], "loss=mse": [0.3, 0.6],
    }  # fmt: skip


def test_what_cannot_be_drawn(draw, table, tmp_path):
    plain = table()
    written(tmp_path, [line("karate", "graphmae", 0, 0.5)])
    code, err, file = draw(plain)
    assert (code, "has no axis" in err, file.exists()) == (2, True, False)
    mine = table(labels=[1])
    written(tmp_path, [])
    code, err, file = draw(mine)
    assert (code, "nothing is measured yet" in err, file.exists()) == (1, True, False)
    written(tmp_path, [line("karate", "graphmae", 0, 0.5, at="1 a class")])
    code, err, file = draw(mine, "no/folder.png")
    assert (code, err.count("\n"), "--plot" in err) == (1, 1, True)
    assert draw("systems")[0] == 2
