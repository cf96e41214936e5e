"""Losses beside those of the heads: what they say, and that any recipe takes them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from small_images import SMALL, batch_of, drawn, ready
from small_series import parts as series_parts
from torch import nn

from structmae import registry, resolve, terms, train
from structmae.checkpoint import Checkpoint
from structmae.errors import StructmaeError
from structmae.nn.base import Encoded, Encoder
from structmae.planning import Planner
from structmae.precision import autocast
from structmae.run import build
from structmae.terms import Clustering, Infonce, Uniformity, cosines, uniformity
from structmae.train import fit

CPU = torch.device("cpu")
ALL = {
    "terms.infonce.weight": 0.1, "terms.uniformity.weight": 0.1, "terms.clustering.weight": 0.1,
    "terms.clustering.clusters": 3, "terms.clustering.start": 0.0,
}  # fmt: skip
NAMES = [name for name in registry.names("recipe") if name != "custom"]


def made(name, graphs, **changes):
    """Model, source and recipe of any name: on the graph, or on series, images or text of the tests' own."""
    if name in SMALL:
        return ready(name, **changes)
    known = resolve(name)
    if known.modality == "series":
        recipe, model, source = series_parts(name, **changes)
        return model, source, recipe
    small = {"encoder.layers": 1, "encoder.hidden": 8, "encoder.heads": 2, "train.epochs": 2, "train.batch_size": 8}
    recipe = resolve(name, {**small, "encoder.dropout": 0.0, **changes}, level=graphs.level)
    modality = registry.get("modality", "graph")
    tokenizer = modality.fit(graphs, recipe)
    return build(recipe, tokenizer), modality.source(graphs, tokenizer, CPU), recipe


@pytest.mark.parametrize("name", NAMES)
def test_any_recipe_takes_all_terms(name, karate):
    """One epoch: each has a loss and a gradient that reaches the encoder; the weights move, and stay finite."""
    moved = {"views.second.augment": "shift"} if name == "igpt" else {}  # which hides nothing
    model, source, recipe = made(name, karate, **ALL, **moved, **{"train.epochs": 1})
    own = set(model.heads)
    assert set(model.terms) == {"infonce", "uniformity", "clustering"}
    model.train().begin(0, source)
    items = torch.arange(min(8, source.num_items))
    losses = model(Planner.of(recipe).batch(source, items, visit=0, step=0))
    assert set(losses.terms) == own | set(model.terms)
    total = sum(model.weights[key] * loss for key, loss in losses.terms.items())
    torch.testing.assert_close(losses.total, total)
    assert 0 <= losses.facts["smallest_cluster"] <= 1 / 3
    for key in model.terms:
        wanted = [weight for weight in model.encoder.parameters() if weight.requires_grad]
        found = torch.autograd.grad(losses.terms[key], wanted, retain_graph=True, allow_unused=True)
        assert any(part is not None and bool(part.any()) for part in found), key
    position = fit(model, source, recipe, device=CPU, progress=False)
    assert math.isfinite(position.loss_last)
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


def test_without_weights_there_are_no_terms(karate):
    for name in NAMES:
        assert set(made(name, karate)[0].terms) == ({"infonce"} if name == "cmae" else set()), name


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 7), scale=st.sampled_from([0.5, 2.0]))
def test_uniformity_is_its_formula(seed, count, scale):
    x = np.random.default_rng(seed).normal(size=(count, 4))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    pairs = [math.exp(-scale * ((x[i] - x[j]) ** 2).sum()) for i in range(count) for j in range(i)]
    assert float(uniformity(torch.tensor(x), scale)) == pytest.approx(math.log(np.mean(pairs)))


class Given(Encoder):
    """An encoder of vectors that are given."""

    name, width, token_widths = "patch", 4, {"patch": 4}

    def units(self, encoded):
        return encoded.latent["patch"], encoded.kept["patch"]

    embed = encode = vectors = decoder = None


