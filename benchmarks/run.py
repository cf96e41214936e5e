"""Measure a table: `python benchmarks/run.py node_classification`. README.md beside this file has the rest.

A cell is one data set, recipe and seed: an encoder is pre-trained, frozen and scored beside the arms that need no
training, and each becomes a line of results/TABLE.jsonl. What is there is never measured again; a killed run goes on.
The table `systems` is of another shape: see systems.py.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import definition
import jobs
import results
import systems
from cells import Cell, left, plan
from definition import Definition
from encoders import leave
from measure import attempt, quiet
from tqdm.auto import tqdm

from structmae.cli import Parser, positive, read_settings
from structmae.errors import StructmaeError


def parser() -> Parser:
    about = "Measure a table, going on where it stopped."
    made = Parser(prog="benchmarks/run.py", description=about, allow_abbrev=False)
    made.add_argument("table", metavar="TABLE", help="systems, a name in benchmarks/definitions, or a .toml file")
    made.add_argument("--only", action="extend", nargs="+", default=[], metavar="TEXT", help=_ONLY)
    made.add_argument("--seeds", type=positive, metavar="N", help="seeds 0 to N-1 (as the table says; of systems 1)")
    made.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=_SET)
    made.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    made.add_argument("--threads", type=positive, metavar="N", help="of torch and Numba (all cores)")
    made.add_argument("--add", action="append", default=[], type=Path, metavar="FILE", help=_ADD)
    made.add_argument("--data", action="extend", nargs="+", default=[], metavar="NAME", help=definition.DATA)
    made.add_argument("--jobs", type=positive, default=1, metavar="N", help="cells at once, sharing the threads (1)")
    made.add_argument(
        "--budget", type=_seconds, metavar="TIME", help="begin no cell that ends later, such as 30min, 2h"
    )
    made.add_argument("--results", type=Path, metavar="DIR", help="where the lines go (benchmarks/results)")
    made.add_argument("--keep", action="store_true", help=_KEEP)
    made.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    return made


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give a number with its unit, such as 90s, 30min or 2h")
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]]


_ADD = "a recipe's .toml file, which joins the table as a method of the file's name"
_KEEP = "keep what is pre-trained in runs/kept, where the next table finds it"
_ONLY = "data sets, methods or data/method, or else a part of those; of systems: their names"
_SET = "an option of the recipes; such results are rows of their own"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all cells are there, or left by --budget, 1 some can't be made, 2 usage, 130 interrupted."""
    args = parser().parse_args(arguments)
    quiet()

    def go() -> int:
        if args.table == systems.TABLE:
            return systems.measure(args, read_settings(args.settings))
        table = definition.with_recipes(definition.read(args.table, (systems.TABLE,)), args.add)
        table = definition.with_data(table, args.data)
        path = (args.results or results.FOLDER) / f"{table.name}.jsonl"
        runs = args.results / "runs" if args.results else definition.HERE / "runs"
        asked = read_settings(args.settings)
        wanted = list(plan(table, args.seeds, asked, args.only, runs))
        args.threads = args.threads or max(1, (os.cpu_count() or 1) // args.jobs)
        with results.writing(path, runs / f"{table.name}.lock"):
            return _run(args, table, path, wanted, asked)

    return jobs.exit_code("benchmarks/run.py", go)


def _run(args: argparse.Namespace, table: Definition, path: Path, wanted: list[Cell], asked: dict[str, str]) -> int:
    healed = results.heal(path)
    if healed:
        print(healed, file=sys.stderr)
    done = {results.cell(line) for line in results.read(path, table.name)}
    cells = [left(table, cell, done) for cell in wanted]
    for cell in cells:
        if not cell.missing:  # killed between the last line and this
            leave(cell, False, None)
    todo = sorted((cell for cell in cells if cell.missing), key=lambda cell: cell.cost)
    revision, lines, skipped, ran = results.revision(), 0, dict[str, Any](), 0
    begin = time.monotonic()
    # Time left goes by the cells' estimated cost, since the dear ones come last.
    total, look = sum(cell.cost for cell in todo), "{l_bar}{bar}| {elapsed}, {remaining} left"
    with (
        tqdm(total=total, bar_format=look, disable=not todo) as bar,
        closing(
            jobs.done(
                attempt,
                todo,
                table,
                args,
                asked,
                revision,
                jobs=args.jobs,
                fits=lambda cell: _fits(cell, args.budget, begin, bar),
            )
        ) as made,
    ):
        for cell, found in made:
            if isinstance(found, StructmaeError):
                if found.exit_code == jobs.INTERRUPTED:
                    raise found
                if str(found) not in {each["reason"] for each in skipped.values()}:  # once for all seeds
                    bar.write(f"skipped {cell.name}: {found}", file=sys.stderr)
                about = {
                    "data": cell.data,
                    "recipe": cell.baseline or cell.recipe or cell.missing[0].name,
                    "seed": cell.seed,
                }
                skipped[cell.folder.name] = {**about, "reason": str(found)}
                bar.total -= cell.cost
                continue
            results.append(path, found)
            leave(cell, args.keep, revision)
            lines, ran = lines + len(found), ran + 1
            bar.set_description(f"{ran}/{len(todo)} {cell.name}")
            bar.update(cell.cost)
    summary = {
        "table": table.name, "ran": ran, "lines": lines, "there": len(cells) - len(todo),
        "skipped": list(skipped.values()), "left": len(todo) - ran - len(skipped), "results": str(path),
    }  # fmt: skip
    text = "{ran} cells ran ({lines} lines), {there} were there already, {skips} skipped{rest}: {results}"
    rest = f", {summary['left']} left for more time" if summary["left"] else ""
    print(json.dumps(summary) if args.json else text.format(**summary, skips=len(skipped), rest=rest))
    return 1 if skipped else 0


def _fits(cell: Cell, budget: float | None, begin: float, bar: Any) -> bool:
    """Whether a cell can be expected to end within the budget, by how the ones before it went."""
    if budget is None:
        return True
    spent = time.monotonic() - begin
    return spent + (spent / bar.n * cell.cost if bar.n else 0.0) < budget


if __name__ == "__main__":
    sys.exit(main())
