"""Budgets over strata: whole numbers in proportion, and the Dirichlet distribution they are drawn from."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masking_cases import on_threads
from scipy import stats

from structmae.masking import Act, Purpose, Spec, budgets, count, draw, layout

ONCE = settings(max_examples=200, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


def shared_out(sizes, log, total):
    out = np.empty(len(sizes), np.int64)
    args = np.array(sizes, np.int64), np.array(log, float), np.array([0, len(sizes)]), np.array([total])
    budgets.apportion(out, *args)
    return out.tolist()


@pytest.mark.parametrize(
    ("sizes", "weights", "total", "expected"),
    [
        ([9, 9, 9], [1, 1, 1], 3, [1, 1, 1]),
        ([9, 9, 9], [1, 1, 1], 7, [3, 2, 2]),  # ties: the first in order
        ([9, 9, 9], [1, 1, 1], 8, [3, 3, 2]),
        ([9, 9, 9], [1, 2, 4], 10, [1, 3, 6]),  # 1.43, 2.86, 5.71
        ([9, 9, 9], [4, 4, 2], 9, [4, 3, 2]),  # 3.6, 3.6, 1.8
        ([2, 9, 9], [8, 1, 1], 10, [2, 4, 4]),  # 8 asked for, 2 there
        ([2, 9, 9], [8, 3, 1], 10, [2, 6, 2]),  # what is over in proportion
        ([2, 3, 9], [16, 8, 1], 10, [2, 3, 5]),  # 6.4, then 7.1 of 8
        ([2, 3, 4], [1, 1, 1], 9, [2, 3, 4]),
        ([5], [1], 3, [3]),
        ([0], [1], 0, [0]),
        ([4, 4], [1, 0], 6, [4, 2]),
        ([4, 4, 4], [1, 0, 0], 7, [4, 2, 1]),
        ([4, 4], [1, 1], 0, [0, 0]),
        ([], [], 0, []),
    ],
)
def test_whole_numbers_in_proportion(sizes, weights, total, expected):
    """Weights of exp(-800) to the others are 0 among them, and in proportion to each other when those are full."""
    assert shared_out(sizes, [np.log(w) if w else -800.0 for w in weights], total) == expected


@ONCE
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 60)), min_size=1, max_size=8), st.floats(0, 1))
def test_quota_rule(strata, part):
    """Exact sums within sizes; of those that are not full each has its quota, rounded down or up. By fractions."""
    sizes, weights = zip(*strata, strict=True)
    total = int(part * sum(sizes))
    got = shared_out(sizes, np.log(weights), total)
    assert sum(got) == total
    assert all(0 <= g <= size for g, size in zip(got, sizes, strict=True))
    free, left = set(range(len(sizes))), total
    while True:
        quota = {s: Fraction(left * weights[s], sum(weights[t] for t in free)) for s in free}
        full = {s for s in free if quota[s] >= sizes[s]}
        assert all(got[s] == sizes[s] for s in full)
        left -= sum(sizes[s] for s in full)
        free -= full
        if not full:
            break
    assert all(abs(got[s] - quota[s]) < 1 for s in free)
    for s in free:  # the largest rests are those rounded up
        for t in free:
            if got[s] > quota[s] and got[t] <= quota[t]:
                assert quota[s] % 1 >= quota[t] % 1 - Fraction(1, 10**9)


def visible(sizes, items, spec, **key):
    """(items, S) how many of each stratum stay, in items alike."""
    stratum = np.tile(np.repeat(np.arange(len(sizes)), sizes), items)
    plan = draw(layout(sum(sizes) * np.arange(items + 1), stratum=stratum), spec, **{"seed": 0, "visit": 0, **key})
    ends = np.cumsum(sizes)[:-1]
    return np.stack([part.sum(1) for part in np.split((plan.code > 4).reshape(items, -1), ends, 1)], 1)


@pytest.mark.parametrize("concentration", [0.3, 1.0, 5.0])
def test_shares_are_dirichlet(concentration):
    """Three strata: shares of mean 1/3, variance 2 / 9 (3 a + 1), distributed as Beta(a, 2 a); the sum is constant."""
    size, items = 80, 4000
    got = visible([size] * 3, items, Spec("dirichlet", 2 / 3, concentration=concentration))
    assert (got.sum(1) == size).all()
    share, variance = got / size, 2 / 9 / (3 * concentration + 1)
    marginal = stats.beta(concentration, 2 * concentration)
    kurtosis = float(marginal.stats("k"))
    for s in range(3):
        assert abs(share[:, s].mean() - 1 / 3) < 4 * np.sqrt(variance / items)
        spread = variance * np.sqrt((kurtosis + 2) / items)
        assert abs(share[:, s].var() - variance) < 4 * spread + 1 / 12 / size**2  # and what rounding adds
        below = [(got[:, s] <= j).mean() for j in range(size)]
        expected = marginal.cdf((np.arange(size) + 0.5) / size)
        # Kolmogorov's bound; at 0.3 densities are endless at 0, where a rest of less than a half is rarely rounded up.
        assert np.abs(below - expected)[3:-3].max() < 1.95 / np.sqrt(items)


def test_concentration_is_how_much_shares_are_alike():
    spread = [np.ptp(visible([60] * 3, 200, Spec("dirichlet", 2 / 3, concentration=c)), axis=1) for c in (1e-6, 1, 1e6)]
    assert (spread[0] == 60).all()  # all of one stratum's
    assert spread[2].max() <= 1
    assert 20 < spread[1].mean() < 40


def test_any_of_a_stratum_is_as_likely():
    items, size = 5000, 12
    at = layout(3 * size * np.arange(items + 1), stratum=np.tile(np.arange(3 * size) // size, items))
    stay = draw(at, Spec("dirichlet", 0.5), seed=0, visit=0).code.reshape(items, 3, size) > 4
    for s in range(3):
        assert stats.chisquare(stay[:, s].sum(0)).pvalue > 1e-3


def test_no_stratum_has_more_than_its_units():
    got = visible([2, 40, 1, 40], 2000, Spec("dirichlet", 0.4))
    assert (got.sum(1) == 83 - count(0.4, 83)).all()
    assert got.max(0).tolist() == [2, 40, 1, 40]
    assert (got[:, [0, 2]].min(0) == 0).all()


@ONCE
@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.floats(0.01, 0.99), SEEDS)
def test_without_strata_it_is_uniform(sizes, ratio, seed):
    ptr = np.cumsum([0, *sizes])
    plans = [draw(layout(ptr), Spec(name, ratio, random=0.2), seed=seed, visit=1) for name in ("uniform", "dirichlet")]
    assert plans[0].code.tolist() == plans[1].code.tolist()
    assert plans[0].source.tolist() == plans[1].source.tolist()


def test_a_share_is_of_its_own_key():
    """Not of the ranks that hide: another purpose. It goes by the stratum's number, not by its id or size."""
    spec = Spec("dirichlet", 2 / 3)
    first = visible([60] * 3, 50, spec)
    assert visible([60] * 3, 50, spec).tolist() == first.tolist()
    assert visible([60] * 3, 60, spec)[:50].tolist() == first.tolist()
    for change in ({"seed": 1}, {"visit": 1}, {"view": 1}, {"draw": 1}, {"purpose": Purpose.REMASK}):
        assert (visible([60] * 3, 50, spec, **change) != first).any(1).mean() > 0.9
    gaps = np.tile(np.repeat([-7, 0, 10**12], 60), 50)
    plan = draw(layout(180 * np.arange(51), stratum=gaps), spec, seed=0, visit=0)
    assert (plan.code > 4).reshape(50, 3, 60).sum(2).tolist() == first.tolist()