def units(vectors, names=None):
    """Vectors of items, and the items' numbers."""
    which = torch.arange(len(vectors)) if names is None else torch.tensor(names)
    return Encoded({"patch": vectors}, {}, {}, {"patch": which})


def test_uniformity_is_of_normalised_vectors_of_a_batch(monkeypatch):
    recipe = resolve("mae", {"size": "tiny", "terms.uniformity.weight": 0.3, "terms.uniformity.scale": 3.0})
    term = Uniformity(recipe, Given())
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [9], [3], [2], [1], [5]])
    expected = uniformity(nn.functional.normalize(x, dim=1), 3.0)
    assert term.weight == 0.3
    assert torch.equal(term(Given(), units(x), {}), expected)
    assert torch.equal(term(Given(), units(4 * x), {}), expected)
    assert term(Given(), units(x[:1]), {}) is None
    spread = torch.eye(3)
    assert term(Given(), units(spread), {}) < term(Given(), units(torch.ones(3, 3) + 0.1 * spread), {})
    same = torch.ones(3, 2, requires_grad=True)
    term(Given(), units(same), {}).backward()
    assert torch.isfinite(same.grad).all()
    monkeypatch.setattr(terms, "MOST", 2)
    of_two = {
        round(float(uniformity(nn.functional.normalize(x[[i, j]], dim=1), 3.0)), 5) for i in range(6) for j in range(i)
    }
    assert round(float(term(Given(), units(x), {})), 5) in of_two


def infonce(**changes):
    recipe = resolve("mae", {"size": "tiny", "terms.infonce.weight": 0.5, "terms.infonce.temperature": 0.25, **changes})
    term = Infonce(recipe, Given())
    term.project = term.predict = nn.Identity()
    return term


def test_infonce_is_its_formula():
    """-log of the share that an item's other view has of all others' similarities."""
    term, generator = infonce(), torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 5, 4, generator=generator).double()
    a, b = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
    alike = (a.numpy() @ b.numpy().T) / 0.25
    expected = np.mean([-math.log(math.exp(alike[i, i]) / np.exp(alike[i]).sum()) for i in range(5)])
    assert float(term(Given(), units(x), {"second": units(y)})) == pytest.approx(expected)
    assert float(term(Given(), units(x), {"second": units(100 * x)})) < 0.5 * expected
    assert term(Given(), units(x[:1]), {"second": units(y[:1])}) is None


def test_infonce_compares_what_both_views_have(monkeypatch):
    term, generator = infonce(), torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 5, 4, generator=generator)
    both = term(Given(), units(x[[1, 3]]), {"second": units(y[[1, 3]])})
    found = term(Given(), units(x[[0, 1, 3]], [0, 1, 3]), {"second": units(y[[1, 2, 3, 4]], [1, 2, 3, 4])})
    assert torch.equal(found, both)
    apart = term(Given(), units(x[:2], [0, 1]), {"second": units(y[2:4], [2, 3])})
    assert apart is None
    monkeypatch.setattr(terms, "MOST", 2)
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    of_two = {round(float(term(Given(), units(x[[*pair]]), {"second": units(y[[*pair]])})), 5) for pair in pairs}
    assert round(float(term(Given(), units(x), {"second": units(y)})), 5) in of_two


@pytest.mark.parametrize("name", ["mae", "multimae", "bert", "patchtst", "graphmae", "gmae"])
def test_the_second_view_is_another_draw(name, karate):
    model, source, recipe = made(name, karate, **{"terms.infonce.weight": 0.1})
    batch = batch_of(source, recipe, torch.arange(min(8, source.num_items)))
    part = next(iter(batch.tokens))
    assert list(batch.views) == ["second"]
    one, other = batch.plans[part], batch.views["second"].plans[part]
    assert len(one.hidden) == len(other.hidden)
    assert not torch.equal(one.hidden, other.hidden)
    model.eval()
    with torch.no_grad():
        first, second = model.encode(batch.tokens, batch.plans), model._view("second", batch.views["second"])
        assert not torch.equal(model.encoder.units(first)[0][:1], model.encoder.units(second)[0][:1])


