"""A curriculum's values between its ends, and specs at them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structmae.errors import UsageError
from structmae.masking import Spec
from structmae.masking.curriculum import SHAPES, Curriculum, progress

RATIO = st.floats(0.0, 1.0)
POWER = st.floats(-20.0, 20.0)
SHAPE = st.sampled_from(sorted(SHAPES))


@given(st.tuples(RATIO, RATIO), st.tuples(POWER, POWER), SHAPE)
def test_the_ends_are_exact(ratio, power, shape):
    harder = Curriculum(ratio, power, shape)
    for end in (0, 1):
        spec = harder.at(Spec(), end)
        assert (spec.ratio, spec.power) == (ratio[end], power[end])


@given(st.tuples(POWER, POWER), SHAPE, RATIO, RATIO)
def test_values_move_one_way_within_their_ends(power, shape, a, b):
    harder = Curriculum(power=power, shape=shape)
    first, second = (harder.at(Spec(), p).power for p in sorted((a, b)))
    for value in (first, second):
        assert min(power) <= value <= max(power)
    assert (second - first) * math.copysign(1, power[1] - power[0]) >= -1e-12


@given(RATIO)
def test_shapes_are_their_formulas(p):
    expected = {"linear": p, "cosine": (1 - math.cos(math.pi * p)) / 2, "sqrt": p**0.5}
    assert set(SHAPES) == set(expected)
    for shape, part in expected.items():
        assert Curriculum(ratio=(0.0, 1.0), shape=shape).at(Spec(), p).ratio == pytest.approx(part)
        assert Curriculum(ratio=(0.8, 0.2), shape=shape).at(Spec(), p).ratio == pytest.approx(0.8 - 0.6 * part)


@given(RATIO)
def test_the_rest_of_a_spec_stays(p):
    spec = Spec(ratio=0.3, act="drop", random=0.1, keep=0.2, scope="batch")
    assert Curriculum().at(spec, p) == spec
    assert replace(Curriculum(ratio=(0.1, 0.9)).at(spec, p), ratio=0.3) == spec
    assert replace(Curriculum(power=(-1, 1)).at(spec, p), power=spec.power) == spec


@given(st.integers(1, 50))
def test_progress_goes_from_0_to_1(epochs):
    steps = [progress(e, epochs) for e in range(epochs)]
    assert steps[0] == 0.0
    assert steps[-1] == (1.0 if epochs > 1 else 0.0)
    assert steps == [e / max(1, epochs - 1) for e in range(epochs)]


def test_progress_is_clipped():
    assert [progress(e, 5) for e in (-1, 2, 4, 7)] == [0.0, 0.5, 1.0, 1.0]
    assert progress(9, 1) == 0.0


def test_numbers_and_pairs_of_other_kinds():
    """As a TOML file or NumPy gives them; a curriculum can then still be a key."""
    harder = Curriculum(ratio=[0, np.float32(0.5)], power=[np.int64(-1), 1])
    assert harder == Curriculum((0.0, 0.5), (-1.0, 1.0))
    assert hash(harder) == hash(Curriculum((0.0, 0.5), (-1.0, 1.0)))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Curriculum(ratio=(0.1, 1.2)), r"ratio\[1\] = 1.2: must be a number from 0 to 1"),
        (lambda: Curriculum(ratio=(math.nan, 1.0)), r"ratio\[0\] = nan"),
        (lambda: Curriculum(ratio=0.5), "ratio = 0.5: must be two numbers"),
        (lambda: Curriculum(ratio=(0.1, 0.2, 0.3)), r"ratio = \(0.1, 0.2, 0.3\): must be two numbers"),
        (lambda: Curriculum(power=(0, math.inf)), r"power\[1\] = inf: must be a finite number"),
        (lambda: Curriculum(power=("0", 1)), r"power\[0\] = '0'"),
        (lambda: Curriculum(power=(True, 1)), r"power\[0\] = True"),
        (lambda: Curriculum(power="01"), "power = '01': must be two numbers"),
        (lambda: Curriculum(shape="exponential"), "shape = 'exponential': must be one of linear, cosine, sqrt"),
        (lambda: Curriculum().at(Spec(), 1.01), "progress = 1.01: must be a number from 0 to 1"),
        (lambda: Curriculum().at(Spec(), math.nan), "progress = nan"),
        (lambda: progress(0, 0), "epochs = 0: must be a whole number, 1 or more"),
        (lambda: progress(0.5, 2), "epoch = 0.5: must be a whole number; give one"),
    ],
)
def test_refused(call, says):
    with pytest.raises(UsageError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
