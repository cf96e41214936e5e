"""The linear probe: softmax regression on frozen features, full-batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, product

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from structmae.recipe import ProbeOptions

# One grid for every arm and method, chosen on validation (probe.search).
LEARNING_RATES = (0.003, 0.01, 0.03)
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1)
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam, as torch has them
EPOCHS = 32  # of which validation rows are read in one product
CELLS = 1 << 22  # numbers in a tensor, about: beyond them settings and epochs take turns
SMALL = 1 << 23  # multiplications of an epoch, below which waiting for a second thread costs more than it takes over


@dataclass(frozen=True)
class Probe:
    """A fitted probe: its weights, the settings and the epoch that validation chose, and the accuracy there."""

    weight: Float[Tensor, "width classes"]
    bias: Float[Tensor, "classes"]
    lr: float
    weight_decay: float
    epoch: int
    validation: float | None

    def predict(self, features: Float[Tensor, "rows width"]) -> Int[Tensor, "rows"]:
        return (features @ self.weight + self.bias).argmax(1)


def accuracy(predicted: Int[Tensor, "rows"], y: Int[Tensor, "rows"]) -> float:
    """The share of rows that are right, a fraction of 1."""
    return float((predicted == y).double().mean())


def fit_probe(
    features: Float[Tensor, "rows width"],
    y: Int[Tensor, "rows"],
    train: Int[Tensor, "chosen"],
    validation: Int[Tensor, "held_out"],
    classes: int,
    options: ProbeOptions,
) -> Probe:
    """Fit on the rows `train`. The epoch, and with `probe.search` the learning rate and weight decay, are those with
    the best accuracy on the rows `validation`, the later epoch of equals, as GraphMAE's code has it; without validation
    rows the last epoch counts. The start is at zero, so there is no seed. No other row is read.

    Adam steps in float64. From zero many gradients cancel, such as the biases' where classes are equally large; what
    float32 leaves of those is rounding, which Adam blows up to whole steps, and the epoch chosen hung on the order of
    rows.
    """
    return fit_probes(features, y, train[None], validation, classes, options)[0]


def fit_probes(
    features: Float[Tensor, "rows width"],
    y: Int[Tensor, "rows"],
    train: Int[Tensor, "subsets chosen"],
    validation: Int[Tensor, "held_out"],
    classes: int,
    options: ProbeOptions,
) -> list[Probe]:
    """As `fit_probe`, of several sets of training rows, which are fitted at once."""
    grid = list(product(LEARNING_RATES, WEIGHT_DECAYS)) if options.search else [(options.lr, options.weight_decay)]
    x = features[train]
    used = (x != 0).flatten(0, 1).any(0).nonzero().flatten()  # weights of other columns stay at zero, where they start
    x, held = _with_one(x[..., used]).double(), _with_one(features[validation][:, used])
    truth = F.one_hot(y[train], classes).mT[:, None].double()
    cells = len(train) * classes * max(*x.shape[1:], len(held))  # of one setting
    with _threads(x.numel() * classes * len(grid)):
        parts = [
            _fit(x, truth, held, y[validation], settings, options.epochs, max(1, CELLS // (cells * len(settings))))
            for settings in torch.split(torch.tensor(grid, dtype=x.dtype, device=x.device), max(1, CELLS // cells))
        ]
    weights, right, epochs = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    probes = []
    for subset, best in enumerate(right.argmax(1).tolist()):  # the first of equals
        weight = features.new_zeros(features.shape[1], classes)
        weight[used] = weights[subset, best, :, :-1].T
        score = int(right[subset, best]) / len(held) if len(held) else None
        lr, decay = grid[best]
        probes.append(Probe(weight, weights[subset, best, :, -1], lr, decay, int(epochs[subset, best]), score))
    return probes


def _fit(
    x: Float[Tensor, "subsets chosen width"],
    truth: Float[Tensor, "subsets 1 classes chosen"],
    held: Float[Tensor, "held_out width"],
    answers: Int[Tensor, "held_out"],
    settings: Float[Tensor, "settings 2"],
    epochs: int,
    most: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """For each subset and each setting the weights (S, G, classes, width) after its best epoch, how many rows of `held`
    they get right, and that epoch. At most `most` epochs are kept at once."""
    steps = _descend(x, truth, *settings.T[:, :, None, None])
    every = torch.arange(len(x))[:, None], torch.arange(len(settings))
    shape = len(x), len(settings), truth.shape[2], x.shape[2]
    weights, best = held.new_zeros(shape), torch.full(shape[:2], -1, device=x.device)
    history = held.new_empty(min(EPOCHS, most, epochs), *shape)
    for done in range(0, epochs, len(history)):
        some = history[: epochs - done]
        for into, weight in zip(some, steps):  # noqa: B905 (the steps have no end)
            into.copy_(weight)
        logits = (held @ some.flatten(0, 3).T).view(len(held), *some.shape[:4])
        right = (logits.argmax(-1) == answers[:, None, None, None]).sum(0)
        order = torch.arange(done + 1, done + 1 + len(some), device=x.device)[:, None, None]
        found, place = (right * (epochs + 1) + order).max(0)  # by rows that are right, of equals by epoch
        weights = torch.where((found > best)[..., None, None], some[place, *every], weights)
        best = torch.maximum(best, found)
    return weights, best // (epochs + 1), best % (epochs + 1)


def _descend(
    x: Float[Tensor, "subsets chosen width"],
    truth: Float[Tensor, "subsets 1 classes chosen"],
    lr: Float[Tensor, "settings 1 1"],
    decay: Float[Tensor, "settings 1 1"],
) -> Iterator[Float[Tensor, "subsets settings classes width"]]:
    """Weights after each epoch of Adam (Kingma and Ba, ICLR 2015; L2 in the gradient) on the mean cross-entropy, from
    zero and without end: one tensor, which each step changes."""
    rows = x.shape[1]
    weight = x.new_zeros(len(x), len(lr), truth.shape[2], x.shape[2])
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for epoch in count(1):
        shares = (weight.flatten(1, 2) @ x.mT).view(*weight.shape[:3], rows).softmax(2)
        gradient = (shares.sub_(truth).div_(rows).flatten(1, 2) @ x).view_as(weight).add_(weight * decay)
        mean.lerp_(gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        deviation = square.sqrt().div_((1 - BETAS[1] ** epoch) ** 0.5).add_(EPSILON)
        weight -= deviation.reciprocal_().mul_(mean).mul_(lr / (1 - BETAS[0] ** epoch))
        yield weight


def _with_one(x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width_1"]:
    """A column for the bias."""
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], -1)


@contextmanager
def _threads(work: int) -> Iterator[None]:
    """One thread of torch while open, where an epoch has little work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if work < SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
