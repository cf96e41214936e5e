"""Uniform hiding as statistics: over subsets, positions, pairs; shares and sources. Fixed keys, so fixed results."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from scipy import stats

from structmae.masking import Act, Spec, draw, layout, permutation

ITEMS = 20_000


def codes(n, spec, seed=0, visit=0):
    """(ITEMS, n) codes of as many items of n tokens."""
    return draw(layout(np.arange(ITEMS + 1) * n), spec, seed=seed, visit=visit).code.reshape(ITEMS, n)


def p_uniform(table):
    return stats.chisquare(np.asarray(table).ravel()).pvalue


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("n", "k"), [(6, 3), (5, 1), (7, 5)])
def test_every_subset_is_as_likely(n, k, seed):
    chosen = codes(n, Spec(ratio=k / n), seed) < 5
    seen, times = np.unique(chosen @ (1 << np.arange(n)), return_counts=True)
    assert len(seen) == comb(n, k)
    assert p_uniform(times) > 1e-3


def test_subsets_over_visits():
    """One item over many epochs, not many items in one."""
    at = layout([0, 6])
    bits = 1 << np.arange(6)
    seen = [int((draw(at, Spec(), seed=0, visit=v).code < 5) @ bits) for v in range(4000)]
    times = np.unique(seen, return_counts=True)[1]
    assert len(times) == 20
    assert p_uniform(times) > 1e-3


def test_every_position_and_pair_is_as_likely():
    """Not the plain chi-square: counts within a draw exclude each other, which the expected variances below know."""
    n, k = 30, 9
    chosen = (codes(n, Spec(ratio=k / n)) < 5).astype(float)
    p1 = k / n
    position = (chosen.sum(0) - ITEMS * p1) ** 2 / (ITEMS * p1 * (1 - p1)) * (n - 1) / n
    assert stats.chi2.sf(position.sum(), n - 1) > 1e-3
    assert stats.chi2.cdf(position.sum(), n - 1) > 1e-3  # nor too even
    p2 = p1 * (k - 1) / (n - 1)
    pairs = np.array([(chosen[:, a] * chosen[:, b]).sum() for a, b in combinations(range(n), 2)])
    z = (pairs - ITEMS * p2) / np.sqrt(ITEMS * p2 * (1 - p2))
    assert np.abs(z).max() < 4.5  # of 435
    assert abs(z.std() - 1) < 0.15


def test_neighbouring_keys_are_independent():
    """Seeds, visits and purposes one apart overlap as chance has it."""
    a = codes(20, Spec()) < 5
    for b in (codes(20, Spec(), seed=1) < 5, codes(20, Spec(), visit=1) < 5):
        both = (a & b).sum()  # mean 5 an item, hypergeometric variance 25/19
        assert abs(both - 5 * ITEMS) < 4 * np.sqrt(ITEMS * 25 / 19)
    assert (np.roll(a, 1, axis=0) == a).all(axis=1).mean() < 0.001


@pytest.mark.parametrize(("random", "keep"), [(0.1, 0.1), (0.05, 0.15), (1 / 3, 1 / 3)])
def test_shares_are_unbiased_on_small_items(random, keep):
    """3 of 7 are chosen: 10% of 3 is none by rounding, and would never be given."""
    got = codes(7, Spec(ratio=3 / 7, random=random, keep=keep))
    for act, portion in ((Act.RANDOM, random), (Act.KEEP, keep), (Act.TOKEN, 1 - random - keep)):
        per_item = (got == act).sum(1)
        mean = 3 * portion
        low = np.floor(mean + 1e-9)
        assert per_item.min() >= low
        assert per_item.max() <= np.ceil(mean - 1e-9)
        part = mean - low
        sigma = np.sqrt(max(part * (1 - part), 1e-12) / ITEMS)
        assert abs(per_item.mean() - mean) < 4 * sigma + 1e-9
        assert p_uniform((got == act).sum(0)) > 1e-4  # no position is preferred


def test_sources_are_uniform():
    """Over the visible others; and over all others, hidden or not, with `any`."""
    n = 6
    for random_from, candidates in (("visible", 3), ("any", 5)):
        at = layout(np.arange(ITEMS + 1) * n)
        plan = draw(at, Spec(random=1.0, random_from=random_from), seed=0, visit=0)
        if random_from == "visible":
            row = plan.visible.reshape(ITEMS, 3)
            place = (row[plan.scored // n] < plan.source[:, None]).sum(1)
        else:
            place = plan.source % n - (plan.source > plan.scored)
        times = np.bincount(place, minlength=candidates)
        assert len(times) == candidates
        assert p_uniform(times) > 1e-3


def test_permutations_are_uniform():
    orders = [tuple(permutation(4, seed=0, visit=v)) for v in range(6000)]
    times = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(times) == 24
    assert p_uniform(times) > 1e-3
