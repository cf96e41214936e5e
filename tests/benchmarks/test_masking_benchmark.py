import importlib
import json
import random
import sys
import types

import pytest

SMALL = 0.002
MODULES = ("masking", "masking_works", "masking_graphs", "masking_report")
KEYS = ["work", "size", "threads", "ours_ms", "other", "other_ms", "ratio", "floor_ms"]
SIZES = {
    "mae_indices": ["N=4096 x L=196 x 64", "N=256 x L=1024 x 128"],
    "mae_gather": ["N=4096 x L=196 x 64", "N=256 x L=1024 x 128"],
    "spans": ["(64, 7, 512)", "(256, 32, 1024)"],
    "node_noise": ["1e5 x 128"],
    "nodes": ["1e6 nodes / 1e7 edges"],
    "edges": ["1e6 nodes / 1e7 edges"],
    "paths": ["1e6 nodes / 1e7 edges"],
    "paths_tuned": ["1e6 nodes / 1e7 edges"],
    "tube": ["8x14x14 at 90%, 1024 samples"],
    "block": ["14x14, 1024 samples"],
}


@pytest.fixture
def masking(script, monkeypatch):
    """The script, with its first run not measured, few pairs, and tsai's mask replaced by one of the same kind."""
    import numba

    threads, state = numba.get_num_threads(), random.getstate()
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    _put_tsai(monkeypatch, _chain)
    made = script("masking")
    monkeypatch.setattr(made, "cold", lambda: "cold first run: not measured")
    monkeypatch.setattr(made, "MOST", 5)
    yield made
    numba.set_num_threads(threads)
    random.setstate(state)
    for name in MODULES:
        sys.modules.pop(name, None)


