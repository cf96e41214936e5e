"""The end of a layer is its parts, gradients and running statistics too; and chains of stages are what they chain."""

import copy

import numba
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from structmae.fast import ending
from structmae.fast.chain import Chain, Product
from structmae.fast.columns import BLOCK
from structmae.fast.dropout import dropout
from structmae.fast.ending import ended
from structmae.fast.sparse import dense

NORMS = {
    "none": nn.Identity,
    "batchnorm": lambda: nn.BatchNorm1d(32, momentum=0.3),
    "layernorm": lambda: nn.LayerNorm(32),
}
ACTS = {"prelu": lambda: nn.PReLU(init=0.3), "relu": nn.ReLU, "gelu": nn.GELU}


def parts(y, bias, norm, act, p):
    return dropout(act(norm(y if bias is None else y + bias)), p)


def gradients(make, y, bias, norm, act, p):
    """The output, gradients of inputs and weights, and the running statistics."""
    leaves = [part.detach().clone().requires_grad_() for part in (y, bias) if part is not None]
    torch.manual_seed(3)
    out = dense(make(leaves[0], leaves[1] if bias is not None else None, norm, act, p))
    upper = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    found = torch.autograd.grad(out, (*leaves, *norm.parameters(), *act.parameters()), upper)
    return [out.detach(), *found, *norm.buffers()]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("act", ACTS)
@given(st.sampled_from([9, 40, 300]), st.sampled_from([0.0, 0.3]), st.booleans(), st.sampled_from([0.0, 30.0]))
def test_is_its_parts(norm, act, rows, p, biased, off):
    torch.manual_seed(rows)
    y, bias = torch.randn(rows, 32) + off * torch.randn(32), torch.randn(32) if biased else None
    mine, rectifier = NORMS[norm](), ACTS[act]()
    exact, other = copy.deepcopy(mine).double(), copy.deepcopy(rectifier).double()
    ours = gradients(ended, y, bias, mine, rectifier, p)
    plain = gradients(
        parts, y.double(), None if bias is None else bias.double(), exact, other, p
    )  # the mask is the same
    for one, another in zip(ours, plain, strict=True):
        assert one.shape == another.shape
        size = max(1.0, float(another.abs().max()), off)
        torch.testing.assert_close(one.double(), another.double(), rtol=1e-4, atol=1e-4 * size)


