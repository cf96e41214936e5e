"""Runs of series, from data to a folder and back."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from small_series import OF, SMALL, values

import structmae
from structmae import train
from structmae.errors import StructmaeError, UsageError


def start(name, data=None, folder=None, **changes):
    settings = {**SMALL, **OF[name], **changes}
    data = values(missing=0.05) if data is None else data
    return structmae.pretrain(data, name, settings=settings, out=folder, progress=False)


def same(one, other):
    states = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", OF)
def test_a_loaded_run_gives_what_the_saved_one_gave(name, tmp_path):
    data = values(missing=0.05)
    run = start(name, data, tmp_path / "r", **{"train.lr": 1e-2})
    again = structmae.load(tmp_path / "r")
    assert torch.equal(again.embed(data), run.embed())
    assert again.recipe.settings() == run.recipe.settings()
    assert again.result == run.result
    assert run.result["loss_last"] < run.result["loss_first"]
    assert not torch.equal(run.encoder.project.weight, run.initial_encoder().project.weight)
    with pytest.raises(StructmaeError, match="object in memory"):
        again.embed()


def test_embeddings_are_those_of_windows_side_by_side():
    data = values(rows=160)  # 6 windows of 24 rows, and the last one
    run = start("patchtst", data)
    starts = [0, 24, 48, 72, 96, 120, 136]
    x = torch.from_numpy(np.stack([data[at : at + 24].T for at in starts]))
    assert run.embed().shape == (7 * 3 * 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(run.encoder(x), run.embed(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["tsformer", "spans"])
def test_a_killed_run_goes_on_to_the_same_weights(name, tmp_path, monkeypatch):
    """In the middle of an epoch, without warning; every epoch draws other windows."""
    settings = {"train.epochs": 4, "train.save_every": 1, "train.clip": 0.5, "train.warmup": 1}
    data = values(missing=0.05)
    whole = start(name, data, **settings)
    real, calls = train._epoch, iter(range(9))

    def dies(*args):
        if next(calls) == 2:
            raise RuntimeError("power cut")
        return real(*args)

    monkeypatch.setattr(train, "_epoch", dies)
    with pytest.raises(RuntimeError, match="power cut"):
        start(name, data, tmp_path / "r", **settings)
    monkeypatch.setattr(train, "_epoch", real)
    resumed = structmae.pretrain(data, out=tmp_path / "r", resume=True, progress=False)
    assert same(whole, resumed)
    lines = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    assert not same(whole, start(name, data, **settings, **{"train.seed": 1}))


def test_series_of_a_table_are_known_by_their_file(tmp_path):
    file = tmp_path / "load.csv"
    table = pd.DataFrame(values(channels=2).astype(float), columns=["north", "south"])
    table.insert(0, "date", pd.date_range("2024-01-01", periods=160, freq="h"))
    table.to_csv(file, index=False)
    run = structmae.pretrain(
        str(file), settings={**SMALL, **OF["patchtst"]}, kind="series", out=tmp_path / "r", progress=False
    )
    assert run.recipe.name == "patchtst"
    again = structmae.load(tmp_path / "r")
    assert torch.equal(again.embed(), run.embed())
    table[["date", "south", "north"]].to_csv(file, index=False)
    with pytest.raises(StructmaeError, match="has changed"):
        structmae.load(tmp_path / "r").embed()
    torch.testing.assert_close(again.embed(str(file)), run.embed())  # channels go by their names


def test_other_series_are_read_by_an_encoder_that_reads_each_alone():
    run = start("patchtst")
    assert run.embed(values(channels=5, seed=1)).shape == (7 * 5 * 8, 8)
    mixed = start("spans")
    with pytest.raises(StructmaeError, match="c"):
        mixed.embed(values(channels=2, seed=1))


def test_a_recipe_and_data_of_different_kinds_are_refused(karate):
    with pytest.raises(UsageError, match="for series data"):
        structmae.pretrain(values(), "patchtst", kind="graph", progress=False)
    with pytest.raises(StructmaeError):
        structmae.pretrain(values(), "graphmae", progress=False)
    with pytest.raises(StructmaeError):
        structmae.pretrain(karate, "patchtst", progress=False)


def test_html_names_the_transformer():
    assert "1 x 8 transformer" in start("patchtst")._repr_html_()
