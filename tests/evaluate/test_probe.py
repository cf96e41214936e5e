from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from structmae.evaluate import probe
from structmae.evaluate.probe import LEARNING_RATES, WEIGHT_DECAYS, accuracy, fit_probe, fit_probes
from structmae.recipe import ProbeOptions


def clouds(seed=0, rows=400, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (rows,), generator=generator)
    centres = torch.randn(3, 5, generator=generator) * 2
    return centres[y] + spread * torch.randn(rows, 5, generator=generator), y


def words(seed=0, rows=200, width=60, classes=4):
    """Bags of few words that lean to the label's, and classes equally large in every block of rows."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(rows) % classes
    likely = 0.03 + 0.1 * (torch.arange(width) % classes == y[:, None])
    x = (torch.rand(rows, width, generator=generator) < likely).float()
    return x / x.sum(1, keepdim=True).clamp_min(1), y


def plainly(x, y, train, validation, classes, options):
    """The same by autograd and torch's optimizer: (weight, bias, lr, weight decay, epoch, accuracy)."""
    best = None
    grid = product(LEARNING_RATES, WEIGHT_DECAYS) if options.search else [(options.lr, options.weight_decay)]
    for lr, decay in grid:
        linear = torch.nn.Linear(x.shape[1], classes, dtype=torch.float64)
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
        optimizer = torch.optim.Adam(linear.parameters(), lr=lr, weight_decay=decay)
        found = None
        for epoch in range(1, options.epochs + 1):
            optimizer.zero_grad()
            F.cross_entropy(linear(x[train].double()), y[train]).backward()
            optimizer.step()
            weight, bias = linear.weight.detach().float().T.clone(), linear.bias.detach().float().clone()
            score = accuracy((x[validation] @ weight + bias).argmax(1), y[validation])
            if found is None or score >= found[-1]:
                found = weight, bias, lr, decay, epoch, score
        if best is None or found[-1] > best[-1]:
            best = found
    return best


CASES = {"clouds": clouds(spread=3.0), "words": words()}


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_it_is_torchs_own_optimizer_in_float64(name, search):
    x, y = CASES[name]
    classes, train, validation = int(y.max()) + 1, torch.arange(40), torch.arange(40, 120)
    options = ProbeOptions(epochs=70, search=search)
    weight, bias, *chosen = plainly(x, y, train, validation, classes, options)
    fast = fit_probe(x, y, train, validation, classes, options)
    assert [fast.lr, fast.weight_decay, fast.epoch] == chosen[:-1]
    assert fast.validation == pytest.approx(chosen[-1])
    torch.testing.assert_close((fast.weight, fast.bias), (weight, bias), rtol=1e-5, atol=1e-7)


def test_rows_in_another_order_are_the_same_probe():
    x, y = CASES["words"]
    train, validation = torch.arange(80), torch.arange(80, 200)
    one, other = (fit_probe(x, y, rows, validation, 4, ProbeOptions()) for rows in (train, train.flip(0)))
    assert (one.epoch, one.validation) == (other.epoch, other.validation)
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("cells", "epochs"), [(probe.CELLS, probe.EPOCHS), (1, 3), (20_000, 7)])
def test_several_sets_at_once_are_each_alone(monkeypatch, cells, epochs):
    x, y = CASES["words"]
    train, validation, options = (
        torch.arange(96).view(4, 24),
        torch.arange(96, 200),
        ProbeOptions(epochs=40, search=True),
    )
    alone = [fit_probe(x, y, rows, validation, 4, options) for rows in train]
    monkeypatch.setattr(probe, "CELLS", cells)
    monkeypatch.setattr(probe, "EPOCHS", epochs)
    for one, other in zip(fit_probes(x, y, train, validation, 4, options), alone, strict=True):
        assert (one.lr, one.weight_decay, one.epoch, one.validation) == (
            other.lr, other.weight_decay, other.epoch, other.validation,
        )  # fmt: skip
        torch.testing.assert_close((one.weight, one.bias), (other.weight, other.bias), rtol=1e-5, atol=1e-7)


def test_a_small_probe_is_the_same_on_any_number_of_threads():
    x, y = CASES["words"]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(fit_probe(x, y, torch.arange(80), torch.arange(80, 200), 4, ProbeOptions()))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0].weight, found[1].weight)


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
