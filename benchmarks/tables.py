"""Render a table: `python benchmarks/tables.py node_classification --format md|latex|csv`, to stdout."""

import csv
import io
import json
import os
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import definition
import masking_report
import pictures
import results
import speed_report
import systems
import systems_table
import ties
from cells import UNTRAINED
from definition import FRACTIONS, METRICS, Definition

from structmae.cli import Parser
from structmae.errors import StructmaeError, UsageError
from structmae.registry import near


class Column(NamedTuple):
    """One number of each method: of a data set and a metric, and where there are several a horizon, or the like."""

    data: str
    at: str
    metric: str


@dataclass(frozen=True)
class Entry:
    """A mean over seeds. `n` is None for a published one; `std` is None where there is none. `mark` says what a paired
    test with the best gave: that it does not tell them apart, or that there is none."""

    mean: float
    std: float | None
    n: int | None
    best: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """A method under one choice of settings, or what a paper says (`source`)."""

    method: str
    settings: dict[str, Any]
    source: str | None
    entries: dict[str, Entry]


def columns(table: Definition, lines: Sequence[results.Line]) -> dict[str, Column]:
    """By their label, in the table's order."""
    ats: dict[str, dict[str, None]] = {}
    for line in lines:
        ats.setdefault(line["data"], {})[line.get("at", "")] = None
    found = {}
    for data in table.data:
        for at in sorted(ats.get(data, {"": None}), key=lambda at: (len(at), at)):
            for metric in table.metrics:
                parts = [data, at, metric if len(table.metrics) > 1 else ""]
                found[" ".join(part for part in parts if part)] = Column(data, at, metric)
    return found


Key = tuple[str, str]  # of a row: method and settings


def rows(table: Definition, lines: Sequence[results.Line]) -> list[Row]:
    """Methods in the table's order, each as it stands and then with other settings; what papers say comes last."""
    labels = {column: label for label, column in columns(table, lines).items()}
    cells: dict[Key, dict[str, list[results.Line]]] = {(method.name, "{}"): {} for method in table.methods}
    for line in lines:
        row = cells.setdefault((line["recipe"], json.dumps(line["settings"], sort_keys=True)), {})
        label = labels.get(Column(line["data"], line.get("at", ""), line["metric"]))
        if label is not None:
            row.setdefault(label, []).append(line)
    best = {label: _best(column, label, cells) for column, label in labels.items()}
    order = {method.name: place for place, method in enumerate(table.methods)}
    features = {method.name: method.features for method in table.methods}
    measured = []
    for key in sorted(cells, key=lambda key: (order.get(key[0], len(order)), key[0], key[1] != "{}", key[1])):
        entries = {}
        for label, some in cells[key].items():
            values = [line["value"] for line in some]
            metric, first = some[0]["metric"], best[label]
            alike = _number(_mean(some), metric) == _number(_mean(first), metric)  # as printed
            mark = "" if alike else MARKS[ties.tied(some, first, drawn=table.drawn == "random")]
            values = values[:1] if features.get(key[0]) in UNTRAINED and len(set(values)) == 1 else values
            std = statistics.stdev(values) if len(values) > 1 else None
            entries[label] = Entry(statistics.fmean(values), std, len(values), alike, mark)
        measured.append(Row(key[0], json.loads(key[1]), None, entries))
    papers = [(paper, {label: Entry(*pair, None) for label, pair in paper.values.items()}) for paper in table.published]
    published = [Row(paper.method, {}, paper.source, entries) for paper, entries in papers]
    # A method that was only measured with other settings has no empty row beside them.
    filled = {row.method for row in measured if row.entries}
    return [row for row in measured if row.entries or row.method not in filled] + published


def _best(column: Column, label: str, cells: Mapping[Key, Mapping[str, list[results.Line]]]) -> list[results.Line]:
    sign = 1 if METRICS[column.metric] == "higher" else -1
    there = [row[label] for row in cells.values() if label in row]
    return max(there, key=lambda some: sign * _mean(some)) if there else []


def _mean(some: Sequence[results.Line]) -> float:
    return statistics.fmean(line["value"] for line in some)


