"""Classes of nodes, of graphs, and of recordings."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from structmae.data.graphs import Graphs
from structmae.data.series import Series
from structmae.data.splits import stratified
from structmae.errors import StructmaeError
from structmae.evaluate.frozen import frozen
from structmae.nn.base import Encoder
from structmae.recipe import Recipe
from structmae.tokens import TokenSet
from structmae.tuning.labelled import Labelled
from structmae.tuning.model import ClassHead, TaskModel


def shape(data: Graphs | Series, recipe: Recipe) -> dict[str, Any]:
    """What the head needs to know. Raises StructmaeError where there is nothing to learn."""
    if data.y is None or len(data.classes) < 2:
        raise StructmaeError(f"{data.name} has no labels of two classes or more, so there is nothing to fine-tune on")
    return {"classes": list(data.classes)}


def head(encoder: Encoder, known: dict[str, Any], recipe: Recipe) -> ClassHead:
    """A new head; its width is what the encoder gives of one item."""
    members = len(getattr(encoder.tokenizer, "channels", (0,)))
    width = encoder.width * (1 if getattr(encoder, "mixed", False) or recipe.encoder.pool == "none" else members)
    return ClassHead(width, len(known["classes"]), recipe.finetune.dropout)


def prepare(model: TaskModel, source: Any, recipe: Recipe) -> None:
    """The head starts as it was drawn."""


def parts(source: Any, data: Graphs | Series, recipe: Recipe) -> tuple[dict[str, Labelled], str]:
    """Sources of the train, validation and test part, and where the split is from.

    Graphs have one stratified 80/10/10 split by `train.seed`. Recordings without a validation part give a fifth of
    their training part. Raises StructmaeError where a part is empty.
    """
    assert data.y is not None
    y = torch.as_tensor(data.y)
    split, where = _split(data, y, recipe)
    if isinstance(data, Graphs) and data.level == "node" and source.num_items == 1:  # read as a whole
        one = torch.arange(1)

        def of(rows: Tensor) -> Labelled:
            return Labelled(one, source.batch, lambda _: {"y": y[rows], "rows": rows}, source.device)

        return {name: of(rows) for name, rows in split.items()}, where
    fetch = _fetch(source, data)
    return {name: Labelled(items, fetch, lambda i: {"y": y[i]}, source.device) for name, items in split.items()}, where


def _fetch(source: Any, data: Graphs | Series) -> Callable[[Tensor], dict[str, TokenSet]]:
    """Tokens of graphs, or of recordings. Raises StructmaeError for recordings that a window does not hold."""
    if not isinstance(data, Series):
        batch: Callable[[Tensor], dict[str, TokenSet]] = source.batch
        return batch
    longest, starts = int(np.diff(data.ptr).max()), torch.from_numpy(data.ptr[:-1])
    if longest > source.context:
        raise StructmaeError(
            f"{data.name} has recordings of up to {longest} rows, and the encoder reads {source.context}: pre-train "
            f"with --set tokens.context={longest}, or cut them"
        )
    return lambda items: dict(source.at(starts[items]))


def recoded(data: Graphs | Series, known: dict[str, Any]) -> Graphs | Series:
    """Data whose label codes are those of the head. Raises StructmaeError for a class that it does not know."""
    classes = list(known["classes"])
    if data.y is None or list(data.classes) == classes:
        return data
    unknown = [name for name in data.classes if name not in classes]
    if unknown:
        raise StructmaeError(f"{data.name} has class {unknown[0]!r}: this run knows {', '.join(classes)}")
    codes = np.array([*(classes.index(name) for name in data.classes), -1])
    y = codes[np.asarray(data.y)]
    if isinstance(data, Series):
        return replace(data, y=y, classes=tuple(classes))
    return replace(data, y=torch.from_numpy(y), classes=tuple(classes))


def _split(data: Graphs | Series, y: Tensor, recipe: Recipe) -> tuple[dict[str, Tensor], str]:
    seed = recipe.train.seed
    if data.split is None:
        split = stratified(y, 0.8, 0.1, seed)
        if split is None:
            raise StructmaeError(f"{data.name} has too few labels for a train, a validation and a test part")
        return split, f"made: stratified 80/10/10, seed {seed}"
    split = {name: torch.as_tensor(rows) for name, rows in data.split.items()}
    split = {name: rows[y[rows] >= 0] for name, rows in split.items()}
    where = data.split_source
    if not len(split["validation"]):
        train = split["train"]
        shuffled = train[torch.from_numpy(np.random.default_rng(seed).permutation(len(train)))]
        held = [shuffled[y[shuffled] == label] for label in range(len(data.classes))]
        out = torch.cat([each[: len(each) // 5] for each in held])
        split["validation"], split["train"] = out.sort().values, train[~torch.isin(train, out)]
        where += f"; a fifth of each class of train is validation, seed {seed}"
    few = [name for name, rows in split.items() if len(rows) < (2 if name == "train" else 1)]
    if few:
        raise StructmaeError(f"{data.name} has too few labelled items in its {' and '.join(few)} part")
    return split, where


def measure(model: TaskModel, source: Labelled) -> dict[str, Any]:
    """Accuracy, and the mean cross-entropy, over a part."""
    right, loss, n = 0, 0.0, 0
    with frozen(model):
        for batch in source.batches():
            assert batch.target is not None
            scores, y = model.predict(batch), batch.target["y"]
            term = model.head.loss(scores, batch.target)
            if "rows" in batch.target:
                scores = scores[batch.target["rows"]]
            right, n = right + int((scores.argmax(1) == y).sum()), n + len(y)
            loss += float(term) * len(y) if term is not None else 0.0
    return {"value": right / max(n, 1), "loss": loss / max(n, 1), "n": n}


def validation(model: TaskModel, source: Labelled) -> float:
    """The share of wrong ones; where that is equal, the lower cross-entropy counts."""
    found = measure(model, source)
    return float(1 - found["value"] + 1e-6 * min(found["loss"], 1e3))


def evaluation(
    arms: dict[str, TaskModel], source: Any, data: Graphs | Series, recipe: Recipe, task: str
) -> dict[str, Any]:
    """Test accuracy of each arm."""
    sources, where = parts(source, data, recipe)
    rows = []
    for name, model in arms.items():
        found, seen = measure(model, sources["test"]), measure(model, sources["validation"])
        rows.append(
            {"features": name, "value": found["value"], "validation": seen["value"], "std": None, "n": found["n"]}
        )
    return {
        "task": task,
        "metric": "accuracy",
        "better": "higher",
        "split": "test",
        "split_source": where,
        "finetuned": True,
        **{row["features"]: row["value"] for row in rows},
        "rows": rows,
    }


def predict(model: TaskModel, source: Any, data: Graphs | Series, known: dict[str, Any]) -> pd.DataFrame:
    """A row for each node, graph or recording: `id`, the `label` that scores highest, and the share of each class."""
    items = source.num_items if isinstance(data, Graphs) else data.num_items  # neighbourhoods are a node each
    everything = Labelled(torch.arange(items), _fetch(source, data), lambda i: {"y": i}, source.device)
    with frozen(model):
        shares = torch.cat([model.predict(batch).softmax(1).cpu() for batch in everything.batches()])
    classes = known["classes"]
    table = pd.DataFrame(shares.numpy(), columns=[f"share_{name}" for name in classes])
    table.insert(0, "label", [classes[code] for code in shares.argmax(1).tolist()])
    ids = getattr(data, "ids", None)
    table.insert(0, "id", list(ids) if ids is not None and len(ids) == len(shares) else list(range(len(shares))))
    return table
