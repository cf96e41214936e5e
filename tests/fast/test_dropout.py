"""Dropout by key and element number: the mask, its gradient, and where it does not depend on."""

import numba
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from torch import nn

from structmae.fast import dropout as fast
from structmae.fast.dropout import Dropout, draw_key, dropout, key_words, threshold
from structmae.masking.rng import philox4x32

SHAPES = st.sampled_from([(0,), (1,), (), (127,), (128,), (129,), (3, 700), (2, 3, 65), (2048,), (5000,)])


def seeded(x, p=0.3, seed=0):
    torch.manual_seed(seed)
    return dropout(x, p)


def mask(size, p, key):
    """Which elements are kept, from the description of the layout."""
    kept = []
    for i in range(size):
        run, r = divmod(i, 128)
        block = 16 * run + r % 16
        words = philox4x32((block & 0xFFFFFFFF, block >> 32, 0, 0), (key & 0xFFFFFFFF, key >> 32))
        half = r // 16
        kept.append((words[half // 2] >> 16 * (half % 2) & 0xFFFF) < threshold(p))
    return np.array(kept, bool)


@njit
def _each_kept(size, k0, k1, kept):
    out = np.empty(size, np.bool_)
    for i in range(size):
        out[i] = fast.keep(k0, k1, np.uint64(i), kept)
    return out


def test_mask_is_philox_of_key_and_number():
    torch.manual_seed(3)
    key = draw_key()
    torch.manual_seed(3)
    x = torch.rand(700) + 1
    torch.manual_seed(3)
    out = dropout(x, 0.4)
    expected = mask(700, 0.4, key)
    assert np.array_equal(out.numpy() != 0, expected)
    assert np.array_equal(_each_kept(700, *key_words(key), np.uint64(threshold(0.4))), expected)
    assert torch.equal(out[out != 0], (x * np.float32(65536 / threshold(0.4)))[out != 0])


@given(SHAPES, st.floats(0.01, 0.99))
def test_same_for_any_dtype_and_strides(shape, p):
    x = torch.rand(shape) + 1
    out = seeded(x, p)
    assert out.shape == x.shape
    there = out != 0
    assert torch.equal(seeded(x.double(), p) != 0, there)
    assert torch.equal(seeded(x.bfloat16(), p), seeded(x.bfloat16().float(), p).bfloat16())
    if x.dim() > 1:
        assert torch.equal(seeded(x.transpose(0, 1).contiguous().transpose(0, 1), p), out)


def test_threads_do_not_matter():
    x = torch.randn(301, 1001)
    before = numba.get_num_threads()
    results = []
    for number in (1, 2):
        numba.set_num_threads(min(number, numba.config.NUMBA_NUM_THREADS))
        torch.manual_seed(1)
        results.append(dropout(x, 0.2))
    numba.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("p", [0.1, 0.15, 0.5, 0.9])
def test_share_and_expectation(p):
    n = 400_000
    out = seeded(torch.ones(n), p)
    kept = threshold(p) / 65536
    assert abs(kept - (1 - p)) <= 2**-17
    deviation = (kept * (1 - kept) / n) ** 0.5
    assert abs((out != 0).double().mean() - kept) < 5 * deviation
    assert abs(out.double().mean() - 1) < 5 * deviation / kept
    half = out.view(-1, 2)[:, 0] != 0  # neighbours are independent
    both = half & (out.view(-1, 2)[:, 1] != 0)
    assert abs(both.double().mean() - kept**2) < 5 * (kept**2 * (1 - kept**2) / (n / 2)) ** 0.5


def test_seed_decides_and_calls_differ():
    x = torch.ones(2000)
    assert torch.equal(seeded(x), seeded(x))
    assert not torch.equal(seeded(x), seeded(x, seed=1))
    torch.manual_seed(0)
    assert not torch.equal(dropout(x, 0.3), dropout(x, 0.3))


def test_gradient_is_the_mask():
    x = torch.randn(50, 41, requires_grad=True)
    torch.manual_seed(0)
    scale = seeded(torch.ones(50, 41))
    weight = torch.randn(50, 41)
    (given,) = torch.autograd.grad((seeded(x) * weight).sum(), x)
    assert torch.equal(given, weight * scale)


def test_gradcheck():
    x = torch.randn(3, 50, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(seeded, x)
    assert torch.autograd.gradgradcheck(lambda x: seeded(x) ** 2, x)


def test_identity_where_nothing_is_dropped():
    x = torch.randn(10)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0) is x
    assert Dropout(0.5).eval()(x) is x
    assert not dropout(x, 1.0).any()


def test_not_a_number_is_dropped_too():
    out = seeded(torch.full((1000,), float("nan")))
    assert 0 < int(out.isnan().sum()) < 1000
    assert not out[~out.isnan()].any()


def test_module_and_autocast():
    module = Dropout(0.25)
    assert repr(module) == "Dropout(p=0.25)"
    dense = nn.Linear(64, 64)
    x = torch.randn(300, 64)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(dense(x))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert dense.weight.grad.isfinite().all()


def test_compiled_is_torchs_own():
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    out = torch.compile(lambda x: dropout(x, 0.5), backend=backend, fullgraph=True)(torch.ones(100))
    assert seen
    assert set(out.tolist()) == {0.0, 2.0}