def footer(table: Definition, lines: Sequence[results.Line]) -> list[str]:
    """How the numbers were made, and on what."""
    unit = ", in percent" if set(table.metrics) <= set(FRACTIONS) else ""
    what = " and ".join(metric if metric == "accuracy" else metric.upper() for metric in table.metrics)
    about = f"{what[0].upper()}{what[1:]} on {table.split}{unit}: mean ± standard deviation over n seeds"
    about += f" (n - 1 in its denominator); bold: the best mean measured here; {TIED}: {ties.SAID}"
    said = [f"{about}; {UNTESTED}: not tested, seeds are too few.", table.how]
    said += [f"{paper.method}, published and not measured here: {paper.source}." for paper in table.published]
    said += [text for text in [_spread(table, lines)] if text]
    if not lines:
        return [*said, f"Nothing is measured yet: python benchmarks/run.py {table.name}"]
    found = [line.get("versions") or {} for line in lines]
    versions = (
        f"{name} {_all(each.get(name) for each in found)}" for name in {k: None for each in found for k in each}
    )
    device, threads = (_all(line.get(key) for line in lines) for key in ("device", "threads"))
    revision = _all(_short(line.get("revision")) for line in lines)
    said.append(f"Measured on {device}, threads: {threads}, revision: {revision}; {', '.join(versions)}.")
    return said


def _spread(table: Definition, lines: Sequence[results.Line]) -> str:
    """Of few labels, how far the draws of them are apart, which the deviation over seeds leaves out."""
    found = []
    names = {method.name for method in table.methods}
    for label, column in columns(table, lines).items():
        each: dict[str, list[float]] = {}
        for line in lines:
            here = (line["data"], line.get("at", ""), line["metric"]) == column and line["recipe"] in names
            if here and line.get("over_subsets") is not None and not line["settings"]:
                each.setdefault(line["recipe"], []).append(line["over_subsets"])
        if each:
            mean = statistics.fmean(map(statistics.fmean, each.values()))
            found.append(f"{label} {_number(mean, column.metric)}")
    return f"Standard deviation over the draws of labels, the mean of all methods: {', '.join(found)}." if found else ""


def markdown(table: Definition, shown: Mapping[str, Column], made: Sequence[Row], foot: Sequence[str]) -> str:
    head = [["method", *shown], ["---", *["---:"] * len(shown)]]
    body = [
        [_label(row), *(_text(row.entries.get(label), column, "±", "**{}**", "n") for label, column in shown.items())]
        for row in made
    ]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in head + body]
    return "\n".join([f"### {table.title}", "", *lines, "", "\n\n".join(foot)])