def test_a_stratum_without_tokens_has_no_part():
    """Where all of a stratum is missing, the others share the budget."""
    stratum, valid = np.tile(np.repeat(np.arange(3), 20), 40), np.ones((40, 3, 20), bool)
    valid[:20, 1] = False
    plan = draw(
        layout(60 * np.arange(41), stratum=stratum, valid=valid.ravel()), Spec("dirichlet", 0.5), seed=0, visit=0
    )
    stay = (plan.code.reshape(40, 3, 20) == 5).sum(2)
    assert (stay[:20].sum(1) == 20).all()
    assert (stay[20:].sum(1) == 30).all()
    assert (stay[:20, 1] == 0).all()
    assert (stay[20:, 1] > 0).any()


def test_groups_are_counted_whole():
    """Groups of two: half of 20 groups stay, whatever their strata get."""
    at = layout([0, 40, 80], group=np.arange(80) // 2, stratum=np.arange(80) // 8 % 2)
    code = draw(at, Spec("dirichlet", 0.5, act="drop"), seed=3, visit=0).code.reshape(2, 20, 2)
    assert (code[..., 0] == code[..., 1]).all()
    assert ((code[..., 0] == Act.DROP).sum(1) == 10).all()


def test_batch_threads_and_order_change_nothing():
    rng = np.random.default_rng(0)
    sizes, names = rng.integers(0, 60, 30), rng.permutation(1000)[:30]
    stratum = [rng.integers(0, 4, size) for size in sizes]
    spec = Spec("dirichlet", 0.6, random=0.1)

    def plan(order):
        at = layout(np.cumsum([0, *sizes[order]]), names[order], stratum=np.concatenate([stratum[i] for i in order]))
        code = draw(at, spec, seed=5, visit=6).code
        return dict(zip(order, (part.tolist() for part in np.split(code, at.ptr[1:-1])), strict=True))

    whole = plan(list(range(30)))
    assert plan(list(rng.permutation(30))) == whole
    with on_threads(3):
        assert plan(list(range(30))) == whole
    assert all(plan([i])[i] == whole[i] for i in range(30))
