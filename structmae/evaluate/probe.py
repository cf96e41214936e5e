"""The linear probe: softmax regression on frozen features, full-batch."""

from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from structmae.recipe import ProbeOptions

# One grid for every arm and method, chosen on validation (probe.search).
LEARNING_RATES = (0.003, 0.01, 0.03)
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1)


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
    """
    data = features[train], y[train], features[validation], y[validation]
    grid = product(LEARNING_RATES, WEIGHT_DECAYS) if options.search else [(options.lr, options.weight_decay)]
    best: Probe | None = None
    for lr, weight_decay in grid:
        probe = _fit(*data, classes, lr, weight_decay, options.epochs)
        if best is None or (probe.validation or 0.0) > (best.validation or 0.0):
            best = probe
    assert best is not None
    return best


def _fit(
    x: Tensor, y: Tensor, x_validation: Tensor, y_validation: Tensor, classes: int, lr: float, decay: float, epochs: int
) -> Probe:
    weight = torch.zeros(x.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=lr, weight_decay=decay)
    best = Probe(weight.detach(), bias.detach(), lr, decay, 0, None)
    for epoch in range(1, epochs + 1):
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(F.cross_entropy(x @ weight + bias, y))
        optimizer.step()
        now = Probe(weight.detach(), bias.detach(), lr, decay, epoch, None)
        if len(y_validation):
            score = accuracy(now.predict(x_validation), y_validation)
            if best.validation is not None and score < best.validation:
                continue
            best = Probe(weight.detach().clone(), bias.detach().clone(), lr, decay, epoch, score)
        elif epoch == epochs:
            best = now
    return best
