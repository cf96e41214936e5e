import json

import numpy as np
import pytest
import torch

import structmae
from structmae import train
from structmae.errors import StructmaeError, UsageError
from structmae.finetuning import TunedRun, finetune

QUICK = {"finetune.head_epochs": 2, "finetune.epochs": 3}
EAGER = {
    "finetune.head_epochs": 0, "finetune.epochs": 40, "finetune.dropout": 0.0, "finetune.lr": 0.01,
    "finetune.encoder_lr": 0.01, "finetune.batch_size": 8,
}  # fmt: skip
SERIES = {
    "tokens.context": 16,
    "tokens.segment": 4,
    "encoder.hidden": 8,
    "encoder.heads": 2,
    "encoder.feed_forward": 8,
    "encoder.layers": 1,
    "train.epochs": 1,
}


@pytest.fixture(scope="module")
def of_nodes(karate):
    return structmae.pretrain(
        karate, settings={"train.epochs": 3, "encoder.hidden": 16, "encoder.heads": 2}, progress=False
    )


@pytest.fixture(scope="module")
def waves():
    time = np.arange(240)
    noise = np.random.default_rng(0).normal(size=(240, 3)) * 0.1
    return (np.sin(time[:, None] / np.array([2.0, 3.0, 5.0])) + noise).astype(np.float32)


@pytest.fixture(scope="module")
def of_series(waves):
    return structmae.pretrain(waves, "patchtst", settings=SERIES, progress=False)


@pytest.fixture(scope="module")
def of_samples():
    """Two classes of recordings, told apart by their frequency."""
    rng = np.random.default_rng(1)
    y = np.arange(120) % 2
    time = np.arange(20)
    x = np.sin(time / np.where(y, 1.0, 3.0)[:, None] + rng.uniform(0, 6, (120, 1))) + rng.normal(size=(120, 20)) * 0.05
    data = structmae.load_data((x[:, None].astype(np.float32), y))
    settings = {**SERIES, "encoder.pool": "mean", "tokens.context": 20}
    return structmae.pretrain(data, "patchtst", settings=settings, progress=False)


def weights(run):
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_head_learns_alone_and_then_with_the_encoder(of_nodes):
    head_only = finetune(of_nodes, settings={"finetune.head_epochs": 3, "finetune.epochs": 0}, progress=False)
    assert same(of_nodes.encoder.state_dict(), head_only.encoder.state_dict())
    both = finetune(of_nodes, settings=EAGER, progress=False)
    assert both.result["best_epoch"] > 0
    assert not same(of_nodes.encoder.state_dict(), both.encoder.state_dict())
    assert both.result["loss_last"] < both.result["loss_first"]


def test_the_pre_trained_run_is_left_as_it_was(of_nodes):
    before = weights(of_nodes)
    finetune(of_nodes, settings=QUICK, progress=False)
    assert same(before, weights(of_nodes))
    assert of_nodes.encoder.training is False


def test_labels_of_validation_and_test_do_not_teach(karate, of_nodes):
    from dataclasses import replace

    others = karate.y.clone()
    others[karate.split["test"]] = (others[karate.split["test"]] + 1) % 4
    one = finetune(of_nodes, data=karate, settings=QUICK, progress=False)
    other = finetune(of_nodes, data=replace(karate, y=others), settings=QUICK, progress=False)
    assert same(weights(one), weights(other))


def test_a_class_that_shows_is_learnt_and_predicted(of_samples):
    run = finetune(of_samples, settings=EAGER, evaluate=True, progress=False)
    evaluation = run.result["evaluation"]
    assert evaluation["pretrained"] >= 0.9
    assert {row["features"] for row in evaluation["rows"]} == {"pretrained", "random_init"}
    table = run.predict()
    assert list(table.columns) == ["id", "label", "share_0", "share_1"]
    assert np.allclose(table[["share_0", "share_1"]].sum(axis=1), 1, atol=1e-5)
    right = table["label"].to_numpy() == [run.data().classes[code] for code in run.data().y]
    assert right.mean() >= 0.9


