"""Text as the model sees it: windows in three blocks of equal lines, so that a piece stands in one place in all."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple
from unicodedata import combining

import torch
from torch import Tensor

from structmae.errors import UsageError
from structmae.masking import Act
from structmae.report.base import (
    HIDDEN,
    KEPT,
    PANELS,
    RANDOM,
    RIGHT,
    TRUE,
    WRONG,
    Axes,
    Scene,
    chosen,
    look,
    teller_of_all,
)

if TYPE_CHECKING:
    from structmae.run import Run

WIDTH = 100  # characters of a line
LONG = 160  # pieces of a window: of longer ones only one is shown
FONT, SIZE = "DejaVu Sans Mono", 8.5  # matplotlib brings it; a character is 0.602 of its size wide
VISIBLE = {" ": "\u00b7", "\n": "\u21b5", "\t": "\u2192"}
STRANGE = "\u25a1"  # for what the font lacks


class Cell(NamedTuple):
    """A piece as one block shows it."""

    text: str
    colour: str = TRUE
    fill: str | None = None


def scene(run: "Run", texts: Any, source: Any, start: int | None, channel: int | str) -> Scene:
    """The window of number `start`; without it two test windows, or one where windows are long."""
    windows = _windows(texts, source, start)
    seen = look(run, source.at(windows), "piece", source.device)
    head = teller_of_all(run, seen.said)
    blocks, right = _cells(seen, seen.said[head.name].argmax(1), source.tokenizer)
    lines = _lines(blocks, seen.part.ptr.tolist())
    names = dict.fromkeys(texts.titles[number] for number in source.document[windows].tolist())
    part, plan = seen.part, seen.plan
    about = f"{len(plan.hidden) / len(part):.0%} hidden, {right:.0%} of the {len(plan.scored)} scored right"
    if seen.in_order:
        about = f"{right:.0%} right; rebuilt is the most likely piece after the true ones before it"
    title = f"{texts.name}, of {' and '.join(map(str, names))}: {about}"
    second = "seen at the middle piece" if seen.in_order else PANELS[1]
    labels = (PANELS[0], second, PANELS[2])

    def draw(axes: Axes) -> None:
        for number, (ax, label) in enumerate(zip(axes, labels, strict=True)):
            _draw(ax, [[(column, cells[number]) for column, cells in line] for line in lines], label)
        axes[0].set_title(title, loc="left", fontsize=10, parse_math=False, pad=20)
        _legend(axes[1:], seen)

    high = len(lines) * SIZE * 1.65 / 72
    size = (WIDTH * SIZE * 0.602 / 72 + 0.4, 3 * (high + 0.35) + 0.5)
    return Scene(3, 1, size, "text has three blocks", draw)


def _cells(seen: Any, said: Tensor, tokenizer: Any) -> tuple[list[tuple[Cell, Cell, Cell]], float]:
    """Each piece in the three blocks, and the share of the scored that is said right."""
    _, ids, covered = seen.content(tokenizer.vocabulary)
    act = torch.full((len(seen.part),), -1, device=covered.device)
    act[seen.plan.scored] = seen.plan.act.long()
    true, found = seen.part.ids, []
    rows = zip(*(part.tolist() for part in (true, ids, said, covered, act)), strict=True)
    for was, now, says, gone, what in rows:
        scored = what >= 0
        first = Cell(_shown(tokenizer, was), fill=HIDDEN if scored and not seen.in_order else None)
        if gone:
            second = Cell("_" * len(first.text), fill=HIDDEN)
        elif what == int(Act.RANDOM):
            second = Cell(_shown(tokenizer, now), RANDOM, RANDOM)
        else:
            kept = what == int(Act.KEEP) and not seen.in_order
            second = Cell(_shown(tokenizer, now), KEPT if kept else TRUE, KEPT if kept else None)
        colour = RIGHT if says == was else WRONG
        third = Cell(_shown(tokenizer, says), colour, colour) if scored else Cell(first.text)
        found.append((first, second, third))
    scored = seen.plan.scored
    return found, float((said == true)[scored].float().mean()) if len(scored) else float("nan")


def _lines(
    blocks: Sequence[tuple[Cell, Cell, Cell]], ptr: Sequence[int]
) -> list[list[tuple[int, tuple[Cell, Cell, Cell]]]]:
    """The cells line by line with their columns; a window begins a line, after an empty one."""
    lines: list[list[tuple[int, tuple[Cell, Cell, Cell]]]] = []
    for begin, end in pairwise(ptr):
        if lines:
            lines.append([])
        lines.append([])
        column = 0
        for cells in blocks[begin:end]:
            wide = max(len(cell.text) for cell in cells)
            if column + wide > WIDTH and column:
                lines.append([])
                column = 0
            lines[-1].append((column, cells))
            column += wide
    return lines


def _draw(ax: Any, lines: Sequence[Sequence[tuple[int, Cell]]], label: str) -> None:
    """One block. A unit of its axes is a character, or a line."""
    patches: Any = import_module("matplotlib.patches")
    ax.set_xlim(0, WIDTH)
    ax.set_ylim(len(lines), 0)
    ax.set_axis_off()
    above = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom"}
    ax.annotate(label, (0, 1), (0, 3), fontsize=9, color="#666666", **above)
    for row, line in enumerate(lines):
        for column, cell in line:
            if cell.fill is not None:
                box = (column + 0.05, row + 0.06), len(cell.text) - 0.1, 0.88
                ax.add_patch(patches.Rectangle(*box, facecolor=cell.fill, alpha=0.22, linewidth=0))
            look = {"color": cell.colour, "fontfamily": FONT, "fontsize": SIZE, "parse_math": False, "va": "center"}
            ax.text(column, row + 0.5, cell.text, **look)


def _legend(axes: Axes, seen: Any) -> None:
    """What colours say."""
    patches: Any = import_module("matplotlib.patches")
    acts = set(seen.plan.act.tolist()) if not seen.in_order else set()
    names = [
        ("hidden", HIDDEN),
        *[("another piece", RANDOM)] * (int(Act.RANDOM) in acts),
        *[("kept", KEPT)] * (int(Act.KEEP) in acts),
    ]
    for ax, entries in zip(axes, (names, [("right", RIGHT), ("wrong", WRONG)]), strict=True):
        handles = [patches.Patch(facecolor=colour, alpha=0.5, label=name) for name, colour in entries]
        ax.legend(
            handles=handles,
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=3,
            frameon=False,
            fontsize=8,
            borderpad=0,
            borderaxespad=0.2,
        )


def _shown(tokenizer: Any, piece: int) -> str:
    """The text of a piece with nothing invisible in it."""
    known = _glyphs()
    text = [VISIBLE.get(letter, letter) for letter in tokenizer.piece(piece)]
    return "".join(
        letter if ord(letter) in known and letter.isprintable() and not combining(letter) else STRANGE
        for letter in text
    )


@cache
def _glyphs() -> frozenset[int]:
    """The characters of the font."""
    fonts: Any = import_module("matplotlib.font_manager")
    faces: Any = import_module("matplotlib.ft2font")
    return frozenset(faces.FT2Font(fonts.findfont(FONT)).get_charmap())


def _windows(texts: Any, source: Any, start: int | None) -> Tensor:
    """Numbers of the windows to show."""
    if start is None:
        part = next(
            (source.parts[key] for key in ("test", "validation", "train") if len(source.parts[key])), torch.arange(1)
        )
        return chosen(part, 1 if source.tokenizer.context > LONG else 2) if len(part) > 1 else part
    if not 0 <= start < len(source.document):
        raise UsageError(f"start={start}: {texts.name} has windows 0 to {len(source.document) - 1}")
    return torch.tensor([start])
