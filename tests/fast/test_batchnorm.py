"""A branch's end and batch normalisation in one: equal to its parts, gradients and running statistics too."""

import copy

import numba
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from structmae.fast.batchnorm import normalised
from structmae.fast.epilogue import added


def made(width, kind=torch.float32):
    norm = nn.BatchNorm1d(width, momentum=0.3)
    for part in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(part)
    return norm.to(kind)


def gradients(make, norm, *inputs):
    """The output, the gradients of inputs and weights, and the running statistics."""
    inputs = tuple(x.detach().clone().requires_grad_() for x in inputs)
    torch.manual_seed(3)
    out = make(*inputs)
    upper = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    wanted = torch.autograd.grad(out, (*inputs, norm.weight, norm.bias), upper)
    return out.detach(), *wanted, norm.running_mean, norm.running_var, norm.num_batches_tracked


@settings(max_examples=40)
@given(
    st.sampled_from([3, 40, 700]),
    st.sampled_from([16, 48, 128, 5]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 30.0]),
)
def test_is_its_parts(rows, width, p, off):
    torch.manual_seed(rows)
    base, y, bias = torch.randn(rows, width) + off * torch.randn(width), torch.randn(rows, width), torch.randn(width)
    norm = made(width)
    exact = copy.deepcopy(norm).double()
    ours = gradients(lambda *given: normalised(*given, p, norm), norm, base, y, bias)
    plain = gradients(
        lambda *given: exact(added(*given, p)), exact, base.double(), y.double(), bias.double()
    )  # the mask is the same
    for one, other in zip(ours, plain, strict=True):
        assert one.shape == other.shape
        size = float(other.abs().max())
        # Few rows may be nearly alike, and are then divided by nearly nothing.
        loose = 1e-2 if rows < 10 else 1e-4
        assert torch.allclose(one.double(), other.double(), rtol=loose, atol=loose * max(1.0, size, off))


def test_columns_that_are_constant():
    base, norm = torch.full((30, 16), 1e4), made(16)
    found = gradients(lambda *given: normalised(*given, 0.0, norm), norm, base, torch.zeros(30, 16), torch.zeros(16))
    assert all(part.isfinite().all() for part in found)
    torch.testing.assert_close(found[0], norm.bias.detach().expand(30, 16))


def test_evaluation_reads_running_statistics_and_a_single_row_its_own_path():
    base, y, bias = torch.randn(20, 32), torch.randn(20, 32), torch.randn(32)
    norm = made(32)
    norm.eval()
    torch.testing.assert_close(normalised(base, y, bias, 0.5, norm, training=False), norm(base + y + bias))
    assert torch.equal(normalised(base, y, bias, 0.0, None), added(base, y, bias, 0.0))
    with pytest.raises(ValueError, match="more than 1 value"):  # torch's own norm says so
        normalised(base[:1], y[:1], bias, 0.0, made(32))


def test_bfloat16_product():
    base, y, bias = torch.randn(70, 48), torch.randn(70, 48).bfloat16(), torch.randn(48)
    one, other = made(48), None
    other = copy.deepcopy(one)
    short = gradients(lambda *given: normalised(*given, 0.2, one), one, base, y, bias)
    exact = gradients(lambda x, y, b: normalised(x, y.float(), b, 0.2, other), other, base, y, bias)
    for a, b in zip(short, exact, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_threads_do_not_matter():
    base, y, bias = torch.randn(3000, 48), torch.randn(3000, 48), torch.randn(48)
    before, norm = numba.get_num_threads(), made(48)
    results = []
    for number in (1, 2):
        numba.set_num_threads(min(number, numba.config.NUMBA_NUM_THREADS))
        mine = copy.deepcopy(norm)
        results.append(gradients(lambda *given, mine=mine: normalised(*given, 0.1, mine), mine, base, y, bias))
    numba.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("far", ["in y", "in the bias", "in the first row"])
@pytest.mark.parametrize("rows", [9, 700])
def test_columns_that_are_far_from_zero(far, rows):
    """Where float32 leaves 4 digits of them, statistics must not lose more."""
    base, y, bias, norm = torch.randn(rows, 32), torch.randn(rows, 32), torch.randn(32), made(32)
    if far == "in y":
        y += 1000
    elif far == "in the bias":
        bias += 1000
    else:
        base[0] += 1000
    exact = copy.deepcopy(norm).double()
    ours = gradients(lambda *given: normalised(*given, 0.0, norm), norm, base, y, bias)
    plain = gradients(lambda x, y, b: exact(x + y + b), exact, base.double(), y.double(), bias.double())
    for one, other in zip(ours, plain, strict=True):
        size = float(other.abs().max())
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-3, atol=1e-3 * max(size, 1.0))


def test_a_norm_of_ones_own_is_asked_itself():
    class Zero(nn.BatchNorm1d):
        def forward(self, x):
            return 0 * super().forward(x)

    base, y, bias = torch.randn(20, 32), torch.randn(20, 32), torch.randn(32)
    assert not normalised(base, y, bias, 0.0, Zero(32)).any()