def test_graphs_too(molecules):
    from structmae.data.graphs import Graphs

    many = structmae.load_data(_rings())
    assert isinstance(many, Graphs)
    base = structmae.pretrain(many, settings={"train.epochs": 2, "encoder.hidden": 8}, progress=False)
    run = finetune(base, settings={"finetune.epochs": 30, "finetune.batch_size": 4}, progress=False)
    assert run.task == "graph_classification"
    assert len(run.predict()) == many.num_items


def _rings():
    from torch_geometric.data import Data

    made = []
    for index in range(24):
        nodes = 5 + index % 3
        ring = torch.arange(nodes)
        kinds = torch.full((nodes, 1), index % 2)
        made.append(Data(x=kinds, edge_index=torch.stack([ring, (ring + 1) % nodes]), y=torch.tensor([index % 2])))
    return made


def test_a_forecast_starts_at_the_ridge_and_gets_no_worse_on_validation(of_series):
    from structmae.evaluate.forecasting import fit_head

    options = {"finetune.head_epochs": 0, "finetune.epochs": 2, "finetune.horizon": 6}
    wild = finetune(of_series, settings={**options, "finetune.lr": 10.0, "finetune.encoder_lr": 10.0}, progress=False)
    ridge = fit_head(of_series.encoder, of_series.source(of_series.data()), 6, of_series.recipe, skip=True)
    assert wild.result["best_epoch"] == 0
    assert wild.result["validation"] == pytest.approx(ridge.linear.validation, rel=1e-4)
    assert torch.allclose(wild.model.head.weight, ridge.linear.weight, atol=1e-6)
    tame = finetune(of_series, settings={**options, "finetune.lr": 1e-4}, evaluate=True, progress=False)
    assert tame.result["validation"] <= wild.result["validation"]
    (row,) = tame.result["evaluation"]["rows"]
    low, high = tame.data().split["test"]
    assert (row["horizon"], row["n_windows"]) == (6, high - low - 6 + 1)
    assert tame.result["evaluation"]["pretrained"] == row["mse"]


def test_test_rows_do_not_change_what_is_learnt(waves):
    other = waves.copy()
    other[-40:] = 7.0
    runs = [structmae.pretrain(x, "patchtst", settings=SERIES, progress=False) for x in (waves, other)]
    options = {"finetune.head_epochs": 0, "finetune.epochs": 1, "finetune.horizon": 6}
    one, two = (finetune(run, settings=options, progress=False) for run in runs)
    assert same(weights(one), weights(two))


@pytest.mark.parametrize("ratio", [0.3, 0.6])
def test_tokens_can_be_hidden_while_fine_tuning(of_nodes, of_samples, ratio):
    for base in (of_nodes, of_samples):
        plain = finetune(base, settings=QUICK, progress=False)
        hidden = finetune(base, settings={**QUICK, "finetune.mask_ratio": ratio}, progress=False)
        assert hidden.result["loss_last"] != plain.result["loss_last"]
        assert len(hidden.predict()) == len(plain.predict())  # whole data, whatever was hidden


def test_a_saved_run_gives_what_it_gave(of_samples, of_series, tmp_path):
    run = finetune(of_samples, settings=QUICK, out=tmp_path / "classes", evaluate=True, progress=False)
    loaded = structmae.load(tmp_path / "classes")
    assert isinstance(loaded, TunedRun)
    assert loaded.predict(run.data()).equals(run.predict())
    assert loaded.result["evaluation"] == run.result["evaluation"]
    loaded._data = run.data()
    again = loaded.evaluate()  # the other arm comes from its file
    assert again == run.result["evaluation"]
    assert json.loads((tmp_path / "classes" / "config.json").read_text())["task"]["name"] == "classification"


