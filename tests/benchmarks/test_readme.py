"""The tables in the READMEs are those of the lines."""

import pytest


def test_they_are_current(script, capsys):
    assert script("readme").main(["--check"]) == 0, capsys.readouterr().out


def test_a_table_is_renewed_and_nothing_else(script, tmp_path, monkeypatch, capsys):
    readme = script("readme")
    asked = "node_classification; rows: raw, GraphMAE; columns: cora"
    before, after = f"Before.\n\n<!-- table: {asked} -->\n", "\n<!-- end -->\n\nAfter: <!-- end -->\n"
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
    ],
)
def test_a_mark_that_asks_for_nothing(script, tmp_path, monkeypatch, capsys, asked, said):
    readme, path = script("readme"), tmp_path / "README.md"
    path.write_text(f"<!-- table: {asked} -->\n| old |\n<!-- end -->\n")
    monkeypatch.setattr(readme, "FILES", (path,))
    assert readme.main([]) == 1
    assert said in capsys.readouterr().err
    assert "| old |" in path.read_text()
