"""Every run leaves a picture, and what it shows is what the model was given and says."""

import json
import sys

import numpy as np
import pytest
import torch
from small_pictures import DOCUMENTS, SMALL, images, text_settings, trained

import structmae
from structmae.errors import StructmaeError, UsageError
from structmae.recipe import HeadOptions
from structmae.report import images as of_images
from structmae.report import reconstruction, save_picture
from structmae.report.base import values
from structmae.targets import scaled

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import image, pyplot  # noqa: E402


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def rows(axes):
    """Each row of images (images, H, W, 4), gaps cut off."""
    found = []
    for ax in np.atleast_1d(axes):
        whole = np.asarray(ax.images[0].get_array())
        high, wide = whole.shape[0], whole.shape[1] // 6
        found.append(whole.reshape(high, 6, wide, 4).transpose(1, 0, 2, 3)[:, :, : wide - 1])
    return found


def covered(row):
    return np.isclose(row[..., :3], np.array([*bytes.fromhex(of_images.COVER[1:])]) / 255, atol=1e-6).all(-1)


def test_images_in_three_rows():
    run = trained(images(), "mae")
    axes = run.plot_reconstruction()
    given, seen, rebuilt = rows(axes)
    shown = [int(tick.get_text()) for tick in axes[-1].get_xticklabels()]
    assert set(shown) <= set(run.data().split["test"].tolist())
    x = images()[shown, 0]
    np.testing.assert_allclose(given[..., 0], (x - x.min()) / (x.max() - x.min()), atol=1e-5)
    hidden = covered(seen)
    assert (hidden.reshape(6, -1).sum(1) == 48).all()  # 75% of 8 x 8
    by_patch = hidden.reshape(6, 4, 2, 4, 2)
    assert (by_patch.all((2, 4)) == by_patch.any((2, 4))).all()
    np.testing.assert_allclose(seen[~hidden], given[~hidden], atol=1e-5)
    np.testing.assert_allclose(rebuilt[~hidden], given[~hidden], atol=1e-5)
    assert (rebuilt[hidden] != given[hidden]).any(-1).mean() > 0.9
    assert not covered(rebuilt).any()
    assert axes[0].get_title(loc="left").startswith("images: 75% hidden, mse of the hidden ")
    again = rows(run.plot_reconstruction(start=3))[0]
    assert not np.array_equal(again, given)
    np.testing.assert_array_equal(rows(run.plot_reconstruction(ax=pyplot.subplots(3)[1]))[1], seen)


def test_several_maps_have_three_rows_each():
    settings = {key: value for key, value in SMALL.items() if not key.startswith("heads.")}
    axes = structmae.pretrain("digits-maps", "multimae", settings=settings, progress=False).plot_reconstruction()
    assert [ax.get_ylabel().replace("\n", " ") for ax in axes[::3]] == [
        "image, input", "gradient, input", "threshold, input",
    ]  # fmt: skip
    found = rows(axes)
    hidden = np.stack([covered(row) for row in found[1::3]])
    assert (hidden.sum((0, 2, 3)) == 40 * 4).all()  # 5 of 6 patches, all maps together
    assert not np.isclose(found[2], found[0]).all()
    assert not any(covered(row).any() for row in found[2::3])


def test_a_causal_model_tells_each_pixel_from_those_before_it():
    run = trained(images(), "igpt", **{"tokens.palette": 4})
    axes = run.plot_reconstruction(start=0)
    given, seen, rebuilt = rows(axes)
    assert "after the true ones before it" in axes[0].get_title(loc="left")
    assert axes[1].get_ylabel() == "seen at the\nmiddle pixel"
    assert covered(seen)[:, 4:].all()
    np.testing.assert_array_equal(seen[:, :4], given[:, :4])
    assert len(np.unique(given[..., 0])) <= 4
    source = run.source(run.data())
    tokens = source.at(torch.arange(6))
    with torch.no_grad():
        said = run.model.heads["colours"].decoder(run.model.encode(tokens), torch.arange(6 * 64), None).argmax(1)
    ids = tokens["patch"].ids
    assert ids is not None
    tokenizer = source.tokenizer
    guess, true = (tokenizer.unnormalize(tokenizer.join(tokenizer.decode(part)))[:, 0].numpy() for part in (said, ids))
    low, high = true.min(), true.max()
    np.testing.assert_allclose(given[..., 0], (true - low) / (high - low), atol=1e-5)
    np.testing.assert_allclose(rebuilt[..., 0], (guess - low) / (high - low), atol=1e-5)
    share = (said == ids).float().mean()
    assert f"4 colours, {share:.0%} right" in axes[0].get_title(loc="left")
    masked = trained(images(), "igpt_masked", **{"tokens.palette": 4}).plot_reconstruction()
    assert 0.1 < covered(rows(masked)[1]).mean() < 0.2


