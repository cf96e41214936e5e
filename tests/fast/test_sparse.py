"""Rows that are never made dense give what the dense ones do: hidden, dropped and multiplied."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from structmae import masking
from structmae.fast.cosine import Deferred, cosine
from structmae.fast.dropout import dropout
from structmae.fast.sparse import FULL, WIDE, SparseRows, compressed, dense
from structmae.masking.torch import apply, to_torch


def features(generator, rows=12, width=WIDE + 6):
    x = generator.random((rows, width)) * (generator.random((rows, width)) < 0.05)
    x[0] = 0.0
    return torch.from_numpy(x.astype(np.float32))


@given(seed=st.integers(0, 10**6), p=st.sampled_from([0.0, 0.3, 0.8]), act=st.sampled_from(["token", "zero"]))
def test_a_product_of_hidden_rows(seed, p, act):
    generator = np.random.default_rng(seed)
    x = features(generator)
    spec = masking.Spec(ratio=generator.random(), act=act, random=0.3, random_from="any")
    plan = to_torch(masking.draw(masking.layout(np.array([0, len(x)])), spec, seed=seed, visit=0))
    token = torch.randn(1, x.shape[1]).requires_grad_()
    weight = torch.randn(5, x.shape[1]).requires_grad_()
    matrix = compressed(x)
    assert matrix is not None
    torch.manual_seed(seed)
    rows = SparseRows.whole(matrix).hidden(plan, token).dropped(p, True)
    torch.manual_seed(seed)
    expected = dropout(apply(x, plan, token), p)
    torch.testing.assert_close(rows.dense(), expected)
    found, wanted = rows.product(weight), F.linear(expected, weight)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    ways = torch.randn_like(found)
    mine = torch.autograd.grad((found * ways).sum(), (weight, token), materialize_grads=True, allow_unused=True)
    theirs = torch.autograd.grad((wanted * ways).sum(), (weight, token), materialize_grads=True, allow_unused=True)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_what_is_not_worth_it_stays_dense():
    few = torch.zeros(4, WIDE)
    assert compressed(few) is not None
    assert compressed(few[:, 1:]) is None, "narrow"
    assert compressed((torch.rand(40, WIDE) < 2 * FULL).float()) is None, "dense"
    assert compressed(few.double()) is None
    assert compressed(few.clone().requires_grad_()) is None, "gradients would be lost"


def test_dropped_in_training_alone():
    matrix = compressed(features(np.random.default_rng(0)))
    assert matrix is not None
    rows = SparseRows.whole(matrix)
    assert rows.dropped(0.5, False) is rows
    assert rows.dropped(0.0, True) is rows
    assert len(rows) == 12
    assert rows.width == WIDE + 6


@given(seed=st.integers(0, 10**6), zero=st.booleans())
def test_the_cosine_of_a_map_that_is_left_to_do(seed, zero):
    """As torch has it of the map's result."""
    generator = np.random.default_rng(seed)
    y = features(generator, rows=20)
    matrix, chosen = compressed(y), torch.from_numpy(np.sort(generator.permutation(20)[:11]))
    assert matrix is not None
    x = torch.from_numpy(generator.normal(size=(11, 4)).astype(np.float32))
    weight, bias = torch.randn(y.shape[1], 4) * 0.3, torch.randn(y.shape[1]) * 0.3
    if zero:  # a row that is 0 has no direction
        x[3], bias = 0.0, torch.zeros_like(bias)
    inputs = [part.requires_grad_() for part in (x, weight, bias)]
    deferred, target = Deferred(*inputs), SparseRows(matrix, chosen.numpy())
    assert deferred.spares(target)
    torch.testing.assert_close(target.lengths, y[chosen].norm(dim=1))
    found = cosine(deferred, target)
    expected = F.cosine_similarity(F.linear(*inputs), y[chosen], dim=-1, eps=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    if zero:
        assert found[3] == 0
        return  # the gradient there is 1 / eps
    ways = torch.linspace(0.5, 2, 11)
    mine = torch.autograd.grad((found * ways).sum(), inputs)
    theirs = torch.autograd.grad((expected * ways).sum(), inputs)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_map_with_few_rows_is_done():
    """Where its matrix is large beside what it is asked for."""
    matrix = compressed(features(np.random.default_rng(0)))
    assert matrix is not None
    wide = Deferred(torch.randn(3, 50), torch.randn(matrix.width, 50), torch.randn(matrix.width))
    target = SparseRows(matrix, np.arange(3))
    assert not wide.spares(target)
    torch.testing.assert_close(cosine(wide, target), F.cosine_similarity(dense(wide), dense(target), eps=1e-12))


@given(seed=st.integers(0, 10**6), rows=st.integers(0, 9), width=st.integers(1, 40))
def test_the_cosine_of_rows(seed, rows, width):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator).requires_grad_()
    y = torch.randn(rows, width, generator=generator)
    if rows:
        y[0] = 0.0
    found, expected = cosine(x, y), F.cosine_similarity(x, y, eps=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    ways = torch.linspace(-1, 1, rows)
    mine = torch.autograd.grad((found * ways).sum(), x)
    theirs = torch.autograd.grad((expected * ways).sum(), x)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("which", ["target", "double"])
def test_cosines_that_have_no_kernel(which):
    kind = torch.float64 if which == "double" else torch.float32
    x, y = torch.randn(4, 7, dtype=kind), torch.randn(4, 7, dtype=kind, requires_grad=which == "target")
    torch.testing.assert_close(cosine(x, y), F.cosine_similarity(x, y, eps=1e-12))
    assert cosine(x, y).requires_grad == (which == "target")
