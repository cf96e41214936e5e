"""Render a table: `python benchmarks/tables.py node_classification --format md|latex|csv`, to stdout."""

import csv
import io
import json
import os
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import definition
import results
import speed_report
import systems
import systems_table
from definition import Definition

from structmae.cli import Parser
from structmae.errors import StructmaeError


@dataclass(frozen=True)
class Entry:
    """A mean over seeds, as a fraction of 1. `n` is None for a published one; `std` is None where there is none."""

    mean: float
    std: float | None
    n: int | None
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A method under one choice of settings, or what a paper says (`source`)."""

    method: str
    settings: dict[str, Any]
    source: str | None
    entries: dict[str, Entry]


def rows(table: Definition, lines: Sequence[results.Line]) -> list[Row]:
    """Methods in the table's order, each as it stands and then with other settings; what papers say comes last."""
    values: dict[tuple[str, str], dict[str, list[float]]] = {(method.name, "{}"): {} for method in table.methods}
    for line in lines:
        row = values.setdefault((line["recipe"], json.dumps(line["settings"], sort_keys=True)), {})
        row.setdefault(line["data"], []).append(line["value"])
    means = {(key, data): statistics.fmean(some) for key, row in values.items() for data, some in row.items()}
    best = {data: max(mean for (_, on), mean in means.items() if on == data) for data in {on for _, on in means}}
    order = {method.name: place for place, method in enumerate(table.methods)}
    measured = []
    for key in sorted(values, key=lambda key: (order.get(key[0], len(order)), key[0], key[1] != "{}", key[1])):
        entries = {}
        for data, some in values[key].items():
            std = statistics.stdev(some) if len(some) > 1 else None
            alike = _percent(means[key, data]) == _percent(best[data])  # as printed
            entries[data] = Entry(means[key, data], std, len(some), alike)
        measured.append(Row(key[0], json.loads(key[1]), None, entries))
    papers = [(paper, {data: Entry(*pair, None) for data, pair in paper.values.items()}) for paper in table.published]
    published = [Row(paper.method, {}, paper.source, entries) for paper, entries in papers]
    # A method that was only measured with other settings has no empty row beside them.
    filled = {row.method for row in measured if row.entries}
    return [row for row in measured if row.entries or row.method not in filled] + published


def footer(table: Definition, lines: Sequence[results.Line]) -> list[str]:
    """How the numbers were made, and on what."""
    about = f"{table.metric.capitalize()} on {table.split}, in percent: mean ± standard deviation over n seeds"
    said = [f"{about} (n - 1 in its denominator); bold: the best mean measured here.", table.how]
    said += [f"{paper.method}, published and not measured here: {paper.source}." for paper in table.published]
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


def markdown(table: Definition, made: Sequence[Row], foot: Sequence[str]) -> str:
    head = [["method", *table.data], ["---", *["---:"] * len(table.data)]]
    body = [[_label(row), *(_text(row.entries.get(data), "±", "**{}**", "n") for data in table.data)] for row in made]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in head + body]
    return "\n".join([f"### {table.title}", "", *lines, "", "\n\n".join(foot)])


def latex(table: Definition, made: Sequence[Row], foot: Sequence[str]) -> str:
    def line(row: Row) -> str:
        cells = (_text(row.entries.get(data), r"$\pm$", r"\textbf{{{}}}", "$n$") for data in table.data)
        return " & ".join([_tex(_label(row)), *cells]) + r" \\"

    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(table.title)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.data)}}}",
        r"\toprule",
        " & ".join(["method", *map(_tex, table.data)]) + r" \\",
        r"\midrule",
        *(line(row) for row in made if not row.source),
    ]
    if table.published:
        lines += [r"\midrule", *(line(row) for row in made if row.source)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip{{\footnotesize {_tex(text)}\par}}" for text in foot]
    return "\n".join([*lines, r"\end{table}"])


def comma_separated(table: Definition, made: Sequence[Row], foot: Sequence[str]) -> str:
    """One column a number, in percent. The footer has no place here."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = [f"{data} {part}" for data in table.data for part in ("mean", "std", "n")]
    writer.writerow(["method", "settings", "source", *head])
    for row in made:
        cells: list[Any] = [row.method, _settings(row), row.source or "measured here"]
        for data in table.data:
            entry = row.entries.get(data)
            cells += ["-"] * 3 if entry is None else [_percent(entry.mean), _percent(entry.std), entry.n or "-"]
        writer.writerow(cells)
    return out.getvalue().rstrip("\n")


FORMATS = {"md": markdown, "latex": latex, "csv": comma_separated}


def _text(entry: Entry | None, between: str, bold: str, n: str) -> str:
    if entry is None:
        return "-"
    number = f"{_percent(entry.mean)} {between} {_percent(entry.std)}"
    number = bold.format(number) if entry.best else number
    return number if entry.n is None else f"{number} ({n}={entry.n})"


def _label(row: Row) -> str:
    if row.source:
        return f"{row.method} (published, not measured here)"
    return f"{row.method}, {_settings(row)}" if row.settings else row.method


def _settings(row: Row) -> str:
    return ", ".join(f"{key}={json.dumps(value).strip(chr(34))}" for key, value in row.settings.items())


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _short(revision: str | None) -> str | None:
    commit, dash, dirty = (revision or "").partition("-")
    return commit[:10] + dash + dirty or None


def _all(values: Iterable[Any]) -> str:
    return " or ".join(dict.fromkeys("unknown" if value is None else str(value) for value in values))


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    special |= {char: "\\" + char for char in "&%$#_{}"}
    return "".join(special.get(char, char) for char in text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 the lines can't be used, 2 usage."""
    made = Parser(prog="benchmarks/tables.py", description="Render a table to stdout.", allow_abbrev=False)
    made.add_argument("table", metavar="TABLE", help="systems, speed, one of benchmarks/definitions, or a .toml file")
    made.add_argument("--format", choices=list(FORMATS), default="md")
    made.add_argument("--results", type=Path, metavar="DIR", help="where the lines are (benchmarks/results)")
    args = made.parse_args(arguments)
    try:
        if args.table == systems.TABLE:
            _print(systems_table.render(args.results or results.FOLDER, args.format))
            return 0
        if args.table == speed_report.TABLE:
            shown, notes = speed_report.render(args.results or results.FOLDER, args.format)
            _print("\n".join([shown, "", *notes]) if args.format == "md" else shown)
            return 0
        table = definition.read(args.table)
        path = (args.results or results.FOLDER) / f"{table.name}.jsonl"
        lines = results.read(path, table.name)
        other = {f"{line['metric']} on {line['split']}" for line in lines} - {f"{table.metric} on {table.split}"}
        if other:
            raise StructmaeError(f"{path} has {min(other)}; the table is of {table.metric} on {table.split}")
    except StructmaeError as error:
        print(f"benchmarks/tables.py: {error}", file=sys.stderr)
        return error.exit_code
    shown = [line for line in lines if line["data"] in table.data]
    if len(shown) < len(lines):
        print(f"left out: {len(lines) - len(shown)} results on data sets that the table lacks", file=sys.stderr)
    foot = footer(table, shown)
    _print(FORMATS[args.format](table, rows(table, shown), foot))
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
