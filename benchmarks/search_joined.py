"""Which methods' vectors to put side by side, chosen without the test nodes.

    python benchmarks/search_joined.py graphmae maskgae_path propagated --data cora citeseer

The methods are those of the table node_classification. Each is made for each data set and seed, and every choice of
them is scored as a trial of search.py is: by a probe's accuracy on the nodes that are in no part. Lines go to
results/search.jsonl, under a name such as graphmae+propagated; what is trained stays in runs/kept, for run.py.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import definition
import jobs
import results
from cells import Cell, plan
from encoders import leave, recipe_of, vectors_of
from measure import quiet
from search import SPLIT, TABLE, fit_to_search, load, places, ranking, score
from tqdm.auto import tqdm

from structmae.cli import Parser, positive
from structmae.errors import UsageError
from structmae.registry import near

if TYPE_CHECKING:
    from torch import Tensor


def parser() -> Parser:
    made = Parser(prog="benchmarks/search_joined.py", description="Try vectors side by side.", allow_abbrev=False)
    made.add_argument("methods", nargs="+", help="of the table node_classification, such as graphmae propagated")
    made.add_argument("--data", nargs="+", default=["cora", "citeseer", "pubmed"], metavar="DATA")
    made.add_argument("--seeds", type=positive, default=1, metavar="N", help="seeds of each (1)")
    made.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    made.add_argument("--threads", type=positive, metavar="N", help="of torch and Numba (all cores)")
    made.add_argument("--results", type=Path, metavar="DIR", help="where the lines go (benchmarks/results)")
    made.set_defaults(jobs=1)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 something can't be made, 2 usage, 130 interrupted."""
    made = parser()
    args = made.parse_args(arguments)
    quiet()

    def go() -> int:
        from baselines import CLASSES  # not at the top: --help waits for no torch

        table = definition.read("node_classification")
        there = {each.name: each for each in table.methods if not each.of and each.baseline not in CLASSES}
        for name in args.methods:
            if name not in there:
                raise UsageError(f"method {name!r}, which is none with vectors of its own: {near(name, list(there))}")
        if len(set(args.methods)) < max(2, len(args.methods)):
            raise UsageError("name two methods or more, each once")
        of = tuple(method for name, method in there.items() if name in args.methods)
        one = definition.Method(TABLE, "", of=of)
        table = replace(table, name=TABLE, data=tuple(args.data), methods=(one,), fewer={})
        for data in args.data:
            fit_to_search(data)
        path, runs = places(args)
        with results.writing(path, runs / f"{TABLE}.lock"):
            if healed := results.heal(path):
                print(healed, file=sys.stderr)
            return _search(args, list(plan(table, args.seeds, {}, [], runs)), path)

    return jobs.exit_code("benchmarks/search_joined.py", go)


def _search(args: argparse.Namespace, cells: Sequence[Cell], path: Path) -> int:
    revision, order = results.revision(), [line["recipe"] for line in _choices(cells[0])]
    args.threads = args.threads or os.cpu_count() or 1
    for cell in tqdm(cells, unit="data set and seed"):
        there = {results.cell(line) for line in results.read(path, TABLE)}
        missing = [line for line in _choices(cell) if results.cell(line) not in there]
        if not missing:
            leave(cell, False, None)  # killed between the last line and this
            continue
        begin, graphs, vectors = time.perf_counter(), load(cell.data), dict[str, "Tensor"]()
        for part in cell.parts:
            made, *_ = vectors_of(part, args, {}, graphs, graphs)
            vectors |= dict(zip([method.name for method in part.missing], made, strict=True))
        for line in missing:
            line["value"] = _value([vectors[name] for name in line["recipe"].split("+")], graphs)
        more = {"seconds": round(time.perf_counter() - begin, 1), "device": args.device, "revision": revision}
        results.append(path, [{**line, **more} for line in missing])  # seconds: of all of them
        leave(cell, True, revision)
    wanted = {results.cell(line) for cell in cells for line in _choices(cell)}
    lines = [line for line in results.read(path, TABLE) if results.cell(line) in wanted]
    seeds = len({cell.seed for cell in cells})  # one, of methods that depend on none
    ranked = [(ranking([line for line in lines if line["recipe"] == name], args.data, seeds), name) for name in order]
    for ((mean, each, _),), name in sorted(ranked, key=lambda one: -one[0][0][0]):
        print(f"{100 * mean:.2f}  ({', '.join(f'{data} {100 * value:.1f}' for data, value in each.items())})  {name}")
    return 0


def _choices(cell: Cell) -> list[results.Line]:
    """A line, without its value, for every choice of the cell's methods."""
    made = {method.name: part.kept.name for part in cell.parts for method in part.missing}
    lines = []
    for number in range(1, len(made) + 1):
        for names in combinations(made, number):
            told = json.dumps([SPLIT, *(made[name] for name in names)])  # what they are, with all options
            line = {"table": TABLE, "data": cell.data, "recipe": "+".join(names), "seed": cell.seed, "settings": {}}
            base = hashlib.sha256(told.encode()).hexdigest()[:10]
            lines.append({**line, "base": base, "metric": "accuracy", "split": SPLIT})
    return lines


def _value(parts: "Sequence[Tensor]", graphs: Any) -> float:
    from structmae.evaluate.arms import side_by_side

    return score(parts[0] if len(parts) == 1 else side_by_side(parts), graphs, recipe_of(graphs, 0).probe)


if __name__ == "__main__":
    sys.exit(main())
