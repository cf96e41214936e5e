"""What products are computed in: float32, float32 by another library, or bfloat16; and how exact that is here.

`train.precision` names one of three:

    fp32    float32 products as torch comes: MKL's on the CPU, no TF32 on a GPU
    medium  float32 products by oneDNN (torch.set_float32_matmul_precision("medium")). On many processors it is faster
            and as exact; on those with AMX it computes in bfloat16, and on a GPU it is TF32. So it is used only where
            `check` finds it at float32's level, and where a model's products are large enough to gain by it
    bf16    forward and backward of training steps in bfloat16 by torch.autocast; weights, optimizer and losses stay
            float32

Evaluation, embedding and probes are in float32: of a run at medium by oneDNN too, of one at bf16 as at fp32.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_PRODUCTS = {"fp32": "highest", "medium": "medium", "bf16": "highest"}
_ONEDNN: Any = torch.backends.mkldnn
_BACKENDS: tuple[Any, Any] = _ONEDNN.matmul, torch.backends.cuda.matmul

# What `check` multiplies: a layer's forward, the gradient of its weight, the gradient of its input.
ROWS, WIDTH_IN, WIDTH_OUT = 256, 1433, 256
CHECKED = 16  # rows of each product that are compared with float64's
TIMES, LEVEL = 10, 1e-5  # an error is at float32's level up to so many times fp32's, or up to so much

# oneDNN compiles a kernel for each shape that it meets, which takes as long as MKL takes for about so many
# multiply-adds, and graphs come in batches of any size.
LEAST = 1 << 26


@dataclass(frozen=True)
class Settled:
    """The precision that is used, and why, in one line."""

    name: str
    remark: str


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Float32 products as of `name`, in all threads, while open. What was set before, for all or by backend, is put
    back."""
    before = [backend.fp32_precision for backend in _BACKENDS]
    torch.set_float32_matmul_precision(_PRODUCTS[name])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(
            "medium" if before[0] == "bf16" else "high" if "tf32" in before else "highest"
        )
        for backend, value in zip(_BACKENDS, before, strict=True):
            backend.fp32_precision = value


def autocast(name: str, device: torch.device) -> torch.autocast:
    """What a model's forward is called in: bfloat16 of `bf16`, else as the tensors are. Its backward follows."""
    return torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16")


def at_fp32(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """function(*tensors), forward and backward, with products as at fp32. For what medium makes slow: torch's fused
    attention asks for a product of each small block, and oneDNN takes longer to begin one than MKL to be done."""
    if _BACKENDS[0].fp32_precision != "bf16":  # as it is at medium
        return function(*tensors)
    out: Tensor = _AtFp32.apply(function, *tensors)
    return out


class _AtFp32(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        inward = [
            x.detach().requires_grad_(needed) for x, needed in zip(tensors, ctx.needs_input_grad[1:], strict=True)
        ]
        with precision("fp32"), torch.set_grad_enabled(any(ctx.needs_input_grad)):
            out = function(*inward)
        ctx.inward, ctx.out = inward, out
        ctx.save_for_backward(*tensors)  # so that torch notices a second `backward`, or one after they changed
        return out.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        assert len(ctx.saved_tensors)
        wanted = [x for x in ctx.inward if x.requires_grad]
        with precision("fp32"):
            found = iter(torch.autograd.grad(ctx.out, wanted, grad, retain_graph=True))
        return None, *(next(found) if x.requires_grad else None for x in ctx.inward)


@cache
def check(name: str, device: str = "cpu") -> float:
    """The largest error of the products of a layer at precision `name`, relative to the largest entry. The same at each
    call on the same machine."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, WIDTH_IN, generator=generator)
    weight = torch.randn(WIDTH_IN, WIDTH_OUT, generator=generator)
    gradient = torch.randn(ROWS, WIDTH_OUT, generator=generator)
    kind = torch.bfloat16 if name == "bf16" else torch.float32
    with precision(name), torch.autocast(device, enabled=False):
        pairs = ((x, weight), (x.T, gradient), (gradient, weight.T))
        return max(_error(a.to(device, kind) @ b.to(device, kind), a, b) for a, b in pairs)


def _error(product: Tensor, a: Tensor, b: Tensor) -> float:
    exact = a[:CHECKED].double() @ b.double()
    return float((product[:CHECKED].cpu().double() - exact).abs().max() / exact.abs().max())


def settle(wanted: str, device: torch.device, work: int = LEAST) -> Settled:
    """What `wanted` comes to on this machine. `work`: multiply-adds of the largest product, see `largest`."""
    if wanted == "fp32":
        return Settled("fp32", "precision: fp32")
    if wanted == "medium" and work < LEAST:
        return Settled("fp32", "precision: fp32 (products as small as these gain nothing by medium)")
    error, plain = check(wanted, device.type), check("fp32", device.type)
    about = f"error of a product {error:.1e}; fp32 {plain:.1e}"
    if wanted == "medium" and error > max(TIMES * plain, LEVEL):
        return Settled("fp32", f"precision: fp32 (medium is no float32 here: {about})")
    return Settled(wanted, f"precision: {wanted} ({about})")


def largest(model: nn.Module, rows: int) -> int:
    """Multiply-adds of the largest product of `rows` tokens and a matrix of weights."""
    return rows * max((weight.numel() for weight in model.parameters() if weight.dim() == 2), default=0)
