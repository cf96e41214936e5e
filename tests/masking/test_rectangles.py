"""Rectangles: that they are, where they lie and how large, and that counts are exact all the same."""

import masking_oracle as oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masking_cases import items_of, on_threads
from scipy import stats

from structmae.masking import Spec, count, draw, layout, rectangles, tube

ONCE = settings(max_examples=100, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)
ITEMS = 20_000


def hidden(shape, k, items=1, seed=0, **fields):
    """(items, *shape) where k places of each grid are hidden."""
    n = int(np.prod(shape))
    at = layout(n * np.arange(items + 1), shape=shape, **{key: fields.pop(key) for key in ("group",) if key in fields})
    spec = Spec("rectangle", k / n if k < n else 1.0, **fields)
    return (draw(at, spec, seed=seed, visit=0).code < 5).reshape(items, *shape)


def box(chosen):
    """The rows and columns (slices) that hold all of a plane (H, W)."""
    y, x = np.nonzero(chosen)
    return slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)


@ONCE
@given(st.integers(1, 6), st.integers(0, 9), st.integers(0, 9), SEEDS)
def test_one_square_is_a_square(side, more, wider, seed):
    """Where a square suffices it is all there is, and whole."""
    shape = side + more, side + wider
    chosen = hidden(shape, side * side, 5, seed, area=side * side, aspect=1.0)
    for plane in chosen:
        assert plane[box(plane)].shape == (side, side)
        assert plane.sum() == side * side


@ONCE
@given(st.integers(2, 14), st.integers(2, 14), st.data(), SEEDS)
def test_one_rectangle_is_a_rectangle(high, wide, data, seed):
    """Of all that is to be hidden: what one covers above that is less than a column, so its sides are seen."""
    k = data.draw(st.integers(1, high * wide - 1))
    for plane in hidden((high, wide), k, 5, seed, area=data.draw(st.sampled_from([k, 2**31])), aspect=0.2):
        assert plane.sum() == k
        inside = plane[box(plane)]
        assert inside.size - k < len(inside) or inside.shape[1] == wide
        assert inside.size - k < max(high, wide)


@ONCE
@given(st.integers(2, 60), st.data(), SEEDS)
def test_on_a_path_it_is_a_run(length, data, seed):
    k = data.draw(st.integers(1, length - 1))
    shape = data.draw(st.sampled_from([(length,), (1, length), (length, 1)]))
    for path in hidden(shape, k, 5, seed, area=k).reshape(5, length):
        assert path.sum() == k
        assert (np.diff(path.astype(int), prepend=0) == 1).sum() == 1


def test_it_reaches_through_the_leading_axes():
    """A square in all frames; with tubes as groups also where several rectangles are drawn and the last is cut."""
    for frame in hidden((4, 9, 9), 4 * 9, 50, area=9, aspect=1.0):
        assert (frame == frame[0]).all()
        assert frame[0][box(frame[0])].shape == (3, 3)
    group = tube((4, 9, 9), items=50)
    at = layout(324 * np.arange(51), shape=(4, 9, 9), group=group)
    chosen = (draw(at, Spec("rectangle", 0.5, area=7), seed=0, visit=0).code < 5).reshape(50, 4, 9, 9)
    assert (chosen == chosen[:, :1]).all()
    assert (chosen[:, 0].sum((1, 2)) == count(0.5, 81)).all()


