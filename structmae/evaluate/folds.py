"""The cost of a classifier, chosen inside its training labels by stratified folds.

What scikit-learn's GridSearchCV chooses. Each fold's rows are cut out, and prepared, once for all costs, and no time
goes into clones and checks of settings, which take longer than to fit a small machine.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Fold = tuple[Array, Labels, Array, Labels]  # rows and labels to fit, rows and labels to score


def accuracy(machine: Any, x: Array, y: Labels, x_test: Array, y_test: Labels) -> float:
    """The share of test rows that a machine gets right which is fitted on the others."""
    with config_context(skip_parameter_validation=True):
        return float((machine.fit(x, y).predict(x_test) == y_test).mean())


def best_cost(machine: Callable[[float], Any], costs: Sequence[float], folds: Iterable[Fold]) -> float:
    """The cost with the best mean accuracy over the folds, the first of equals."""
    scores = np.array([[accuracy(machine(cost), *fold) for cost in costs] for fold in folds])
    return costs[int(scores.mean(0).argmax())]


def packed(right: NDArray[np.bool_]) -> str:
    """Which test rows are right, a bit each in hexadecimal: what a paired test of two methods reads."""
    return np.packbits(right).tobytes().hex()
