"""Pictures of plans: every token is painted once, in its colour, where it belongs."""

import math
import sys
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colors, pyplot

from structmae.errors import StructmaeError, UsageError
from structmae.masking import Spec, draw, layout
from structmae.masking.plot import LOOK, WIDTH, plot

mpl.use("Agg")
BLANK = (0, 0, 0, 0)
PAINT = {code: tuple(round(255 * c) for c in colors.to_rgba(look[1])) for code, look in LOOK.items()}


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def plan_of(items):
    """Items as lists of codes."""
    code = np.array([c for item in items for c in item], np.uint8)
    return SimpleNamespace(code=code, ptr=np.cumsum([0, *map(len, items)]))


def pixels(ax):
    return [[tuple(p) for p in row] for row in ax.images[0].get_array().tolist()]


def legend(ax):
    return [] if ax.get_legend() is None else [text.get_text() for text in ax.get_legend().get_texts()]


CODES = st.integers(0, 6)
ONE_AX = settings(max_examples=30)


@ONE_AX
@given(st.lists(st.lists(CODES, max_size=20), max_size=10), st.integers(1, 10))
def test_a_row_an_item(items, most):
    ax = plot(plan_of(items), items=most, ax=pyplot.figure().subplots())
    shown = items[:most]
    width = max([1, *map(len, shown)])
    expected = [[PAINT[c] for c in item] + [BLANK] * (width - len(item)) for item in shown]
    assert pixels(ax) == (expected or [[BLANK]])
    assert legend(ax) == [LOOK[c][0] for c in sorted({c for item in shown for c in item})]
    assert [t.get_text() for t in ax.get_yticklabels()] == [str(i) for i in range(len(shown))]
    assert ax.get_yticks().tolist() == list(range(len(shown)))
    pyplot.close("all")


@ONE_AX
@given(st.lists(st.integers(0, 700), min_size=1, max_size=4))
def test_long_items_are_broken_into_lines(lengths):
    """Read line by line, between the blank lines, the picture gives each item back."""
    items = [[(7 * i + at * at) % 7 for at in range(n)] for i, n in enumerate(lengths)]
    ax = plot(plan_of(items), ax=pyplot.figure().subplots())
    lines = pixels(ax)
    width = len(lines[0])
    assert width <= WIDTH
    assert [p for line in lines for p in line if p != BLANK] == [PAINT[c] for item in items for c in item]
    if max(lengths) > WIDTH:
        assert len(lines) == sum(max(1, math.ceil(n / width)) for n in lengths) + len(lengths) - 1
        assert ax.get_xlabel() == f"position, {width} a line"
    pyplot.close("all")


@ONE_AX
@given(st.data(), st.lists(st.integers(1, 5), min_size=2, max_size=3), st.integers(1, 9))
def test_a_picture_an_item(data, shape, count):
    codes = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 7, (count, *shape))
    ax = plot(plan_of(codes.reshape(count, -1).tolist()), shape=shape, ax=pyplot.figure().subplots())
    image = ax.images[0].get_array()
    names = {t.get_text(): t.xy for t in ax.texts}
    assert sorted(names) == [f"item {i}" for i in range(min(count, 8))]
    painted = 0
    for i in range(min(count, 8)):
        x, y = (int(v + 0.5) for v in names[f"item {i}"])
        frames = codes[i].reshape(-1, *shape[-2:])
        for t, frame in enumerate(frames):
            left = x + t * (shape[-1] + 1)
            part = image[y : y + shape[-2], left : left + shape[-1]]
            assert [[tuple(p) for p in row] for row in part.tolist()] == [[PAINT[c] for c in row] for row in frame]
            painted += frame.size
    assert (image[..., 3] > 0).sum() == painted  # the rest is blank
    pyplot.close("all")


def test_a_drawn_plan():
    at = layout([0, 12, 24, 36], valid=np.arange(36) % 5 > 0)
    plan = draw(at, Spec(ratio=0.5, act="drop", random=0.3, keep=0.3), seed=0, visit=0)
    ax = plot(plan, shape=(3, 4), items=2)
    valid, scored = int((plan.code < 6).sum()), len(plan.scored)
    percent = f"{100 * len(plan.hidden) / valid:.1f}"
    title = f"36 tokens, {valid} valid, {percent}% hidden, {scored} scored; items 0 to 1 of 3"
    assert ax.get_title(loc="left") == title
    assert legend(ax)[-1] == "absent"
    assert len(ax.collections[0].get_segments()) == int((plan.code[:24] == 6).sum())
    ax.figure.draw_without_rendering()  # no warning, of the layout least of all


def test_a_figure_of_its_own_or_the_axes_given():
    plan = plan_of([[0, 5], [5, 0]])
    assert plot(plan).figure is not plot(plan).figure
    given_ = pyplot.figure().subplots()
    before = pyplot.get_fignums()
    assert plot(plan, ax=given_) is given_
    assert pyplot.get_fignums() == before
    for shape, items in ((None, [[3] * 5000]), ((200, 300), [[3] * 60000] * 2), ((1, 1), [[6]]), (None, [])):
        ax = plot(plan_of(items), shape=shape)
        assert max(ax.figure.get_size_inches()) <= 10
        ax.figure.draw_without_rendering()


def test_colours_differ_in_grey_too_or_in_hue():
    """All are different; what is hidden is darker than what is not chosen."""
    assert len(set(PAINT.values())) == 7
    grey = {code: 0.2126 * r + 0.7152 * g + 0.0722 * b for code, (r, g, b, _) in PAINT.items()}
    assert max(grey[code] for code in range(5)) < grey[5] < grey[6]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shape": (2, 3)}, r"shape = \(2, 3\): has 6 places, item 1 has 4 tokens"),
        ({"shape": (6,)}, r"shape = \(6,\): must be \(H, W\) or \(T, H, W\)"),
        ({"shape": (1, 1, 2, 3)}, r"shape = \(1, 1, 2, 3\): must be"),
        ({"shape": (2, 0)}, r"shape\[1\] = 0"),
        ({"shape": 6}, "shape = 6: must be a list"),
        ({"items": 0}, "items = 0: must be a whole number, 1 or more"),
    ],
)
def test_refused(options, says):
    with pytest.raises(UsageError, match=says) as caught:
        plot(plan_of([[0] * 6, [0] * 4]), **options)
    assert "\n" not in str(caught.value)


def test_items_not_shown_may_have_another_shape():
    assert len(plot(plan_of([[0] * 6, [0] * 4]), shape=(2, 3), items=1).texts) == 1


def test_without_matplotlib(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(StructmaeError, match=r'pip install "structmae\[plots\]"') as caught:
        plot(plan_of([[0]]))
    assert not isinstance(caught.value, UsageError)
