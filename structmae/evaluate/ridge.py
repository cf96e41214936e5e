"""Closed-form ridge regression from blocks of rows: normal equations in float64, solved at a grid of penalties."""

import torch
from jaxtyping import Float
from torch import Tensor

from structmae.errors import StructmaeError

WIDEST = 8192  # features: X'X in float64 and its factor take 1 GiB
BLOCK = 8192  # rows of one product: float32 sums within it, float64 between
COLUMNS = 384  # of X'X at once: fewer leave less above the diagonal, more make a faster product
PENALTIES = tuple(10.0**power for power in range(-6, 4))  # times the mean diagonal of X'X


class Gram:
    """X'X and X'Y of rows that come in blocks.

    `outputs` is the largest number of targets. A block may have fewer: its targets are the first of them. So nested
    fits share one pass: rows with all targets go first, `solve` gives that fit, rows with fewer follow, and so on.
    """

    def __init__(self, width: int, outputs: int, device: torch.device | None = None):
        """Raises StructmaeError for more than `WIDEST` features."""
        if width > WIDEST:
            raise StructmaeError(
                f"a ridge over {width} features: at most {WIDEST} fit; lower tokens.context or encoder.hidden, or "
                "choose fewer data.channels"
            )
        self.xx = torch.zeros(width, width, dtype=torch.float64, device=device)
        self.xy = torch.zeros(width, outputs, dtype=torch.float64, device=device)
        self.rows = 0

    def add(self, x: Float[Tensor, "rows width"], y: Float[Tensor, "rows targets"]) -> None:
        """Products are made in the dtype of `x`, `BLOCK` rows at a time. Above its diagonal blocks `xx` stays empty."""
        for rows, targets in zip(torch.split(x, BLOCK), torch.split(y.to(x.dtype), BLOCK), strict=True):
            for left in range(0, len(self.xx), COLUMNS):  # the lower triangle, which is all that a factor reads
                self.xx[left:, left : left + COLUMNS] += rows[:, left:].T @ rows[:, left : left + COLUMNS]
            self.xy[:, : y.shape[1]] += rows.T @ targets
        self.rows += len(x)

    def solve(
        self,
        targets: int | None = None,
        *,
        free: int = 0,
        penalties: tuple[float, ...] = PENALTIES,
        less: Float[Tensor, "first targets"] | None = None,
    ) -> Float[Tensor, "penalties width targets"]:
        """Weights of the first `targets` outputs at each penalty, float64:

            (X'X + penalty x mean diagonal x I) W = X'Y

        The last `free` features (an intercept) are not penalised. A penalty at which the matrix is not positive, by
        rounding, has weights NaN. Raises StructmaeError without rows.
        """
        if not self.rows:
            raise StructmaeError("a ridge has no rows to be fitted on: give data with more observed training rows")
        xy = self.xy[:, :targets]
        if less is not None:  # the first outputs are features of another map, whose part of the targets is taken off
            begin = len(less)
            xy = self.xy[:, begin : begin + less.shape[1]] - self.xy[:, :begin] @ less.double()
        level = self.xx.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
        weights = xy.new_full((len(penalties), *xy.shape), torch.nan)
        for into, penalty in zip(weights, penalties, strict=True):
            if penalty == torch.inf:
                into.zero_()
                continue
            matrix = self.xx.clone()
            matrix.diagonal()[: len(matrix) - free] += penalty * level
            factor, failed = torch.linalg.cholesky_ex(matrix)
            if not int(failed):
                torch.cholesky_solve(xy, factor, out=into)
        return weights


def best(errors: Float[Tensor, "penalties"]) -> int:
    """The place of the smallest error, the larger penalty of equals; NaN counts as infinite. Raises StructmaeError
    where none is finite."""
    finite = errors.double().nan_to_num(nan=torch.inf, posinf=torch.inf)
    lowest = finite.min()
    if not bool(lowest.isfinite()):
        raise StructmaeError("no penalty gives a finite validation error: check the data for huge values")
    return int((finite == lowest).nonzero().max())
