"""Products and their gradients, whichever way round they are made."""

import pytest
import torch
import torch.nn.functional as F

from structmae.fast.chain import product


@pytest.mark.parametrize(("rows", "width", "out"), [(30, 8, 24), (30, 24, 8), (0, 8, 24), (5, 6, 6)])
def test_is_linear(rows, width, out):
    x, weight = torch.randn(rows, width, requires_grad=True), torch.randn(out, width, requires_grad=True)
    upper = torch.randn(rows, out)
    ours, theirs = product(x, weight), F.linear(x, weight)
    torch.testing.assert_close(ours, theirs)
    gradients = (torch.autograd.grad(made, (x, weight), upper) for made in (ours, theirs))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_that_are_not_wanted_are_not_made():
    x, weight = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)
    product(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(4, 3))
    product(torch.ones(4, 3), weight.requires_grad_()).sum().backward()
    torch.testing.assert_close(weight.grad, torch.full((5, 3), 4.0))


def test_autocast():
    x, weight = torch.randn(4, 3), torch.randn(5, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = product(x, weight)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert weight.grad.dtype == torch.float32
