"""The commands on images and text, and the list of recipes by modality."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from small_pictures import DOCUMENTS, SMALL, images, text_settings

import structmae
from structmae.cli import main
from structmae.registry import names

KINDS = ["graph", "series", "image", "text"]


def options(settings):
    return [f"--set={key}={value}" for key, value in settings.items()]


def fails(capsys, *arguments):
    """The last line of an error of usage."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of images with labels in a .npy file, and one of a folder of text."""
    folder = tmp_path_factory.mktemp("kinds")
    np.save(folder / "pixels.npy", images())
    (folder / "books").mkdir()
    for number, document in enumerate(DOCUMENTS):
        (folder / "books" / f"b{number:02}.txt").write_text(document)
    for kind, data, recipe, settings in (
        ("image", "pixels.npy", "mae", SMALL), ("text", "books", "bert", text_settings()),
    ):  # fmt: skip
        given = ["--data", str(folder / data), "--kind", kind, "--recipe", recipe, "--no-eval", *options(settings)]
        assert main(["pretrain", *given, "--out", str(folder / kind)]) == 0
    return folder


def test_recipes_are_listed_by_modality(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert heads == KINDS
    under = {line.split()[0]: heads[sum(above in heads for above in lines[:place]) - 1]
             for place, line in enumerate(lines) if line not in heads}  # fmt: skip
    assert set(under) == set(names("recipe"))
    assert {under[name] for name in ("graphmae", "maskgae_path")} == {"graph"}
    assert (under["patchtst"], under["multimae"], under["bert"]) == ("series", "image", "text")
    assert main(["recipes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(under)
    assert all(row.keys() == {"name", "modality", "paper", "default_data", "summary"} for row in rows)
    assert {row["name"]: row["modality"] for row in rows} == under
    assert all(all(row.values()) for row in rows)


def test_help_names_what_is_read_and_scored(capsys):
    for command, words in {
        "pretrain": ["{graph,series,image,text}", "folder of image files", "(N, C, H, W)", ".txt file or a folder"],
        "evaluate": ["link_prediction", "image_classification", "reconstruction", "clustering", "imputation"],
    }.items():
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert [word for word in words if word not in shown] == []


def test_a_kind_of_its_own_and_the_size(capsys, tmp_path):
    small = options(text_settings())
    arguments = ["--kind", "text", "--no-eval", *small, "--out", str(tmp_path / "r"), "--json"]
    assert main(["pretrain", "--data", "pydoc-topics", *arguments, "--set", "train.items=32"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["recipe"], result["data"]) == ("bert", "pydoc-topics")
    assert err.splitlines()[0] == "recipe: bert, size tiny (the paper's: --set size=published)"
    assert result["picture"] == str(tmp_path / "r" / "picture.png")


def test_where_the_picture_is_is_said(capsys, runs, tmp_path):
    given = ["--data", str(runs / "pixels.npy"), "--no-eval", *options(SMALL), "--out", str(tmp_path / "r")]
    assert main(["pretrain", *given]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"input, hidden and rebuilt: {tmp_path / 'r' / 'picture.png'}"


def test_embedded_images_say_which_they_are(capsys, runs, tmp_path):
    out = tmp_path / "z.parquet"
    assert main(["embed", str(runs / "image"), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 40
    z = pd.read_parquet(out)
    assert list(z.columns[:2]) == ["id", "e0"]
    assert z["id"].tolist() == list(range(40))
    settings = {key: value for key, value in SMALL.items() if not key.startswith("heads.")} | {"encoder.pool": "none"}
    run = structmae.pretrain("digits-maps", "multimae", settings=settings, out=tmp_path / "maps", progress=False)
    assert main(["embed", str(tmp_path / "maps"), "--out", str(out)]) == 0
    z = pd.read_parquet(out)
    assert list(z.columns[:5]) == ["id", "map", "row", "column", "e0"]
    assert len(z) == 1797 * 3 * 16
    x = run.data().x.clone()
    x[:, :, 2:4, 6:8] += 1.0  # a patch: row 1, column 3
    with torch.no_grad():
        tokens = run.encoder.tokenizer.tokens(run.encoder.tokenizer.normalize(x[5:6]), None, torch.tensor([5]))
        plain = run.source(run.data()).at(torch.tensor([5]))
    moved = (tokens["patch"].values != plain["patch"].values).any(1).numpy()
    mine = z[z["id"] == 5][moved]
    assert mine[["map", "row", "column"]].to_numpy().tolist() == [
        ["image", 1, 3], ["gradient", 1, 3], ["threshold", 1, 3],
    ]  # fmt: skip


@pytest.mark.parametrize("pool", ["none", "mean"])
def test_embedded_text_says_where_it_is_from(capsys, runs, tmp_path, pool):
    folder = runs / "text"
    if pool == "mean":
        folder = tmp_path / "pooled"
        settings = {**text_settings(), "encoder.pool": "mean"}
        structmae.pretrain(runs / "books", "bert", settings=settings, out=folder, progress=False)
    assert main(["embed", str(folder), "--out", str(tmp_path / "z.csv"), "--json"]) == 0
    z = pd.read_csv(tmp_path / "z.csv", keep_default_na=False)
    assert json.loads(capsys.readouterr().out)["rows"] == len(z)
    run = structmae.load(folder)
    vectors = run.embed().numpy()
    np.testing.assert_allclose(z.filter(regex=r"^e\d").to_numpy(), vectors, rtol=1e-5, atol=1e-6)
    pieces = run.encoder.tokenizer.encode(DOCUMENTS[7])
    mine = z[z["document"] == 7]
    assert set(mine["title"]) == {run.data().titles[7]}
    if pool == "none":
        assert list(z.columns[:5]) == ["document", "title", "position", "piece", "e0"]
        cut = len(pieces) if len(pieces) % 32 >= 8 or len(pieces) < 32 else len(pieces) // 32 * 32
        assert mine["position"].tolist() == list(range(cut))
        assert mine["piece"].tolist() == [run.encoder.tokenizer.piece(piece) for piece in pieces[:cut]]
    else:
        assert list(z.columns[:4]) == ["document", "title", "position", "e0"]
        assert mine["position"].tolist()[:2] == [0, 32]
        assert len(mine) in (len(pieces) // 32, len(pieces) // 32 + 1)


def test_commands_of_other_kinds_are_refused(capsys, runs, tmp_path):
    for kind, words in (("image", "images"), ("text", "text")):
        run = runs / kind
        about = f"and this run is of {words}: give another run"
        assert f"forecast is for series, which have rows to come, {about}" in fails(
            capsys, "forecast", run, "--out", tmp_path / "f.csv"
        )
        assert f"fine-tuning is for graphs and series, {about}" in fails(capsys, "finetune", run)
        assert f"fine-tuning, which is for graphs and series, {about}" in fails(
            capsys, "predict", run, "--out", tmp_path / "p.csv"
        )
        assert "--horizon is of series" in fails(capsys, "evaluate", run, "--horizon", "6")
        assert "forecasting is not for" in fails(capsys, "evaluate", run, "--task", "forecasting")
    assert list(tmp_path.iterdir()) == []
