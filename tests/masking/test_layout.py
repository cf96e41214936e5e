"""Layouts: what is refused, and that what is accepted has one dtype whatever was given."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from masking_cases import items, layout_of

from structmae.errors import UsageError
from structmae.masking import Spec, draw, layout
from structmae.masking.adjacency import adjacency, grid
from structmae.masking.strategies import STRATEGIES


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"ptr": [0, 3, 2]}, "never decrease"),
        ({"ptr": [1, 3]}, "start at 0"),
        ({"ptr": []}, "start at 0"),
        ({"ptr": [0.0, 3.0]}, "ptr has dtype float64"),
        ({"ptr": [[0, 3]]}, "shape \\(1, 2\\)"),
        ({"ptr": [0, 3], "item_id": [1, 2]}, "item_id has 2 entries: must be 1"),
        ({"ptr": [0, 3], "item_id": [-1]}, "item_id = -1"),
        ({"ptr": [0, 3], "set_id": [-5]}, "set_id = -5"),
        ({"ptr": [0, 3], "valid": [1, 0, 1]}, "valid has dtype int64"),
        ({"ptr": [0, 3], "valid": [True]}, "valid has dtype bool and shape \\(1,\\)"),
        ({"ptr": [0, 3], "group": [0, 1]}, "group has 2 entries"),
        ({"ptr": [0, 3], "stratum": [0.5, 1, 2]}, "stratum has dtype float64"),
        ({"ptr": [0, 3], "observed": [[1, 0], [1, 1], [0, 0]]}, "observed has dtype int64"),
        ({"ptr": [0, 3], "observed": [[True], [True]]}, "observed has dtype bool and shape \\(2, 1\\)"),
        ({"ptr": [0, 3], "observed": True}, "observed has dtype bool and shape \\(\\)"),
        ({"ptr": [0, 3], "weight": [1, 2]}, "weight has dtype int64 and shape \\(2,\\)"),
        ({"ptr": [0, 3], "weight": ["a", "b", "c"]}, "weight has dtype <U1"),
        ({"ptr": [0, 3], "weight": [1, -0.5, 0]}, "weight = -0.5"),
        ({"ptr": [0, 3], "weight": [1, float("nan"), 0]}, "weight = nan"),
        ({"ptr": [0, 3], "weight": [1, float("inf"), -2]}, "weight = inf"),
        ({"ptr": [0, 6, 12], "shape": (2, 4)}, "shape = \\(2, 4\\): has 8 places, item 0 has 6 tokens"),
        ({"ptr": [0, 6, 6], "shape": (2, 3)}, "item 1 has 0 tokens"),
        ({"ptr": [0], "shape": (0, 3)}, "shape\\[0\\] = 0"),
        ({"ptr": [0, 1], "shape": ()}, "shape = \\(\\): must have an axis or more"),
        ({"ptr": [0, 4], "shape": 4}, "shape = 4: must be a list"),
    ],
)
def test_refused(fields, says):
    with pytest.raises(UsageError, match=says) as caught:
        layout(**fields)
    assert "\n" not in str(caught.value)


@given(items())
def test_units(made):
    """In order of item, stratum, position; with the borders of an item's strata, and the unit of each token."""
    at = layout_of(made)
    units, expected, strata = at.units, [], []
    of, layered = np.full(at.size, -1), bool(made) and made[0]["stratum"] is not None
    for i, (a, item) in enumerate(zip(at.ptr.tolist(), made, strict=False)):
        n = len(item["valid"])
        group, stratum = item["group"] or range(n), item["stratum"] or [0] * n
        lead = {}
        for p in range(n):
            if item["valid"][p]:
                lead.setdefault(group[p], p)
        order = sorted(lead.values(), key=lambda p: (stratum[p], p))
        for p in range(n):
            if item["valid"][p]:
                of[a + p] = len(expected) + order.index(lead[group[p]])
        kinds = sorted({stratum[p] for p in order}) if layered else [0]
        strata.append(len(kinds))
        for s in kinds:
            mine = [p for p in order if stratum[p] == s]
            borders = units.ptr[sum(strata[:-1]) + kinds.index(s) :][:2].tolist()
            assert borders == [len(expected), len(expected) + len(mine)]
            expected += [a + p for p in mine]
            if mine:
                which = sum(strata[:-1]) + kinds.index(s)
                assert (units.item[which], units.start[which], units.first_local[which]) == (i, a, mine[0])
    leads = range(at.size) if units.lead is None else units.lead.tolist()
    assert list(leads) == expected
    assert units.of_tokens(at.size).tolist() == of.tolist()
    assert np.diff(units.item_strata).tolist() == strata
    assert [len(x) for x in (units.item, units.start, units.first_local)] == [sum(strata)] * 3
    assert units.stratum.tolist() == [s for s, (a, b) in enumerate(pairwise(units.ptr)) for _ in range(a, b)]
    weight = [w for item in made for w in item["weight"]]
    means = [np.mean([w for w, u in zip(weight, of, strict=True) if u == unit]) for unit in range(len(expected))]
    assert at.unit_weight.tolist() == pytest.approx(means)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in ("dirichlet", "rectangle")])
