"""Render the table of the systems: what must hold, what was measured, whether it holds. See tables.py."""

import csv
import io
import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import results
import systems

from structmae.data import catalog
from structmae.errors import UsageError

HEADS = ("system", "what must hold", "value", "bound", "holds", "seconds")


@dataclass(frozen=True)
class Shown:
    """The lines of a row, one a seed. `settings` are those of --set."""

    system: systems.System
    settings: dict[str, Any]
    lines: Sequence[results.Line]


def render(folder: Path, form: str) -> str:
    """Raises UsageError for a format that this table lacks, StructmaeError for lines that can't be used."""
    if form not in ("md", "csv"):
        raise UsageError(f"--format {form}: the table of the systems is made as md or csv")
    lines = systems.read(folder / f"{systems.TABLE}.jsonl")
    found = shown(lines)
    left = len(lines) - sum(len(row.lines) for row in found)
    if left:
        print(f"left out: {left} rows of systems or settings that systems.py lacks", file=sys.stderr)
    foot = footer(found)
    if form == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([HEADS, *body(found)])
        print("\n".join(foot), file=sys.stderr)
        return out.getvalue().rstrip("\n")
    cells = [HEADS, ("---", "---", "---:", "---:", "---", "---:"), *body(found)]
    table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join(["### Systems", "", *table, "", "\n\n".join(foot)])


def shown(lines: Sequence[results.Line]) -> list[Shown]:
    """Every system in the order of systems.py, as it stands and then with other settings."""
    found = []
    for system in systems.SYSTEMS:
        own: dict[str, tuple[dict[str, Any], list[results.Line]]] = {}
        for line in lines:
            asked = _asked(system, line)
            if asked is not None:
                own.setdefault(json.dumps(asked, sort_keys=True), (asked, []))[1].append(line)
        plain = own.pop("{}", ({}, []))
        found += [Shown(system, *each) for each in ([plain] if plain[1] or not own else [])]
        found += [Shown(system, *own[asked]) for asked in sorted(own)]
    return found


def _asked(system: systems.System, line: results.Line) -> dict[str, Any] | None:
    """What --set said when a line was made; None where it is no line of the system as it stands in systems.py."""
    if (line["system"], line["data"]) != (system.name, system.data) or set(line["runs"]) != set(system.cases):
        return None
    asked: dict[str, Any] = {}
    for name, case in system.cases.items():
        made = line["runs"][name]
        if (made["recipe"], made["data"]) != (case.recipe, case.data) or set(case.settings) - set(made["settings"]):
            return None
        asked |= {key: value for key, value in made["settings"].items() if case.settings.get(key) != value}
    return asked


def body(found: Iterable[Shown]) -> Iterator[tuple[str, ...]]:
    """A row of cells for each check; the first of a system has its name and its seconds."""
    for row in found:
        name = f"{row.system.name}, {row.system.data}"
        if row.settings:
            name += "".join(f", {key}={json.dumps(value).strip(chr(34))}" for key, value in row.settings.items())
        if not row.lines:
            here = catalog.where(row.system.data) is not None
            yield name, "not measured" if here else "data not here", "-", "-", "-", "-"
            continue
        checks: dict[str, list[dict[str, Any]]] = {}
        for line in sorted(row.lines, key=lambda line: line["seed"]):
            for each in line["checks"]:
                checks.setdefault(each["what"], []).append(each)
        seconds = f"{statistics.fmean(line['seconds'] for line in row.lines):.0f}"
        seconds += f" ({statistics.fmean(line['wall'] for line in row.lines):.0f})"
        for number, (what, some) in enumerate(checks.items()):
            cells = (what, _value(some), _bound(some), _holds(some, len(row.lines)))
            yield (name, *cells, seconds) if number == 0 else ("", *cells, "")


def _value(some: Sequence[dict[str, Any]]) -> str:
    values = [each["value"] for each in some]
    if None in values:
        return "none"
    if _is_yes(some[0]):
        return "yes" if min(values) == 1 else "no"
    mean = _number(statistics.fmean(values))
    return mean if len(values) == 1 or len(set(values)) == 1 else f"{mean} ± {_number(statistics.stdev(values))}"


def _bound(some: Sequence[dict[str, Any]]) -> str:
    if some[0]["must"] == "reported":
        return "-"
    if _is_yes(some[0]):
        return "yes"
    bounds = [each["bound"] for each in some]
    return f"{some[0]['must']} {'none' if None in bounds else _number(statistics.fmean(bounds))}"


def _is_yes(each: dict[str, Any]) -> bool:
    return bool(each["must"] == "yes")


def _holds(some: Sequence[dict[str, Any]], seeds: int) -> str:
    if some[0]["must"] == "reported":
        return "-"
    good = sum(each["holds"] for each in some)
    many = "" if len(some) == seeds else f" (of {len(some)} seeds)"
    if good == len(some):
        return f"yes{many}"
    return f"**no**{many}" if len(some) == 1 else f"**no** ({good} of {len(some)} seeds do)"


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.3f}" if abs(value) >= 1e-3 else f"{value:.1e}"


def footer(found: Sequence[Shown]) -> list[str]:
    """How the numbers were made, and on what."""
    notes = [f"{row.system.name}, {row.system.data}: {row.system.note}" for row in found if row.system.note]
    said = [
        "A bound that is a number of the run itself (a bigram model, raw pixels) is shown as measured. Of several "
        "seeds mean ± standard deviation; a bound must hold for each. Accuracies and ARI are fractions of 1. "
        "Seconds: pre-training of the system, and in brackets all of the row, those it stands beside included.",
        "\n".join(f"- {note}" for note in dict.fromkeys(notes)),
    ]
    lines = [line for row in found for line in row.lines]
    if not lines:
        return [*said, f"Nothing is measured yet: python benchmarks/run.py {systems.TABLE}"]
    failing = sum(each["holds"] is False for line in lines for each in line["checks"])
    many = sum(each["holds"] is not None for line in lines for each in line["checks"])
    said.append(f"{many - failing} of {many} checks hold{f'; {failing} do not' if failing else ''}.")
    versions = {name: None for line in lines for name in line["versions"]}
    about = ", ".join(f"{name} {_all(line['versions'].get(name) for line in lines)}" for name in versions)
    device, threads = (_all(line.get(key) for line in lines) for key in ("device", "threads"))
    revision = _all(line.get("revision") and line["revision"][:10] + line["revision"][40:] for line in lines)
    return [*said, f"Measured on {device}, threads: {threads}, revision: {revision}; {about}."]


def _all(values: Iterable[Any]) -> str:
    return " or ".join(dict.fromkeys("unknown" if value is None else str(value) for value in values))
