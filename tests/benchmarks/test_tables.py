import csv
import io
import json
import re
import statistics
from pathlib import Path

import pytest

VALUES = {
    ("karate", "graphmae"): [0.5, 0.75, 0.625],
    ("karate", "raw"): [0.5, 0.5, 0.53],
    ("sbm", "graphmae"): [0.41],
    ("digits", "raw"): [0.9, 0.8],
}


@pytest.fixture
def render(script, tmp_path, capsys):
    """Runs the script; gives exit code, stdout and stderr."""
    main = script("tables").main

    def call(table, form="md"):
        code = main([table, "--format", form, "--results", str(tmp_path)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def mine(table):
    return table(data=["karate", "sbm", "digits"])


def line(data, recipe, seed, value, **changes):
    about = {"table": "mine", "data": data, "recipe": recipe, "seed": seed, "metric": "accuracy", "split": "test"}
    made = {"revision": "0123456789abcdef-dirty", "versions": {"torch": "9.1"}, "device": "cpu", "threads": 2}
    return {**about, "value": value, "settings": {}, **made, **changes}


@pytest.fixture
def write(tmp_path):
    def call(*more, values=VALUES):
        found = [line(*key, seed, value) for key, some in values.items() for seed, value in enumerate(some)]
        (tmp_path / "mine.jsonl").write_text("".join(json.dumps(each) + "\n" for each in [*found, *more]))

    return call


def expected(some):
    """The oracle: the standard library's own mean and standard deviation."""
    std = f"{100 * statistics.stdev(some):.2f}" if len(some) > 1 else "-"
    return f"{100 * statistics.mean(some):.2f}", std, str(len(some))


def grid(markdown):
    rows = [row.strip("| ").split(" | ") for row in markdown.splitlines() if row.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


def test_markdown(render, write, mine):
    write()
    code, out, err = render(mine)
    assert (code, err) == (0, "")
    table = grid(out)
    assert list(table) == ["graphmae", "raw", "Some_Paper (published, not measured here)"]
    best = {("karate", "graphmae"), ("sbm", "graphmae"), ("digits", "raw")}
    for row in ("graphmae", "raw"):
        for data in ("karate", "sbm", "digits"):
            if (data, row) not in VALUES:
                assert table[row][data] == "-"
                continue
            mean, std, n = expected(VALUES[data, row])
            number = mean if std == "-" else f"{mean} ± {std}"
            number = f"**{number}**" if (data, row) in best else number
            assert table[row][data].replace("†", "") == f"{number} (n={n})"
    paper = table["Some_Paper (published, not measured here)"]
    assert list(paper.values()) == ["90.00 ± 1.00", "-", "-"]  # the best of all, and still not bold
    for words in ("Nobody & Co, table 1", "A trial.", "torch 9.1", "cpu", "threads: 2", "0123456789-dirty"):
        assert words in out


def test_csv(render, write, mine):
    write()
    code, out, err = render(mine, "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [row["method"] for row in rows] == ["graphmae", "raw", "Some_Paper"]
    for row in rows[:2]:
        for data in ("karate", "sbm", "digits"):
            some = VALUES.get((data, row["method"]))
            wanted = expected(some) if some else ("-", "-", "-")
            assert (row[f"{data} mean"], row[f"{data} std"], row[f"{data} n"]) == wanted
        assert row["source"] == "measured here"
    assert (rows[2]["karate mean"], rows[2]["karate n"], rows[2]["source"]) == ("90.00", "-", "Nobody & Co, table 1")
    assert "torch 9.1" in err


def test_latex(render, write, mine):
    write()
    code, out, _ = render(mine, "latex")
    assert code == 0
    body = out[out.index(r"\toprule") : out.index(r"\bottomrule")].splitlines()
    rows = [row for row in body if row.endswith(r"\\")]
    assert len(rows) == 4
    assert {row.count(" & ") for row in rows} == {3}
    mean, std, n = expected(VALUES["karate", "graphmae"])
    assert rf"graphmae & \textbf{{{mean} $\pm$ {std}}} ($n$={n}) & " in out
    assert r"Some\_Paper" in out
    assert r"Nobody \& Co" in out
    assert not re.search(r"(?<!\\)[_&#%]", re.sub(r" & |^%.*", "", out, flags=re.MULTILINE))
    assert out.count("{") == out.count("}")
    assert out.count("$") % 2 == 0
    assert out.replace("†", "").isascii()
    for name in ("table", "tabular"):
        assert out.count(rf"\begin{{{name}}}") == out.count(rf"\end{{{name}}}") == 1


def test_means_that_print_alike_are_both_bold(render, write, mine):
    write(values={("karate", "graphmae"): [0.5, 0.7], ("karate", "raw"): [0.6000001]})
    table = grid(render(mine)[1])
    assert table["graphmae"]["karate"].startswith("**60.00")
    assert table["raw"]["karate"].startswith("**60.00")


def test_other_settings_are_rows_of_their_own(render, write, mine):
    other = {"mask.ratio": 0.75, "encoder.norm": "layernorm"}
    write(*(line("karate", "graphmae", seed, 0.9, settings=other) for seed in (0, 1)))
    table = grid(render(mine)[1])
    assert list(table)[:3] == ["graphmae", "graphmae, encoder.norm=layernorm, mask.ratio=0.75", "raw"]
    assert table["graphmae"]["karate"].endswith("(n=3)")
    assert not table["graphmae"]["karate"].startswith("**")
    assert list(table.values())[1]["karate"] == "**90.00 ± 0.00** (n=2)"


def test_what_differs_between_lines_is_all_said(render, write, mine):
    write(line("sbm", "raw", 0, 0.5, device="cuda", versions={"torch": "9.2"}, revision=None))
    out = render(mine)[1]
    for words in ("torch 9.1 or 9.2", "cpu or cuda", "0123456789-dirty or unknown"):
        assert words in out


def test_nothing_measured_yet(render, mine):
    code, out, _ = render(mine)
    assert code == 0
    assert set(grid(out)["graphmae"].values()) == {"-"}
    assert "Nothing is measured yet" in out


def test_results_on_other_data_are_left_out_and_said_to_be(render, write, mine):
    write(line("cora", "raw", 0, 0.5))
    code, out, err = render(mine)
    assert (code, "cora" in out) == (0, False)
    assert "left out: 1" in err


def test_a_torn_last_line_is_not_read_and_not_touched(render, write, mine, tmp_path):
    write()
    whole = render(mine)[1]
    path = tmp_path / "mine.jsonl"
    path.write_text(path.read_text() + '{"table": "mine", "da')
    before = path.read_bytes()
    assert render(mine)[1] == whole
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (line("sbm", "raw", 0, 84.2), "line 10: value=84.2 is not a fraction of 1"),
        (line("sbm", "raw", 0, None), "is not a fraction of 1"),
        (line("karate", "raw", 0, 0.5), "line 10 repeats the result of line 4"),
        (line("sbm", "raw", 0, 0.5, table="other"), "belongs to the table 'other'"),
        (line("sbm", "raw", 0, 0.5, split="validation"), "accuracy on validation"),
        ({"table": "mine"}, "line 10 is no result"),
        (line("sbm", "raw", 0, 0.5, settings=3), "line 10: data, recipe"),
        (line("sbm", "raw", "0", 0.5), "seed a whole number"),
        (line("sbm", "raw", 0, 0.5, right="zz"), "right=zz is not hexadecimal"),
    ],
)
def test_lines_that_cannot_be_used(render, write, mine, wrong, said):
    write(wrong)
    code, out, err = render(mine)
    assert (code, out) == (1, "")
    assert said in err
    assert err.count("\n") == 1


def test_an_unknown_table(render):
    code, out, err = render("graph_clasification")
    assert (code, out) == (2, "")
    assert "did you mean graph_classification" in err


def test_how_far_draws_of_labels_are_apart(render, tmp_path, table):
    """The mean of the methods, each of its seeds; settings of one's own have rows of their own."""
    mine = table(labels=[1], methods={"a": 'recipe = "graphmae"', "raw": 'baseline = "raw"'})
    spreads = [("a", 0, 0.04, {}), ("a", 1, 0.02, {}), ("a", 0, 0.5, {"train.lr": 0.1}), ("raw", 0, 0.05, {})]
    found = [
        line("karate", recipe, seed, 0.5, at="1 a class", over_subsets=spread, settings=settings)
        for recipe, seed, spread, settings in spreads
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(each) + "\n" for each in found))
    assert "the mean of all methods: karate 1 a class 4.00." in render(mine)[1]


def test_what_is_not_told_apart_and_what_is_not_tested(render, tmp_path, table):
    """Three seeds in common or none: a mark for each."""
    names = ("best", "near", "far", "few")
    mine = table(methods=dict.fromkeys(names, 'recipe = "graphmae"'))
    write_lines(tmp_path, best=[0.8, 0.9, 0.7], near=[0.81, 0.88, 0.69], far=[0.5, 0.61, 0.42], few=[0.5, 0.6])
    found = {name: grid(render(mine)[1])[name]["karate"] for name in names}
    assert found["best"].startswith("**80.00")
    assert {name: found[name].partition(" (")[0][-1] for name in names[1:]} == {"near": "†", "far": "4", "few": "‡"}
    assert "‡: not tested" in render(mine)[1]
    assert r"$\ddagger$" in render(mine, "latex")[1]


def test_what_depends_on_no_seed_has_no_deviation(render, tmp_path, table):
    raw = 'recipe = "graphmae", features = "raw_features"'
    methods = {"graphmae": 'recipe = "graphmae"', "raw": raw, "shuffled": raw}
    mine = table(methods=methods)
    write_lines(tmp_path, graphmae=[0.5, 0.5, 0.5], raw=[0.4, 0.4, 0.4], shuffled=[0.4, 0.4, 0.3])
    found = {name: grid(render(mine)[1])[name]["karate"] for name in methods}
    assert (found["graphmae"], found["raw"]) == ("**50.00 ± 0.00** (n=3)", "40.00 (n=1)")
    assert found["shuffled"].endswith("(n=3)")


def write_lines(folder, **values):
    found = [line("karate", name, seed, value) for name, some in values.items() for seed, value in enumerate(some)]
    (folder / "mine.jsonl").write_text("".join(json.dumps(each) + "\n" for each in found))


def test_published_numbers_of_one_horizon(render, tmp_path, table):
    """Beside ours, above 1 where the metric may be; a horizon that nothing was measured at is refused."""
    mine = Path(table(data=["lorenz96"], task="forecasting", methods={"patchtst": 'recipe = "patchtst"'}))
    text = mine.read_text().replace('["accuracy"]', '["mse"]').replace("[0.9, 0.01]", "[1.9, 0.01]")
    mine.write_text(text.replace('{ "lorenz96" =', '{ "lorenz96 12" ='))
    assert render(str(mine))[0] == 0  # nothing is measured yet, so any horizon may come
    one = line("lorenz96", "patchtst", 0, 0.5, metric="mse", at="12")
    (tmp_path / "mine.jsonl").write_text(json.dumps(one) + "\n")
    code, out, err = render(str(mine))
    assert (code, err) == (0, "")
    assert grid(out)["Some_Paper (published, not measured here)"] == {"lorenz96 12": "1.9000 ± 0.0100"}
    text = mine.read_text()
    for wrong in ("lorenz96 13", "lorenz96"):  # the second says no horizon
        mine.write_text(text.replace("lorenz96 12", wrong))
        code, out, err = render(str(mine))
        assert (code, out) == (1, "")
        assert f"published Some_Paper, {wrong}: no such column: did you mean lorenz96 12" in err


def test_a_data_set_more(script, tmp_path, mine, write, capsys):
    write(line("citations", "raw", 0, 0.25))
    words = [mine, "--results", str(tmp_path)]
    main = script("tables").main
    assert main([*words, "--data", "citations"]) == 0
    assert grid(capsys.readouterr()[0])["raw"]["citations"] == "**25.00** (n=1)"
    for name, said in (("karate", "the table has it"), ("citation", "Did you mean citations")):
        assert main([*words, "--data", name]) == 2
        assert said in capsys.readouterr()[1]


@pytest.mark.parametrize("form", ["md", "csv"])
def test_the_table_of_masking(script, tmp_path, capsys, form):
    main = script("tables").main
    row = {"work": "spans", "size": "(2, 3)", "other": "tsai", "ours_ms": 2.0, "other_ms": 8.0, "floor_ms": 0.5}
    rows = [{**row, "threads": 1, "ratio": 4.0}, {**row, "threads": 2, "ratio": 5.0, "ours_ms": 1.0}]
    (tmp_path / "masking.json").write_text(json.dumps(rows))
    assert main(["masking", "--format", form, "--results", str(tmp_path)]) == 0
    out = capsys.readouterr()[0]
    cells = ["spans", "(2, 3)", "tsai", "2", "8", "4.0", "0.5", "5.0", "2.00"]
    found = next(iter(grid(out).values())).values() if form == "md" else list(csv.reader(io.StringIO(out)))[1][1:]
    assert list(found) == cells[1:]
    for content, said in (("[]", ""), ('{"a": 1}', "is not what"), ('[{"work": 1}]', "is not what")):
        (tmp_path / "masking.json").write_text(content)
        assert main(["masking", "--results", str(tmp_path)]) == (1 if said else 0)
        assert said in capsys.readouterr()[1]
    (tmp_path / "masking.json").unlink()
    assert main(["masking", "--results", str(tmp_path)]) == 1
    assert "masking.py --json" in capsys.readouterr()[1]
    assert main(["masking", "--format", "latex", "--results", str(tmp_path)]) == 2
