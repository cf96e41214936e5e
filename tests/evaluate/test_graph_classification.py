from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

from structmae import resolve
from structmae.errors import StructmaeError
from structmae.evaluate.graph_classification import COSTS, _cross_validate, score


def test_precomputed_distances_score_as_a_plain_machine_does():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    x = rng.normal(size=(60, 4)) + y[:, None]
    expected = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=3).split(x, y):
        inner = StratifiedKFold(5, shuffle=True, random_state=3)
        machine = GridSearchCV(SVC(gamma="scale"), {"C": list(COSTS)}, cv=inner).fit(x[train], y[train])
        expected.append(machine.score(x[test], y[test]))
    found, right = _cross_validate(x, y, 5, 3, False)
    np.testing.assert_allclose(found, expected)
    assert right.mean() == pytest.approx(np.mean(expected))  # folds of 12


def test_a_linear_machine_reads_cosines():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    x = rng.normal(size=(60, 4)) + y[:, None]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=3).split(x, y):
        inner = StratifiedKFold(5, shuffle=True, random_state=3)
        machine = GridSearchCV(SVC(kernel="linear"), {"C": list(COSTS)}, cv=inner).fit(unit[train], y[train])
        expected.append(machine.score(unit[test], y[test]))
    np.testing.assert_allclose(_cross_validate(x, y, 5, 3, True)[0], expected)


def test_too_few_graphs_are_refused(molecules):
    recipe = resolve("graphmae", level="graph")
    found = score({"pretrained": torch.randn(6, 3)}, molecules, recipe)
    assert found["rows"][0]["n"] == 6
    assert len(found["rows"][0]["folds"]) == 3  # three graphs a class
    with pytest.raises(StructmaeError, match="two classes"):
        score({"pretrained": torch.randn(6, 3)}, replace(molecules, y=torch.zeros(6, dtype=torch.long)), recipe)
