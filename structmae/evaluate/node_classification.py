"""Node classification: a linear probe on frozen node vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from structmae.data import Graphs
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate import few
from structmae.evaluate.arms import arms
from structmae.evaluate.folds import packed
from structmae.evaluate.probe import fit_probe
from structmae.nn.base import Encoder
from structmae.recipe import Recipe
from structmae.tokens.graph import GraphSource


def check(graphs: Graphs, recipe: Recipe) -> None:
    """Raises StructmaeError where the graph has no labels to score, UsageError where task or recipe don't fit it."""
    if graphs.level != "node":
        raise UsageError(f"node_classification: {graphs.name} is a set of graphs; the task is graph_classification")
    if graphs.y is None:
        raise StructmaeError(f"{graphs.name} has no labels, so there is nothing to evaluate on")
    if graphs.split is None:
        raise StructmaeError(f"{graphs.name} has too few labels, or one class alone: there is no split to score")
    if recipe.encoder.pool != "none":
        raise UsageError(f"encoder.pool={recipe.encoder.pool} gives one vector a graph: set encoder.pool=none")


def evaluate(
    encoder: Encoder,
    initial: Encoder,
    source: GraphSource,
    graphs: Graphs,
    recipe: Recipe,
    *,
    labels: Sequence[int] = (),
) -> dict[str, Any]:
    """The evaluation of `encoder` beside `initial`, the same before training, and plain features: see `arms`. With
    `labels` it has `few_labels` besides: see `score`."""
    check(graphs, recipe)
    return score(arms(encoder, initial, source, pool="none"), graphs, recipe, labels=labels)


def score(features: dict[str, Tensor], graphs: Graphs, recipe: Recipe, *, labels: Sequence[int] = ()) -> dict[str, Any]:
    """Accuracy on the test nodes for each arm of `features` (N, width), read once, after validation has chosen.

    `few_labels`: the same with so many `labels` a class of the training nodes, over several draws of them. There
    validation nodes would be more than those that teach, and none is read: logistic regression on rows of
    length 1, its C by folds inside the labels.
    """
    assert graphs.split is not None
    assert graphs.y is not None
    train, validation, test = (graphs.split[part] for part in ("train", "validation", "test"))
    if not len(train) or not len(test):
        raise StructmaeError(
            f"node_classification needs train and test nodes; {graphs.name} has {len(train)} and {len(test)}"
        )
    rows: list[dict[str, Any]] = []
    for arm, x in features.items():
        probe = fit_probe(x, graphs.y, train, validation, len(graphs.classes), recipe.probe)
        right = probe.predict(x[test]) == graphs.y[test]
        rows.append(
            {
                "features": arm,
                "value": float(right.double().mean()),
                "validation": probe.validation,
                "std": None,
                "n": len(test),
                "probe": {"lr": probe.lr, "weight_decay": probe.weight_decay, "epoch": probe.epoch},
                "right": packed(right.numpy()),
            }
        )
    return {
        "task": "node_classification",
        "metric": "accuracy",
        "better": "higher",
        "split": "test",
        "split_source": graphs.split_source,
        **{row["features"]: row["value"] for row in rows},
        "rows": rows,
        **(_few(features, graphs, labels) if labels else {}),
    }


def _few(features: dict[str, Tensor], graphs: Graphs, labels: Sequence[int]) -> dict[str, Any]:
    assert graphs.split is not None
    assert graphs.y is not None
    y, train, test = (part.numpy() for part in (graphs.y, graphs.split["train"], graphs.split["test"]))
    subsets, notes = few.few(y, train, labels)
    found: list[dict[str, Any]] = []
    for arm, vectors in features.items():
        x = vectors.numpy().astype(np.float64)

        def value(chosen: NDArray[np.int64], x: few.Wide = x) -> float:
            return few.logistic(x[chosen], y[chosen], x[test], y[test], few.unit)

        found += few.rows(arm, subsets, value)
    return {"few_labels": found, "notes": notes}
