import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from structmae.evaluate.folds import accuracy, best_cost

COSTS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def machine(cost):
    return LogisticRegression(C=cost)


@pytest.mark.parametrize("seed", range(5))
def test_it_chooses_what_scikit_learns_grid_search_does(seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, 60)
    x = rng.normal(size=(60, 8)) + 0.5 * y[:, None]
    folds = StratifiedKFold(4, shuffle=True, random_state=seed)
    library = GridSearchCV(machine(1.0), {"C": list(COSTS)}, cv=folds).fit(x, y)
    parts = ((x[some], y[some], x[test], y[test]) for some, test in folds.split(x, y))
    assert best_cost(machine, COSTS, parts) == library.best_params_["C"]


def test_of_equals_the_first():
    x, y = np.array([[-1.0], [1.0]] * 4), np.array([0, 1] * 4)
    assert accuracy(machine(1.0), x, y, x, y) == 1.0
    assert best_cost(machine, COSTS, [(x, y, x, y)]) == COSTS[0]
