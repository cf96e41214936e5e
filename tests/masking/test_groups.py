"""Group ids on grids and edges, against their definitions in plain Python."""

from itertools import product
from math import ceil, prod

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structmae.errors import UsageError
from structmae.masking.groups import cell, cells, modality, strip, tube, undirected
from structmae.masking.layout import layout

SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=4)
GRIDS = st.lists(st.integers(1, 6), min_size=2, max_size=4)
ITEMS = st.integers(0, 3)


@given(st.data(), SHAPES, ITEMS)
def test_cells_number_the_cells_row_major(data, shape, items):
    size = [data.draw(st.integers(1, 8)) for _ in shape]
    across = [range(ceil(n / s)) for n, s in zip(shape, size, strict=True)]
    numbers = {place: i for i, place in enumerate(product(*across))}
    one = [numbers[tuple(x // s for x, s in zip(at, size, strict=True))] for at in product(*map(range, shape))]
    ids = cells(shape, size, items)
    assert ids.dtype == np.int64
    assert ids.tolist() == one * items
    assert set(one) == set(range(len(numbers)))  # no cell is empty


@given(GRIDS, ITEMS)
def test_a_tube_is_a_place_at_all_times(shape, items):
    ids = tube(shape, items).reshape(items, *shape)
    assert (ids == ids[:, :1]).all()
    assert all(len(np.unique(item[0])) == prod(shape[1:]) for item in ids)


@given(st.data(), SHAPES, ITEMS)
def test_a_strip_is_a_coordinate(data, shape, items):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    expected = [at[axis] for at in product(*map(range, shape))]
    assert strip(shape, axis, items).tolist() == expected * items


@given(GRIDS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_a_cell_is_a_block_of_one_frame(shape, height, width, items):
    one, number = [], {}
    for *frame, y, x in product(*map(range, shape)):
        one.append(number.setdefault((*frame, y // height, x // width), len(number)))
    ids = cell(shape, (height, width), items)
    assert len(np.unique(ids)) == len(number)
    rows = ids.reshape(items, -1)
    assert ((rows[:, :, None] == rows[:, None, :]) == (np.array(one)[:, None] == np.array(one))).all()
    assert cell(shape, height, items).tolist() == cell(shape, (height, height), items).tolist()


@given(st.lists(st.integers(0, 5), max_size=5), ITEMS)
def test_modality_is_the_run_a_token_is_in(counts, items):
    assert modality(counts, items).tolist() == [m for m, n in enumerate(counts) for _ in range(n)] * items


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30))
def test_undirected_is_the_rank_of_the_pair(edges):
    pairs = [(min(e), max(e)) for e in edges]
    rank = {pair: i for i, pair in enumerate(sorted(set(pairs)))}
    ids = undirected(np.array(edges, np.int64).reshape(-1, 2).T)
    assert ids.dtype == np.int64
    assert ids.tolist() == [rank[pair] for pair in pairs]


def test_undirected_of_the_largest_nodes():
    """No product of node numbers, which would overflow."""
    far = 2**63 - 1
    assert undirected([[far, 0, far - 1], [0, far, far]]).tolist() == [0, 0, 1]


def test_a_video_of_two_frames():
    assert cells((2, 2, 2), (2, 1, 1)).tolist() == [0, 1, 2, 3, 0, 1, 2, 3] == tube((2, 2, 2)).tolist()
    assert cell((3, 3)).tolist() == [0, 0, 1, 0, 0, 1, 2, 2, 3]  # smaller at the edges
    assert layout([0, 8, 16], group=tube((2, 2, 2), items=2)).units.ptr.tolist() == [0, 4, 8]


def test_any_kind_of_array():
    for shape in ([2, 3], np.array([2, 3]), torch.Size([2, 3]), torch.tensor([2, 3])):
        assert cells(shape, np.array([1, 3]), np.int64(2)).tolist() == [0, 0, 0, 1, 1, 1] * 2
        assert strip(shape, np.int64(-1)).tolist() == [0, 1, 2] * 2
    assert undirected(torch.tensor([[0, 1], [1, 0]])).tolist() == [0, 0]
    assert undirected(torch.zeros(2, 0)).tolist() == []
    assert undirected([[], []]).tolist() == []


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: cells((2, 0), (1, 1)), r"shape\[1\] = 0: must be a whole number, 1 or more"),
        (lambda: cells((2, 2.0), (1, 1)), r"shape\[1\] = 2.0: must be a whole number"),
        (lambda: cells((2, True), (1, 1)), r"shape\[1\] = True"),
        (lambda: cells("22", (1, 1)), r"shape\[0\] = '2'"),
        (lambda: cells(4, (1, 1)), "shape = 4: must be a list"),
        (lambda: cells([], []), r"shape = \(\): must have 1 axes or more"),
        (lambda: cells((2, 2), (1, -1)), r"size\[1\] = -1"),
        (lambda: cells((2, 2), (1,)), r"size = \(1,\): has 1 axes, must have 2"),
        (lambda: cells((2, 2), (1, 1), items=-1), "items = -1: must be a whole number, 0 or more"),
        (lambda: cells((2, 2), (1, 1), items=None), "items = None"),
        (lambda: tube((4,)), r"shape = \(4,\): must have 2 axes"),
        (lambda: strip((2, 3), 2), r"axis = 2: must be from -2 to 1, by shape = \(2, 3\)"),
        (lambda: strip((2, 3), -3), "axis = -3"),
        (lambda: strip((2, 3), "time"), "axis = 'time': must be a whole number; give one"),
        (lambda: cell((4,)), r"shape = \(4,\): must have 2 axes"),
        (lambda: cell((4, 4), 0), r"size\[0\] = 0"),
        (lambda: cell((4, 4), (1, 2, 2)), r"size = \(1, 2, 2\): must be one number or two"),
        (lambda: modality([2, -1]), r"counts\[1\] = -1: must be a whole number, 0 or more"),
        (lambda: modality(3), "counts = 3: must be a list"),
        (lambda: undirected([[0.0], [1.0]]), r"edge_index has dtype float64 and shape \(2, 1\)"),
        (lambda: undirected([[0, 1], [1, 2], [2, 3]]), r"edge_index has dtype int64 and shape \(3, 2\)"),
        (lambda: undirected([0, 1]), r"edge_index has dtype int64 and shape \(2,\)"),
        (lambda: undirected([[0], [-1]]), "edge_index = -1: a node must be 0 or more"),
    ],
)
def test_refused(call, says):
    with pytest.raises(UsageError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
