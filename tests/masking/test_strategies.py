"""Counts, and specs that are refused."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structmae.errors import UsageError
from structmae.masking import Act, Spec, count


@given(st.integers(0, 1000), st.integers(0, 10**6))
def test_count_is_half_up_of_the_decimal(thousandths, n):
    """Exact rational arithmetic agrees: no ratio of three decimals is rounded by its binary error."""
    exact = Fraction(thousandths, 1000)
    k = math.floor(exact * n + Fraction(1, 2))
    if 0 < thousandths < 1000 and n >= 2:
        k = min(max(k, 1), n - 1)
    assert count(thousandths / 1000, n) == k
    assert count(thousandths / 1000, np.array([n, n])).tolist() == [k, k]


@pytest.mark.parametrize(
    ("ratio", "n", "k"),
    [(0, 9, 0), (1, 9, 9), (0.01, 9, 1), (0.99, 9, 8), (0.5, 1, 1), (0.4, 1, 0), (0.29, 50, 15), (0.5, 0, 0)],
)
def test_count_at_the_edges(ratio, n, k):
    assert count(ratio, n) == k


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"ratio": 1.5}, "ratio = 1.5"),
        ({"ratio": math.nan}, "ratio = nan"),
        ({"ratio": "half"}, "ratio = 'half'"),
        ({"ratio": True}, "ratio = True"),
        ({"random": -0.1}, "random = -0.1"),
        ({"keep": 2}, "keep = 2"),
        ({"random": 0.6, "keep": 0.5}, "random \\+ keep = 1.1"),
        ({"act": "erase"}, "act = 'erase'"),
        ({"act": 7}, "act = 7"),
        ({"strategy": "unifrom"}, "strategy = 'unifrom'"),
        ({"scope": "epoch"}, "scope = 'epoch'"),
        ({"random_from": "hidden"}, "random_from = 'hidden'"),
        ({"start": "anywhere"}, "start = 'anywhere'"),
        ({"power": math.inf}, "power = inf"),
        ({"power": "1"}, "power = '1'"),
        ({"power": True}, "power = True"),
        ({"length": 0}, "length = 0"),
        ({"length": 2.0}, "length = 2.0"),
        ({"length": (1 << 16) + 1}, "from 1 to 65536"),
        ({"blocks": 0}, "blocks = 0"),
        ({"blocks": True}, "blocks = True"),
        ({"blocks": (1 << 31) + 1}, "from 1 to 2147483648"),
        ({"area": 0}, "area = 0: must be a whole number from 1"),
        ({"area": 4.0}, "area = 4.0"),
        ({"aspect": 0}, "aspect = 0: must be a number above 0, at most 1;"),
        ({"aspect": 1.5}, "aspect = 1.5"),
        ({"concentration": 0.0}, "concentration = 0.0"),
        ({"concentration": math.nan}, "concentration = nan"),
        ({"concentration": 2e6}, "concentration = 2000000.0: must be a number above 0, at most 1e\\+06"),
        ({"concentration": True}, "concentration = True"),
    ],
)
def test_spec_refuses(fields, says):
    with pytest.raises(UsageError, match=says) as caught:
        Spec(**fields)
    assert "\n" not in str(caught.value)


def test_count_refuses():
    with pytest.raises(UsageError, match="ratio = -1"):
        count(-1, 3)


def test_an_act_by_name_or_number_is_an_act():
    assert Spec(act="drop").act is Act.DROP
    assert Spec(act="ZERO").act is Act.ZERO
    assert Spec(act=4).act is Act.KEEP
    assert [(a.name, int(a)) for a in Act] == [("DROP", 0), ("TOKEN", 1), ("RANDOM", 2), ("ZERO", 3), ("KEEP", 4)]


def test_defaults_and_numbers_of_numpy():
    spec = Spec()
    assert (spec.strategy, spec.power, spec.length, spec.blocks, spec.start) == ("uniform", 1.0, 3, 1, "node")
    assert (spec.concentration, spec.area, spec.aspect) == (1.0, 16, 0.3)
    spec = Spec("rectangle", area=np.int16(9), aspect=1, concentration=np.float32(2))
    assert [type(x) for x in (spec.area, spec.aspect, spec.concentration)] == [int, float, float]
    spec = Spec("walk", length=np.uint64(7), blocks=np.int32(2), power=np.float32(0.5))
    assert (spec.length, spec.blocks, spec.power) == (7, 2, 0.5)
    assert [type(x) for x in (spec.length, spec.blocks, spec.power)] == [int, int, float]
    assert spec == Spec("walk", length=7, blocks=2, power=0.5)
