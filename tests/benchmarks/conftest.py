"""The scripts of benchmarks/ see each other as a person's `python benchmarks/run.py` does: by their own folder."""

import importlib
import json
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
MODULES = (
    "baselines", "cells", "definition", "encoders", "jobs", "masking_report", "measure", "pictures", "readme",
    "results", "run", "search", "search_joined", "speed_report", "systems", "systems_checks", "systems_rows",
    "systems_table", "tables", "ties",
)  # fmt: skip


@pytest.fixture
def script(monkeypatch):
    """Imports a module of benchmarks/ by name."""
    import torch

    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(SCRIPTS)
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    torch.set_num_threads(threads)
    for name in MODULES:
        sys.modules.pop(name, None)


SETTINGS = {"train.epochs": 2, "encoder.hidden": 8, "encoder.heads": 2, "probe.epochs": 3}
TINY = ["--threads", "1", *(word for pair in SETTINGS.items() for word in ("--set", "{}={}".format(*pair)))]


@pytest.fixture
def run(script, tmp_path, capsys):
    """Runs the runner in this process; gives exit code, summary and what stderr says. `settings` is what it trains
    with, `words` the options."""
    main = script("run").main

    def call(table, *words, settings=TINY):
        code = main([table, *settings, "--results", str(tmp_path / "out"), "--json", *words])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    call.settings, call.words = SETTINGS, TINY
    return call


@pytest.fixture
def lines():
    """Reads what it wrote."""

    def read(folder, name="mine"):
        return [json.loads(text) for text in (folder / "out" / f"{name}.jsonl").read_text().splitlines()]

    return read


@pytest.fixture
def table(tmp_path):
    """Writes a small table of one's own; words to replace come as keywords."""

    def write(name="mine", **changes):
        parts = {"task": "node_classification", "seeds": 2, "data": ["karate"], **changes}
        methods = parts.pop("methods", {"graphmae": 'recipe = "graphmae"', "raw": RAW})
        lines = ['title = "Mine"', 'metrics = ["accuracy"]', 'split = "test"', 'how = "A trial."']
        lines += [f"{key} = {value!r}" for key, value in parts.items()]
        lines += ["[methods]", *(f"{key} = {{ {value} }}" for key, value in methods.items())]
        lines += ["[[published]]", 'method = "Some_Paper"', 'source = "Nobody & Co, table 1"']
        at = f" {parts['labels'][0]} a class" if parts.get("labels") else ""
        lines += [f'values = {{ "{parts["data"][0]}{at}" = [0.9, 0.01] }}']
        path = tmp_path / f"{name}.toml"
        path.write_text("\n".join(lines), encoding="utf-8")
        return str(path)

    return write


RAW = 'recipe = "graphmae", features = "raw_features"'
