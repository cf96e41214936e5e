"""The commands on series: what is printed, written and refused."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import structmae
from structmae.cli import main

FAST = ["--set", "train.epochs=2", "--set", "encoder.hidden=8", "--set", "encoder.heads=2"]
SERIES = [
    *("--set", "tokens.context=48", "--set", "tokens.segment=6", "--set", "train.epochs=1", "--set", "train.items=32"),
    *("--set", "encoder.hidden=8", "--set", "encoder.heads=2", "--set", "encoder.layers=1"),
]


def fails(capsys, code, *arguments):
    """Runs in this process; the error, of which the last line is the command's own."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def hourly(tmp_path_factory):
    """A table of 300 hours, and a run of it."""
    folder = tmp_path_factory.mktemp("hourly")
    hours = pd.date_range("2024-03-01", periods=300, freq="h")
    waves = np.sin(2 * np.pi * np.arange(300)[:, None] / [24, 12]) + 0.1 * np.random.default_rng(0).random((300, 2))
    table = pd.DataFrame(waves, columns=["a", "b"]).assign(date=hours)[["date", "b", "a"]]
    table.to_csv(folder / "table.csv", index=False)
    arguments = ["--data", str(folder / "table.csv"), *SERIES, "--out", str(folder / "run")]
    assert main(["pretrain", *arguments, "--no-eval"]) == 0
    return folder


