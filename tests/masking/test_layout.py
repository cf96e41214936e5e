"""Layouts: what is refused, and that what is accepted has one dtype whatever was given."""

import numpy as np
import pytest
import torch

from structmae.errors import UsageError
from structmae.masking import Spec, draw, layout


@pytest.mark.parametrize(
    ("given", "says"),
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
    ],
)
def test_refused(given, says):
    with pytest.raises(UsageError, match=says) as caught:
        layout(**given)
    assert "\n" not in str(caught.value)


def test_any_array_gives_one_plan_and_compiles_once():
    """Lists, int32, strided, read-only and torch arrays: the same plan, from the same machine code."""
    from structmae.masking import kernels

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
    spec = Spec(random=0.2, keep=0.2)
    plans = [draw(layout(p, group=g), spec, seed=1, visit=2).code.tolist() for p, g in forms]
    assert all(plan == plans[0] for plan in plans)
    assert len(draw(layout(frozen), spec, seed=1, visit=2).scored) == 5
    for kernel in (kernels.ranks, kernels.ranks_at, kernels.select, kernels.swap, kernels.sources, kernels.indices):
        assert len(kernel.signatures) == 1


def test_set_scope_needs_sets():
    with pytest.raises(UsageError, match="set_id"):
        draw(layout([0, 4]), Spec(scope="set"), seed=0, visit=0)


def test_repr():
    assert repr(layout([0, 4, 10], valid=[True] * 10)) == "Layout(10 tokens in 2 items, with valid)"
