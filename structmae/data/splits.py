"""Train, validation and test nodes: made where the data brings none."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Split = dict[str, Tensor]
KEYS = ("train", "validation", "test")


def stratified(y: Tensor, train: float, validation: float, seed: int = 0) -> Split | None:
    """A split with the given shares of every class; the rest is test. Unlabelled nodes (-1) are in no part.

    A class of three or more nodes has at least one in each part. y (N,) int64 -> sorted int64 indices, or None
    where a part would be empty (fewer than three labelled nodes, or fewer than two classes).
    """
    labels = y.numpy()
    present = np.unique(labels[labels >= 0])
    if present.size < 2 or int((labels >= 0).sum()) < 3:
        return None
    rng = np.random.default_rng(seed)
    parts: dict[str, list[NDArray[np.int64]]] = {key: [] for key in KEYS}
    for label in present:
        nodes = rng.permutation(np.flatnonzero(labels == label))
        n = nodes.size
        # One for each part as far as the class reaches: train first, then test, then validation.
        n_train = max(1, min(int(train * n + 0.5), n - 2))
        n_validation = 0 if n < 3 else max(1, min(int(validation * n + 0.5), n - n_train - 1))
        parts["train"].append(nodes[:n_train])
        parts["validation"].append(nodes[n_train : n_train + n_validation])
        parts["test"].append(nodes[n_train + n_validation :])
    return _sorted({key: np.concatenate(value) for key, value in parts.items()})


def per_class(y: Tensor, count: int, validation: int, test: int, rng: np.random.Generator) -> Split | None:
    """`count` nodes of each class for training, then `validation` and `test` nodes at random from the rest.

    The form of the public split of Cora, CiteSeer and PubMed. A class with too few nodes gives at most a third
    of them, so that some are left for the other parts. y (N,) int64 -> sorted int64 indices.
    """
    labels = y.numpy()
    train: list[NDArray[np.int64]] = []
    for label in np.unique(labels[labels >= 0]):
        nodes = np.flatnonzero(labels == label)
        take = count if nodes.size >= 3 * count else min(count, max(1, nodes.size // 3))
        train.append(rng.permutation(nodes)[:take])
    chosen = np.concatenate(train) if train else np.zeros(0, np.int64)
    rest = rng.permutation(np.setdiff1d(np.flatnonzero(labels >= 0), chosen))
    return _sorted({"train": chosen, "validation": rest[:validation], "test": rest[validation : validation + test]})


def _sorted(parts: dict[str, NDArray[np.int64]]) -> Split | None:
    if any(part.size == 0 for part in parts.values()):
        return None
    return {key: torch.from_numpy(np.sort(parts[key]).astype(np.int64)) for key in KEYS}
