"""Plans against the oracle, and what the contract of a draw promises."""

import json
import random
from dataclasses import replace
from pathlib import Path

import masking_oracle as oracle
import numba
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from masking_cases import built, cases, items_of, layout_of, on_threads

from structmae.errors import UsageError
from structmae.masking import VALIDATION, Act, Purpose, Spec, count, draw, layout, permutation, to_torch
from structmae.masking.adjacency import adjacency, grid
from structmae.masking.strategies import STRATEGIES

WORD = st.integers(0, 2**32 - 1)
ONCE = settings(max_examples=150, deadline=None)
FEWER = settings(max_examples=60, deadline=None)


def expected(made, spec, key, step):
    try:
        return oracle.plan(made, spec, key, step)
    except oracle.CloseError:
        assume(False)


@pytest.mark.parametrize("strategy", STRATEGIES)
@ONCE
@given(st.data())
def test_draw_is_the_oracle(strategy, data):
    """On one thread, and on three with the way of large strata."""
    made, spec = data.draw(cases([strategy]))
    numbers = [WORD, WORD, st.integers(0, 15), st.integers(0, 255), st.integers(0, 2**15 - 1), st.booleans()]
    seed, visit, view, token_set, number, remask = data.draw(st.tuples(*numbers))
    lazy, vocabulary = data.draw(st.booleans()), data.draw(st.integers(1, 2**31 - 1))
    key = {"view": view, "token_set": token_set, "draw": number}
    oracle_key = oracle.Key(seed, visit, remask=remask, **key)
    code, source = expected(made, spec, oracle_key, 2**40 + 3)
    ids = oracle.random_ids(made, code, spec, oracle_key, vocabulary, 2**40 + 3)
    key |= {"purpose": Purpose.REMASK if remask else Purpose.HIDE, "seed": seed, "visit": visit, "step": 2**40 + 3}
    plan = draw(layout_of(made, lazy), spec, **key)
    agrees(plan, code, source)
    assert plan.random_ids(vocabulary).tolist() == ids
    with on_threads(3):
        agrees(draw(layout_of(made), spec, **key), code, source)


def agrees(got, code, source):
    assert got.code.tolist() == code
    tokens = range(len(code))
    scored = [p for p in tokens if code[p] <= 4]
    assert got.scored.tolist() == scored
    assert got.act.tolist() == [code[p] for p in scored]
    assert got.source.tolist() == [source[p] for p in scored]
    assert got.hidden.tolist() == [p for p in tokens if code[p] < 4]
    assert got.visible.tolist() == [p for p in tokens if code[p] in (4, 5)]
    kept = [p for p in tokens if code[p] not in (0, 6)]
    assert got.kept.tolist() == kept
    assert got.restore.tolist() == [kept.index(p) if p in kept else -1 for p in tokens]
    for act in Act:
        assert got.with_act(act).tolist() == [p for p in tokens if code[p] == act]
    assert got.size == len(code)


@pytest.mark.parametrize("strategy", STRATEGIES)
@FEWER
@given(st.data(), WORD)
def test_draw_is_the_oracle_on_larger_items(strategy, data, seed):
    """Large enough for radix passes, long searches and many walks."""
    made, spec = data.draw(cases([strategy], most=3, tokens=300, grouped=False))
    code, _ = expected(made, spec, oracle.Key(seed, 0), 1)
    got = draw(layout_of(made), spec, seed=seed, visit=0, step=1)
    assert got.code.tolist() == code
    assert (got.from_where is None) == (
        (not spec.random and spec.act is not Act.RANDOM) or spec.random_from == "vocabulary"
    )
    with on_threads(2):
        assert draw(layout_of(made), spec, seed=seed, visit=0, step=1).code.tolist() == code


@ONCE
@given(cases())
def test_exact_counts_and_shares(case):
    """Counted from the plan alone: k of n groups in each stratum (dirichlet: in each item), whole groups, each share
    floor or ceiling."""
    made, spec = case
    spec = replace(spec, scope="item", random_from="any")
    at = layout_of(made)
    plan = draw(at, spec, seed=5, visit=6)
    for i, item in enumerate(made):
        code = plan.code[at.ptr[i] : at.ptr[i + 1]].tolist()
        n = len(code)
        group = item["group"] or list(range(n))
        stratum = item["stratum"] or [0] * n
        lead = {}
        acts = {}
        for p in range(n):
            if item["valid"][p]:
                lead.setdefault(group[p], p)
                acts.setdefault(group[p], set()).add(code[p])
            else:
                assert code[p] == oracle.ABSENT
        alone = sum(item["valid"]) == 1  # then RANDOM has no source
        assert all(len(a) == 1 for a in acts.values())
        budget = spec.strategy == "dirichlet"
        assert sum(max(a) <= Act.KEEP for a in acts.values()) == count(spec.ratio, len(lead)) or not budget
        for s in set(stratum):
            mine = [next(iter(acts[g])) for g, p in lead.items() if stratum[p] == s]
            chosen = [a for a in mine if a <= Act.KEEP]
            assert len(chosen) == count(spec.ratio, len(mine)) or budget
            if spec.act not in (Act.RANDOM, Act.KEEP) and not alone:
                for act, portion in ((Act.RANDOM, spec.random), (Act.KEEP, spec.keep)):
                    assert abs(chosen.count(act) - portion * len(chosen)) < 1


