"""What pictures of every modality share: colours, axes, and what the model makes of tokens that are hidden from it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from structmae.errors import StructmaeError, UsageError
from structmae.evaluate.frozen import frozen
from structmae.masking import VALIDATION, Act
from structmae.masking.torch import TorchPlan
from structmae.model import Batch
from structmae.planning import Planner
from structmae.tokens import TokenSet

if TYPE_CHECKING:
    from structmae.run import Run

# Okabe and Ito's colours, as in `masking.plot`.
TRUE, REBUILT, HIDDEN = "#1a1a1a", "#d55e00", "#56b4e9"
RIGHT, WRONG, RANDOM, KEPT = "#009e73", "#d55e00", "#e69f00", "#0072b2"
LINES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
COVERED = "#dcdcdc"  # what is hidden, in an image: untouched in `masking.plot`
PANELS = ("input", "what the encoder sees", "rebuilt")

Axes = NDArray[Any]  # of matplotlib's Axes


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture that is not drawn yet: `draw` takes rows x columns axes, flat. `size` is that of a figure, in inches;
    `needs` says what the axes are for, `shared` whether they have one x axis."""

    rows: int
    columns: int
    size: tuple[float, float]
    needs: str
    draw: Callable[[Axes], None]
    shared: bool = False


@dataclass(frozen=True, eq=False)
class Look:
    """Tokens of one set, what a plan does to them, and what each head says of them (M, out)."""

    part: TokenSet
    plan: TorchPlan
    said: dict[str, Tensor]
    in_order: bool  # nothing is hidden: each token is told from those before it

    @property
    def asked(self) -> Tensor:
        """(K,) the tokens that are shown rebuilt: the hidden ones, or where nothing is hidden the scored."""
        return self.plan.scored if not len(self.plan.hidden) else self.plan.hidden

    def content(self, vocabulary: int = 0) -> tuple[Tensor, Tensor | None, Tensor]:
        """What the encoder gets, token by token: values, ids, and whether there is nothing (M,). Where nothing is
        hidden, it is what the token in the middle of each item is told from."""
        values, ids = self.part.values, self.part.ids
        at = self.plan.with_act(Act.RANDOM)
        if len(at) and self.plan.plan.from_where is None and ids is not None:
            ids = ids.index_copy(0, at, self.plan.random_ids(vocabulary))
        elif len(at):
            values = values.index_copy(0, at, self.part.values[self.plan.taken])
            ids = None if ids is None else ids.index_copy(0, at, ids[self.plan.taken])
        covered = torch.zeros(len(self.part), dtype=torch.bool, device=values.device)
        covered = covered.index_fill(0, self.plan.hidden, True).index_fill(0, at, False)
        if self.in_order:
            middle = (self.part.ptr[:-1] + self.part.ptr.diff() // 2)[self.part.batch]
            covered = torch.arange(len(self.part), device=middle.device) >= middle
        return values, ids, covered


def look(run: "Run", tokens: dict[str, TokenSet], name: str, device: torch.device) -> Look:
    """The model's look at tokens, hidden by the draw that is kept for validation."""
    tokens = {key: part.to(device) for key, part in tokens.items()}
    plans = Planner.of(run.recipe).draw(tokens, visit=VALIDATION, step=0)
    with frozen(run.model):
        prepared = run.encoder.prepare(tokens, {key: plan.visible for key, plan in plans.items()})
        said = run.model.rebuild(Batch(tokens, plans))
    said = {key: found for key, found in said.items() if run.model.heads[key].options.of == name}
    in_order = run.recipe.encoder.shift and not len(plans[name].hidden)
    return Look(prepared[name], plans[name], said, in_order)


def teller(run: "Run", said: dict[str, Tensor], kind: str = "all") -> Any:
    """The first head of those that rebuild content that can be shown, of one kind of tokens; None without one."""
    for name in said:
        head = run.model.heads[name]
        if head.options.target in ("values", "code", "ids") and head.options.kind in ("all", kind):
            return head
    return None


def teller_of_all(run: "Run", said: dict[str, Tensor]) -> Any:
    """As `teller`, of tokens that have one kind. Raises UsageError without one."""
    head = teller(run, said)
    if head is None:
        raise UsageError(
            f"plot_reconstruction: no head of {run.recipe.name} rebuilds values or ids, so there is no picture"
        )
    return head


def values(head: Any, said: Tensor, true: Tensor, observed: Tensor | None = None) -> Tensor:
    """What a head of values or codes says of K tokens (K, out) as token values (K, P), beside the true ones: what its
    target leaves out of a token, its mean and deviation or its length, is the true one's."""
    options = head.options
    if options.target == "code":
        centres: Tensor = head.target.centres
        return centres[said.argmax(1)]
    there = torch.ones_like(true) if observed is None else observed.to(true.dtype)
    if options.normalize:
        count = there.sum(1, keepdim=True).clamp_min(1)
        mean = (true * there).sum(1, keepdim=True) / count
        deviation = (((true - mean) * there).square().sum(1, keepdim=True) / count + 1e-6).sqrt()
        said = said * deviation + mean
    if options.loss == "sce":
        said = said * there
        length = said.norm(dim=1, keepdim=True).clamp_min(1e-12)
        said = said * (true * there).norm(dim=1, keepdim=True) / length
    return said


def caveat(head: Any, token: str) -> str:
    """What a title adds where `values` had to take something from the truth."""
    if head.options.target == "values" and head.options.normalize:
        return f"\neach hidden {token} is rebuilt up to its mean and deviation, which here are the true ones"
    if head.options.target == "values" and head.options.loss == "sce":
        return f"\nthe loss compares directions alone: the length of each rebuilt {token} is the true one"
    if head.options.target == "code":
        return f"\neach hidden {token} is one of {head.options.codes} centres of the training data"
    return ""


def array(tensor: Tensor) -> NDArray[Any]:
    """On the CPU, as NumPy."""
    return np.asarray(tensor.detach().cpu())


def chosen(part: Tensor, count: int) -> Tensor:
    """`count` of some numbers, at even distances."""
    if len(part) <= count:
        return part
    return part[torch.linspace(0, len(part) - 1, count).round().long()]


def pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise StructmaeError('a plot needs matplotlib, which is missing: pip install "structmae[plots]"') from None
    return pyplot
