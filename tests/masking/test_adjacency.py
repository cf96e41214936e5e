"""Adjacencies: neighbours on grids, parts of them, steps between units, and what is refused."""

import sys
from itertools import accumulate, pairwise, product

import masking_oracle as oracle
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from masking_cases import items, layout_of, near_of, rows_of

from structmae.errors import UsageError
from structmae.masking import Spec, draw, layout, walks
from structmae.masking.adjacency import Adjacency, adjacency, grid, topology


def rows(at):
    """The steps (place, token) out of each place."""
    steps = list(zip(at.place.tolist(), at.token.tolist(), strict=True))
    return [steps[a:b] for a, b in pairwise(at.ptr.tolist())]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 3))
def test_neighbours_on_a_grid(shape, number):
    places = list(product(*map(range, shape)))
    index = {place: i for i, place in enumerate(places)}
    one = []
    for place in places:
        near = [(*place[:axis], place[axis] + by, *place[axis + 1 :]) for axis in range(len(shape)) for by in (-1, 1)]
        one.append(sorted(index[p] for p in near if p in index))
    at = grid(tuple(shape), number)
    size = len(places)
    assert rows(at) == [[(i * size + p,) * 2 for p in row] for i in range(number) for row in one]
    assert at.items.tolist() == [i * size for i in range(number + 1)]
    assert at.places_are_tokens


@pytest.mark.parametrize(("shape", "tokens"), [((), 1), ((0,), 0), ((3, 0), 0)])
def test_a_grid_without_neighbours(shape, tokens):
    at = grid(shape, 2)
    assert rows(at) == [[]] * tokens * 2
    assert at.items.tolist() == [0, tokens, 2 * tokens]


@given(st.data(), items())
def test_a_part_is_as_its_items_alone(data, made):
    """In any order, steps to other items left out, tokens numbered from where they are wanted."""
    ptr = list(accumulate((len(item["valid"]) for item in made), initial=0))
    whole = near_of(made, ptr)
    some = data.draw(st.lists(st.sampled_from(range(len(made))), unique=True)) if made else []
    starts = list(accumulate((len(made[i]["valid"]) for i in some), initial=0))
    part = whole.take(np.array(some, int), np.array([starts[j] - ptr[i] for j, i in enumerate(some)], int))
    assert part.places_are_tokens == whole.places_are_tokens
    assert np.diff(part.items).tolist() == [len(made[i]["near"]) for i in some]
    for j, i in enumerate(some):
        inside = [[(p, t) for p, t in row if p >= 0] for row in made[i]["near"]]
        assert rows_of(part, j, starts[j]) == inside


@given(items())
def test_topology(made):
    """The steps between units, in order; and the places from which a unit is left."""
    at = layout_of(made)
    if not made:
        return
    found, units = at.topology, at.units
    of = units.of_tokens(at.size).tolist()
    steps = [[] for _ in range(len(found.ptr) - 1)]
    leaves = [set() for _ in range(int(units.ptr[-1]))]
    for i, item in enumerate(made):
        place, token = int(at.adjacency.items[i]), int(at.ptr[i])
        lead_of = {p: p for p in range(len(item["valid"])) if of[token + p] >= 0}
        for source, target, t in oracle.good_steps(item, lead_of):
            unit = of[token + t]
            steps[place + source].append([place + target, unit])
            leaves[unit] |= set() if item["nodes"] else {place + source, place + target}
        for p in lead_of if item["nodes"] else ():
            leaves[of[token + p]].add(place + p)
            assert found.own[place + p] == of[token + p]
    assert [found.steps[a:b].tolist() for a, b in pairwise(found.ptr)] == steps
    borders, places = found.places
    assert [set(places[a:b].tolist()) for a, b in pairwise(borders)] == leaves
    assert found.items is at.adjacency.items
    assert (found.own >= 0).sum() == (sum(u >= 0 for u in of) if made[0]["nodes"] else 0)
    for array in (found.ptr, found.steps, found.own, borders, places):
        assert array.dtype == np.int32


