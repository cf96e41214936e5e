from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from structmae.errors import StructmaeError
from structmae.evaluate.ridge import WIDEST, Gram, best


def rows(seed, size=200, width=6, outputs=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, width, generator=generator, dtype=dtype) + 1.0
    return x, x[:, :1] * 0.5 + torch.randn(size, outputs, generator=generator, dtype=dtype)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(1e-3, 1e2))
def test_it_is_ridge_regression(seed, penalty):
    x, y = rows(seed)
    gram = Gram(7, 5)
    gram.add(torch.cat([x, torch.ones(200, 1)], 1), y)
    (weight,) = gram.solve(free=1, penalties=(penalty,))
    level = float(gram.xx.diagonal().mean())
    oracle = Ridge(alpha=penalty * level).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(weight[:-1].T, oracle.coef_, atol=1e-8)
    np.testing.assert_allclose(weight[-1], oracle.intercept_, atol=1e-8)


def test_without_free_features_all_are_penalised():
    x, y = rows(0)
    gram = Gram(6, 5)
    gram.add(x, y)
    (weight,) = gram.solve(penalties=(0.5,))
    oracle = Ridge(alpha=0.5 * float(gram.xx.diagonal().mean()), fit_intercept=False).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(weight.T, oracle.coef_, atol=1e-8)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_blocks_do_not_matter(seed, cuts):
    x, y = rows(seed)
    whole, parts = Gram(6, 5), Gram(6, 5)
    whole.add(x, y)
    borders = [0, *sorted(cuts), 200]
    for lo, hi in pairwise(borders):
        parts.add(x[lo:hi], y[lo:hi])
    torch.testing.assert_close(parts.solve(), whole.solve())


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(10, 100), st.integers(1, 5))
def test_a_snapshot_is_the_fit_of_its_own_rows(seed, longest, few):
    x, y = rows(seed)
    nested = Gram(6, 5)
    nested.add(x[:longest], y[:longest])
    snapshots = [nested.solve()]
    nested.add(x[longest:], y[longest:, :few])
    snapshots.append(nested.solve(few))
    for part, (size, outputs) in zip(snapshots, [(longest, 5), (200, few)], strict=True):
        alone = Gram(6, outputs)
        alone.add(x[:size], y[:size, :outputs])
        torch.testing.assert_close(part, alone.solve(), rtol=1e-9, atol=1e-9)


def test_float32_blocks_are_near_float64():
    x, y = rows(0, size=20_000)
    single, double = Gram(6, 5), Gram(6, 5)
    double.add(x, y)
    single.add(x.float(), y.float())
    torch.testing.assert_close(single.solve(), double.solve(), rtol=1e-4, atol=1e-5)


def test_a_singular_matrix_leaves_the_larger_penalties():
    gram = Gram(3, 1)
    gram.add(torch.tensor([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]]), torch.tensor([[1.0], [2.0]]))
    weights = gram.solve(penalties=(0.0, 1e-6))
    assert weights[0].isnan().all()
    torch.testing.assert_close(weights[1].flatten(), torch.tensor([0.5, 0.5, 0.0]).double(), rtol=1e-4, atol=1e-6)


def test_too_wide_and_empty():
    with pytest.raises(StructmaeError, match=r"8193 features.*encoder\.hidden"):
        Gram(WIDEST + 1, 1)
    with pytest.raises(StructmaeError, match="no rows"):
        Gram(2, 1).solve()


def test_the_best_of_equals_has_the_larger_penalty():
    assert best(torch.tensor([torch.nan, 2.0, 1.0, 1.0, 3.0])) == 3
    with pytest.raises(StructmaeError, match="finite"):
        best(torch.tensor([torch.nan, torch.inf]))
