import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from structmae.objectives import average, cross_entropy, edge_bce, huber, l1, mse, scaled_cosine


@given(st.integers(0, 2**31), st.floats(1, 4))
def test_scaled_cosine_is_its_formula(seed, gamma):
    rng = np.random.default_rng(seed)
    p, t = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
    cosine = (p * t).sum(1) / np.sqrt((p**2).sum(1) * (t**2).sum(1))
    found = scaled_cosine(torch.tensor(p).float(), torch.tensor(t).float(), gamma)
    np.testing.assert_allclose(found, (1 - cosine) ** gamma, rtol=2e-4, atol=1e-5)


def test_scaled_cosine_has_the_gradient_of_its_formula():
    torch.manual_seed(0)
    p = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    t = torch.randn(4, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: (1 - torch.cosine_similarity(x, t, dim=-1, eps=1e-12)) ** 3, p)
    ours = torch.autograd.grad(scaled_cosine(p.float(), t.float(), 3.0).sum(), p)[0]
    plain = torch.autograd.grad(((1 - torch.cosine_similarity(p, t, dim=-1)) ** 3).sum(), p)[0]
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_a_row_of_zeros_costs_one_and_has_a_finite_gradient():
    p = torch.randn(2, 3, requires_grad=True)
    loss = scaled_cosine(p, torch.zeros(2, 3), 2.0)
    loss.sum().backward()
    assert torch.equal(loss, torch.ones(2))
    assert torch.isfinite(p.grad).all()


def test_elementwise_losses_are_pytorchs_own():
    p, t = torch.randn(2, 5, 3) * 2
    for loss, theirs in ((mse, F.mse_loss), (l1, F.l1_loss), (huber, F.huber_loss)):
        assert torch.equal(loss(p, t, 1.0), theirs(p, t, reduction="none"))


@pytest.mark.parametrize("loss", [mse, l1, huber])
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_the_mean_is_over_what_was_observed(loss, seed, share):
    """Against a loop; what stands in the other places does not matter, for the gradient neither."""
    generator = torch.Generator().manual_seed(seed)
    p, t = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    observed = torch.rand(4, 3, generator=generator) < share
    p.requires_grad_()
    found = average(loss, p, t, 1.0, observed)
    errors = loss(p, t, 1.0).detach()
    counted = [float(errors[i, j]) for i in range(4) for j in range(3) if observed[i, j]]
    if not counted:
        assert found is None
        return
    assert float(found.detach()) == pytest.approx(sum(counted) / len(counted))
    (gradient,) = torch.autograd.grad(found, p)
    assert torch.equal(gradient[~observed], torch.zeros(int((~observed).sum()), dtype=torch.float64))
    other = average(loss, p.where(observed, 1e9), t.where(observed, -7.0), 1.0, observed)
    assert torch.equal(found, other)
    torch.testing.assert_close(average(loss, p, t, 1.0), average(loss, p, t, 1.0, torch.ones_like(observed)))


def test_a_loss_of_whole_tokens_counts_those_of_which_something_was_observed():
    p, t = torch.randn(2, 3, 2)
    observed = torch.tensor([[True, True], [True, False], [False, False]])
    found = average(scaled_cosine, p, t, 2.0, observed)
    p[1, 1] = t[1, 1] = 0.0
    assert torch.equal(found, scaled_cosine(p[:2], t[:2], 2.0).sum() / 2)


@given(st.integers(0, 2**31), st.sampled_from([1.0, 100.0]))
def test_cross_entropy_is_its_formula(seed, size):
    """Large logits do no harm."""
    rng = np.random.default_rng(seed)
    logits, ids = size * rng.normal(size=(4, 6)), rng.integers(0, 6, 4)
    shifted = logits - logits.max(1, keepdims=True)
    expected = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(4), ids]
    found = cross_entropy(torch.tensor(logits), torch.tensor(ids), 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    average_found = average(cross_entropy, torch.tensor(logits), torch.tensor(ids), 2.0)
    assert float(average_found) == pytest.approx(expected.mean())


@given(st.integers(0, 2**31))
def test_binary_cross_entropy_is_its_formula(seed):
    rng = np.random.default_rng(seed)
    logits, there = 3 * rng.normal(size=(5, 1)), rng.integers(0, 2, (5, 1)).astype(float)
    share = 1 / (1 + np.exp(-logits))
    expected = -(there * np.log(share) + (1 - there) * np.log(1 - share))
    np.testing.assert_allclose(edge_bce(torch.tensor(logits), torch.tensor(there), 1.0), expected, rtol=1e-9)
    far = edge_bce(torch.tensor([[1000.0], [-1000.0]]), torch.tensor([[0.0], [0.0]]), 1.0)
    assert far.tolist() == [[1000.0], [0.0]]
