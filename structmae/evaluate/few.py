"""Classification with few labels: logistic regression on frozen vectors, for several draws of the labels."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler, normalize

from structmae.errors import UsageError
from structmae.evaluate.folds import Fold, accuracy, best_cost

COSTS = (1e-2, 1e-1, 1.0, 10.0, 100.0)
LABELS = (1, 5, 10, 25)  # of each class
SUBSETS = 5
FOLDS = 5
Ints = NDArray[np.int64]
Wide = NDArray[np.float64]
Subsets = Mapping[int, Sequence[Ints]]


def few(y: Ints, fitted: Ints, sizes: Sequence[int] = LABELS) -> tuple[dict[int, list[Ints]], list[str]]:
    """For each of `sizes` that every class has, subsets of `fitted` with so many items a class, the same for every
    encoder; and notes on the sizes left out. Raises UsageError for a size that is none."""
    for size in sizes:
        if not isinstance(size, int) or size < 1:
            raise UsageError(f"labels={list(sizes)}: must be whole numbers, 1 or more; give how many labels a class")
    members = [fitted[y[fitted] == label] for label in np.unique(y[fitted])]
    fewest = min(len(each) for each in members)
    subsets = {
        size: [
            np.sort(
                np.concatenate([np.random.default_rng([subset, size]).permutation(each)[:size] for each in members])
            )
            for subset in range(SUBSETS)
        ]
        for size in sizes
        if size <= fewest
    }
    notes = [f"left out: {size} labels a class, for a class has {fewest}" for size in sizes if size > fewest]
    return subsets, notes


def rows(arm: str, subsets: Subsets, score: Callable[[Ints], float]) -> list[dict[str, Any]]:
    """Of each size the accuracy on `each` subset, their mean and standard deviation; `score` takes the items of one."""
    found = []
    for size, some in subsets.items():
        each = np.array([score(chosen) for chosen in some])
        spread = {"value": float(each.mean()), "std": float(each.std(ddof=1)), "n": len(each), "each": each.tolist()}
        found.append({"features": arm, "labels": size, **spread})
    return found


def standardised(x: Wide, y: Ints, x_test: Wide, y_test: Ints) -> Fold:
    """Both by the mean and deviation of the training rows."""
    scaler = StandardScaler().fit(x)
    return scaler.transform(x), y, scaler.transform(x_test), y_test


def unit(x: Wide, y: Ints, x_test: Wide, y_test: Ints) -> Fold:
    """Rows of length 1 (Zhu et al., GRACE, 2020): columns that few training rows have are not blown up."""
    return normalize(x), y, normalize(x_test), y_test


def logistic(x: Wide, y: Ints, x_test: Wide, y_test: Ints, scale: Callable[..., Fold] = standardised) -> float:
    """Test accuracy of logistic regression on features that `scale` has scaled (`standardised`, or `unit`); its C is
    chosen inside the training labels `y` by stratified folds, or 1 where a class has fewer than 3 labels."""
    fewest = int(np.unique(y, return_counts=True)[1].min())
    cost = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a large C on separable classes has no end
        if fewest >= 3:
            splits = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=0).split(x, y)
            cost = best_cost(_machine, COSTS, (scale(x[a], y[a], x[b], y[b]) for a, b in splits))
        return accuracy(_machine(cost), *scale(x, y, x_test, y_test))


def _machine(cost: float) -> Any:
    return LogisticRegression(C=cost, max_iter=1000)