def latex(table: Definition, shown: Mapping[str, Column], made: Sequence[Row], foot: Sequence[str]) -> str:
    def line(row: Row) -> str:
        cells = (
            _text(row.entries.get(label), column, r"$\pm$", r"\textbf{{{}}}", "$n$") for label, column in shown.items()
        )
        return " & ".join([_tex(_label(row)), *cells]) + r" \\"

    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(table.title)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(shown)}}}",
        r"\toprule",
        " & ".join(["method", *map(_tex, shown)]) + r" \\",
        r"\midrule",
        *(line(row) for row in made if not row.source),
    ]
    if table.published:
        lines += [r"\midrule", *(line(row) for row in made if row.source)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip{{\footnotesize {_tex(text)}\par}}" for text in foot]
    return "\n".join([*lines, r"\end{table}"])


def comma_separated(table: Definition, shown: Mapping[str, Column], made: Sequence[Row], foot: Sequence[str]) -> str:
    """One column a number. The footer has no place here."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = [f"{label} {part}" for label in shown for part in ("mean", "std", "n")]
    writer.writerow(["method", "settings", "source", *head])
    for row in made:
        cells: list[Any] = [row.method, _settings(row), row.source or "measured here"]
        for label, column in shown.items():
            entry, metric = row.entries.get(label), column.metric
            cells += (
                ["-"] * 3
                if entry is None
                else [_number(entry.mean, metric), _number(entry.std, metric), entry.n or "-"]
            )
        writer.writerow(cells)
    return out.getvalue().rstrip("\n")


REPORTS = {speed_report.TABLE: speed_report.render, masking_report.TABLE: masking_report.render}
TIED, UNTESTED = "†", "‡"
MARKS = {True: TIED, False: "", None: UNTESTED}
FORMATS = {"md": markdown, "latex": latex, "csv": comma_separated}


def _text(entry: Entry | None, column: Column, between: str, bold: str, n: str) -> str:
    if entry is None:
        return "-"
    number = _number(entry.mean, column.metric)
    if entry.std is not None:
        number += f" {between} {_number(entry.std, column.metric)}"
    number = bold.format(number) if entry.best else number + entry.mark
    return number if entry.n is None else f"{number} ({n}={entry.n})"


def _label(row: Row) -> str:
    if row.source:
        return f"{row.method} (published, not measured here)"
    return f"{row.method}, {_settings(row)}" if row.settings else row.method


def _settings(row: Row) -> str:
    return ", ".join(f"{key}={json.dumps(value).strip(chr(34))}" for key, value in row.settings.items())


def _number(value: float | None, metric: str) -> str:
    """Fractions of 1 in percent."""
    if value is None:
        return "-"
    return f"{100 * value:.2f}" if metric in FRACTIONS else f"{value:.4f}"


def _short(revision: str | None) -> str | None:
    commit, dash, dirty = (revision or "").partition("-")
    return commit[:10] + dash + dirty or None


def _all(values: Iterable[Any]) -> str:
    return " or ".join(dict.fromkeys("unknown" if value is None else str(value) for value in values))


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    special |= {"<": "$<$", ">": "$>$"}
    special |= {TIED: r"$\dagger$", UNTESTED: r"$\ddagger$"}
    special |= {char: "\\" + char for char in "&%$#_{}"}
    return "".join(special.get(char, char) for char in text)


def _check_published(table: Definition, lines: Sequence[results.Line]) -> None:
    """Raises StructmaeError for a published number that no column of what is measured can show."""
    shown, measured = columns(table, lines), {line["data"] for line in lines}
    for paper in table.published:
        for label in paper.values:
            if label not in shown and any(f"{label} ".startswith(f"{data} ") for data in measured):
                raise StructmaeError(f"published {paper.method}, {label}: no such column: {near(label, list(shown))}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 the lines can't be used, 2 usage."""
    made = Parser(prog="benchmarks/tables.py", description="Render a table to stdout.", allow_abbrev=False)
    made.add_argument("table", metavar="TABLE", help="systems, speed, masking, a name in definitions, or a .toml file")
    made.add_argument("--format", choices=list(FORMATS), default="md")
    made.add_argument("--results", type=Path, metavar="DIR", help="where the lines are (benchmarks/results)")
    made.add_argument("--data", action="extend", nargs="+", default=[], metavar="NAME", help=definition.DATA)
    made.add_argument("--plot", type=Path, metavar="FILE", help="of few labels and of a grid: draw it, too")
    args = made.parse_args(arguments)
    try:
        if args.plot and args.table in (systems.TABLE, *REPORTS):
            raise UsageError(f"--plot: {args.table} has no axis to draw along; few_label and ablation have one")
        if args.table == systems.TABLE:
            _print(systems_table.render(args.results or results.FOLDER, args.format))
            return 0
        if args.table in REPORTS:
            shown, notes = REPORTS[args.table](args.results or results.FOLDER, args.format)
            _print("\n".join([shown, "", *notes]) if args.format == "md" else shown)
            return 0
        table = definition.with_data(definition.read(args.table, (systems.TABLE, *REPORTS)), args.data)
        path = (args.results or results.FOLDER) / f"{table.name}.jsonl"
        lines = results.read(path, table.name)
        other = {f"{line['metric']} on {line['split']}" for line in lines}
        other -= {f"{metric} on {table.split}" for metric in table.metrics}
        if other:
            raise StructmaeError(
                f"{path} has {min(other)}; the table is of {', '.join(table.metrics)} on {table.split}"
            )
        _check_published(table, lines)
        if args.plot:
            pictures.draw(table, lines, args.plot)
    except StructmaeError as error:
        print(f"benchmarks/tables.py: {error}", file=sys.stderr)
        return error.exit_code
    shown = [line for line in lines if line["data"] in table.data]
    if len(shown) < len(lines):
        print(f"left out: {len(lines) - len(shown)} results on data sets that the table lacks", file=sys.stderr)
    foot = footer(table, shown)
    _print(FORMATS[args.format](table, columns(table, shown), rows(table, shown), foot))
    if args.format == "csv":
        print("\n".join(foot), file=sys.stderr)
    return 0


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
