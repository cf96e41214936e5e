"""A picture of a plan: what happens to each token. Needs matplotlib, `pip install "structmae[plots]"`."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from structmae.errors import StructmaeError, UsageError
from structmae.masking.groups import whole, wholes
from structmae.masking.strategies import ABSENT, UNTOUCHED, Act

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from structmae.masking.plan import Plan

Codes = NDArray[np.uint8]

# Okabe and Ito's colours, told apart with any kind of colour vision (least CIE76 distance of two acts 17), on greys for
# what is no act. What is absent is struck out too, where there is room.
LOOK = {
    int(Act.DROP): ("DROP", "#1a1a1a"),
    int(Act.TOKEN): ("TOKEN", "#0072b2"),
    int(Act.RANDOM): ("RANDOM", "#e69f00"),
    int(Act.ZERO): ("ZERO", "#cc79a7"),
    int(Act.KEEP): ("KEEP", "#56b4e9"),
    UNTOUCHED: ("untouched", "#dcdcdc"),
    ABSENT: ("absent", "#f7f7f7"),
}
STROKE = "#999999"
BLANK = 255  # the page: no token
WIDTH = 200  # tokens in a line: more would be thinner than a pixel or two


def plot(plan: "Plan", *, shape: Sequence[int] | None = None, items: int = 8, ax: "Axes | None" = None) -> "Axes":
    """Draw what a plan does to each token of its first `items` items, a colour for each act; returns the axes.

    Without `shape` an item is a row; items above 200 tokens are broken into lines. With `shape`, (H, W) or (T, H, W),
    the tokens of an item lie row-major on a grid, frames side by side. `ax` None makes a figure.

        >>> plot(plan, shape=(14, 14)).figure.savefig("plan.png")  # doctest: +SKIP

    Raises UsageError for a shape that the items shown do not have, StructmaeError without matplotlib.
    """
    try:
        from matplotlib import collections, patches, pyplot, ticker
    except ImportError:
        raise StructmaeError('a plot needs matplotlib, which is missing: pip install "structmae[plots]"') from None
    code, ptr = np.asarray(plan.code), np.asarray(plan.ptr)
    parts = [code[a:b] for a, b in pairwise(ptr[: whole("items", items, 1) + 1])]
    grid = None if shape is None else _grid(shape, parts)
    pictures = _rows(parts) if grid is None else [_frames(part.reshape(grid)) for part in parts]
    mosaic, corners = _mosaic(pictures, rows=grid is None)
    high, wide = mosaic.shape
    if ax is None:
        tall = 0.9 + 0.3 * high if grid is None else 0.8 + 6.6 * high / wide
        ax = pyplot.subplots(figsize=(8.0, min(max(tall, 1.6), 10.0)), layout="constrained")[1]
    colours = np.zeros((256, 4), np.uint8)  # blank is transparent
    for value, (_, colour) in LOOK.items():
        colours[value] = [*bytes.fromhex(colour[1:]), 255]
    ax.imshow(colours[mosaic], aspect="auto" if grid is None else "equal", interpolation="nearest")
    if grid is None:
        ax.set_xlabel("position" if max(map(len, parts), default=0) <= WIDTH else f"position, {wide} a line")
        ax.set_ylabel("item")
        ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        middles = [y + (len(picture) - 1) / 2 for (y, _), picture in zip(corners, pictures, strict=True)]
        ax.set_yticks(middles, [str(i) for i in range(len(parts))])
    else:
        ax.set_xticks([])
        ax.set_yticks([])
        for i, (y, x) in enumerate(corners):
            ax.annotate(f"item {i}", (x - 0.5, y - 0.5), (0, 2), textcoords="offset points", fontsize=8, va="bottom")
    if max(high, wide) <= WIDTH:  # lines between the tokens, and a stroke in each absent one
        ax.set_xticks(np.arange(wide + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(high + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=0.6)
        strokes = np.argwhere(mosaic == ABSENT)[:, None, ::-1] + [[-0.3, 0.3], [0.3, -0.3]]
        ax.add_collection(collections.LineCollection(list(strokes), colors=STROKE, linewidths=0.8))
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(_summary(code, len(parts), len(ptr) - 1), loc="left", fontsize=10)
    names = {LOOK[value][0]: LOOK[value][1] for value in np.unique(mosaic[mosaic != BLANK]).tolist()}
    handles = [patches.Patch(facecolor=colour, label=name) for name, colour in names.items()]
    if "absent" in names:  # the last
        handles[-1].set(hatch="//", edgecolor=STROKE, linewidth=0.0)
    if handles:
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    return ax


def _grid(shape: Any, parts: list[Codes]) -> tuple[int, ...]:
    grid = wholes("shape", shape, 1)
    if len(grid) not in (2, 3):
        raise UsageError(f"shape = {grid}: must be (H, W) or (T, H, W); give the grid of one item")
    for i, part in enumerate(parts):
        if len(part) != math.prod(grid):
            raise UsageError(
                f"shape = {grid}: has {math.prod(grid)} places, item {i} has {len(part)} tokens; "
                "give the grid of an item, or leave shape out"
            )
    return grid


def _rows(parts: list[Codes]) -> list[Codes]:
    """Each item (n,) as lines of one width, (lines, width), blank at the end of the last."""
    longest = max(map(len, parts), default=0)
    width = math.ceil(longest / max(1, math.ceil(longest / WIDTH))) if longest else 1
    lines = [max(1, math.ceil(len(part) / width)) for part in parts]
    return [
        np.pad(part, (0, n * width - len(part)), constant_values=BLANK).reshape(n, width)
        for n, part in zip(lines, parts, strict=True)
    ]


def _frames(part: Codes) -> Codes:
    """An item (H, W), or (T, H, W) as (H, T (W + 1) - 1): a blank column between frames."""
    if part.ndim == 2:
        return part
    spaced = np.pad(part, ((0, 0), (0, 0), (0, 1)), constant_values=BLANK)
    return np.concatenate(list(spaced), axis=1)[:, :-1]


def _mosaic(pictures: list[Codes], rows: bool) -> tuple[Codes, list[tuple[int, int]]]:
    """Pictures in one, with the corner (y, x) of each: below each other, or on a grid about twice as wide as high."""
    if not pictures:
        return np.full((1, 1), BLANK, np.uint8), []
    n, wide = len(pictures), pictures[0].shape[1]
    if rows:
        across, aside, above = 1, 0, int(max(map(len, pictures)) > 1)  # items of several lines are set apart
    else:
        across = min(max(round(math.sqrt(2 * n * len(pictures[0]) / wide)), 1), n)
        aside = max(1, wide // 8)
        above = math.ceil(across * (wide + aside) / 36)  # room for a name, at the size of figure made here
    corners, y = [], 0
    for start in range(0, n, across):
        line = pictures[start : start + across]
        y += above
        corners += [(y, i * (wide + aside)) for i in range(len(line))]
        y += max(map(len, line))
    if rows:  # no blank line before the first
        corners, y = [(top - above, left) for top, left in corners], y - above
    mosaic = np.full((y, across * (wide + aside) - aside), BLANK, np.uint8)
    for (top, left), picture in zip(corners, pictures, strict=True):
        mosaic[top : top + len(picture), left : left + wide] = picture
    return mosaic, corners


def _summary(code: Codes, shown: int, items: int) -> str:
    valid, hidden, scored = (int(np.count_nonzero(code <= top)) for top in (UNTOUCHED, Act.ZERO, Act.KEEP))
    percent = f"{100 * hidden / valid:.1f}" if valid else "0"
    some = f"; items 0 to {shown - 1} of {items}" if shown < items else ""
    return f"{len(code)} tokens, {valid} valid, {percent}% hidden, {scored} scored{some}"
