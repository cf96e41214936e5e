import json
import math

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import structmae
from structmae.recipe import resolve

TINY = {
    "train.epochs": 2, "encoder.layers": 1, "encoder.hidden": 8, "encoder.heads": 2, "encoder.feed_forward": 8,
    "tokens.context": 40,
}  # fmt: skip
SETTINGS = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture
def data(tmp_path):
    """A folder of the archive's format: two channels, three classes, 6 recordings of each to learn from."""
    rng = np.random.default_rng(0)
    for part, count in (("TRAIN", 18), ("TEST", 12)):
        lines = ["@problemName Small", "@timeStamps false", "@univariate false", "@classLabel true a b c", "@data"]
        for index in range(count):
            rows = rng.normal(size=(2, 40)) + 4 * (index % 3)
            lines.append(":".join([*(",".join(f"{x:.3f}" for x in row) for row in rows), "abc"[index % 3]]))
        folder = tmp_path / "Small"
        folder.mkdir(exist_ok=True)
        (folder / f"Small_{part}.ts").write_text("\n".join(lines))
    return folder


@pytest.fixture
def run(script, tmp_path, capsys, monkeypatch):
    """Runs the script in this process, with few fits and no MiniRocket; gives exit code, stdout and stderr."""
    monkeypatch.setattr("structmae.evaluate.rocket.available", lambda: False)
    for name, value in {"COSTS": (1.0,), "SUBSETS": 2, "FOLDS": 2}.items():
        monkeypatch.setattr(f"structmae.evaluate.series_classification.{name}", value)
    main = script("few_label").main

    def call(*words):
        code = main(["--results", str(tmp_path / "out"), *words])
        return code, *capsys.readouterr()

    return call


def lines(folder):
    return [json.loads(text) for text in (folder / "out" / "few_label.jsonl").read_text().splitlines()]


def test_a_line_a_score_and_none_twice(run, data, tmp_path, monkeypatch):
    code, out, err = run("--data", str(data), "--seeds", "2", *SETTINGS)
    assert code == 0, err
    assert "left out: 25 labels" in err
    found = lines(tmp_path)
    assert {(line["recipe"], line["seed"], line["arm"], line["labels"]) for line in found} == {
        (recipe, seed, arm, labels)
        for recipe in ("patchtst", "spectrogram")
        for seed in (0, 1)
        for arm in ("pretrained", "random_init", "raw")
        for labels in (1, 5, "all")
        if (recipe, arm) != ("spectrogram", "raw")
    }
    assert len(found) == 30
    for line in found:
        assert (line["table"], line["data"], line["metric"], line["split"]) == (
            "few_label",
            "Small",
            "accuracy",
            "test",
        )
        assert 0 <= line["value"] <= 1
        assert (line["std"] is None) == (line["labels"] == "all")
        assert (line["seconds"] > 0, line["epochs"] > 0) == ((line["arm"] == "pretrained"),) * 2
        assert (line["device"], line["threads"], line["n"], line["settings"]) == (
            "cpu", 1, 12, {key: str(value) for key, value in TINY.items()}
        )  # fmt: skip
        assert {"structmae", "torch", "tsai"} <= set(line["versions"])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line]
    assert [row[0] for row in rows[2:]] == [
        "patchtst, pretrained", "patchtst, random_init", "spectrogram, pretrained", "spectrogram, random_init", "raw",
        "rocket",
    ]  # fmt: skip
    at = [100 * line["value"] for line in found if (line["recipe"], line["arm"], line["labels"]) == OURS]
    assert rows[2][1] == f"{np.mean(at):.1f} ± {np.std(at, ddof=1):.1f}"
    raw = [100 * line["value"] for line in found if (line["arm"], line["labels"]) == ("raw", "all")]
    assert len(raw) == 2
    assert math.isclose(min(raw), max(raw))
    assert rows[6] == ["raw", *rows[6][1:3], "-", "-", f"{raw[0]:.1f}"]
    assert rows[7] == ["rocket", *["-"] * 5]

    monkeypatch.setattr(structmae, "pretrain", lambda *args, **more: pytest.fail("a finished cell ran again"))
    before = (tmp_path / "out" / "few_label.jsonl").read_bytes()
    assert run("--data", str(data), "--seeds", "2", *SETTINGS)[:2] == (0, out)
    assert (tmp_path / "out" / "few_label.jsonl").read_bytes() == before


OURS = ("patchtst", "pretrained", 1)


def test_the_value_is_the_packages_own(run, data, tmp_path):
    run("--data", str(data), "--seeds", "1", *SETTINGS)
    with threadpool_limits(1):
        own = structmae.pretrain(str(data), "spectrogram", settings=TINY, progress=False, threads=1).evaluate()
    found = {
        line["arm"]: line["value"]
        for line in lines(tmp_path)
        if (line["recipe"], line["labels"]) == ("spectrogram", "all")
    }
    assert found == {arm: own[arm] for arm in ("pretrained", "random_init")}


@pytest.mark.parametrize("card", ["basicmotions", "japanesevowels"])
def test_the_recipes_have_one_budget(script, card):
    few_label = script("few_label")
    settled = [resolve(recipe, data=card, level="sample").settings() for recipe in few_label.RECIPES]
    for key in few_label.BUDGET:
        assert settled[0][key] == settled[1][key], key


def test_unequal_budgets_are_not_compared(run, data):
    code, out, err = run("--data", str(data), *SETTINGS, "--set", "size=published")
    assert (code, out) == (1, "")
    assert "budgets differ" in err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--set", "train.seed=3"], 2),
        (["--set", "epochs=3"], 2),
        (["--data", "lorenz96"], 1),
        (["--data", "nothing.ts"], 1),
    ],
)
def test_wrong_options_are_one_line(run, words, code):
    found, out, err = run(*words)
    assert (found, out) == (code, "")
    assert err.count("\n") == 1


def test_a_file_of_something_else_is_refused(run, data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "few_label.jsonl").write_text('{"table": "other"}\n')
    code, _, err = run("--data", str(data))
    assert code == 1
    assert "line 1 is no result of few_label" in err
