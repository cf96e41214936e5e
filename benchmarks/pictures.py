"""A table as a picture: accuracy by labels a class, or by the first option of a grid."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import results
from definition import Definition, Method

from structmae.errors import StructmaeError, UsageError

NAMES = {"ratio": "share of the tokens that are hidden"}  # of axes
LETTERS = 14  # of the legend, an inch
MARKS = "osD^vPX*<>"  # as many as matplotlib has colours: from there on lines are dashed


class Point(NamedTuple):
    """The mean over seeds, and its standard deviation."""

    x: float
    mean: float
    std: float


Curves = dict[str, dict[str, list[Point]]]  # by data set, then by what the legend says


def curves(table: Definition, lines: Sequence[results.Line]) -> tuple[str, Curves]:
    """What the x axis is, and the curves. Raises UsageError for a table that has no such axis."""
    grid = [method for method in table.methods if method.chosen]
    if not table.labels and not grid:
        raise UsageError(f"--plot: {table.name} has no axis to draw along; few_label and ablation have one")
    first = "labels a class" if table.labels else NAMES.get(grid[0].chosen[0][0], grid[0].chosen[0][0])
    found: Curves = {}
    for data in table.data:
        for method in table.methods if table.labels else grid:
            mine = [line for line in lines if (line["data"], line["recipe"]) == (data, method.name)]
            values: dict[float, list[float]] = {}
            for line in mine:
                if not line["settings"]:
                    values.setdefault(_place(table, method, line), []).append(line["value"])
            points = found.setdefault(data, {}).setdefault(_called(table, method), [])
            points += [
                Point(x, statistics.fmean(some), statistics.stdev(some) if len(some) > 1 else 0.0)
                for x, some in sorted(values.items())
            ]
    return first, found


def _place(table: Definition, method: Method, line: results.Line) -> float:
    return float(line["at"].split()[0] if table.labels else method.chosen[0][1])


def _called(table: Definition, method: Method) -> str:
    return (
        method.name if table.labels else ", ".join(f"{key}={value}" for key, value in method.chosen[1:]) or "accuracy"
    )


def draw(table: Definition, lines: Sequence[results.Line], path: Path) -> None:
    """Writes the picture, a panel for each data set; bars are standard deviations over seeds. Raises UsageError where
    there is no axis, StructmaeError where nothing is measured, without matplotlib, and where the file can't be
    written."""
    first, found = curves(table, lines)
    panels = {data: some for data, some in found.items() if any(some.values())}
    if not panels:
        raise StructmaeError(f"nothing is measured yet: python benchmarks/run.py {table.name}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise StructmaeError('a plot needs matplotlib, which is missing: pip install "structmae[plots]"') from None
    figure = Figure(figsize=(1.2 + 3.6 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (data, some) in zip(axes, panels.items(), strict=True):
        for place, (label, points) in enumerate(some.items()):
            if points:
                mark, dashes = MARKS[place % len(MARKS)], "-" if place < len(MARKS) else "--"
                colour = f"C{place % len(MARKS)}"  # a method's in each panel, also where another has no points
                x, mean, std = zip(*points, strict=True)
                mean, std = ([100 * value for value in part] for part in (mean, std))
                look = {"color": colour, "marker": mark, "linestyle": dashes}
                ax.errorbar(x, mean, std, label=label, **look, capsize=2, linewidth=1.2, markersize=4)
        if table.labels:
            ax.set_xscale("log")
            there = sorted({point.x for points in some.values() for point in points})
            ax.set_xticks(there, [f"{x:g}" for x in there])
            ax.minorticks_off()
        ax.set(title=data, xlabel=first)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel(f"accuracy on {table.split}, %")
    handles, labels = axes[0].get_legend_handles_labels()
    columns = int(figure.get_figwidth() * LETTERS / (max(map(len, labels)) + 8))  # 8: the line beside a label
    figure.legend(
        handles, labels, loc="outside lower center", ncols=max(1, min(columns, len(labels))), fontsize="small"
    )
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise StructmaeError(f"--plot {path}: {error}; give a file such as {table.name}.png") from None