def test_any_array_gives_one_topology_and_compiles_once():
    """Lists, int32, strided, read-only and torch arrays."""
    indptr, indices = [0, 1, 3, 4], [1, 0, 2, 1]
    frozen = np.array(indices)
    frozen.setflags(write=False)
    forms = [
        (indptr, indices),
        (np.array(indptr, np.int32), np.array(indices, np.uint8)),
        (np.repeat(indptr, 2)[::2], np.repeat(indices, 2)[::2]),
        (np.array(indptr), frozen),
        (torch.tensor(indptr), torch.tensor(indices)),
    ]
    borders = np.array([0, 3])
    borders.setflags(write=False)
    for a, b in forms:
        for c in (None, borders):
            at = layout([0, 3], adjacency=adjacency(a, b, c))
            assert len(draw(at, Spec("block"), seed=0, visit=0).hidden) == 2
            assert len(draw(at, Spec("walk"), seed=0, visit=0).hidden) == 2
            assert at.topology.steps[:4].tolist() == [[1, 1], [0, 0], [2, 2], [1, 1]]
    for kernel in (walks.unit_steps, walks.walks):
        assert len(kernel.signatures) == 1


def test_too_large_for_32_bits(monkeypatch):
    monkeypatch.setattr(sys.modules["structmae.masking.adjacency"], "MOST", 5)
    assert len(topology(grid((3,)), np.arange(3), 3).ptr) == 5  # a last place without steps
    for at, units in ((grid((6,)), 6), (grid((2, 2)), 4), (grid((1,)), 6)):
        with pytest.raises(UsageError, match="at most 5 places and steps"):
            topology(at, np.zeros(len(at.ptr) - 1, int), units)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (([0, 1, 1], [2]), "must be tokens 0 to 1"),
        (([0, 1, 1], [-1]), "indices from -1"),
        (([0, 2, 1, 3], [0, 1, 2]), "never decrease"),
        (([0, 5, 0], []), "never decrease"),
        (([0, 1], [0, 0]), "from 0 to the number"),
        (([1, 1], [0]), "from 0 to the number"),
        (([], []), "shape \\(0,\\)"),
        (([[0, 1]], [0]), "shape \\(1, 2\\)"),
        (([0, 1], [[0]]), "shape \\(1, 1\\)"),
    ],
)
def test_refused(given, says):
    with pytest.raises(UsageError, match=says) as caught:
        adjacency(*given)
    assert "\n" not in str(caught.value)


EDGE_LIKE = Adjacency(np.array([0, 1, 2]), np.array([1, 0]), np.array([4, 4]), np.array([0, 2]))


@pytest.mark.parametrize(
    ("ptr", "near", "fits"),
    [
        ([0, 4], grid((4,)), True),
        ([0, 5], grid((4,)), False),
        ([0, 2, 4], grid((4,)), False),
        ([0, 1, 4], grid((2,), 2), False),
        ([0, 5], EDGE_LIKE, True),
        ([0, 4], EDGE_LIKE, False),  # token 4 is none
        ([0, 5, 5], EDGE_LIKE, False),
    ],
    ids=lambda x: repr(x) if isinstance(x, Adjacency | list) else None,
)
def test_an_adjacency_is_of_its_layout(ptr, near, fits):
    at = layout(ptr, adjacency=near)
    if fits:
        assert at.adjacency is near
    else:
        with pytest.raises(UsageError, match="must be over the"):
            draw(at, Spec("walk"), seed=0, visit=0)


def test_made_when_first_needed_and_once():
    made = []

    def near():
        made.append(1)
        return grid((4,))

    at = layout([0, 4], set_id=[3], adjacency=near)
    draw(at, Spec(), seed=0, visit=0)
    assert not made
    for scope in ("item", "batch", "set"):
        for strategy in ("block", "walk"):
            draw(at, Spec(strategy, scope=scope), seed=0, visit=0, step=0)
    assert made == [1]


def test_repr():
    assert repr(grid((2, 3), 2)) == "Adjacency(12 tokens in 2 items, 28 steps)"
    assert repr(EDGE_LIKE) == "Adjacency(2 places in 1 items, 2 steps)"
