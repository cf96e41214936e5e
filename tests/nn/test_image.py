import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_images import MAPS, drawn, images, ready

import structmae
from structmae.errors import StructmaeError
from structmae.nn.build import build_encoder

NAMES = ("mae", "multimae", "igpt", "igpt_masked")


fixed = cache(ready)


def data_of(name, **changes):
    return images(maps=MAPS if name == "multimae" else (("image", 1),), **changes)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("pool", ["none", "mean"])
@pytest.mark.parametrize("name", NAMES)
def test_raw_values_give_what_the_source_gives(name, pool, missing):
    data = data_of(name, missing=missing)
    model, source, _ = ready(name, data, **{"encoder.pool": pool})
    encoder = model.eval().encoder
    rows = torch.tensor([3, 30, 11, 3])
    with torch.no_grad():
        together = encoder.represent(source.at(rows))
        assert torch.equal(encoder(data.x[rows]), together)
        alone = torch.cat([encoder(data.x[row : row + 1]) for row in rows])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    tokens = {"mae": 9, "multimae": 27}.get(name, 36)
    assert together.shape == (4 if pool == "mean" else 4 * tokens, 16)
    assert torch.isfinite(together).all()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), garbage=st.sampled_from([0.0, 1e6, -3.0]))
def test_missing_values_are_not_read(name, seed, garbage):
    """NaN, or any value that is said to be not observed: the same to the last bit."""
    model, source, _ = fixed(name)
    encoder, x = model.eval().encoder, source.images.x[:3].clone()
    there = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    with torch.no_grad():
        expected = encoder(x.where(there, torch.nan))
        assert torch.equal(expected, encoder(x.where(there, garbage), there))
        assert not torch.equal(expected, encoder(x.where(there, garbage)))
        assert torch.isfinite(encoder(torch.full_like(x, torch.nan))).all()


def test_a_patch_of_nothing_is_not_read():
    """Its row is zeros, and the others are as in an image whose patch was dropped."""
    model, _, batch = drawn("mae", **{"encoder.pool": "none"})
    encoder, part = model.encoder, batch.tokens["patch"]
    x = encoder.tokenizer.unnormalize(encoder.tokenizer.join(part.values))
    x[:, :, 2:4, 4:6] = torch.nan  # patch 5 of 9
    with torch.no_grad():
        found = encoder(x).view(8, 9, 16)
        others = [place for place in range(72) if place % 9 != 5]
        rest = part.only(torch.tensor(others))
        expected = encoder.read({"patch": rest}).latent["patch"].view(8, 8, 16)
    assert not found[:, 5].any()
    torch.testing.assert_close(found[:, [0, 1, 2, 3, 4, 6, 7, 8]], expected, rtol=1e-4, atol=1e-5)


def test_each_map_has_a_projection_of_its_own():
    """Training one leaves the others' content as it is."""
    model, _, batch = drawn("multimae")
    encoder, part = model.encoder, batch.tokens["patch"]
    with torch.no_grad():
        before = encoder.embed(batch.tokens)["patch"]
        for kind in range(3):
            torch.testing.assert_close(before[part.kind == kind], encoder.project[kind](part.values[part.kind == kind]))
        encoder.project[1].weight.add_(1.0)
        changed = (encoder.embed(batch.tokens)["patch"] != before).any(1)
    assert torch.equal(changed, part.kind == 1)


def test_colours_have_a_vector_each():
    model, _, batch = drawn("igpt")
    encoder, part = model.encoder, batch.tokens["patch"]
    with torch.no_grad():
        assert torch.equal(encoder.embed(batch.tokens)["patch"], encoder.embedding.weight[part.ids] * math.sqrt(16))
    assert encoder.vocabulary == encoder.tokenizer.vocabulary == 5


@pytest.mark.parametrize("name", [*NAMES, "cmae"])
def test_every_weight_of_the_encoder_learns(name):
    model, _, batch = drawn(name)
    model.train()(batch).total.backward()
    idle = [key for key, p in model.encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_is_made_of_the_settings_of_a_tokenizer(name):
    model, source, recipe = ready(name)
    again = build_encoder(recipe, source.tokenizer.config())
    again.load_state_dict(model.encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(source.images.x[:3]), model.eval().encoder(source.images.x[:3]))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 6, 6), r"must be \(B, C, H, W\)"),
        ((0, 1, 6, 6), r"must be \(B, C, H, W\)"),
        ((2, 1, 6, 8), "images of 1 x 6 x 8: this encoder reads 1 x 6 x 6"),
        ((2, 3, 6, 6), "images of 3 x 6 x 6: this encoder reads 1 x 6 x 6"),
    ],
)
def test_images_of_another_shape_are_refused(shape, words):
    model, _, _ = ready("mae")
    with pytest.raises(StructmaeError, match=words):
        model.encoder(torch.zeros(shape))


def test_whole_numbers_are_read_as_values():
    model, source, _ = ready("mae")
    encoder = model.eval().encoder
    x = (source.images.x[:2] * 3).round()
    with torch.no_grad():
        assert torch.equal(encoder(x.double()), encoder(x))


def test_the_encoder_can_be_trained():
    model, source, _ = ready("mae", images(missing=0.2))
    x = source.images.x[:3].clone().requires_grad_()
    model.train().encoder(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert not x.grad[x.isnan()].any()
    assert x.grad.any()


def test_windows_see_near_patches_only():
    """With one layer and a reach of 1, a corner does not see the other corner, and does see its neighbour."""
    model, source, _ = ready("mae", **{"encoder.attention": "window", "encoder.window": 1, "encoder.pool": "none"})
    encoder, x = model.eval().encoder, source.images.x[:1]
    far, by = x.clone(), x.clone()
    far[..., 4:, 4:] += 1.0
    by[..., 2:4, 2:4] += 1.0
    with torch.no_grad():
        corner, of_far, of_by = (encoder(each)[0] for each in (x, far, by))
    assert torch.equal(corner, of_far)
    assert not torch.equal(corner, of_by)


def test_images_of_several_channels():
    """One map of three channels: a patch has all of them."""
    data = replace(images(maps=(("image", 3),)), maps=(("image", 3),))
    model, _, _ = ready("mae", data)
    assert model.encoder.token_widths == {"patch": 12}
    with torch.no_grad():
        one = model.eval().encoder(data.x[:2])
        other = data.x[:2].clone()
        other[:, 2, 0, 0] += 1.0
        assert not torch.equal(one, model.encoder(other))


def test_bytes_are_read_as_images_are_loaded():
    """uint8 values from 0 to 255 are the same image as floats from 0 to 1, in an array too."""
    x = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    run = structmae.pretrain(x, recipe="mae", settings={"tokens.patch": 2, "train.epochs": 1}, progress=False)
    with torch.no_grad():
        torch.testing.assert_close(run.encoder(torch.from_numpy(x)), run.embed())
        torch.testing.assert_close(run.encoder(torch.from_numpy(x).float() / 255), run.embed())
    with pytest.raises(StructmaeError, match="images of 3 x 8 x 8: this encoder reads 1 x 8 x 8"):
        run.encoder(torch.zeros(2, 3, 8, 8))