def test_a_feature_decoder_gives_every_place_a_vector():
    """With layers, the vectors that are compared are means over all places, those of hidden ones by the decoder."""
    model, _, batch = drawn("cmae")
    term = model.terms["infonce"]
    with torch.no_grad():
        encoded = model.encode(batch.tokens, batch.plans)
        found, which = term._own(model.encoder, encoded)
        every = torch.arange(len(encoded.tokens["patch"]))
        decoded = term.decoder(encoded, every, None)
        assert torch.equal(which, torch.arange(8))
        torch.testing.assert_close(found, decoded.view(8, 36, 16).mean(1))
        plain, _ = model.encoder.units(encoded)
    assert not torch.allclose(found, plain)


def clustering(**changes):
    model, source, recipe = ready("mae", **{**{k: v for k, v in ALL.items() if "clustering" in k}, **changes})
    return model, source, recipe, model.terms["clustering"]


def test_clusters_begin_at_k_means_of_items():
    """Of what the encoder makes of them with nothing hidden; shares are those of the assignment."""
    model, source, _, term = clustering(**{"train.epochs": 4, "terms.clustering.start": 0.5})
    assert (term.start, term.weight, bool(term.running)) == (2, 0.1, False)
    model.train()
    for epoch in (0, 1):
        model.begin(epoch, source)
        assert not term.running
        assert not term.centres.any()
    model.begin(2, source)
    assert term.running
    assert model.encoder.training
    with torch.no_grad():
        vectors = model.encoder.represent(source.batch(torch.arange(source.num_items)))
    expected = KMeans(3, random_state=0, n_init=10).fit(vectors.numpy())
    np.testing.assert_allclose(term.centres.detach(), expected.cluster_centers_, atol=1e-5)
    np.testing.assert_allclose(term.share, np.bincount(expected.labels_, minlength=3) / source.num_items, atol=1e-6)
    centres = term.centres.detach().clone()
    model.begin(3, source)
    assert torch.equal(term.centres, centres)


def test_clustering_draws_to_sharper_assignments():
    """The divergence of Student's t from its square over the share, against a loop; the share is a running mean."""
    model, source, recipe, term = clustering()
    model.begin(0, source)
    batch = batch_of(source, recipe, torch.arange(8))
    whole = model._view("whole", batch.views["whole"])
    assert not batch.views["whole"].plans
    z, c = model.encoder.units(whole)[0].detach().double().numpy(), term.centres.detach().double().numpy()
    before = term.share.double().numpy().copy()
    term.train()
    found = term(model.encoder, whole, {"whole": whole})
    near = np.array([[1 / (1 + ((row - centre) ** 2).sum()) for centre in c] for row in z])
    soft = near / near.sum(1, keepdims=True)
    np.testing.assert_allclose(term.assign(model.encoder.units(whole)[0]).detach(), soft, rtol=1e-4)
    share = 0.9 * before + 0.1 * soft.mean(0)
    np.testing.assert_allclose(term.share, share, rtol=1e-5)
    sharp = soft**2 / share
    sharp /= sharp.sum(1, keepdims=True)
    expected = (sharp * np.log(sharp / soft)).sum(1).mean()
    assert found.item() == pytest.approx(expected, rel=1e-3)
    assert float(term.share.sum()) == pytest.approx(1)
    occupied = 0.9 * before + 0.1 * np.bincount(soft.argmax(1), minlength=len(before)) / len(soft)
    assert term.facts() == {
        "smallest_cluster": pytest.approx(occupied.min()), "largest_cluster": pytest.approx(occupied.max()),
    }  # fmt: skip
    found.backward()
    assert term.centres.grad.any()
    kept = term.share.clone()
    term.eval()(model.encoder, whole, {"whole": whole})
    assert torch.equal(term.share, kept)


