import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_series import OF, parts, values

from structmae import resolve
from structmae.data.series_loading import load_series
from structmae.errors import StructmaeError, UsageError
from structmae.nn.build import build_encoder

POOLS = ("none", "mean", "sum", "max")


def raw(source, starts):
    """Windows (B, C, T) as the data set has them, NaN where missing."""
    return torch.from_numpy(source.series.windows(np.asarray(starts), source.context))


def awake(model):
    """A model whose map of missing values has learnt something."""
    torch.nn.init.normal_(model.encoder.missing.weight, std=0.1)
    return model.encoder


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", OF)
def test_raw_values_give_what_the_source_gives(name, pool):
    """In windows of any number at once, missing values included."""
    _, model, source = parts(name, **{"encoder.pool": pool})
    encoder = awake(model)
    starts = torch.arange(0, 100, 9)
    with torch.no_grad():
        together = encoder.represent(source.at(starts))
        alone = torch.cat([encoder.represent(source.at(start[None])) for start in starts])
        torch.testing.assert_close(encoder(raw(source, starts)), together, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)
        features = encoder.features(source.at(starts))
        singly = torch.cat([encoder.features(source.at(start[None])) for start in starts])
        torch.testing.assert_close(features, singly, rtol=1e-5, atol=1e-5)
    windows, size = len(starts), encoder.size
    if pool == "none":
        assert together.shape == (windows * size * (1 if encoder.mixed else 3), 8)
        torch.testing.assert_close(features.reshape(-1, 8), together)
    else:
        assert together.shape == (windows, 8 if encoder.mixed else 24)
        if source.at(starts)["segment"].valid is None:
            pooled = features.view(-1, size, 8)
            pooled = pooled.max(1).values if pool == "max" else getattr(torch, pool)(pooled, 1)
            torch.testing.assert_close(pooled.view(windows, -1), together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["none", "mean"])
@pytest.mark.parametrize("name", OF)
def test_missing_values_are_not_read(name, pool):
    """NaN, or any value that is said to be not observed: the same to the last bit. Series of nothing are read."""
    _, model, source = parts(name, **{"encoder.pool": pool})
    encoder = awake(model)
    x = raw(source, [3, 50, 70])
    x[1, 0], x[2, :, :30] = torch.nan, torch.nan
    observed = ~x.isnan()
    with torch.no_grad():
        expected = encoder(x)
        assert torch.isfinite(expected).all()
        assert torch.equal(expected, encoder(x.nan_to_num(1e6), observed))
        assert torch.equal(expected, encoder(x, torch.ones_like(observed)))
        x[0] += torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0))
        assert not torch.equal(expected, encoder(x))
        assert torch.isfinite(encoder(torch.full_like(x, torch.nan))).all()


