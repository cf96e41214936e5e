import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from structmae.evaluate.probe import accuracy, fit_probe
from structmae.recipe import ProbeOptions


def clouds(seed=0, rows=400, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (rows,), generator=generator)
    centres = torch.randn(3, 5, generator=generator) * 2
    return centres[y] + spread * torch.randn(rows, 5, generator=generator), y


def test_the_probe_finds_what_logistic_regression_finds():
    x, y = clouds()
    train, validation, test = torch.arange(100), torch.arange(100, 200), torch.arange(200, 400)
    probe = fit_probe(x, y, train, validation, 3, ProbeOptions(epochs=500, lr=0.05, weight_decay=0.0))
    library = LogisticRegression(C=1e6, max_iter=5000).fit(x[train].numpy(), y[train].numpy())
    ours, theirs = accuracy(probe.predict(x[test]), y[test]), library.score(x[test].numpy(), y[test].numpy())
    assert abs(ours - theirs) < 0.04


def test_no_row_outside_train_and_validation_is_read():
    x, y = clouds()
    train, validation = torch.arange(60), torch.arange(60, 120)
    one = fit_probe(x, y, train, validation, 3, ProbeOptions())
    x[120:], y[120:] = float("nan"), -1
    other = fit_probe(x, y, train, validation, 3, ProbeOptions())
    assert torch.equal(one.weight, other.weight)
    assert one.epoch == other.epoch


def test_validation_chooses_the_epoch_and_none_means_the_last():
    x, y = clouds(spread=4.0)
    train, validation = torch.arange(60), torch.arange(60, 120)
    probe = fit_probe(x, y, train, validation, 3, ProbeOptions(epochs=50))
    scores = [fit_probe(x, y, train, torch.arange(0), 3, ProbeOptions(epochs=epochs)) for epochs in range(1, 51)]
    assert all(part.epoch == epochs for epochs, part in enumerate(scores, 1))
    curve = [accuracy(part.predict(x[validation]), y[validation]) for part in scores]
    assert probe.validation == max(curve)
    assert probe.epoch == len(curve) - curve[::-1].index(max(curve))  # the later of equals


def test_search_takes_the_best_of_the_grid():
    x, y = clouds(spread=3.0)
    train, validation = torch.arange(60), torch.arange(60, 160)
    plain = fit_probe(x, y, train, validation, 3, ProbeOptions())
    searched = fit_probe(x, y, train, validation, 3, ProbeOptions(search=True))
    assert searched.validation >= plain.validation


def test_accuracy_is_a_fraction():
    assert accuracy(torch.tensor([1, 0, 2, 2]), torch.tensor([1, 1, 2, 2])) == np.mean([1, 0, 1, 1])