def test_colour_images_with_gaps_and_patches_normalised_each_by_itself():
    x = images(channels=3)
    x[:, :, :2, :2] = np.nan
    run = trained(x, "mae", **{"heads.pixels.normalize": True})
    axes = run.plot_reconstruction(start=0)
    assert "up to its mean and deviation" in axes[0].get_title(loc="left")
    given, seen, rebuilt = rows(axes)
    low, high = np.nanmin(x[:6]), np.nanmax(x[:6])
    np.testing.assert_allclose(
        given[:, 2:, 2:, :3], (x[:6, :, 2:, 2:].transpose(0, 2, 3, 1) - low) / (high - low), atol=1e-5
    )
    for row in (given, seen, rebuilt):
        assert (row[:, :2, :2] == 1).all()  # never there, never hidden
    assert covered(seen).any()


def test_what_a_target_leaves_out_is_the_true_one():
    class Head:
        def __init__(self, **options):
            self.options, self.target = HeadOptions(of="patch", **options), self
            self.centres = torch.tensor([[0.0, 1.0], [2.0, 3.0]])

    true = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    observed = torch.ones(5, 4, dtype=torch.bool)
    observed[0, :2] = False
    true = true.where(observed, 0.0)
    head = Head(loss="mse", normalize=True)
    for there in (None, observed):
        back = values(head, scaled(true, there), true, there)
        keep = observed if there is not None else torch.ones_like(observed)
        torch.testing.assert_close(back[keep], true[keep], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values(Head(loss="sce"), 3 * true, true), true)
    assert values(Head(target="code", loss="ce"), torch.tensor([[0.0, 9.0]]), true[:1]).tolist() == [[2.0, 3.0]]
    assert values(Head(loss="mse"), 2 * true, true).equal(2 * true)


@pytest.mark.parametrize("data", ["karate", "molecules"])
def test_features_of_nodes_in_three_heat_maps(data, tiny, request):
    graphs = request.getfixturevalue(data)
    run = structmae.pretrain(graphs, settings={**tiny, "mask.random": 0.0}, progress=False)
    axes = run.plot_reconstruction()
    given, seen, rebuilt = (np.ma.filled(ax.images[0].get_array().astype(float), np.nan) for ax in axes)
    hidden = np.isnan(seen).all(1)
    assert hidden.any()
    assert not hidden.all()
    np.testing.assert_array_equal(hidden, np.sort(hidden)[::-1])  # above the visible ones
    np.testing.assert_array_equal(seen[~hidden], given[~hidden])
    np.testing.assert_array_equal(rebuilt[~hidden], given[~hidden])
    assert not np.isclose(rebuilt[hidden], given[hidden]).all(1).any()
    lengths = [np.linalg.norm(shown, axis=1) for shown in (rebuilt, given)]
    np.testing.assert_allclose(*lengths, rtol=1e-4)  # of all columns, which are few here
    assert "mean cosine of the hidden to the truth" in axes[0].texts[0].get_text()
    assert not np.array_equal(np.asarray(run.plot_reconstruction(start=2)[0].images[0].get_array()), given)


def places(ax, marker=0):
    return {tuple(place) for place in np.asarray(ax.collections[marker].get_offsets()).astype(int).tolist()}


def test_edges_in_three_matrices(karate, tiny):
    settings = {"train.epochs": 2, "encoder.hidden": 16, "heads.edges.hidden": 8, "heads.degree.hidden": 8}
    run = structmae.pretrain(karate, "maskgae_edge", settings=settings, progress=False)
    axes = run.plot_reconstruction()
    seen, hidden = places(axes[1]), places(axes[0], 1)
    assert len(seen | hidden) == karate.num_edges  # all 34 nodes are near each other
    assert not seen & hidden
    assert len(hidden) == pytest.approx(0.7 * karate.num_edges, abs=2)
    none, gone = axes[2].collections[1:3]
    assert places(axes[2], 2) == hidden
    assert not places(axes[2], 1) & (seen | hidden)
    assert len(none.get_offsets()) == len(gone.get_offsets())
    said = np.concatenate([np.asarray(part.get_array()) for part in (none, gone)])
    assert ((said > 0) & (said < 1)).all()
    assert f"mean probability of the {len(hidden) // 2} hidden ones shown {np.mean(gone.get_array()):.2f}" in (
        axes[0].texts[0].get_text()
    )
    assert len(places(run.plot_reconstruction(start=33)[0])) > 0


