"""The tables in the READMEs are those of the lines."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_they_are_current(script, capsys):
    git = ["git", "-C", str(ROOT), "status", "--porcelain", "--", "benchmarks/results"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    if done.returncode or done.stdout:
        pytest.skip("results of one's own: run benchmarks/readme.py")
    assert script("readme").main(["--check"]) == 0, capsys.readouterr().out


def test_a_table_is_renewed_and_nothing_else(script, tmp_path, monkeypatch, capsys):
    readme = script("readme")
    asked = "node_classification; rows: raw, GraphMAE; columns: cora"
    before, after = f"Before.\n\n<!-- table: {asked} -->\n", "\n<!-- end -->\n\nAfter.\n"
    path = tmp_path / "README.md"
    path.write_text(f"{before}| old |{after}")
    monkeypatch.setattr(readme, "FILES", (path,))
    monkeypatch.setattr(readme, "HERE", tmp_path / "benchmarks")
    assert readme.main(["--check"]) == 1
    assert "| old |" in path.read_text()
    assert "README.md: not current" in capsys.readouterr().out
    assert readme.main([]) == 0
    text = path.read_text()
    assert text.startswith(before)
    assert text.endswith(after)
    rows = text[len(before) : -len(after)].splitlines()
    assert rows[:2] == ["| method | cora |", "| --- | ---: |"]
    assert [row.split()[1] for row in rows[2:]] == ["raw", "GraphMAE"]
    assert readme.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("node_classificatoin", "did you mean node_classification"),
        ("node_classification; rows: rav", "did you mean raw"),
        ("node_classification; columns: corra", "did you mean cora"),
        ("node_classification; row: raw", "is not rows: a, b or columns: c, d"),
        ("node_classification; raw", "is not rows: a, b or columns: c, d"),
        ("node_classification; rows: raw; rows: dgi", "each once"),
        ("speed; rows: patchtst", "only there as a whole"),
    ],
)
def test_a_mark_that_asks_for_nothing(script, tmp_path, monkeypatch, capsys, asked, said):
    readme, path = script("readme"), tmp_path / "README.md"
    path.write_text(f"<!-- table: {asked} -->\n| old |\n<!-- end -->\n")
    monkeypatch.setattr(readme, "FILES", (path,))
    assert readme.main([]) == 1
    assert said in capsys.readouterr().err
    assert "| old |" in path.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "<!-- table: few_label -->\nProse.\n<!-- table: few_label -->\n<!-- end -->\n",
        "<!-- end -->\nProse.\n<!-- table: few_label -->\n",
        "<!-- table: few_label -->\nProse.\n",
    ],
)
def test_marks_that_are_no_pairs_take_no_prose(script, text):
    readme = script("readme")
    with pytest.raises(readme.StructmaeError, match="has no end of its own"):
        readme.updated(text)


def test_a_table_is_put_between_marks_with_nothing_between(script):
    readme, asked = script("readme"), "node_classification; rows: raw; columns: cora"
    text = readme.updated(f"<!--table: {asked} -->\n<!-- end -->\n")
    assert text == f"<!--table: {asked} -->\n{readme.rendered(asked)}\n<!-- end -->\n"
