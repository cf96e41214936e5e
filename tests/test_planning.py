"""What is hidden in a step: of which tokens, how many, where, and in which draw."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_images import batch_of, images, read

from structmae import masking, resolve
from structmae.data.images import Images
from structmae.planning import Planner
from structmae.tokens.graph import GraphSource, NodeTokenizer

few = settings(max_examples=20)


def hidden_of(name, data=None, visit=0, **changes):
    """What a step reads of the first eight items."""
    source, recipe = read(name, data, **changes)
    return batch_of(source, recipe, torch.arange(8), visit)


def by_map(batch, items=8):
    """How many of each item's tokens are hidden, in each map (items, maps)."""
    part, hidden = batch.tokens["patch"], batch.plans["patch"].hidden
    counts = torch.zeros(items, 3, dtype=torch.long)
    counts.index_put_((part.batch[hidden], part.kind[hidden]), torch.tensor(1), accumulate=True)
    return counts


@few
@given(ratio=st.floats(0.05, 0.95), visit=st.integers(0, 1000))
def test_counts_may_be_exact_in_each_map(ratio, visit):
    """Where the recipe says so; an item's count alone lets a map have any share."""
    changes = {"mask.strategy": "uniform", "mask.ratio": ratio}
    batch = hidden_of("multimae", visit=visit, **changes, **{"mask.exact": "kind"})
    assert torch.equal(by_map(batch), torch.full((8, 3), masking.count(ratio, 9)))
    batch = hidden_of("multimae", visit=visit, **changes)
    assert by_map(batch).sum(1).tolist() == [masking.count(ratio, 27)] * 8


def test_without_it_the_maps_shares_differ():
    shares = [by_map(hidden_of("multimae", visit=v, **{"mask.strategy": "uniform"})) for v in range(3)]
    assert len(torch.unique(torch.cat(shares), dim=0)) > 3


@few
@given(ratio=st.floats(0.05, 0.95), visit=st.integers(0, 1000), concentration=st.sampled_from([0.1, 1.0, 50.0]))
def test_a_dirichlet_draw_leaves_the_same_number_visible(ratio, visit, concentration):
    batch = hidden_of("multimae", visit=visit, **{"mask.ratio": ratio, "mask.concentration": concentration})
    assert by_map(batch).sum(1).tolist() == [masking.count(ratio, 27)] * 8


def test_a_low_concentration_leaves_all_to_one_map():
    def one_map(concentration):
        changes = {"mask.ratio": 2 / 3, "mask.concentration": concentration}
        counts = torch.cat([by_map(hidden_of("multimae", visit=visit, **changes)) for visit in range(6)])
        return float(((9 - counts) == 9).any(1).float().mean())

    assert one_map(0.01) > 0.9
    assert one_map(100.0) == 0.0


@pytest.mark.parametrize("visit", range(4))
def test_rectangles_of_images_are_compact(visit):
    """Of 8 x 8 patches 16 are hidden in one rectangle of 16 or a little more: its sides are a to b, 0.3 <= a / b."""
    changes = {"mask.strategy": "rectangle", "mask.ratio": 0.25, "mask.area": 16, "mask.act": "token"}
    batch = hidden_of("mae", images(side=16), visit=visit, **changes)
    of = batch.plans["patch"].hidden
    for item in range(8):
        places = of[batch.tokens["patch"].batch[of] == item] % 64
        rows, columns = places // 8, places % 8
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert len(places) == 16
        assert height * width <= 16 + max(height, width)
        assert 0.2 < height / width < 5


