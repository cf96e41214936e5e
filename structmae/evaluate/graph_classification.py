"""Graph classification: a support vector machine on frozen graph vectors, ten-fold."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC
from torch import Tensor

from structmae.data import Graphs
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate.arms import arms
from structmae.evaluate.folds import best_cost, packed
from structmae.nn.base import Encoder
from structmae.recipe import Recipe
from structmae.tokens.graph import GraphSource

FOLDS = 10
COSTS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def check(graphs: Graphs, recipe: Recipe) -> None:
    """Raises StructmaeError where the graphs have no labels to score, UsageError where the task does not fit."""
    if graphs.level != "graph":
        raise UsageError(f"graph_classification: {graphs.name} has node labels; the task is node_classification")
    if graphs.y is None:
        raise StructmaeError(f"{graphs.name} has no labels, so there is nothing to evaluate on")
    if recipe.encoder.pool == "none":
        raise UsageError("encoder.pool=none gives one vector a node: set encoder.pool=mean for graph_classification")


def evaluate(encoder: Encoder, initial: Encoder, source: GraphSource, graphs: Graphs, recipe: Recipe) -> dict[str, Any]:
    """The evaluation of `encoder` beside `initial`, the same before training, and plain features: see `arms`."""
    check(graphs, recipe)
    return score(arms(encoder, initial, source, pool=recipe.encoder.pool), graphs, recipe)


def score(features: dict[str, Tensor], graphs: Graphs, recipe: Recipe, *, linear: bool = False) -> dict[str, Any]:
    """Mean accuracy over stratified folds, shuffled by `train.seed`, for each arm of `features` (G, width).

    An RBF machine, its gamma 1 / (width x variance) of the training rows; with `linear` one whose kernel is the cosine
    of two rows. Its C is chosen inside the training folds (five-fold). `right` has a bit for each labelled graph, in
    hexadecimal. Raises StructmaeError where there are too few labelled graphs.
    """
    assert graphs.y is not None
    labelled = np.flatnonzero(graphs.y.numpy() >= 0)
    y = graphs.y.numpy()[labelled]
    fewest = int(np.unique(y, return_counts=True)[1].min()) if len(y) else 0
    folds = min(FOLDS, fewest)
    if folds < 2 or len(np.unique(y)) < 2:
        raise StructmaeError(
            f"graph_classification needs two classes of two labelled graphs or more; {graphs.name} has fewer"
        )
    rows: list[dict[str, Any]] = []
    for arm, x in features.items():
        scores, right = _cross_validate(x.numpy().astype(np.float64)[labelled], y, folds, recipe.train.seed, linear)
        rows.append(
            {
                "features": arm,
                "value": float(scores.mean()),
                "validation": None,
                "std": float(scores.std(ddof=1)),
                "n": len(y),
                "folds": [float(score) for score in scores],
                "right": packed(right),
            }
        )
    return {
        "task": "graph_classification",
        "metric": "accuracy",
        "better": "higher",
        "split": "test",
        "split_source": f"test folds of {folds}-fold stratified cross-validation, seed {recipe.train.seed}",
        **{row["features"]: row["value"] for row in rows},
        "rows": rows,
    }


def _cross_validate(
    x: NDArray[np.float64], y: NDArray[np.int64], folds: int, seed: int, linear: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Test accuracy of each fold, and which rows are right where they are tested. Squared distances, or cosines, are
    computed once for all folds and settings."""
    between = cosine_similarity(x) if linear else pairwise_distances(x, metric="sqeuclidean")
    scores, right = [], np.zeros(len(y), bool)
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        variance = float(x[train].var())
        gamma = 1.0 / (x.shape[1] * variance) if variance > 0 else 1.0
        kernel = between[:, train] if linear else np.exp(-gamma * between[:, train])
        machine = _machine(_cost(kernel[train], y[train], seed))
        right[test] = machine.fit(kernel[train], y[train]).predict(kernel[test]) == y[test]
        scores.append(right[test].mean())
    return np.array(scores), right


def _cost(kernel: NDArray[np.float64], y: NDArray[np.int64], seed: int) -> float:
    """The C that five folds of the training graphs choose; 1 where a class has a single graph."""
    inner = min(5, int(np.unique(y, return_counts=True)[1].min()))
    if inner < 2:
        return 1.0
    splits = StratifiedKFold(inner, shuffle=True, random_state=seed).split(kernel, y)
    folds = ((kernel[np.ix_(some, some)], y[some], kernel[np.ix_(test, some)], y[test]) for some, test in splits)
    return best_cost(_machine, COSTS, folds)


def _machine(cost: float) -> Any:
    return SVC(C=cost, kernel="precomputed")
