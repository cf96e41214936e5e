import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from series_cases import SPLIT, Encoder, Source, panel, waves
from sklearn.linear_model import Ridge

from structmae.errors import StructmaeError
from structmae.evaluate.baselines import NLinear
from structmae.evaluate.frozen import Latents
from structmae.evaluate.heads import Parts, fit, score, unfold

PARTS = Parts.of(SPLIT)


@pytest.fixture(params=[False, True], ids=["independent", "mixed"])
def design(request):
    return lambda source: Latents(Encoder(mixed=request.param).eval().requires_grad_(False), source)


@given(st.integers(1, 60), st.integers(1, 60))
def test_targets_lie_in_their_part(look_back, horizon):
    for part, (low, high) in SPLIT.items():
        starts = PARTS.starts(part, look_back, horizon)
        assert int(starts[0]) + look_back == (low + look_back if part == "train" else low)
        assert int(starts[-1]) + look_back + horizon == high
        assert len(starts) == int(starts[-1] - starts[0]) + 1


def test_a_part_without_windows_says_why():
    assert PARTS.refusal(12, 80) is None
    assert "validation" in (PARTS.refusal(12, 81) or "")
    assert "12 + 230" in (Parts.of({**SPLIT, "validation": (240, 500), "test": (500, 800)}).refusal(12, 230) or "")
    assert len(PARTS.starts("test", 12, 100)) == 0


def test_unfolding():
    level = torch.tensor([[10.0, 20.0]])
    assert unfold(torch.tensor([[1.0, 2, 3], [4, 5, 6]]), level, False).tolist() == [[[11, 12, 13], [24, 25, 26]]]
    assert unfold(torch.tensor([[1.0, 4, 2, 5, 3, 6]]), level, True).tolist() == [[[11, 12, 13], [24, 25, 26]]]


def gappy(seed):
    """Waves with holes, so that some training rows serve the short horizon alone."""
    values = waves(seed)
    holes = np.random.default_rng(seed).integers(0, 240, 6)
    values[holes, holes % 2] = np.nan
    return values


@pytest.mark.parametrize("values", [waves(0), gappy(1)], ids=["whole", "gappy"])
def test_one_pass_is_a_fit_of_each_horizon_alone(values, design):
    source = Source(panel(values))
    together = fit(source, design(source), PARTS, [4, 8])
    for horizon, head in together.items():
        alone = fit(source, design(source), PARTS, [horizon])[horizon]
        assert head.penalty == alone.penalty
        torch.testing.assert_close(head.weight, alone.weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("values", [waves(0), gappy(1)], ids=["whole", "gappy"])
def test_it_is_sklearns_ridge_on_the_rows_with_all_targets(values):
    source = Source(panel(values))
    design = NLinear(source, 12)
    head = fit(source, design, PARTS, [4, 8])[8]
    starts = PARTS.starts("train", 12, 8)
    x, level = design.rows(starts)
    y, observed = source.values(starts + 12, 8)
    y, keep = (y - level[..., None]).flatten(0, 1), observed.all(-1).flatten()
    x, y = x[keep].double(), y[keep].double()
    penalty = head.penalty * float(x.square().sum(0).mean())
    oracle = Ridge(alpha=penalty, fit_intercept=False).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(head.weight.T, oracle.coef_, atol=2e-3)


def test_rows_after_training_do_not_change_the_weights_nor_test_rows_the_penalty(design):
    values = waves()
    base = fit(Source(panel(values)), design(Source(panel(values))), PARTS, [4])[4]
    later = values.copy()
    later[320:] = np.random.default_rng(1).standard_normal((80, 2)) * 9
    other = fit(Source(panel(later)), design(Source(panel(later))), PARTS, [4])[4]
    assert torch.equal(base.weight, other.weight)
    assert (base.penalty, base.validation) == (other.penalty, other.validation)
    later[240:320] *= 3.0
    changed = fit(Source(panel(later)), design(Source(panel(later))), PARTS, [4])[4]
    assert changed.validation != base.validation
    if changed.penalty == base.penalty:
        assert torch.equal(base.weight, changed.weight)


def test_unobserved_targets_are_not_scored():
    values = waves()
    holes = values.copy()
    holes[350, 1] = np.nan
    source = Source(panel(holes))
    design = NLinear(source, 12)
    errors = score(source, design, PARTS, fit(source, design, PARTS, [4]))[4]
    assert errors.values == 77 * 2 * 4 - 4
    assert errors.windows == 77


def test_nothing_observed_in_a_part_is_refused():
    for low, high, words in ((0, 240, "no training window"), (240, 320, "validation part")):
        values = waves()
        values[low:high] = np.nan
        source = Source(panel(values))
        with pytest.raises(StructmaeError, match=words):
            fit(source, NLinear(source, 12), PARTS, [4])


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("mixed", [False, True], ids=["independent", "mixed"])
@pytest.mark.parametrize("values", [waves(0), gappy(1)], ids=["whole", "gappy"])
def test_the_error_on_validation_is_that_of_the_weights(values, mixed, skip):
    source = Source(panel(values))
    design = Latents(Encoder(mixed=mixed).eval().requires_grad_(False), source, skip=skip)
    for horizon, head in fit(source, design, PARTS, [4, 8]).items():
        starts = PARTS.starts("validation", 12, horizon)
        x, level = design.rows(starts)
        y, observed = source.values(starts + 12, horizon)
        error = (unfold(x @ head.weight, level, mixed) - y)[observed].double()
        assert head.validation == pytest.approx(float(error.square().mean()), rel=1e-4)


def test_what_comes_first_is_fitted_once():
    source = Source(panel(waves()))
    one, other = (Latents(Encoder(seed=seed).eval().requires_grad_(False), source, skip=True) for seed in (0, 1))
    known = {}
    heads = fit(source, one, PARTS, [4, 8], known)
    assert list(known) == [NLinear(source, 12), one]
    first = known[NLinear(source, 12)]
    fit(source, other, PARTS, [4, 8], known)
    assert list(known) == [NLinear(source, 12), one, other]
    assert known[NLinear(source, 12)] is first
    for horizon, alone in fit(source, one, PARTS, [4, 8]).items():
        assert torch.equal(alone.weight, heads[horizon].weight)