@pytest.mark.parametrize("name", OF)
@settings(max_examples=10)
@given(order=st.permutations(range(3)))
def test_each_series_is_read_alone_unless_channels_are_mixed(name, order):
    series = load_series(values(), split="auto")
    _, model, source = parts(name, series, **{"tokens.normalize": "none"})
    x = raw(source, [3, 50])
    with torch.no_grad():
        expected, found = model.encoder(x), model.encoder(x[:, order])
    shape = (2, 1 if model.encoder.mixed else 3, model.encoder.size, 8)
    expected, found = expected.view(shape), found.view(shape)
    if model.encoder.mixed:
        assert torch.equal(found, expected) == (list(order) == [0, 1, 2])
    else:
        torch.testing.assert_close(found, expected[:, order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["patchtst", "spectrogram"])
@given(unit=st.sampled_from([1e-4, 1.0, 1e4]), channels=st.sampled_from([1, 2, 5]))
def test_other_series_may_be_of_any_number_and_unit(name, unit, channels):
    """Those that no scaler knows are scaled by themselves."""
    _, model, source = parts(name)
    x = torch.from_numpy(values(source.context, channels, seed=5).T.copy())[None]
    with torch.no_grad():
        found = model.encoder(x * unit)
        assert found.shape == (channels * model.encoder.size, 8)
        torch.testing.assert_close(found, model.encoder(x), rtol=1e-3, atol=1e-3)
        assert torch.isfinite(model.encoder(torch.full_like(x, 7.0))).all()


@pytest.mark.parametrize("name", ["tsformer", "spans"])
def test_other_series_need_window_norm_and_channels_apart(name):
    _, model, source = parts(name)
    with pytest.raises(StructmaeError, match="x has 2 channels: this encoder reads 3"):
        model.encoder(raw(source, [3])[:, :2])


@pytest.mark.parametrize("name", OF)
def test_a_short_window_is_the_end_of_one(name):
    _, model, source = parts(name)
    x = raw(source, [3, 50])
    x[..., :10] = torch.nan
    with torch.no_grad():
        assert torch.equal(model.encoder(x[..., 10:]), model.encoder(x))
    with pytest.raises(StructmaeError, match="this encoder reads 1 to"):
        model.encoder(torch.cat([x, x], 2))


@pytest.mark.parametrize("name", OF)
def test_recordings_of_any_length_are_read_as_in_training(name):
    """As long as no whole number of segments, or shorter than the longest."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(8, 2, 46)).astype(np.float32)
    x[3, :, 37:] = np.nan
    series = load_series((x, np.arange(8) % 2))
    settings = {"tokens.context": 512, "encoder.pool": "mean"}
    _, model, source = parts(name, series, **settings)
    encoder = awake(model)
    with torch.no_grad():
        expected = encoder.represent(next(iter(source.sweep())))
        torch.testing.assert_close(encoder(torch.from_numpy(x)), expected, rtol=1e-5, atol=1e-5)
        short = encoder(torch.from_numpy(x[3:4, :, :37]))
        torch.testing.assert_close(short, expected[3:4], rtol=1e-5, atol=1e-5)


def test_windows_may_come_twice():
    _, model, source = parts("patchtst", **{"encoder.pool": "mean"})
    with torch.no_grad():
        twice = model.encoder.represent(source.at(torch.tensor([9, 9, 4, 9])))
        once = model.encoder.represent(source.at(torch.tensor([9, 4])))
    assert twice.shape == (4, 24)
    torch.testing.assert_close(twice[[0, 2]], once)
    torch.testing.assert_close(twice[1:2].expand(2, -1), twice[[0, 3]])


def test_the_encoder_can_be_trained():
    _, model, source = parts("patchtst", **{"encoder.pool": "mean"})
    encoder = model.encoder.train()
    x = raw(source, [3, 50]).requires_grad_()
    encoder(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert not x.grad[x.isnan()].any()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


def test_a_decoder_has_heads_that_divide_its_width():
    with pytest.raises(UsageError, match=r"hidden=5 must be a multiple of its 2 attention heads"):
        parts("drop", **{"heads.segments.hidden": 5})


def test_a_linear_decoder_is_one_map():
    _, model, _ = parts("patchtst")
    (head,) = model.heads.values()
    assert {key: tuple(p.shape) for key, p in head.decoder.named_parameters()} == {
        "out.weight": (3, 8),
        "out.bias": (3,),
    }


def test_an_encoder_is_made_of_the_settings_of_a_tokenizer():
    recipe, model, source = parts("patchtst")
    again = build_encoder(recipe, source.tokenizer.config())
    again.load_state_dict(model.encoder.state_dict())
    x = raw(source, [3])
    with torch.no_grad():
        assert torch.equal(again.eval()(x), model.encoder(x))
    assert resolve("patchtst").modality == recipe.modality == "series"


@pytest.mark.parametrize("name", ["patchtst", "spans"])
def test_a_missing_value_is_not_a_zero(name):
    _, model, source = parts(name)
    encoder = awake(model).eval()
    x = torch.zeros(1, 3, source.context)
    there = torch.ones_like(x, dtype=torch.bool)
    there[0, 1, 5] = False
    ids = torch.arange(1)
    with torch.no_grad():
        some = encoder.represent(encoder.tokenizer.tokens(x, there, ids))
        all_there = encoder.represent(encoder.tokenizer.tokens(x, None, ids))
    assert not torch.equal(some, all_there)
