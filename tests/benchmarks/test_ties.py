"""Paired tests: what can't be told from the best."""

import random

import numpy as np
import pytest

from structmae.evaluate.folds import packed


@pytest.fixture
def tied(script):
    return script("ties").tied


def lines(right, seeds=(0, 1, 2)):
    return [
        {
            "seed": seed,
            "value": float(np.mean(some)),
            "n": len(some),
            "right": packed(np.array(some, dtype=bool)),
        }
        for seed, some in zip(seeds, right, strict=True)
    ]


def test_bits_come_back(script):
    import torch

    for size in (1, 7, 8, 9, 1000):
        right = torch.rand(size) < 0.5
        assert script("ties").unpacked(packed(right.numpy()), size) == right.int().tolist()


def test_over_the_same_items(tied):
    chance = random.Random(0)
    easy = [chance.random() < 0.8 for _ in range(1000)]
    alike = [[bit if chance.random() < 0.95 else not bit for bit in easy] for _ in range(6)]
    assert tied(lines(alike[:3]), lines(alike[3:]), drawn=False)
    worse = [[bit and chance.random() < 0.9 for bit in easy] for _ in range(3)]
    assert not tied(lines(worse), lines(alike[:3]), drawn=False)
    assert tied(lines(alike[:3]), lines(alike[:3]), drawn=False)


def test_over_the_same_draws_of_labels(tied):
    """Draws are further apart than methods are; a seed alone is enough."""
    draws = [0.40, 0.55, 0.62, 0.48, 0.70]

    def of(change, seeds):
        each = [value + more for value, more in zip(draws, change, strict=True)]
        return [{"seed": seed, "value": float(np.mean(each)), "draws": each} for seed in range(seeds)]

    best = of([0.0] * 5, 3)
    assert not tied(of([-0.010, -0.012, -0.009, -0.011, -0.010], 1), best, drawn=False)
    assert tied(of([0.02, -0.03, 0.01, -0.02, 0.01], 1), best, drawn=False)
    whole = [{"seed": seed, "value": 0.8, "draws": [0.8] * 5} for seed in range(3)]  # all labels: one draw
    values = [0.799, 0.801, 0.803]
    near = [{"seed": seed, "value": value, "draws": [value] * 5} for seed, value in enumerate(values)]
    assert tied(near, whole, drawn=False)
    assert not tied([{**line, "draws": None} for line in of([0.02, -0.03, 0.01, -0.02, 0.01], 1)], best, drawn=False)


def test_over_seeds_where_items_differ_or_are_not_known(tied):
    one = [{"seed": seed, "value": 0.80 + 0.001 * seed} for seed in range(5)]
    far = [{"seed": seed, "value": 0.70 + 0.002 * seed} for seed in range(5)]
    near = [{"seed": seed, "value": 0.80 + 0.001 * (4 - seed)} for seed in range(5)]
    assert not tied(far, one, drawn=False)
    assert tied(near, one, drawn=False)
    lower = [{**line, "value": line["value"] - 0.3} for line in one]  # by the same, up to rounding
    assert not tied(lower, one, drawn=False)
    assert tied(near[:2], one, drawn=False) is None  # too few to tell anything
    right = [[True] * 90 + [False] * 10] * 3
    assert tied(lines(right), lines(right), drawn=True)
