import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from structmae.objectives import mse, scaled_cosine


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


def test_mse_is_the_mean_over_the_width():
    assert torch.equal(mse(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2), 1.0), torch.tensor([5.0]))
