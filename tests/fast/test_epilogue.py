"""What follows a product, in one pass: equal to its parts, gradients too."""

import numba
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from structmae.fast.dropout import dropout
from structmae.fast.epilogue import activated, added

ACTIVATIONS = [nn.ReLU(), nn.GELU(), nn.GELU("tanh"), nn.ELU()]
SIZES = st.tuples(st.sampled_from([0, 1, 3, 40, 700]), st.sampled_from([16, 48, 128, 5]))  # 5: not by kernels


def gradients(make, *inputs):
    """The output, and the gradients of what it was made of."""
    inputs = tuple(x.detach().clone().requires_grad_() for x in inputs)
    torch.manual_seed(3)
    out = make(*inputs)
    upper = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return out.detach(), *torch.autograd.grad(out, inputs, upper)


def close(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a.double(), b.double(), rtol=1e-5, atol=4e-6 * max(1.0, len(found[0]) ** 0.5))


@settings(max_examples=40)
@given(SIZES, st.sampled_from(ACTIVATIONS), st.sampled_from([0.0, 0.3]), st.sampled_from([0.1, 3.0]))
def test_activated(size, activation, p, spread):
    y, bias = torch.randn(size) * spread, torch.randn(size[1])
    plain = gradients(lambda y, b: dropout(activation(y + b), p), y.double(), bias.double())
    close(gradients(lambda y, b: activated(y, b, activation, p), y, bias), plain)


@settings(max_examples=20)
@given(SIZES, st.sampled_from([0.0, 0.3]))
def test_added(size, p):
    base, y, bias = torch.randn(size), torch.randn(size), torch.randn(size[1])
    plain = gradients(lambda x, y, b: x + dropout(y + b, p), base.double(), y.double(), bias.double())
    close(gradients(lambda x, y, b: added(x, y, b, p), base, y, bias), plain)


def test_far_from_zero():
    y = torch.tensor([-1e30, -200.0, -13.0, -6.0, -0.0, 1e-20, 6.0, 1e30]).repeat(2)[None].requires_grad_()
    close(
        gradients(lambda y: activated(y, torch.zeros(16), nn.GELU(), 0.0), y),
        gradients(lambda y: nn.functional.gelu(y), y.double()),
    )


def test_evaluation_and_extremes():
    y, bias = torch.randn(20, 32), torch.randn(32)
    assert torch.equal(activated(y, bias, nn.ReLU(), 0.5, training=False), (y + bias).relu())
    assert not activated(y, bias, nn.ReLU(), 1.0).any()
    assert torch.equal(added(y, y, bias, 1.0), y)


def test_threads_do_not_matter():
    y, bias = torch.randn(3000, 48), torch.randn(48)
    before = numba.get_num_threads()
    results = []
    for number in (1, 2):
        numba.set_num_threads(min(number, numba.config.NUMBA_NUM_THREADS))
        results.append(gradients(lambda y, b: activated(y, b, nn.GELU(), 0.1), y, bias))
        results[-1] += gradients(lambda y, b: added(y, y, b, 0.1), y, bias)
    numba.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_float64_is_not_by_kernels():
    base, y, bias = torch.randn(9, 32).double(), torch.randn(9, 32).double(), torch.randn(32).double()
    assert torch.equal(activated(y, bias, nn.GELU(), 0.0), nn.functional.gelu(y + bias))
    assert torch.equal(added(base, y, bias, 0.0), base + (y + bias))


@given(st.sampled_from(ACTIVATIONS[:2]), st.sampled_from([0.0, 0.3]))
def test_bfloat16_is_float32_rounded(activation, p):
    """Whatever is read or written in it, what is between is as in float32."""
    y, bias, base = torch.randn(70, 48).bfloat16(), torch.randn(48), torch.randn(70, 48)
    short = gradients(lambda y, b: activated(y, b, activation, p), y, bias)
    exact = gradients(lambda y, b: activated(y.float(), b, activation, p).bfloat16(), y, bias)
    mixed = gradients(lambda x, y, b: added(x, y, b, p), base, y, bias)
    apart = gradients(lambda x, y, b: added(x, y.float(), b, p), base, y, bias)
    assert [part.dtype for part in mixed] == [torch.float32, torch.float32, torch.bfloat16, torch.float32]
    for one, other in zip((*short, *mixed), (*exact, *apart), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_what_is_no_number_stays_none():
    for kind in (torch.float32, torch.bfloat16):
        y = torch.full((2, 32), float("nan"), dtype=kind)
        assert added(y, y, torch.zeros(32), 0.0).isnan().all()
        assert all(activated(y, torch.zeros(32), act, 0.0).isnan().all() for act in ACTIVATIONS)


def test_autocast():
    dense, base = nn.Linear(32, 32), torch.randn(40, 32)
    with torch.autocast("cpu", torch.bfloat16):
        out = added(base, nn.functional.linear(base, dense.weight), dense.bias, 0.5)
    assert out.dtype == torch.float32
    out.sum().backward()
    assert dense.bias.grad.isfinite().all()