@ONCE
@given(cases(tokens=60), WORD)
def test_sources_hold_content_one_may_see(case, seed):
    made, spec = case
    assume(spec.random_from != "vocabulary")
    spec = replace(spec, random=0.6, keep=min(spec.keep, 0.4))
    at = layout_of(made)
    plan = draw(at, spec, seed=seed, visit=0, step=0)
    item_of = np.repeat(np.arange(at.items), np.diff(at.ptr))
    random_ = plan.act == Act.RANDOM
    tokens, source = plan.scored[random_], plan.source[random_]
    assert (plan.source[~random_] == -1).all()
    assert (source >= 0).all()
    assert (item_of[source] == item_of[tokens]).all()
    assert (source != tokens).all()
    allowed = plan.visible if spec.random_from == "visible" else np.flatnonzero(plan.code != oracle.ABSENT)
    assert np.isin(source, allowed).all()


def test_random_without_a_source_is_token():
    for given_, spec in (
        ([0, 1], Spec(ratio=1, random=1, random_from="any")),
        ([0, 5], Spec(ratio=1, random=1, random_from="visible")),
    ):
        plan = draw(layout(given_), spec, seed=0, visit=0)
        assert plan.act.tolist() == [Act.TOKEN] * given_[1]
        assert plan.source.tolist() == [-1] * given_[1]


GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_golden(case):
    """Plans as first made. A change breaks every stored run: it needs a new contract, not new vectors."""
    key = {**case["key"], "purpose": Purpose[case["key"].get("purpose", "HIDE")]}
    at, spec = built(case["layout"]), Spec(**case["spec"])
    plan = draw(at, spec, **key)
    assert "".join(map(str, plan.code)) == case["code"]
    assert plan.source.tolist() == case["source"]
    step, remask = key.pop("step", None), key.pop("purpose") is Purpose.REMASK
    code, source = oracle.plan(items_of(at), spec, oracle.Key(**key, remask=remask), step)
    assert code == plan.code.tolist()
    assert [s for s, c in zip(source, code, strict=True) if c <= Act.KEEP] == case["source"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@ONCE
@given(st.data(), WORD)
def test_a_plan_does_not_depend_on_the_batch(strategy, data, seed):
    """Nor on the order in it."""
    made, spec = data.draw(cases([strategy], scopes=["item"]))
    made = list({item["id"]: item for item in made}.values())
    some = data.draw(st.permutations(made))[: data.draw(st.integers(0, len(made)))]
    at = layout_of(some)
    plan = draw(at, spec, seed=seed, visit=4)
    for i, item in enumerate(some):
        a, b = at.ptr[i : i + 2]
        alone = draw(layout_of([item]), spec, seed=seed, visit=4)
        assert plan.code[a:b].tolist() == alone.code.tolist()
        mine = (plan.scored >= a) & (plan.scored < b)
        assert [s - a if s >= 0 else -1 for s in plan.source[mine]] == alone.source.tolist()


def test_each_part_of_the_key_changes_the_plan():
    base = {"seed": 0, "visit": 0, "view": 0, "token_set": 0, "draw": 0, "purpose": Purpose.HIDE}
    changed = [{}, {"seed": 1}, {"visit": 1}, {"visit": VALIDATION}, {"view": 1}, {"token_set": 1}, {"draw": 1}]
    changed.append({"purpose": Purpose.REMASK})
    at, spec = layout([0, 500]), Spec()
    plans = [draw(at, spec, **{**base, **c}).code.tobytes() for c in changed]
    plans.append(draw(layout([0, 500], item_id=[2**32]), spec, **base).code.tobytes())
    assert len(set(plans)) == len(changed) + 1
    assert plans[0] == draw(at, spec, **base).code.tobytes()


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "rectangle"])
def test_shared_scopes(strategy):
    """Items of a set, or of the batch, hide the same positions; a step is a new draw."""
    ptr, names = [0, 50, 100, 130, 180], [5, 6, 7, 8]
    weight = np.concatenate([np.arange(n) for n in np.diff(ptr)])
    at = layout(ptr, names, set_id=[4, 9, 4, 4], weight=weight, adjacency=adjacency(*path(ptr), ptr))
    code = draw(at, Spec(strategy, scope="batch"), seed=0, visit=0, step=3).code
    assert code[:50].tolist() == code[50:100].tolist() == code[130:].tolist()
    assert code[100:130].tolist() == code[:30].tolist()
    assert (draw(at, Spec(strategy, scope="batch"), seed=0, visit=0, step=4).code != code).any()
    code = draw(at, Spec(strategy, scope="set"), seed=0, visit=0).code
    assert code[:50].tolist() == code[130:].tolist()
    assert code[:50].tolist() != code[50:100].tolist()
    one = layout([0, 50], item_id=[4], weight=np.arange(50), adjacency=grid((50,)))
    assert code[:50].tolist() == draw(one, Spec(strategy), seed=0, visit=0).code.tolist()


