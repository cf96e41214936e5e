"""Plans as tensors: equal, and on the CPU the same memory."""

import numpy as np
import pytest
import torch

import structmae.masking
from structmae.masking import Act, Spec, draw, layout, to_torch

FIELDS = ("scored", "act", "source", "code", "hidden", "visible", "kept", "restore")


@pytest.mark.parametrize("name", FIELDS)
def test_fields_are_views(name):
    plan = draw(layout([0, 30, 40]), Spec(act="drop", random=0.2, keep=0.2), seed=0, visit=0)
    tensor, array = getattr(to_torch(plan), name), getattr(plan, name)
    assert tensor.dtype == (torch.uint8 if name in ("act", "code") else torch.int64)
    assert np.array_equal(tensor.numpy(), array)
    assert tensor.data_ptr() == array.ctypes.data


def test_to_another_device():
    plan = to_torch(draw(layout([0, 30]), Spec(), seed=0, visit=0))
    moved = plan.to("meta")
    assert moved.hidden.device.type == "meta"
    assert moved.hidden.shape == plan.hidden.shape
    assert plan.with_act(Act.TOKEN).tolist() == plan.hidden.tolist()
    assert plan.size == 30
    assert repr(plan).startswith("TorchPlan(30 tokens")


def test_every_public_name_exists():
    for name in structmae.masking.__all__:
        assert getattr(structmae.masking, name) is not None
        assert name in dir(structmae.masking)
    with pytest.raises(AttributeError, match="plann"):
        structmae.masking.plann  # noqa: B018