def test_as_many_strata_as_items(strategy):
    """Two in the second item and none in the first, which is empty."""
    ptr = [0, 0, 10]
    near = adjacency(grid((10,)).ptr, grid((10,)).place, ptr)
    at = layout(ptr, stratum=[0] * 4 + [1] * 6, weight=np.ones(10), adjacency=near)
    assert at.units.item_strata.tolist() == [0, 0, 2]
    chosen = draw(at, Spec(strategy), seed=0, visit=0).code < 5
    assert (chosen[:4].sum(), chosen[4:].sum()) == (2, 3)


@given(st.lists(st.integers(0, 4), max_size=4), st.lists(st.integers(0, 3), max_size=3), st.integers(0, 9))
def test_observed_and_valid(sizes, inner, seed):
    """Any number of axes, and of values: a token is valid where any value of it is observed, and it is."""
    ptr = np.cumsum([0, *sizes])
    rng = np.random.default_rng(seed)
    observed, valid = rng.random((ptr[-1], *inner)) < 0.4, rng.random(ptr[-1]) < 0.7
    seen = [bool(row.any()) for row in observed]
    assert layout(ptr, observed=observed).valid.tolist() == seen
    both = layout(ptr, valid=valid, observed=torch.tensor(observed)).valid
    assert both.tolist() == [a and b for a, b in zip(seen, valid.tolist(), strict=True)]


def test_any_array_gives_one_plan_and_compiles_once():
    """Lists, int32, strided, read-only and torch arrays: the same plan, from the same machine code."""
    from structmae.masking import choosers, codes, kernels

    ptr, group = [0, 4, 10], [0, 0, 1, 2, 5, 5, 6, 6, 7, 8]
    frozen = np.array(ptr)
    frozen.setflags(write=False)
    forms = [
        (ptr, group),
        (np.array(ptr, np.int32), np.array(group, np.uint8)),
        (np.repeat(ptr, 2)[::2], np.repeat(group, 2)[::2]),
        (frozen, np.array(group)),
        (torch.tensor(ptr), torch.tensor(group)),
    ]
    for strategy in ("uniform", "weighted", "span"):
        spec = Spec(strategy, random=0.2, keep=0.2)
        plans = [draw(layout(p, group=g, weight=g), spec, seed=1, visit=2).code.tolist() for p, g in forms]
        assert all(plan == plans[0] for plan in plans)
    assert len(draw(layout(frozen), spec, seed=1, visit=2).scored) == 5
    for kernel in (kernels.uniform, kernels.weighted, choosers.spans, codes.swap, codes.sources, codes.indices):
        assert len(kernel.signatures) == 1


def test_set_scope_needs_sets():
    with pytest.raises(UsageError, match="set_id"):
        draw(layout([0, 4]), Spec(scope="set"), seed=0, visit=0)


def test_repr():
    assert repr(layout([0, 4, 10], valid=[True] * 10)) == "Layout(10 tokens in 2 items, with valid)"
    assert repr(layout([0, 3], weight=[1, 2, 3], adjacency=grid((3,)), shape=(1, 3))) == (
        "Layout(3 tokens in 1 items, with weight, neighbours, shape)"
    )


def test_planes():
    """Axes before the last two are one; what gives the shape may be any sequence of whole numbers."""
    for shape, planes in (((6,), (1, 1, 6)), ([2, 3], (1, 2, 3)), (torch.Size([3, 1, 2]), (3, 1, 2))):
        assert layout([0, 6, 12], shape=shape).planes == planes
    assert layout([0, 24], shape=np.array([2, 3, 1, 4])).planes == (6, 1, 4)


def test_what_the_caller_writes_to_later_changes_nothing():
    ptr, weight, valid = np.array([0, 10, 20]), np.ones(20), np.ones(20, bool)
    at = layout(ptr, valid=valid, weight=weight, group=(group := np.arange(20)))
    expected = draw(at, Spec("weighted", random=0.5), seed=0, visit=0).code.tolist()
    ptr[1:], weight[:], valid[:], group[:] = 10**9, np.nan, False, 0
    assert draw(at, Spec("weighted", random=0.5), seed=0, visit=0).code.tolist() == expected


def test_neighbours_that_are_no_adjacency_are_refused():
    with pytest.raises(UsageError, match="adjacency is a list"):
        layout([0, 2], adjacency=[[0, 1], [1, 0]])
    for wrong in ([0.0, 1.5, 2.0], [0, 1]):
        with pytest.raises(UsageError, match="indptr"):
            adjacency(wrong, [0, 1])
    for shape in (4, (-2, 4), (2.5, 4)):
        with pytest.raises(UsageError, match="shape"):
            grid(shape)