def test_shared_scopes_of_rectangles():
    """Items of a grid are of one length."""
    at = layout([0, 48, 96, 144], [5, 6, 7], set_id=[4, 9, 4], shape=(6, 8), valid=np.arange(144) != 50)
    code = draw(at, Spec("rectangle", scope="batch"), seed=0, visit=0, step=3).code.reshape(3, 48)
    assert code[0].tolist() == code[2].tolist() == np.where(np.arange(48) == 2, code[0], code[1]).tolist()
    assert code[1, 2] == oracle.ABSENT
    assert (draw(at, Spec("rectangle", scope="batch"), seed=0, visit=0, step=4).code[:48] != code[0]).any()
    code = draw(at, Spec("rectangle", scope="set"), seed=0, visit=0).code.reshape(3, 48)
    assert code[0].tolist() == code[2].tolist() != code[1].tolist()
    one = layout([0, 48], item_id=[4], shape=(6, 8))
    assert code[0].tolist() == draw(one, Spec("rectangle"), seed=0, visit=0).code.tolist()


def path(ptr):
    """Compressed rows of neighbours on a path through all items, from the last of one to the first of the next too."""
    at = grid((ptr[-1],))
    return at.ptr, at.place


@numba.njit
def _numba_random():
    return np.random.random()  # noqa: NPY002


@numba.njit
def _numba_seed(seed):
    np.random.seed(seed)  # noqa: NPY002


def test_global_generators_are_left_alone():
    """The next number of each is the one that it would have been."""

    def start():
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)
        torch.manual_seed(1)
        _numba_seed(1)

    def following():
        return np.random.random(), random.random(), torch.rand(()).item(), _numba_random()  # noqa: NPY002

    start()
    expected = following()
    start()
    to_torch(draw(layout([0, 100, 200_000]), Spec(random=0.1, keep=0.1), seed=0, visit=0)).scored  # noqa: B018
    permutation(100, seed=0, visit=0)
    assert following() == expected


@pytest.mark.parametrize("n", [0, 1, 2, 257])
def test_permutation(n):
    order = permutation(n, seed=3, visit=4)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))
    rank = [oracle.Key(3, 4).rank(6, 0, p) for p in range(n)]
    assert order.tolist() == sorted(range(n), key=lambda p: (rank[p], p))


def test_permutations_differ_by_visit():
    assert permutation(50, seed=0, visit=0).tolist() != permutation(50, seed=0, visit=1).tolist()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**32}, "seed = 4294967296"),
        ({"seed": 0.5}, "seed = 0.5"),
        ({"visit": 2**32}, "visit = "),
        ({"view": 16}, "view = 16"),
        ({"draw": 2**15}, "draw = 32768"),
        ({"purpose": Purpose.ORDER}, "purpose = "),
        ({"scope": "batch"}, "step = None"),
        ({"scope": "batch", "step": -1}, "step = -1"),
    ],
)
def test_refused(change, says):
    spec = Spec(scope=change.pop("scope", "item"))
    with pytest.raises(UsageError, match=says) as caught:
        draw(layout([0, 4]), spec, **{"seed": 0, "visit": 0, **change})
    assert "\n" not in str(caught.value)


def test_repr_is_one_line():
    plan = draw(layout([0, 100], valid=np.arange(100) < 80), Spec(random=0.1, keep=0.1), seed=7, visit=3, view=1)
    assert repr(plan) == (
        "Plan(100 tokens, 80 valid, 45.0% hidden, 40 scored: 32 TOKEN, 4 RANDOM, 4 KEEP; "
        "seed 7, stream 0x10000000, visit 3)"
    )
    assert repr(draw(layout([0]), Spec(), seed=0, visit=0)) == (
        "Plan(0 tokens, 0 valid, 0% hidden, 0 scored; seed 0, stream 0x0, visit 0)"
    )
