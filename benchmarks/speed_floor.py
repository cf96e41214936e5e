"""The least that a step can take: its matrix products at the rate that they reach alone, and the bytes that must move.

Products are those that torch is asked for, forward and backward, as they are counted while a real step runs. Kernels of
our own (sparse products, aggregation, fused attention) are no such products: of layers over edges counts what they
must move, the others are left out.
"""

import math
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from structmae.precision import precision

Shape = tuple[int, int, int]
LARGE = (2048, 1024, 1024)  # a product that reaches what the processor can do, beside those of the step
TRIED, TAKES = 3, 0.25  # the largest shapes of a step, seconds for each
ADAM = 7 * 4  # bytes a parameter: weight, gradient and two moments are read, all but the gradient are written


class Count:
    """Counts from when it is made until `close`."""

    def __init__(self, name: str):
        self.name, self.products = name, dict[Shape, int]()
        aten = torch.ops.aten
        self.mode = FlopCounterMode(display=False, custom_mapping={aten.mm: self._mm, aten.addmm: self._addmm})
        self.mode.__enter__()

    def close(self) -> dict[str, Any]:
        """`flops` since then, and `rate`, the most operations a second of the largest products and of LARGE."""
        self.mode.__exit__(None, None, None)
        largest = sorted(self.products, key=lambda shape: self.products[shape])[-TRIED:]
        rates = [rate(shape, self.name) for shape in (*largest, LARGE)]
        return {"flops": self.mode.get_total_flops(), "rate": max(rates)}

    def _mm(self, a: torch.Size, b: torch.Size, *rest: Any, **out: Any) -> int:
        shape = (a[0], a[1], b[1])
        flops = 2 * math.prod(shape)
        self.products[shape] = self.products.get(shape, 0) + flops
        return flops

    def _addmm(self, bias: torch.Size, a: torch.Size, b: torch.Size, *rest: Any, **out: Any) -> int:
        return self._mm(a, b)


def rate(shape: Shape, name: str) -> float:
    """Operations a second of one product at this precision, the fastest of some."""
    m, k, n = shape
    kind = torch.bfloat16 if name == "bf16" else torch.float32
    taken, begin = [], time.perf_counter()
    with torch.no_grad(), precision(name), torch.autocast("cpu", enabled=False):
        a, b, out = (torch.randn(*size).to(kind) for size in ((m, k), (k, n), (m, n)))
        while len(taken) < 3 or time.perf_counter() - begin < TAKES:
            before = time.perf_counter()
            torch.mm(a, b, out=out)
            taken.append(time.perf_counter() - before)
    return 2 * math.prod(shape) / min(taken)


def moved(model: nn.Module, source: Any, updates: int) -> int:
    """Bytes of a step with so many `updates` by Adam: those of Adam, and of layers over edges, each of which reads and
    writes a vector a node and reads two numbers an edge, forward and backward."""
    weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    total = ADAM * weights * updates
    graph: Any = getattr(source, "all", {}).get("node")
    if graph is None or "edges" not in graph.relations:
        return total
    layers = [layer for name, layer in model.named_modules() if name.endswith("body.layers")]
    passes = 2 * sum(len(part) for part in layers if isinstance(part, nn.ModuleList))
    width: int = model.encoder.width
    edges: Tensor = graph.relations["edges"].source
    return total + passes * (2 * len(graph) * width * 4 + 2 * len(edges) * 4)