def test_groups_go_by_their_lead():
    """2 x 2 cells: a rectangle of as many places as are hidden. Whole cells are hidden, and lie together."""
    y, x = np.divmod(np.arange(64), 8)
    at = layout(64 * np.arange(101), shape=(8, 8), group=np.tile(y // 2 * 4 + x // 2, 100))
    chosen = (draw(at, Spec("rectangle", 4 / 16, area=16, aspect=1.0), seed=0, visit=0).code < 5).reshape(
        100, 4, 2, 4, 2
    )
    assert (chosen == chosen[:, :, :1, :, :1]).all()
    cells = chosen[:, :, 0, :, 0]
    assert (cells.sum((1, 2)) == 4).all()
    assert all(plane[box(plane)].shape == (2, 2) for plane in cells)


def test_strata_have_their_own_counts():
    """Rectangles are the item's: they go on, for the strata that want more, until all have their count."""
    at = layout(96 * np.arange(21), shape=(3, 4, 8), stratum=np.tile(np.arange(96) // 32, 20))
    chosen = (draw(at, Spec("rectangle", 0.5, area=16), seed=0, visit=0).code < 5).reshape(20, 3, 32)
    assert (chosen.sum(2) == 16).all()
    valid = np.arange(96) % 5 > 0
    at = layout([0, 96], shape=(3, 4, 8), stratum=np.arange(96) // 32, valid=valid)
    plan = draw(at, Spec("rectangle", 0.3), seed=0, visit=0)
    for s in range(3):
        mine = plan.code[32 * s : 32 * s + 32]
        assert (mine < 5).sum() == count(0.3, int(valid[32 * s : 32 * s + 32].sum()))


@pytest.mark.parametrize("ratio", [0.1, 0.4, 0.75, 0.99])
@pytest.mark.parametrize("area", [1, 16, 10**6])
def test_hidden_places_lie_together(ratio, area):
    """Counts are exact; and of the neighbours of a hidden place more are hidden than chance has it."""
    n, k = 14 * 14, count(ratio, 14 * 14)
    chosen = hidden((14, 14), k, 200, area=area)
    assert (chosen.sum((1, 2)) == k).all()
    beside = (chosen[:, :, 1:] & chosen[:, :, :-1]).mean() + (chosen[:, 1:] & chosen[:, :-1]).mean()
    assert beside > 2 * k / n * (k - 1) / (n - 1)


def agrees(shape, fields, spec, seed=0):
    """With the oracle."""
    at = layout([0, int(np.prod(shape))], shape=shape, **fields)
    key = oracle.Key(seed, 0)
    (item,) = items_of(at)
    assert draw(at, spec, seed=seed, visit=0).code.tolist() == oracle.choose(item, 0, spec, key)


@pytest.mark.parametrize("part", range(4))
def test_is_the_oracle(part):
    """On grids that have room for many rectangles; with groups, strata and tokens that are not."""
    for seed in range(40 * part, 40 * part + 40):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(1, 19, 2).tolist()) if seed % 4 else tuple(rng.integers(1, 8, 3).tolist())
        n = int(np.prod(shape))
        fields = {"valid": rng.random(n) < 0.8} if rng.random() < 0.5 else {}
        fields |= {"group": rng.integers(0, n, n)} if rng.random() < 0.3 else {}
        fields |= {"stratum": rng.integers(0, 3, n)} if rng.random() < 0.3 else {}
        ratio = rng.choice([rng.random(), 0.5, 0.95])
        area, aspect = int(rng.choice([1, 2, 5, 16, 1000])), float(rng.choice([1.0, 0.3, 1e-3]))
        agrees(shape, fields, Spec("rectangle", ratio, area=area, aspect=aspect), seed)


@pytest.mark.parametrize("area", [1, 100])
def test_when_it_stops(area, monkeypatch):
    """After ten that cover nothing new: one more or fewer would be seen in one of the seeds."""
    spec, seen = Spec("rectangle", 0.98, area=area), []
    rest = oracle.rest
    monkeypatch.setattr(oracle, "rest", lambda quota, *args: seen.append(sum(quota.values())) or rest(quota, *args))
    for seed in range(30):
        agrees((20, 20), {}, spec, seed)
    assert sum(left > 0 for left in seen) > 10


def test_strata_that_want_none_are_no_room():
    """Half of the places are strata of their own, of which a share of 0.4 is none."""
    n = 144
    stratum = np.where(np.arange(n) % 2, 1 + np.arange(n), 0)
    for seed in range(10):
        agrees((12, 12), {"stratum": stratum}, Spec("rectangle", 0.4), seed)


def drawn(most, area, aspect, high, wide):
    """(ITEMS, 4) first rectangle of as many items."""
    words = np.uint64(0), np.uint64(0), np.uint64(0)
    args = most, area, np.log(aspect), high, wide
    return np.array([rectangles.sides(0, *args, np.int64(i), *words) for i in range(ITEMS)])


def test_corners_are_uniform():
    row, column, h, w = drawn(4, 4, 1.0, 6, 5).T
    assert ((h == 2) & (w == 2)).all()
    assert stats.chisquare(np.bincount(row * 4 + column, minlength=20)).pvalue > 1e-3


def test_areas_are_uniform():
    """On a path the width is the area."""
    for low, high in ((5, 20), (1, 9), (30, 30)):
        widths = drawn(high, low, 0.3, 1, 40)[:, 3]
        assert (widths.min(), widths.max()) == (low, high)
        assert low == high or stats.chisquare(np.bincount(widths)[low:]).pvalue > 1e-3
    assert set(drawn(7, 16, 0.3, 1, 40)[:, 3]) == {7}  # no more than are left


@pytest.mark.parametrize("aspect", [0.3, 0.05])
def test_ratios_are_log_uniform(aspect):
    """Of an area of 60 on a large grid: the height is half-up(sqrt(60 ratio))."""
    h, w = drawn(60, 60, aspect, 200, 200)[:, 2:].T
    edges = np.clip(np.log((np.arange(h.min(), h.max() + 2) - 0.5) ** 2 / 60), np.log(aspect), -np.log(aspect))
    expected = np.diff(edges) / (-2 * np.log(aspect)) * ITEMS
    assert expected.sum() == pytest.approx(ITEMS)
    assert stats.chisquare(np.bincount(h)[h.min() :], expected).pvalue > 1e-3
    assert (w == -(-60 // h)).all()


def test_a_small_grid_cuts_sides_not_areas():
    for high, wide in ((3, 40), (40, 3), (2, 8)):
        _, _, h, w = drawn(15, 15, 0.3, high, wide).T
        assert (h <= high).all()
        assert (w <= wide).all()
        assert (h * w >= 15).all()


def test_what_is_cut_has_no_corner():
    """A square of 9 for 7: any two places are left out."""
    left = np.zeros(9, int)
    for plane in hidden((9, 9), 7, 4000, area=7, aspect=1.0):
        inside = plane[box(plane)]
        if inside.shape == (3, 3):
            left += ~inside.ravel()
    assert left.sum() > 6000
    corners, sides = left[[0, 2, 6, 8]], left[[1, 3, 5, 7]]
    assert stats.chisquare(corners).pvalue > 1e-3
    assert stats.chisquare([*sides, left[4]]).pvalue > 1e-3


def test_numbers_are_beyond_all_ranks():
    """Rectangle r has the words of local positions 2**31 + 4 r and on, and no token has."""
    words = [np.uint64(x) for x in (3, 1, 0)]  # visit, seed, stream
    for number in (0, 1, 77):
        row, column, h, w = rectangles.sides(number, 1, 1, 0.0, 1000, 1000, np.int64(5), *words)
        ranks = [oracle.Key(1, 3).rank(0, 5, 2**31 + 4 * number + j) for j in (2, 3)]
        assert (h, w) == (1, 1)
        assert [row, column] == [rank * 1000 >> 32 for rank in ranks]


def test_batch_threads_and_order_change_nothing():
    rng = np.random.default_rng(0)
    names = rng.permutation(1000)[:20]
    spec = Spec("rectangle", 0.6, area=5, random=0.1)

    def plan(order):
        at = layout(60 * np.arange(len(order) + 1), names[order], shape=(6, 10))
        return dict(zip(order, draw(at, spec, seed=5, visit=6).code.reshape(-1, 60).tolist(), strict=True))

    whole = plan(list(range(20)))
    assert plan(list(rng.permutation(20))) == whole
    with on_threads(3):
        assert plan(list(range(20))) == whole
    assert all(plan([i])[i] == whole[i] for i in range(20))