def test_a_killed_run_goes_on_to_the_same_bits(of_nodes, tmp_path, monkeypatch):
    options = {"settings": {**QUICK, "train.save_every": 1}, "progress": False, "evaluate": True}
    whole = finetune(of_nodes, out=tmp_path / "whole", **options)
    real, calls = train._epoch, iter(range(99))

    def dies(*args):
        if next(calls) == 3:
            raise RuntimeError("power cut")
        return real(*args)

    monkeypatch.setattr(train, "_epoch", dies)
    with pytest.raises(RuntimeError):
        finetune(of_nodes, out=tmp_path / "killed", **options)
    monkeypatch.setattr(train, "_epoch", real)
    resumed = finetune(of_nodes, out=tmp_path / "killed", resume=True, **options)
    assert same(weights(whole), weights(resumed))
    assert whole.result["evaluation"] == resumed.result["evaluation"]
    assert resumed.result["best_epoch"] == whole.result["best_epoch"]
    with pytest.raises(StructmaeError, match="cannot go on with other options: recipe"):
        finetune(of_nodes, out=tmp_path / "killed", resume=True, settings={"finetune.epochs": 9})


def test_what_cannot_be_done_is_refused(of_nodes, of_series, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tuned = finetune(of_nodes, settings=QUICK, progress=False)
    for call, words in (
        (lambda: finetune(of_series, "imputation"), "imputation has no head to fine-tune"),
        (lambda: finetune(of_series, "classification"), "is one recording"),
        (lambda: finetune(of_series, "node_classification"), "is not for series data: there are forecasting"),
        (lambda: finetune(of_nodes, "nonsense"), "unknown task"),
        (lambda: finetune(of_nodes, settings={"encoder.hidden": 3}), "only finetune"),
        (lambda: finetune(of_nodes, settings={"finetune.horizon": 3}), "unknown key"),
        (lambda: finetune(of_nodes, settings={"finetune.epochs": 0, "finetune.head_epochs": 0}), "nothing would be"),
        (lambda: finetune(tuned), "is fine-tuned already"),
        (lambda: tuned.evaluate(task="graph_classification"), "was fine-tuned for node_classification"),
    ):
        with pytest.raises(UsageError, match=words):
            call()
    with pytest.raises(StructmaeError, match="horizon 200"):
        finetune(of_series, settings={"finetune.horizon": 200})
    assert list(tmp_path.iterdir()) == []


def test_other_data_is_scored_by_the_classes_of_the_run(of_samples):
    run = finetune(of_samples, settings=EAGER, progress=False)
    own = run.data()
    x = own.windows(own.ptr[:-1], 20)
    ones = np.flatnonzero(own.y == 1)
    renamed = structmae.load_data((x[ones], np.array(["1"] * len(ones)), (list(range(20)), list(range(20, len(ones))))))
    assert renamed.y[0] == 0  # its own code for class "1"
    right = run.predict(renamed)["label"] == "1"
    assert right.mean() >= 0.9
    assert run.evaluate(renamed)["pretrained"] == pytest.approx(right.to_numpy()[20:].mean())
    strange = structmae.load_data((x, np.array(["a", "b"] * 60)))
    with pytest.raises(StructmaeError, match="has class 'a': this run knows 0, 1"):
        run.evaluate(strange)


def test_recordings_that_a_window_does_not_hold_are_refused(of_samples):
    run = finetune(of_samples, settings=QUICK, progress=False)
    longer = structmae.load_data((np.zeros((4, 1, 31), np.float32), np.array([0, 1, 0, 1])))
    with pytest.raises(StructmaeError, match="up to 31 rows, and the encoder reads 20"):
        run.predict(longer)


def test_other_series_are_scaled_by_their_own_training_rows(waves):
    settings = {**SERIES, "tokens.window_norm": False}
    run = structmae.pretrain(waves, "patchtst", settings=settings, progress=False)
    own, large = run.evaluate(horizons=[4]), run.evaluate(waves * 1000 + 5, horizons=[4])
    assert large["last_value"] == pytest.approx(own["last_value"], rel=1e-3)
    assert large["pretrained"] == pytest.approx(own["pretrained"], rel=1e-2)
    tuned = finetune(
        run, data=waves[:, :2] * 1000, settings={"finetune.epochs": 1, "finetune.horizon": 4}, progress=False
    )
    assert tuned.encoder.tokenizer.channels == ("c0", "c1")
    assert run.encoder.tokenizer.channels == ("c0", "c1", "c2")
    assert tuned.encoder.tokenizer.deviation.max() > 100 * run.encoder.tokenizer.deviation.max()
    assert len(tuned.forecast(horizon=4)) == 4


def test_a_run_goes_on_with_the_encoder_that_it_began_with(of_nodes, karate, tmp_path):
    finetune(of_nodes, settings=QUICK, out=tmp_path / "r", progress=False)
    settings = {"train.epochs": 4, "encoder.hidden": 16, "encoder.heads": 2}
    other = structmae.pretrain(karate, settings=settings, progress=False)
    with pytest.raises(StructmaeError, match="base differ"):
        finetune(other, settings=QUICK, out=tmp_path / "r", resume=True, progress=False)
    with pytest.raises(StructmaeError, match="go on with structmae finetune"):
        structmae.pretrain(karate, out=tmp_path / "r", resume=True, progress=False)


def test_another_seed_of_fine_tuning_leaves_the_other_arm_its_encoder(of_nodes):
    run = finetune(of_nodes, settings={**QUICK, "finetune.epochs": 0}, seed=5, progress=False)
    arm = run.initial_model()
    assert same(of_nodes.initial_encoder().state_dict(), arm.encoder.state_dict())


def test_a_notebook_shows_every_evaluation(of_series, of_nodes):
    of_series.result["evaluation"] = of_series.evaluate(horizons=[4])
    assert "pretrained" in of_series._repr_html_()
    assert "nlinear" in of_series._repr_html_()
    of_nodes.evaluate()
    assert "raw features" in of_nodes._repr_html_()


def test_test_rows_without_an_observed_target_are_refused(waves):
    blank = waves.copy()
    blank[-48:] = np.nan
    run = structmae.pretrain(blank, "patchtst", settings=SERIES, progress=False)
    with pytest.raises(StructmaeError, match="no target of the test part is observed"):
        finetune(run, settings={"finetune.epochs": 1, "finetune.horizon": 4}, evaluate=True, progress=False)


def test_what_fails_at_once_leaves_no_folder(of_series, waves, tmp_path):
    wild = {**SERIES, "train.lr": 1e30, "train.epochs": 3}
    with pytest.raises(StructmaeError, match="the loss is"):
        structmae.pretrain(waves, "patchtst", settings=wild, out=tmp_path / "a", progress=False)
    blank = waves.copy()
    blank[::2, 0] = blank[1::2, 1:] = np.nan
    with pytest.raises(StructmaeError, match="no training window has all its targets observed"):
        finetune(of_series, data=blank, settings={"finetune.horizon": 4}, out=tmp_path / "b", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_another_number_of_channels_is_refused(of_samples):
    run = finetune(of_samples, settings=QUICK, progress=False)
    three = structmae.load_data((np.zeros((4, 3, 20), np.float32), np.array([0, 1, 0, 1])))
    with pytest.raises(StructmaeError, match="has 3 channels: this run's head reads 1"):
        run.predict(three)


def test_a_run_embeds_its_own_series_whatever_they_were_read_with(waves, tmp_path):
    np.save(tmp_path / "x.npy", waves)
    settings = {**SERIES, "data.split": "0.5/0.2/0.3"}
    run = structmae.pretrain(str(tmp_path / "x.npy"), "patchtst", settings=settings, progress=False)
    assert torch.equal(run.embed(run.data()), run.embed())
