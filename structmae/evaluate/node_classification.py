"""Node classification: a linear probe on frozen node vectors."""

from typing import Any

from torch import Tensor

from structmae.data import Graphs
from structmae.errors import StructmaeError
from structmae.evaluate.probe import accuracy, fit_probe
from structmae.recipe import Recipe


def evaluate(features: dict[str, Tensor], graphs: Graphs, recipe: Recipe) -> dict[str, Any]:
    """Accuracy on the test nodes for each arm of `features` (N, width), read once, after validation has chosen.

    Raises StructmaeError where the graph has no labels or no test nodes.
    """
    if graphs.y is None or graphs.split is None or graphs.level != "node":
        raise StructmaeError(f"node_classification needs node labels, and {graphs.name} has none")
    train, validation, test = (graphs.split[part] for part in ("train", "validation", "test"))
    if not len(train) or not len(test):
        raise StructmaeError(
            f"node_classification needs train and test nodes; {graphs.name} has {len(train)} and {len(test)}"
        )
    rows: list[dict[str, Any]] = []
    for arm, x in features.items():
        probe = fit_probe(x, graphs.y, train, validation, len(graphs.classes), recipe.probe)
        rows.append(
            {
                "features": arm,
                "value": accuracy(probe.predict(x[test]), graphs.y[test]),
                "validation": probe.validation,
                "std": None,
                "n": len(test),
                "probe": {"lr": probe.lr, "weight_decay": probe.weight_decay, "epoch": probe.epoch},
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
    }