@pytest.mark.parametrize("strategy", ["block", "walk"])
def test_blocks_and_walks_of_images_stay_on_the_grid(strategy):
    """Hidden patches of a block are connected by sides; a walk's steps are too. No item reaches into another."""
    changes = {"mask.strategy": strategy, "mask.ratio": 0.2, "mask.act": "token", "mask.length": 100}
    for visit in range(3):
        batch = hidden_of("mae", images(side=16), visit=visit, **changes)
        of = batch.plans["patch"].hidden
        for item in range(8):
            places = of[batch.tokens["patch"].batch[of] == item].sub(64 * item).tolist()
            assert len(places) == masking.count(0.2, 64)
            reached = {places[0]}
            for _ in places:
                reached |= {b for b in places for a in reached if abs(a // 8 - b // 8) + abs(a % 8 - b % 8) == 1}
            assert reached == set(places)


@pytest.mark.parametrize("group", ["row", "column", "cell"])
def test_patches_of_images_are_hidden_in_groups(group):
    batch = hidden_of("mae", images(side=12), **{"mask.group": group, "mask.ratio": 0.5})
    hidden = torch.zeros(8 * 36, dtype=torch.bool).index_fill(0, batch.plans["patch"].hidden, True).view(8, 6, 6)
    if group == "cell":
        cells = hidden.view(8, 3, 2, 3, 2).sum((2, 4))
        assert set(cells.unique().tolist()) == {0, 4}
        assert (cells == 4).sum((1, 2)).tolist() == [masking.count(0.5, 9)] * 8
    else:
        lines = hidden if group == "row" else hidden.transpose(1, 2)
        assert set(lines.sum(2).unique().tolist()) == {0, 6}
        assert (lines.sum(2) == 6).sum(1).tolist() == [3] * 8


def test_spans_of_text_are_runs_within_an_item():
    batch = hidden_of("bert", **{"mask.strategy": "span", "mask.length": 4, "mask.ratio": 0.3})
    part, scored = batch.tokens["piece"], batch.plans["piece"].scored
    runs = 1 + int((scored.diff() > 1).sum())
    assert len(scored) / runs > 2.0
    sizes = part.ptr.diff()
    expected = [masking.count(0.3, int(size)) for size in sizes]
    assert torch.bincount(part.batch[scored], minlength=8).tolist() == expected


def test_variance_weights_of_images_find_the_lively_patches():
    changes = {"mask.strategy": "weighted", "mask.weights": "variance", "mask.power": 16.0, "mask.ratio": 0.2}
    batch = hidden_of("mae", images(side=12), **changes)
    spread = batch.tokens["patch"].values.var(1)
    hidden = torch.zeros(len(spread), dtype=torch.bool).index_fill(0, batch.plans["patch"].hidden, True)
    assert spread[hidden].mean() > 1.5 * spread[~hidden].mean()


def test_what_is_missing_is_neither_hidden_nor_scored():
    batch = hidden_of("mae", images(missing=0.7))
    part, plan = batch.tokens["patch"], batch.plans["patch"]
    assert not part.valid.all()
    assert part.valid[plan.scored].all()
    there = torch.bincount(part.batch[part.valid], minlength=8)
    counts = torch.bincount(part.batch[plan.scored], minlength=8).tolist()
    assert counts == [masking.count(0.75, int(number)) for number in there]


def graph(graphs, **changes):
    recipe = resolve("maskgae_edge", {"encoder.hidden": 8, **changes}, level=graphs.level)
    source = GraphSource(graphs, NodeTokenizer.fit(graphs, recipe))
    return Planner.of(recipe), source


@few
@given(ratio=st.floats(0.05, 0.95), visit=st.integers(0, 1000))
def test_hiding_edges_leaves_nodes_alone(molecules, ratio, visit):
    planner, source = graph(molecules, **{"mask.ratio": ratio})
    tokens = source.batch(torch.arange(6))
    plans = planner.draw(tokens, visit=visit, step=0)
    assert not len(plans["node"].hidden)
    assert not len(plans["node"].scored)
    edge = tokens["edge"]
    counts = torch.bincount(edge.batch[plans["edge"].hidden], minlength=6).tolist()
    assert counts == [masking.count(ratio, int(size)) for size in edge.ptr.diff()]
    assert plans["edge"].plan.dropped == len(plans["edge"].hidden)


def test_validation_is_a_draw_of_its_own_and_always_the_same():
    source, recipe = read("mae")
    tokens = source.batch(torch.arange(8))
    planner = Planner.of(recipe)
    one, again = (planner.draw(tokens, visit=masking.VALIDATION, step=step)["patch"].hidden for step in (0, 9))
    assert torch.equal(one, again)
    for visit in range(5):
        assert not torch.equal(one, planner.draw(tokens, visit=visit, step=0)["patch"].hidden)


def test_a_layout_is_made_once_for_a_set(monkeypatch):
    source, recipe = read("mae")
    made = []
    real = masking.layout
    monkeypatch.setattr(masking, "layout", lambda *args, **kw: made.append(1) or real(*args, **kw))
    planner, tokens = Planner.of(recipe), source.batch(torch.arange(8))
    for visit in range(4):
        planner.draw(tokens, visit=visit, step=0)
    assert len(made) == 1
    planner.draw(source.batch(torch.arange(8)), visit=0, step=0)
    assert len(made) == 2


def test_heads_that_redraw_have_draws_of_their_own():
    again = {"remask": "random", "remask_draws": 2}
    changes = {f"heads.{name}.{key}": value for name in ("image", "gradient") for key, value in again.items()}
    batch = hidden_of("multimae", **changes, **{"mask.act": "token"})
    assert {name: len(plans) for name, plans in batch.remasks.items()} == {"image": 2, "gradient": 2}
    hidden = [tuple(plan.hidden.tolist()) for plans in batch.remasks.values() for plan in plans]
    assert len(set(hidden)) == 4


def test_a_shared_draw_hides_the_same_places_of_all_images():
    for scope in ("item", "batch"):
        batch = hidden_of("mae", **{"mask.scope": scope})
        hidden = torch.zeros(72, dtype=torch.bool).index_fill(0, batch.plans["patch"].hidden, True).view(8, 9)
        assert bool((hidden == hidden[0]).all()) == (scope == "batch")


def test_images_of_a_batch_keep_their_plans():
    """The same image alone, or in another place among others."""
    data = images()
    assert isinstance(data, Images)
    source, recipe = read("mae", data)
    together = batch_of(source, recipe, [4, 1, 2], visit=7).plans["patch"].hidden
    alone = batch_of(source, recipe, [1], visit=7).plans["patch"].hidden
    assert (together[(together >= 9) & (together < 18)] - 9).tolist() == alone.tolist()
