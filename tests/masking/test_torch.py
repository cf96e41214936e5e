"""Plans as tensors: equal, and on the CPU the same memory."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import structmae.masking
from structmae.errors import UsageError
from structmae.masking import Act, Spec, apply, draw, layout, take, to_torch
from structmae.masking import torch as masking_torch

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


SPECS = st.builds(
    Spec,
    ratio=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    act=st.sampled_from(["token", "zero", "random", "keep"]),
    random=st.sampled_from([0.0, 0.3]),
    keep=st.sampled_from([0.0, 0.2]),
    random_from=st.sampled_from(["visible", "any"]),
)


def by_hand(x, plan, token):
    """`apply` from its definition, a token at a time."""
    rows = list(x)
    for place, act, source in zip(plan.scored.tolist(), plan.act.tolist(), plan.source.tolist(), strict=True):
        rows[place] = {Act.TOKEN: token[0], Act.ZERO: torch.zeros_like(token[0]), Act.KEEP: x[place]}.get(
            Act(act), x[source]
        )
    return torch.stack(rows)


@given(spec=SPECS, visit=st.integers(0, 99), double=st.booleans(), tokens=st.integers(1, 30))
def test_apply_does_what_the_plan_says_gradients_too(spec, visit, double, tokens):
    """The kernel (float32) and torch's operations (float64) against the definition."""
    plan = to_torch(draw(layout([0, tokens], valid=np.arange(tokens) % 5 > 0), spec, seed=0, visit=visit))
    generator = torch.Generator().manual_seed(visit)
    x, token, weight = (
        torch.randn(n, 3, generator=generator, dtype=torch.float64 if double else torch.float32)
        for n in (tokens, 1, tokens)
    )
    results = []
    for run in (apply, by_hand):
        leaves = x.clone().requires_grad_(), token.clone().requires_grad_()
        out = run(leaves[0], plan, leaves[1])
        (out * weight).sum().backward()
        grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        results.append([out.detach(), *grads])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


@given(visit=st.integers(0, 99), double=st.booleans())
def test_take_is_index_select_gradients_too(visit, double):
    plan = to_torch(draw(layout([0, 20, 33]), Spec(ratio=0.6, act="drop"), seed=0, visit=visit))
    x = torch.randn(33, 4, dtype=torch.float64 if double else torch.float32)
    weight = torch.randn_like(x)[: len(plan.visible)]
    results = []
    for run in (take, lambda x, index: x.index_select(0, index)):
        leaf = x.clone().requires_grad_()
        out = run(leaf, plan.visible)
        (out * weight).sum().backward()
        results.append((out.detach(), leaf.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("shape", [(33,), (33, 2, 3)])
def test_take_of_other_shapes(shape):
    x = torch.randn(shape)
    index = torch.tensor([0, 7, 32])
    assert torch.equal(take(x, index), x[index])
    turned = torch.randn(2, 33).T
    assert torch.equal(take(turned, index), turned[index])


def test_many_threads_fill_the_same_rows():
    x, token = torch.randn(60_000, 8), torch.randn(8)
    plan = to_torch(draw(layout([0, 60_000]), Spec(random=0.2, keep=0.1), seed=0, visit=0))
    assert x.numel() > structmae.masking.parallel.BIG
    assert torch.equal(apply(x, plan, token), masking_torch._replace(x, plan, token))
    assert torch.equal(take(x, plan.visible), x[plan.visible])


def test_what_cannot_be_applied_or_taken_is_refused():
    plan = to_torch(draw(layout([0, 10]), Spec(act="drop"), seed=0, visit=0))
    assert torch.equal(apply(torch.ones(10, 2), plan, torch.ones(2)).sum(1) == 0, plan.code == 0)
    with pytest.raises(UsageError, match="a plan of 10 tokens for x of 9 rows"):
        apply(torch.randn(9, 2), plan, torch.zeros(1, 2))
    zero = to_torch(draw(layout([0, 10]), Spec(), seed=0, visit=0))
    for x, token in (
        (torch.randn(10, 8), torch.zeros(3)),
        (torch.randn(10, 8), torch.zeros(9)),
        (torch.randn(10), zero.code),
    ):
        with pytest.raises(UsageError, match=r"must be \(M, D\) and"):
            apply(x, zero, token)
    for index in (torch.zeros(2, 2, dtype=torch.long), torch.zeros(3), torch.zeros(10, dtype=torch.bool)):
        with pytest.raises(UsageError, match="integers; give positions"):
            take(torch.randn(10, 2), index)
    for index in ([-1], [10]):
        with pytest.raises(IndexError, match="x has rows 0 to 9"):
            take(torch.randn(10, 2), torch.tensor(index))


def test_random_ids_are_uniform_and_a_function_of_the_key():
    """BERT's 80/10/10 on ids: RANDOM is an id of the vocabulary, whatever else is there."""
    spec = Spec(ratio=0.15, random=0.1, keep=0.1, random_from="vocabulary")
    many = draw(layout(np.arange(401) * 500), spec, seed=0, visit=0)
    ids = many.random_ids(7)
    assert len(ids) == len(many.with_act(Act.RANDOM)) > 2500
    assert stats.chisquare(np.bincount(ids, minlength=7)).pvalue > 1e-3
    one = to_torch(draw(layout([0, 500], item_id=[3]), spec, seed=0, visit=0))
    here = (many.with_act(Act.RANDOM) // 500) == 3
    assert one.random_ids(7).tolist() == ids[here].tolist()
    alone = draw(layout([0, 1]), Spec(ratio=1.0, act="random", random_from="vocabulary"), seed=0, visit=0)
    assert alone.act.tolist() == [Act.RANDOM]  # it needs no other token to take from
    with pytest.raises(UsageError, match="vocabulary"):
        apply(torch.randn(500, 2), one, torch.zeros(2))
    with pytest.raises(UsageError, match="vocabulary = -1"):
        alone.random_ids(-1)


def test_ahead_makes_the_next_item_meanwhile():
    made, ready, used = [], [], []

    def items():
        for number in range(5):
            made.append((number, threading.current_thread() is threading.main_thread()))
            yield number

    for number in masking_torch.ahead(items(), ready.append):
        while len(made) < min(number + 2, 5):  # the next one comes without being asked for
            threading.Event().wait(0.001)
        used.append(number)
    assert used == ready == list(range(5))
    assert not any(main for _, main in made)


def test_ahead_raises_what_making_raises_and_leaves_no_thread():
    def items():
        yield 1
        raise ValueError("no more")

    before = threading.active_count()
    with pytest.raises(ValueError, match="no more"):
        list(masking_torch.ahead(items(), lambda item: None))
    endless = masking_torch.ahead(iter(int, 1), lambda item: None)
    assert next(endless) == 0
    endless.close()
    assert threading.active_count() == before