def _put_tsai(monkeypatch, function):
    for name in ("tsai", "tsai.callback"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    last = None
    if function:
        last = types.ModuleType("tsai.callback.MVP")
        last.create_subsequence_mask = function
    monkeypatch.setitem(sys.modules, "tsai.callback.MVP", last)  # None: importing it fails


def _chain(o, r, lm):
    """Runs of geometric length, all steps in one row, as tsai makes them."""
    import torch

    assert r == 0.5
    lengths = torch.distributions.Geometric(1 / lm).sample((o.numel(),)).long() + 1
    turns = torch.arange(o.numel()) % 2 == 0
    return turns.repeat_interleave(lengths)[: o.numel()].reshape(o.shape)


@pytest.fixture
def run(masking, capsys):
    """Runs the script on small works; gives exit code, stdout and stderr."""

    def call(*arguments):
        try:
            code = masking.main(list(arguments), scale=SMALL)
        except SystemExit as error:
            code = error.code
        return (code, *capsys.readouterr())

    return call


def test_every_work_does_the_same_job(masking):
    works = masking.works(SMALL)
    assert tuple(dict.fromkeys(work.name for work in works)) == masking.NAMES
    for work in works:
        work.setup()
        work.check()
        assert work.moved > 0


def test_sizes_and_targets_are_those_asked_for(masking):
    found, targets = {}, {}
    for work in masking.works(1.0):  # nothing is made before setup
        found.setdefault(work.name, []).append(work.size)
        targets[work.name] = (work.target, work.aim)
    assert found == SIZES
    wanted = {"mae_indices": (12, 20), "mae_gather": (5, None), "spans": (10, None), "node_noise": (4, None)}
    graphs = {"nodes": (3, None), "edges": (4, None), "paths": (5, None)}
    graphs |= dict.fromkeys(("paths_tuned", "tube", "block"), (None, None))
    assert targets == wanted | graphs


def test_rows_as_json_and_as_a_table(run, tmp_path):
    file = tmp_path / "rows.json"
    code, out, err = run("--json", str(file))
    assert code == 0, err
    rows = json.loads(file.read_text())
    works = [name for name, sizes in SIZES.items() for _ in sizes]
    assert [row["work"] for row in rows if row["threads"] == 1] == works
    counts = {row["threads"] for row in rows}
    assert len(rows) == len(works) * len(counts)
    for row in rows:
        assert list(row) == KEYS
        assert all(row[key] > 0 for key in ("ours_ms", "other_ms", "ratio"))
        assert row["floor_ms"] >= 0
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["work", "size", "threads", "pairs"]
    assert [line.split()[0] for line in lines[1 : len(rows) + 1]] == [row["work"] for row in rows]
    for text in ("cold first run", "bandwidth with 1 thread", "edges()", "torch 2", "s in all"):
        assert text in out


def test_only_leaves_the_others_and_the_first_run_out(run):
    code, out, _ = run("--only", "tube, block")
    assert code == 0
    assert {line.split()[0] for line in out.split("\n\n")[0].splitlines()[1:]} == {"tube", "block"}
    assert "cold first run" not in out


def test_ratio_is_the_median_of_pairs(masking):
    row = masking.Row(masking.works(SMALL)[-1], 1, [1.0, 2.0, 4.0], [10.0, 40.0, 12.0], 0.5)
    assert row.public()["ratio"] == 10.0
    assert row.public()["ours_ms"] == 2.0
    assert row.public()["other_ms"] == 12.0


def test_each_repetition_is_another_visit_and_in_turns(masking):
    said = []
    work = types.SimpleNamespace(ours=said.append, other=lambda: said.append("other"))
    ours, other = masking.pairs(work, 1, budget=0.0)
    assert len(ours) == len(other) == masking.LEAST
    assert said[::2] == list(range(1, masking.LEAST + masking.WARM + 1))
    assert set(said[1::2]) == {"other"}


def test_without_tsai_its_rows_are_missing(run, monkeypatch, tmp_path):
    _put_tsai(monkeypatch, None)
    file = tmp_path / "rows.json"
    code, _, err = run("--only", "spans,block", "--json", str(file))
    assert code == 0
    assert {row["work"] for row in json.loads(file.read_text())} == {"block"}
    assert "spans, (8, 7, 512), is left out: needs tsai" in err


@pytest.mark.parametrize(
    ("module", "kind", "spoil"),
    [
        ("masking_works", "MaeIndices", lambda out, work: (*out[:2], out[2].flip(0))),
        ("masking_works", "Block", lambda out, work: out[..., ::2].repeat(2, -1)),
        ("masking_works", "Tube", lambda out, work: out[::-1]),
        ("masking_graphs", "Nodes", lambda out, work: (work.graph.tensor, *out[1:])),
        ("masking_graphs", "UndirectedEdges", lambda out, work: work.graph.tensor),
        ("masking_graphs", "Paths", lambda out, work: out[:, 1:-1]),
    ],
)
def test_another_job_is_no_row(run, masking, monkeypatch, module, kind, spoil):
    made = getattr(importlib.import_module(module), kind)
    right = made.other
    monkeypatch.setattr(made, "other", lambda self: spoil(right(self), self))
    code, _, err = run("--only", made.name)
    assert code == 1
    assert "is left out: other" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--only", "tubes"],
        ["--only", ""],
        ["--json", "/nowhere/rows.json"],
        ["--json", "."],
        ["--cold", "--only", "tube"],
        ["--cold", "--json", "rows.json"],
        ["--fast"],
        ["tube"],
    ],
)
def test_wrong_options_are_one_line(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "--help" in err


def test_cold_alone_prints_one_line(run):
    assert run("--cold") == (0, "cold first run: not measured\n", "")


@pytest.mark.slow
def test_the_first_run_compiles_and_the_second_loads(script):
    from_cache = script("masking").cold()
    assert "compiled nothing" in from_cache
    seconds = [float(word) for word in from_cache.split() if word.replace(".", "").isdigit()]
    assert len(seconds) == 3
    assert seconds[1] < seconds[0] / 3