CASES = {
    "graph": ("karate", "graphmae", {"train.epochs": 1, "encoder.hidden": 8, "encoder.heads": 2}),
    "series": (
        np.random.default_rng(0).random((200, 2)).astype(np.float32), "patchtst",
        {"train.epochs": 1, "encoder.hidden": 8, "encoder.heads": 2, "encoder.layers": 1, "tokens.context": 48},
    ),
    "image": (images(), "mae", SMALL),
    "text": (DOCUMENTS, "bert", text_settings()),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_every_run_leaves_a_picture(kind, tmp_path, monkeypatch):
    data, recipe, settings = CASES[kind]
    before = pyplot.get_fignums()
    run = structmae.pretrain(data, recipe, settings=settings, out=tmp_path / "run", progress=False)
    assert run.result["picture"] == str(tmp_path / "run" / "picture.png")
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == run.result
    assert image.imread(run.result["picture"]).std() > 0.05
    assert pyplot.get_fignums() == before
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    notes = []
    bare = structmae.pretrain(data, recipe, settings=settings, out=tmp_path / "bare", progress=False, note=notes.append)
    assert notes[-1].startswith("no picture of this run: ")
    assert 'pip install "structmae[plots]"' in notes[-1]
    assert bare.result["picture"] is None
    assert sorted(path.name for path in (tmp_path / "bare").iterdir()) == [
        "config.json", "metrics.jsonl", "model.safetensors", "result.json",
    ]  # fmt: skip
    assert structmae.load(tmp_path / "bare").result == bare.result


def test_a_picture_that_fails_loses_nothing(tmp_path, monkeypatch):
    def fail(*at):
        raise ValueError("no such\ncolour")

    monkeypatch.setattr(reconstruction, "_scene", fail)
    notes = []
    data, recipe, settings = CASES["graph"]
    run = structmae.pretrain(
        data, recipe, settings=settings, out=tmp_path / "run", progress=False, evaluate=True, note=notes.append
    )
    assert notes[-1] == "no picture of this run: ValueError: no such colour"
    again = structmae.load(tmp_path / "run")
    assert again.result == run.result
    assert again.result["evaluation"] is not None
    assert structmae.pretrain(out=tmp_path / "run", resume=True, progress=False).result == run.result


def test_the_size_is_said_first(karate, tiny):
    notes = []
    structmae.pretrain(karate, settings=tiny, progress=False, note=notes.append)
    assert notes[0] == "recipe: graphmae, size tiny (the paper's: --set size=published)"
    structmae.pretrain(karate, settings={**tiny, "size": "published"}, progress=False, note=(notes := []).append)
    assert notes[0] == "recipe: graphmae, size published"


def test_refusals(karate, tiny, tmp_path):
    graphs, pixels = structmae.pretrain(karate, settings=tiny, progress=False), trained(images(), "mae")
    words = trained(DOCUMENTS, "bert", **text_settings())
    for run, start, message in (
        (graphs, 34, "karate has nodes 0 to 33"),
        (pixels, 40, "images has images 0 to 39"),
        (words, 999, "has windows 0 to "),
    ):
        with pytest.raises(UsageError, match=message):
            run.plot_reconstruction(start=start)
        with pytest.raises(UsageError, match="channel=1 is of series"):
            run.plot_reconstruction(channel=1)
        with pytest.raises(UsageError, match="ax: 2 axes; "):
            run.plot_reconstruction(ax=pyplot.subplots(2)[1])
    latent = {"heads.features.target": "latent", "heads.features.view": "second", "heads.features.loss": "mse"}
    only = structmae.pretrain(karate, settings={**tiny, **latent}, progress=False)
    with pytest.raises(UsageError, match="no head of graphmae rebuilds values or ids"):
        only.plot_reconstruction()
    tuned = structmae.finetune(graphs, settings={"finetune.head_epochs": 1, "finetune.epochs": 0}, progress=False)
    with pytest.raises(StructmaeError, match="no decoder"):
        save_picture(tuned, tmp_path)
