"""Classification of series: logistic regression on frozen vectors of recordings, with all labels and with few."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifierCV
from torch import Tensor

from structmae.data.series import Series
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate import rocket
from structmae.evaluate.few import LABELS, few, logistic, rows, standardised
from structmae.evaluate.folds import accuracy
from structmae.evaluate.frozen import AT_ONCE, frozen
from structmae.nn.base import Encoder
from structmae.recipe import Recipe

PENALTIES = tuple(10.0**power for power in range(-3, 4))  # of the ridge that reads MiniRocket's features
Array = NDArray[np.float32]
Wide = NDArray[np.float64]


def check(data: Series, recipe: Recipe) -> None:
    """Raises StructmaeError where there are no labels to score, UsageError where task or recipe don't fit them."""
    if data.level != "sample":
        raise UsageError(f"classification: {data.name} is one recording; the tasks are forecasting and imputation")
    if data.y is None:
        raise StructmaeError(f"{data.name} has no labels, so there is nothing to evaluate on")
    if recipe.encoder.pool == "none":
        raise UsageError("encoder.pool=none gives one vector a token: pre-train with --set encoder.pool=mean")


def evaluate(
    encoder: Encoder,
    initial: Encoder,
    source: Any,
    data: Series,
    recipe: Recipe,
    *,
    labels: Sequence[int] = LABELS,
    progress: Callable[[str], None] | None = None,
    at_once: int = AT_ONCE,
) -> dict[str, Any]:
    """The evaluation of `encoder` beside `initial`, the same before training, raw values, and MiniRocket where tsai is
    installed. Classifiers are fitted on the training recordings alone; the test recordings are read once.

    `rows` have all labels, `few_labels` the mean and standard deviation over subsets of `labels` a class. progress:
    takes a line as each arm is done. at_once: series of windows that an encoder reads at once.

    Raises UsageError and StructmaeError as `check` does, and StructmaeError where there are too few labels.
    """
    check(data, recipe)
    assert data.y is not None
    fitted, test = (part[data.y[part] >= 0] for part in (data.split["train"], data.split["test"]))
    classes = np.unique(data.y[fitted])
    if len(classes) < 2 or not len(test):
        raise StructmaeError(
            f"classification needs labelled test recordings and two classes to learn; {data.name} has {len(test)} "
            f"and {len(classes)}"
        )
    with frozen(encoder, initial):
        arms = {
            "pretrained": vectors(encoder, source, at_once=at_once).numpy(),
            "random_init": vectors(initial, source, at_once=at_once).numpy(),
        }
    padded = raw(source)
    arms["raw"] = padded.reshape(len(padded), -1)
    notes = [] if rocket.available() else [rocket.NOTE]
    say = progress or (lambda text: None)
    subsets, left_out = few(data.y, fitted, labels)
    names = [*arms, *(["rocket"] if rocket.available() else [])]
    whole: list[dict[str, Any]] = []
    few_labels: list[dict[str, Any]] = []
    for arm in names:

        def score(chosen: NDArray[np.int64], arm: str = arm) -> float:
            assert data.y is not None
            if arm == "rocket":
                x, x_test = rocket.features(padded[chosen], padded[test], seed=0)
            else:
                x, x_test = arms[arm][chosen], arms[arm][test]
            read = ridge if arm == "rocket" else logistic
            return read(x.astype(np.float64), data.y[chosen], x_test.astype(np.float64), data.y[test])

        value = score(fitted)
        whole.append({"features": arm, "value": value, "validation": None, "std": None, "n": len(test)})
        few_labels += rows(arm, subsets, score)
        say(f"{arm}: accuracy {value:.4f}")
    return {
        "task": "classification",
        "metric": "accuracy",
        "better": "higher",
        "split": "test",
        "split_source": data.split_source,
        **{row["features"]: row["value"] for row in whole},
        "rows": whole,
        "few_labels": few_labels,
        "notes": [*notes, *left_out],
    }


def vectors(encoder: Any, source: Any, *, at_once: int = AT_ONCE) -> Float[Tensor, "recordings width"]:
    """One vector a recording, in order, on the CPU: of its windows side by side the mean, each counted by its rows."""
    ptr, context = torch.from_numpy(source.series.ptr), source.context
    lengths = ptr.diff()
    windows = (lengths + context - 1) // context
    of = torch.arange(len(lengths)).repeat_interleave(windows)
    place = torch.arange(len(of)) - (windows.cumsum(0) - windows)[of]
    weight = (lengths[of] - place * context).clamp_max(context)
    size = max(1, at_once // len(source.series.channels))
    parts = torch.split(ptr[of] + place * context, size)
    found = torch.cat([encoder.represent(source.at(part)).cpu() for part in parts])
    total = found.new_zeros(len(lengths), found.shape[1]).index_add(0, of, found * weight[:, None])
    return total / lengths[:, None]


def raw(source: Any) -> Array:
    """(S, C, T) scaled values of the recordings, zeros where missing and after the end."""
    ptr = source.series.ptr
    values: Tensor = source.values(torch.from_numpy(ptr[:-1]), int(np.diff(ptr).max()))[0]
    return values.numpy()


def ridge(x: Wide, y: NDArray[np.int64], x_test: Wide, y_test: NDArray[np.int64]) -> float:
    """Test accuracy of what MiniRocket's authors put on its features; the penalty by leave-one-out inside the training
    labels."""
    return accuracy(RidgeClassifierCV(alphas=PENALTIES), *standardised(x, y, x_test, y_test))