@given(st.sampled_from([9, 129, 300]), st.sampled_from([0.0, 0.3]))
def test_runs_of_several_threads_are_one(rows, p):
    y, bias, norm, act = torch.randn(rows, 32), torch.randn(32), nn.BatchNorm1d(32), nn.PReLU()
    alone = gradients(ended, y, bias, copy.deepcopy(norm), act, p)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "blocks", lambda shape: list(range(-(-shape[0] // BLOCK) + 1)))
        several = gradients(ended, y, bias, norm, act, p)
    assert all(torch.equal(one, other) for one, other in zip(alone, several, strict=True))


def test_which_ends_have_kernels():
    y, bias, norm = torch.randn(20, 32), torch.randn(32), nn.BatchNorm1d(32)
    assert isinstance(ended(y, bias, norm, nn.PReLU()), Chain)
    assert isinstance(ended(y, None, nn.Identity(), nn.ReLU(), 0.5), Chain)
    others = (
        (y, norm, nn.GELU()),
        (y, nn.LayerNorm(32), nn.ReLU()),
        (y.double(), nn.Identity(), nn.ReLU()),
        (y[:, :20], nn.Identity(), nn.ReLU()),
        (y, nn.BatchNorm1d(32).eval(), nn.ReLU()),
        (y, nn.BatchNorm1d(32, affine=False), nn.ReLU()),
    )
    for given_, other, act in others:
        assert isinstance(ended(given_, None, other, act), torch.Tensor)


def test_evaluation_drops_nothing_and_reads_running_statistics():
    y, bias, norm = torch.randn(20, 32), torch.randn(32), nn.BatchNorm1d(32)
    norm(torch.randn(50, 32))
    norm.eval()
    found = ended(y, bias, norm, nn.ReLU(), 0.5, training=False)
    torch.testing.assert_close(found, F.relu(norm(y + bias)))
    assert torch.equal(dense(ended(y, None, nn.Identity(), nn.ReLU(), 0.5, training=False)), y.relu())


def test_what_is_not_a_number_stays_so():
    y = torch.randn(10, 16)
    y[3, 2] = float("nan")
    assert dense(ended(y, None, nn.Identity(), nn.PReLU())).isnan().nonzero().tolist() == [[3, 2]]
    assert dense(ended(y, None, nn.BatchNorm1d(16), nn.ReLU())).isnan().all(0).nonzero().flatten().tolist() == [2]


def test_threads_do_not_matter():
    y, bias, norm = torch.randn(9000, 32), torch.randn(32), nn.BatchNorm1d(32)
    before, results = numba.get_num_threads(), []
    for number in (1, 2):
        numba.set_num_threads(min(number, numba.config.NUMBA_NUM_THREADS))
        results.append(gradients(ended, y, bias, copy.deepcopy(norm), nn.PReLU(), 0.2))
    numba.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("rows", [300, 20_000])
def test_a_first_row_that_is_far_from_the_others(rows):
    """A hub, of sums over neighbours."""
    y, norm = torch.randn(rows, 32), nn.BatchNorm1d(32)
    y[0] += 1000
    exact = copy.deepcopy(norm).double()
    ours = gradients(ended, y, None, norm, nn.ReLU(), 0.0)
    plain = gradients(parts, y.double(), None, exact, nn.ReLU(), 0.0)
    for one, other in zip(ours, plain, strict=True):
        size = float(other.abs().max())
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-4, atol=1e-4 * max(size, 1.0))


def test_infinity_below_zero_is_rectified():
    y = torch.full((4, 16), -float("inf")).requires_grad_()
    out = dense(ended(y, None, nn.Identity(), nn.ReLU()))
    assert torch.equal(out, torch.zeros(4, 16))
    (grad,) = torch.autograd.grad(out, y, torch.full((4, 16), float("inf")))
    assert torch.equal(grad, torch.zeros(4, 16))


def test_no_rows():
    y, bias, act = torch.empty(0, 32, requires_grad=True), torch.randn(32, requires_grad=True), nn.PReLU()
    out = dense(ended(y, bias, nn.Identity(), act, 0.2))
    assert out.shape == (0, 32)
    for grad in torch.autograd.grad(out.sum(), (bias, act.weight)):
        assert not grad.any()


def test_gradients_that_nobody_wants_are_not_made():
    x, frozen, weight = torch.randn(20, 8), torch.randn(32, 8), torch.randn(5, 32, requires_grad=True)
    counted = FlopCounterMode(display=False)
    with counted:
        Chain.of(x).then(Product(frozen)).then(Product(weight)).dense().sum().backward()
    assert counted.get_total_flops() == 2 * 20 * 32 * (8 + 5 + 5)
    assert torch.allclose(weight.grad, F.linear(x, frozen).sum(0).expand(5, 32), rtol=1e-4, atol=1e-4)


def test_a_chain_is_its_stages_in_a_row():
    x, first, last = (torch.randn(shape, requires_grad=True) for shape in ((20, 8), (32, 8), (5, 32)))
    norm, act = nn.BatchNorm1d(32), nn.PReLU()
    chain = ended(Chain.of(x).then(Product(first)), None, norm, act).then(Product(last))
    assert chain.shape == (20, 5)
    assert len(chain) == 20
    upper, leaves = torch.randn(20, 5), (x, first, last, norm.weight, norm.bias, act.weight)
    found = chain.dense()
    expected = F.linear(act(norm(F.linear(x, first))), last)
    torch.testing.assert_close(found, expected)
    pairs = zip(*(torch.autograd.grad(out, leaves, upper) for out in (found, expected)), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_weight_that_changed_since_is_noticed():
    x, weight = torch.randn(4, 3), torch.randn(5, 3, requires_grad=True)
    out = Chain.of(x).then(Product(weight)).dense()
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_products_follow_autocast():
    x, weight = torch.randn(40, 32), torch.randn(16, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = Chain.of(x).then(Product(weight)).dense()
        expected = F.linear(x, weight).float()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(out.sum(), weight)[0] for out in (found, expected)), rtol=2e-2, atol=0.1
    )
