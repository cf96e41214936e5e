"""Measure a table: `python benchmarks/run.py node_classification`. README.md beside this file has the rest.

A cell is one data set, recipe and seed: an encoder is pre-trained, frozen and scored beside the arms that need no training,
and each becomes a line of results/TABLE.jsonl. What is there is never measured again, and a killed run goes on.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import definition
import results
import torch
from definition import Definition, Method
from tqdm.auto import tqdm

import structmae
from structmae.cli import Parser
from structmae.data import catalog
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate.arms import ARMS
from structmae.recipe import Recipe, data_options
from structmae.registry import near

HARNESS = {"probe.search": "true"}  # the protocol of every table; `structmae pretrain` has the published probe instead


@dataclass(frozen=True)
class Cell:
    """One pre-training. `settings` are those of --set that change something, `missing` the results still to be made."""

    data: str
    recipe: str
    seed: int
    settings: dict[str, Any]
    missing: tuple[Method, ...]
    cost: float
    folder: Path


def parser() -> Parser:
    made = Parser(prog="benchmarks/run.py", description="Measure a table, going on where it stopped.", allow_abbrev=False)
    made.add_argument("table", metavar="TABLE", help="a name in benchmarks/definitions, or a .toml file")
    made.add_argument("--only", action="append", nargs="+", default=[], metavar="TEXT", help=_ONLY)
    made.add_argument("--seeds", type=_positive, metavar="N", help="seeds 0 to N-1 (as the table says)")
    made.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=_SET)
    made.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    made.add_argument("--threads", type=_positive, metavar="N", help="of torch and Numba (all cores)")
    made.add_argument("--results", type=Path, metavar="DIR", help="where the lines go (benchmarks/results)")
    made.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    return made


_ONLY = "cells whose data set, method or data/method has this text; a cell is made with all its methods"
_SET = "an option of the recipes; such results are rows of their own"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all cells are there, 1 some can't be made, 2 usage, 130 interrupted."""
    args = parser().parse_args(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning)  # a dependency's deprecations are not the person's
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        table = definition.read(args.table)
        path = (args.results or results.FOLDER) / f"{table.name}.jsonl"
        runs = args.results / "runs" if args.results else definition.HERE / "runs"
        asked = _settings(args.settings)
        wanted = list(_cells(table, args.seeds or table.seeds, asked, sum(args.only, []), runs))
        with results.writing(path, runs / f"{table.name}.lock"):
            return _run(args, table, path, wanted, asked)
    except UsageError as error:
        print(f"benchmarks/run.py: {error} (see benchmarks/run.py --help)", file=sys.stderr)
        return error.exit_code
    except StructmaeError as error:  # an interruption, too, once its state has been saved
        print(f"benchmarks/run.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("benchmarks/run.py: interrupted; the same command goes on", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace, table: Definition, path: Path, wanted: list[Cell], asked: dict[str, str]) -> int:
    healed = results.heal(path)
    if healed:
        print(healed, file=sys.stderr)
    done = {results.key(line) for line in results.read(path, table.name)}
    cells = [_left(table, cell, done) for cell in wanted]
    for cell in cells:
        if not cell.missing:  # killed between the last line and this
            shutil.rmtree(cell.folder, ignore_errors=True)
    todo = sorted((cell for cell in cells if cell.missing), key=lambda cell: cell.cost)
    if args.threads:
        torch.set_num_threads(args.threads)
    revision, load, lines = _revision(), _loader(table, asked), 0
    skipped: list[dict[str, Any]] = []
    # Time left goes by the cells' estimated cost, since the dear ones come last.
    bar = tqdm(total=sum(cell.cost for cell in todo), bar_format="{l_bar}{bar}| {elapsed}, {remaining} left", disable=not todo)
    with bar:
        for number, cell in enumerate(todo, start=1):
            bar.set_description(f"{number}/{len(todo)} {cell.data} {cell.recipe} seed {cell.seed}")
            try:
                made = _measure(args, table, cell, load(cell), revision, asked)
            except structmae_interrupted():
                raise
            except StructmaeError as error:
                skipped.append({"data": cell.data, "recipe": cell.recipe, "seed": cell.seed, "reason": str(error)})
                bar.write(f"skipped {cell.data} {cell.recipe} seed {cell.seed}: {error}", file=sys.stderr)
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