def test_series_are_evaluated_horizon_by_horizon(capsys, hourly):
    run = str(hourly / "run")
    assert main(["evaluate", run, "--horizon", "6", "--horizon", "12"]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines[1:5]] == ["horizon", "6", "12", "mean"]
    assert all(name in out for name in ("mse", "mae", "random init", "last value", "seasonal naive", "nlinear"))
    assert "random_init: mse" in err  # progress
    assert main(["evaluate", run, "--task", "forecasting", "--horizon", "6", "--json"]) == 0
    evaluation = json.loads(capsys.readouterr().out)
    assert [row["horizon"] for row in evaluation["rows"]] == [6]
    assert f"{evaluation['rows'][0]['mse']:.4f}" == lines[2][1]
    assert main(["evaluate", run, "--task", "imputation"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:4]] == ["gaps", "point", "span"]
    assert "horizon 200" in fails(capsys, 1, "evaluate", run, "--horizon", "200")
    assert "is one recording" in fails(capsys, 2, "evaluate", run, "--task", "classification")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_forecast_writes_what_follows(capsys, hourly, tmp_path, suffix):
    out = tmp_path / f"ahead.{suffix}"
    assert main(["forecast", str(hourly / "run"), "--horizon", "12", "--out", str(out), "--json"]) == 0
    shown, err = capsys.readouterr()
    about = json.loads(shown)
    assert about.keys() == {"out", "rows", "horizon", "head"}
    assert (about["rows"], about["horizon"]) == (12, 12)
    assert about["head"] in err
    made = pd.read_csv(out, parse_dates=["date"]) if suffix == "csv" else pd.read_parquet(out)
    assert list(made.columns) == ["date", "b", "a"]
    assert made["date"].iloc[0] == pd.Timestamp("2024-03-13 12:00")
    assert made.notna().all(axis=None)
    long = tmp_path / "long.csv"
    table = pd.read_csv(hourly / "table.csv").melt("date", var_name="unique_id", value_name="y")
    table.rename(columns={"date": "ds"}).to_csv(long, index=False)
    assert main(["forecast", str(hourly / "run"), "--data", str(long), "--horizon", "12", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"12 rows ahead, 24 lines in {out}\n"
    again = pd.read_csv(out) if suffix == "csv" else pd.read_parquet(out)
    assert list(again.columns) == ["ds", "unique_id", "y"]
    np.testing.assert_allclose(again["y"], np.r_[made["b"], made["a"]], rtol=1e-4, atol=1e-5)
    assert "no such file" in fails(capsys, 1, "forecast", hourly / "run", "--data", "missing.csv", "--out", out)


def test_forecasts_and_classes_are_refused_where_there_are_none(capsys, hourly, tmp_path):
    assert main(["pretrain", "--data", "karate", *FAST, "--no-eval", "--out", str(tmp_path / "graph")]) == 0
    capsys.readouterr()
    graph = tmp_path / "graph"
    assert "this run is of graphs" in fails(capsys, 2, "forecast", graph, "--out", tmp_path / "f.csv")
    assert "is of series" in fails(capsys, 2, "evaluate", graph, "--horizon", "6")
    assert "finetune comes first" in fails(capsys, 2, "predict", hourly / "run", "--out", tmp_path / "p.csv")
    assert not (tmp_path / "f.csv").exists()


def test_embedded_series_say_what_each_row_is(capsys, hourly, tmp_path):
    out = tmp_path / "z.parquet"
    assert main(["embed", str(hourly / "run"), "--out", str(out), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    z = pd.read_parquet(out)
    assert (about["rows"], about["width"]) == (len(z), 8)
    assert list(z.columns[:4]) == ["id", "channel", "position", "e0"]
    assert len(z) == 7 * 2 * 8  # windows, channels, segments
    starts = [*pd.date_range("2024-03-01", periods=6, freq="48h"), pd.Timestamp("2024-03-11 12:00")]
    assert list(z["id"].unique()) == starts
    assert z.groupby(["id", "channel"])["position"].agg(list).tolist() == [list(range(8))] * 14
    run = structmae.load(hourly / "run")
    window = pd.read_csv(hourly / "table.csv")[["b", "a"]].to_numpy()[48:96].T[None]
    with torch.no_grad():
        direct = run.encoder(torch.tensor(window, dtype=torch.float32)).numpy()
    mine = z[z["id"] == starts[1]]
    assert mine["channel"].tolist() == ["b"] * 8 + ["a"] * 8
    np.testing.assert_allclose(mine.filter(regex="^e").to_numpy(), direct, rtol=1e-4, atol=1e-5)


def test_recordings_from_the_command_line(capsys, tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        ":".join(",".join(f"{v:.3f}" for v in row) for row in rng.standard_normal((2, 24)) + (i % 2)) + f":c{i % 2}"
        for i in range(40)
    ]
    head = "@problemName x\n@timeStamps false\n@univariate false\n@classLabel true c0 c1\n@data\n"
    for part, rows in (("TRAIN", lines[:24]), ("TEST", lines[24:])):
        (tmp_path / f"X_{part}.ts").write_text(head + "\n".join(rows) + "\n")
    run = str(tmp_path / "run")
    small = [*SERIES[2:], "--set", "tokens.segment=6"]
    assert main(["pretrain", "--data", str(tmp_path), *small, "--out", run]) == 0
    out = capsys.readouterr().out
    assert "with few labels a class (mean and standard deviation over 5 subsets)" in out
    grid = out.splitlines()[out.splitlines().index(next(x for x in out.splitlines() if x.startswith("with few"))) + 1 :]
    assert grid[0].split() == ["labels", "1", "5", "10"]
    assert grid[1].startswith("  pretrained ")
    assert " +- " in grid[1]
    assert main(["embed", run, "--out", str(tmp_path / "z.csv")]) == 0
    assert pd.read_csv(tmp_path / "z.csv")["id"].tolist() == list(range(40))
    capsys.readouterr()
    assert "set of recordings" in fails(capsys, 2, "forecast", run, "--out", tmp_path / "f.csv")


def test_finetune_and_predict(capsys, hourly, tmp_path):
    run, out = str(hourly / "run"), str(tmp_path / "tuned")
    few = [f"--set=finetune.{key}" for key in ("head_epochs=1", "epochs=1", "items=32", "horizon=6")]
    assert main(["finetune", run, "--task", "forecasting", *few, "--out", out, "--no-eval", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["out"] == out
    assert main(["finetune", run, *few, "--out", out, "--resume", "--no-eval"]) == 0
    assert "saved in" in capsys.readouterr().out
    assert "exists" in fails(capsys, 1, "finetune", run, *few, "--out", out)
    assert "structmae forecast" in fails(capsys, 2, "predict", out, "--out", tmp_path / "p.csv")
    assert main(["forecast", out, "--out", str(tmp_path / "f.csv"), "--json"]) == 0
    assert main(["pretrain", "--data", "karate", *FAST, "--no-eval", "--out", str(tmp_path / "graph")]) == 0
    tuned = str(tmp_path / "tuned graph")
    few = few[:2]
    assert main(["finetune", str(tmp_path / "graph"), "--task", "node_classification", *few, "--out", tuned]) == 0
    assert "node_classification, fine-tuned, accuracy" in capsys.readouterr().out
    assert main(["predict", tuned, "--out", str(tmp_path / "p.parquet"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(tmp_path / "p.parquet"), "rows": 34}
    assert list(pd.read_parquet(tmp_path / "p.parquet").columns[:2]) == ["id", "label"]
