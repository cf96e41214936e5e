"""Measure a table: `python benchmarks/run.py node_classification`. README.md beside this file has the rest.

A cell is one data set, recipe and seed: an encoder is pre-trained, frozen and scored beside the arms that need no
training, and each becomes a line of results/TABLE.jsonl. What is there is never measured again; a killed run goes on.
The table `systems` is of another shape: see systems.py.
"""

import argparse
import json
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import definition
import results
import systems
from cells import HARNESS, Cell, check, fresh_peak, left, loader, plan
from definition import Definition
from tqdm.auto import tqdm

import structmae
from structmae.cli import Parser, positive, read_settings
from structmae.errors import StructmaeError, UsageError

INTERRUPTED = 130  # exit code of the package's own Interrupted, which it takes torch to import


def parser() -> Parser:
    about = "Measure a table, going on where it stopped."
    made = Parser(prog="benchmarks/run.py", description=about, allow_abbrev=False)
    made.add_argument("table", metavar="TABLE", help="systems, a name in benchmarks/definitions, or a .toml file")
    made.add_argument("--only", action="extend", nargs="+", default=[], metavar="TEXT", help=_ONLY)
    made.add_argument("--seeds", type=positive, metavar="N", help="seeds 0 to N-1 (as the table says; of systems 1)")
    made.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=_SET)
    made.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    made.add_argument("--threads", type=positive, metavar="N", help="of torch and Numba (all cores)")
    made.add_argument("--results", type=Path, metavar="DIR", help="where the lines go (benchmarks/results)")
    made.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    return made


_ONLY = "cells whose data set, method or data/method has this text, made with all methods; of systems: their names"
_SET = "an option of the recipes; such results are rows of their own"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all cells are there, 1 some can't be made, 2 usage, 130 interrupted."""
    args = parser().parse_args(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning)  # a dependency's deprecations are not the person's
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        if args.table == systems.TABLE:
            return systems.measure(args, read_settings(args.settings))
        table = definition.read(args.table)
        path = (args.results or results.FOLDER) / f"{table.name}.jsonl"
        runs = args.results / "runs" if args.results else definition.HERE / "runs"
        asked = read_settings(args.settings)
        wanted = list(plan(table, args.seeds or table.seeds, asked, args.only, runs))
        with results.writing(path, runs / f"{table.name}.lock"):
            return _run(args, table, path, wanted, asked)
    except UsageError as error:
        print(f"benchmarks/run.py: {error} (see benchmarks/run.py --help)", file=sys.stderr)
        return error.exit_code
    except StructmaeError as error:
        more = "; the same command goes on" if error.exit_code == INTERRUPTED else ""
        print(f"benchmarks/run.py: {str(error).partition(': go on')[0] if more else error}{more}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("benchmarks/run.py: interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED


def _run(args: argparse.Namespace, table: Definition, path: Path, wanted: list[Cell], asked: dict[str, str]) -> int:
    healed = results.heal(path)
    if healed:
        print(healed, file=sys.stderr)
    done = {results.key(line) for line in results.read(path, table.name)}
    cells = [left(table, cell, done) for cell in wanted]
    for cell in cells:
        if not cell.missing:  # killed between the last line and this
            shutil.rmtree(cell.folder, ignore_errors=True)
    todo = sorted((cell for cell in cells if cell.missing), key=lambda cell: cell.cost)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    revision, load, lines = results.revision(), loader(table, asked), 0
    skipped: list[dict[str, Any]] = []
    # Time left goes by the cells' estimated cost, since the dear ones come last.
    total, look = sum(cell.cost for cell in todo), "{l_bar}{bar}| {elapsed}, {remaining} left"
    with tqdm(total=total, bar_format=look, disable=not todo) as bar:
        for number, cell in enumerate(todo, start=1):
            bar.set_description(f"{number}/{len(todo)} {cell.data} {cell.recipe} seed {cell.seed}")
            try:
                made = _measure(args, table, cell, load(cell), revision, asked)
            except StructmaeError as error:
                if error.exit_code == INTERRUPTED:
                    raise
                if str(error) not in {cell["reason"] for cell in skipped}:  # once for all seeds
                    bar.write(f"skipped {cell.data} {cell.recipe}: {error}", file=sys.stderr)
                skipped.append({"data": cell.data, "recipe": cell.recipe, "seed": cell.seed, "reason": str(error)})
                bar.total -= cell.cost
                continue
            results.append(path, made)
            shutil.rmtree(cell.folder)
            lines += len(made)
            bar.update(cell.cost)
    summary = {
        "table": table.name, "ran": len(todo) - len(skipped), "lines": lines, "there": len(cells) - len(todo),
        "skipped": skipped, "results": str(path),
    }  # fmt: skip
    text = "{ran} cells ran ({lines} lines), {there} were there already, {skips} skipped: {results}"
    print(json.dumps(summary) if args.json else text.format(**summary, skips=len(skipped)))
    return 1 if skipped else 0


def _measure(
    args: argparse.Namespace,
    table: Definition,
    cell: Cell,
    graphs: structmae.Graphs,
    revision: str | None,
    asked: Mapping[str, str],
) -> list[results.Line]:
    """Pre-train, score, and give the cell's lines."""
    if cell.folder.exists() and not (cell.folder / "config.json").exists():
        shutil.rmtree(cell.folder)  # killed while it was made: nothing in it
    check(table, graphs)
    fresh_peak()
    run = structmae.pretrain(
        graphs, cell.recipe, settings={**HARNESS, **asked}, seed=cell.seed, out=cell.folder, resume=True,
        device=args.device, threads=args.threads, progress=sys.stderr.isatty(),
    )  # fmt: skip
    scored = run.evaluate(task=table.task)
    if (scored["metric"], scored["split"]) != (table.metric, table.split):
        found = f"{scored['metric']} on {scored['split']}"
        raise StructmaeError(f"{table.task} gives {found}; {table.name} says {table.metric} on {table.split}")
    rows = {row["features"]: row for row in scored["rows"]}
    common = {
        "metric": table.metric, "split": table.split, "revision": revision, "settings": cell.settings,
        **{key: run.result[key] for key in ("versions", "device", "threads", "size")},
    }  # fmt: skip
    cost = {key: run.result[key] for key in ("epochs", "seconds", "peak_memory")}
    free = {"epochs": 0, "seconds": 0.0, "peak_memory": None}  # what no training went into
    lines = []
    for method in cell.missing:
        row = rows[method.features]
        about = {"table": table.name, "data": cell.data, "recipe": method.name, "seed": cell.seed}
        score = {key: row.get(key) for key in ("value", "validation", "n", "probe", "folds")}
        lines.append({**about, **score, **common, **(cost if method.features == "pretrained" else free)})
    return lines


if __name__ == "__main__":
    sys.exit(main())