def test_before_its_epoch_clustering_is_no_part_of_the_loss(tmp_path):
    changes = {"train.epochs": 4, "terms.clustering.start": 0.5}
    model, source, recipe, term = clustering(**changes)
    fit(model, source, recipe, device=CPU, checkpoint=Checkpoint(tmp_path), progress=False)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ["loss_clustering" in line for line in lines] == [False, False, True, True]
    assert ["smallest_cluster" in line for line in lines] == [False, False, True, True]
    assert all(0 < line["smallest_cluster"] <= 1 / 3 for line in lines[2:])
    assert float(term.share.sum()) == pytest.approx(1)
    plain, same_source, without = ready("mae", **{"train.epochs": 4})
    short = replace(without, train=replace(without.train, epochs=2, schedule="constant"))
    model, source, recipe, _ = clustering(**{**changes, "train.schedule": "constant"})
    recipe = replace(recipe, train=replace(recipe.train, epochs=2))
    fit(plain, same_source, short, device=CPU, progress=False)
    fit(model, source, recipe, device=CPU, progress=False)
    state, other = plain.encoder.state_dict(), model.encoder.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_too_few_items_for_the_clusters():
    model, source, _, _ = clustering(**{"terms.clustering.clusters": 500})
    with pytest.raises(StructmaeError, match=r"clusters=500, but there are \d+ items: lower it"):
        model.begin(0, source)


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("name", ["mae", "graphmae"])
def test_a_stopped_run_with_terms_goes_on_to_the_same_bits(name, stop, karate, tmp_path, monkeypatch):
    """Stopped before clusters begin, at that epoch, and after it."""
    changes = {**ALL, "train.epochs": 4, "terms.clustering.start": 0.5, "train.save_every": 1}
    whole, source, recipe = made(name, karate, **changes)
    fit(whole, source, recipe, device=CPU, progress=False)
    real, calls = train._epoch, iter(range(9))

    def dies(*args):
        if next(calls) == stop:
            raise RuntimeError("power cut")
        return real(*args)

    for epoch in (dies, real):
        monkeypatch.setattr(train, "_epoch", epoch)
        model = made(name, karate, **changes)[0]
        arguments = {"device": CPU, "checkpoint": Checkpoint(tmp_path), "progress": False}
        if epoch is dies:
            with pytest.raises(RuntimeError, match="power cut"):
                fit(model, source, recipe, **arguments)
        else:
            fit(model, source, recipe, **arguments)
    state, other = whole.state_dict(), model.state_dict()
    assert "terms.clustering.share" in state
    assert all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_compared_in_float32_in_a_step_of_bfloat16(name, karate):
    """Any recipe steps in bfloat16, and the terms are as exact as the vectors that they are given."""
    moved = {"views.second.augment": "shift"} if name == "igpt" else {}  # which hides nothing
    model, source, recipe = made(name, karate, **ALL, **moved)
    model.train().begin(0, source)
    batch = Planner.of(recipe).batch(source, torch.arange(min(8, source.num_items)), visit=0, step=0)
    with autocast("bf16", CPU):
        losses = model(batch)
    assert all(losses.terms[key].dtype == torch.float32 for key in model.terms)
    losses.total.backward()
    found = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert all(gradient.dtype == torch.float32 and bool(gradient.isfinite().all()) for gradient in found)


def test_cosines_are_exact_whatever_their_rows_are():
    """Row by row the cosine, in float32 at least, inside of autocast too."""
    one, other = torch.randn(2, 6, 8).unbind()
    expected = F.cosine_similarity(one[:, None], other[None], dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(cosines(one, other), expected)
        assert cosines(one.bfloat16(), other).dtype == torch.float32
        assert cosines(one.double(), other.double()).dtype == torch.float64


def test_terms_are_saved_with_a_run():
    model, _, _, _ = clustering()
    names = set(model.state_dict())
    assert {"terms.clustering.centres", "terms.clustering.share", "terms.clustering.running"} <= names
    assert isinstance(model.terms["clustering"], Clustering)
