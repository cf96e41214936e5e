"""Plans as torch tensors, without copying on the CPU; and what is done with them: `apply` and `take`.

Both are differentiable. On the CPU, in float32, they are one pass of a kernel into memory that is used again
(memory.py). Elsewhere they are torch's own operations, with the same result.
"""

import threading
from collections.abc import Callable, Iterator
from functools import cached_property
from queue import Full, Queue
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from structmae.errors import UsageError
from structmae.masking import codes, memory
from structmae.masking.parallel import each, even, threads
from structmae.masking.plan import Plan
from structmae.masking.strategies import Act

Item = TypeVar("Item")


class TorchPlan:
    """A `Plan` whose fields are tensors on `device`: int64, but for `act` and `code`, uint8. Shapes as there.

    A field is made (and moved) when first read, then kept; on the CPU it shares the plan's memory: do not write to it.
    """

    def __init__(self, plan: Plan, device: torch.device | str = "cpu") -> None:
        self.plan = plan
        self.device = torch.device(device)
        self._by_act: dict[Act, Tensor] = {}

    @property
    def size(self) -> int:
        """How many tokens, M."""
        return self.plan.size

    @cached_property
    def scored(self) -> Tensor:
        return self._tensor(self.plan.scored)

    @cached_property
    def act(self) -> Tensor:
        return self._tensor(self.plan.act)

    @cached_property
    def source(self) -> Tensor:
        return self._tensor(self.plan.source)

    @cached_property
    def code(self) -> Tensor:
        return self._tensor(self.plan.code)

    @cached_property
    def hidden(self) -> Tensor:
        return self._tensor(self.plan.hidden)

    @cached_property
    def visible(self) -> Tensor:
        return self._tensor(self.plan.visible)

    @cached_property
    def kept(self) -> Tensor:
        return self._tensor(self.plan.kept)

    @cached_property
    def restore(self) -> Tensor:
        return self._tensor(self.plan.restore)

    def with_act(self, act: Act) -> Tensor:
        """(n,) the tokens that get `act`."""
        if act not in self._by_act:
            self._by_act[act] = self._tensor(self.plan.with_act(act))
        return self._by_act[act]

    @cached_property
    def taken(self) -> Tensor:
        """(n,) the sources of the tokens that get RANDOM."""
        return self._tensor(self.plan.source[self.plan.act == np.uint8(Act.RANDOM)])

    def random_ids(self, vocabulary: int) -> Tensor:
        """(n,) an id below `vocabulary` for each token that gets RANDOM."""
        return self._tensor(self.plan.random_ids(vocabulary))

    def prepare(self, *names: str) -> None:
        """Makes and moves fields now: those named, or all that `apply` and a loss read."""
        for name in names or ("scored", "hidden", "taken"):
            getattr(self, name)
        for act in () if names else (Act.TOKEN, Act.ZERO, Act.RANDOM):
            self.with_act(act)

    def to(self, device: torch.device | str) -> "TorchPlan":
        """The same plan with its tensors on `device`."""
        return TorchPlan(self.plan, device)

    def _tensor(self, array: NDArray[np.int64] | NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def __repr__(self) -> str:
        return f"Torch{self.plan!r}"


def to_torch(plan: Plan, device: torch.device | str = "cpu") -> TorchPlan:
    """`plan` with tensors for fields, on `device`. On the CPU nothing is copied."""
    return TorchPlan(plan, device)


def ahead(items: Iterator[Item], ready: Callable[[Item], None]) -> Iterator[Item]:
    """`items`, each made on another thread while the one before is in use; `ready(item)` is called there too.

    For a GPU, whose steps leave the CPU idle: plans are made on the CPU and moved as index tensors. Per token that is 8
    bytes for each set that it is in, and making them costs about 6 ms per 1e6 tokens on one thread (measured by
    benchmarks/masking.py, `mae_indices`), so the step does not wait for them where it takes longer. The thread plans on
    one core. Raises what making an item raises, when its turn comes.
    """
    done: Queue[tuple[bool, Any]] = Queue(1)  # one waits, one is in the making
    stop = threading.Event()

    def work() -> None:
        numba.set_num_threads(1)  # of this thread only
        try:
            for item in items:
                ready(item)
                if not _hand_over(done, (True, item), stop):
                    return
        except BaseException as error:
            _hand_over(done, (False, error), stop)
        else:
            _hand_over(done, (False, None), stop)

    thread = threading.Thread(target=work, name="structmae-ahead", daemon=True)
    thread.start()
    try:
        while True:
            more, item = done.get()
            if not more:
                if item is not None:
                    raise item
                return
            yield item
    finally:
        stop.set()
        thread.join()


def _hand_over(done: "Queue[Any]", item: Any, stop: threading.Event) -> bool:
    """Whether somebody still wants it."""
    while not stop.is_set():
        try:
            done.put(item, timeout=0.1)
        except Full:
            continue
        return True
    return False


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (n,) of x (M, ...): those of a plan's tokens. Each row may be taken once only, as a plan's sets do.

    Differentiable; the gradient (M, ...) is 0 where nothing was taken. Raises IndexError for a row that is not there.
    """
    if index.dim() != 1 or index.is_floating_point() or index.dtype is torch.bool:
        raise UsageError(
            f"index of shape {tuple(index.shape)} and {index.dtype}: must be (n,) integers; give positions"
        )
    out: Tensor = _Take.apply(x, index)
    return out


def apply(x: Tensor, plan: TorchPlan, token: Tensor) -> Tensor:
    """x (M, D) as the encoder sees it: `token` (D,) or (1, D) at TOKEN, another row of x at RANDOM, zeros at ZERO, and
    itself elsewhere. Rows that the plan drops are zeros: give the others, `take(x, plan.kept)`, to the encoder.

    Differentiable in x and token. Raises UsageError where the plan takes ids from a vocabulary or is of another size.
    """
    if x.dim() != 2 or token.numel() != x.shape[1]:
        raise UsageError(
            f"x of shape {tuple(x.shape)} and token of shape {tuple(token.shape)}: must be (M, D) and (D,) or (1, D)"
        )
    if plan.size != len(x):
        raise UsageError(f"a plan of {plan.size} tokens for x of {len(x)} rows: draw it over these tokens' layout")
    if plan.plan.from_where is None and len(plan.with_act(Act.RANDOM)):
        raise UsageError(
            "random_from 'vocabulary' is for ids: put plan.random_ids(vocabulary) in place, then embed them"
        )
    out: Tensor = _Apply.apply(x, token, plan)
    return out


def _native(*tensors: Tensor) -> bool:
    """Whether the kernels read these: float32 on the CPU, in C order, and nobody traces."""
    plain = all(t.device.type == "cpu" and t.dtype is torch.float32 and t.is_contiguous() for t in tensors)
    return plain and tensors[0].dim() == 2 and not torch.compiler.is_compiling()


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().numpy()
    return array


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows = len(x)
        if not (_native(x) and index.dtype is torch.int64 and index.is_contiguous()):
            return x.index_select(0, index)
        if len(index) and (int(index.min()) < 0 or int(index.max()) >= len(x)):
            raise IndexError(f"index from {int(index.min())} to {int(index.max())}: x has rows 0 to {len(x) - 1}")
        out = memory.empty((len(index), x.shape[1]), np.float32)
        args = out, _array(x), _array(index)
        each(lambda lo, hi: codes.rows(*args, lo, hi), even(len(index), threads(out.size)))
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return grad.new_zeros((ctx.rows, *grad.shape[1:])).index_copy_(0, index, grad), None


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, plan: TorchPlan) -> Tensor:
        ctx.plan, ctx.shape = plan, token.shape
        row = token.reshape(-1)
        if not _native(x, row):
            return _replace(x, plan, row)
        out = memory.empty(tuple(x.shape), np.float32)
        code, source = plan.plan.code, plan.plan.source
        borders = even(len(x), threads(out.size))
        before = [int(np.searchsorted(plan.plan.scored, border)) for border in borders]

        def run(lo: int, hi: int) -> None:
            codes.replace(out, _array(x), code, source, before[lo], _array(row), borders[lo], borders[hi])

        each(run, list(range(len(borders))))
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        plan: TorchPlan = ctx.plan
        for_x, for_token = None, None
        if ctx.needs_input_grad[1]:
            for_token = grad.index_select(0, plan.with_act(Act.TOKEN)).sum(0).reshape(ctx.shape)
        if ctx.needs_input_grad[0]:
            for_x = grad.index_fill(0, plan.hidden, 0.0)
            at = plan.with_act(Act.RANDOM)
            if len(at):
                for_x.index_add_(0, plan.taken, grad.index_select(0, at))
        return for_x, for_token, None


def _replace(x: Tensor, plan: TorchPlan, token: Tensor) -> Tensor:
    """`apply` in torch's own operations."""
    out = x.clone()
    if len(index := plan.with_act(Act.TOKEN)):
        out[index] = token.to(x.dtype)
    for act in (Act.ZERO, Act.DROP):
        if len(index := plan.with_act(act)):
            out[index] = 0.0
    if len(index := plan.with_act(Act.RANDOM)):
        out[index] = x[plan.taken]
    return out
