"""Settings of a recipe, chosen without the test nodes: `python benchmarks/search.py duo space.toml --trials 40`.

A trial is one draw from the space, and the settings of the recipe as it stands come first. It is trained on each data
set with each seed, frozen, and probed (the grid of every table) on `SPLITS` random splits of the nodes that are no test
nodes: 20 of each class to train, 30 to choose the probe, the others to score. The 500 validation nodes of a public
split are too few to choose by: at 80% the standard error of an accuracy on them is 1.8 points. Each run is one line of
results/search.jsonl, made once; the same command goes on. What counts of a trial is the mean over data sets. --near
tries the best draws again with an option or two changed; with --top only the best go through more than one seed.
"""

import argparse
import functools
import json
import os
import random
import statistics
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jobs
import results
from cells import protocol
from measure import drawn, quiet
from tqdm.auto import tqdm

import structmae
from structmae.cli import Parser, positive
from structmae.errors import StructmaeError, UsageError
from structmae.recipe import resolve

TABLE = "search"
INTERRUPTED = 130  # exit code
SPLIT, SPLITS = "held out", 3


def parser() -> Parser:
    made = Parser(prog="benchmarks/search.py", description="Try settings, by validation.", allow_abbrev=False)
    made.add_argument("recipe", help="a recipe's name, or a .toml file")
    made.add_argument("space", type=Path, help="a .toml file: an option and its values, as 'mask.ratio' = [0.3, 0.5]")
    made.add_argument("--data", nargs="+", default=["cora", "citeseer", "pubmed"], metavar="DATA")
    made.add_argument("--trials", type=positive, default=20, metavar="N", help="draws, the recipe itself included (20)")
    made.add_argument("--near", type=positive, metavar="N", help="trials beside the three best draws (none)")
    made.add_argument("--seeds", type=positive, default=1, metavar="N", help="seeds of each (1)")
    made.add_argument(
        "--top", type=positive, metavar="K", help="more seeds only of the K best trials on the first seed"
    )
    made.add_argument("--jobs", type=positive, default=1, metavar="N", help="runs at once, sharing the threads (1)")
    made.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    made.add_argument("--threads", type=positive, metavar="N", help="of torch and Numba (all cores)")
    made.add_argument("--results", type=Path, default=results.FOLDER, metavar="DIR", help="where the lines go")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a trial can't be made, 2 usage, 130 interrupted."""
    args = parser().parse_args(arguments)
    quiet()
    try:
        space = _space(args.space)
        path = args.results / f"{TABLE}.jsonl"
        with results.writing(path, args.results / "runs" / f"{TABLE}.lock"):
            return _search(args, space, path)
    except StructmaeError as error:
        print(f"benchmarks/search.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("benchmarks/search.py: interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED


def _space(path: Path) -> dict[str, list[Any]]:
    try:
        space = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give a .toml file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    for key, values in space.items():
        if not isinstance(values, list) or not values:
            raise UsageError(f"{path}: {key} = {values!r} must be a list of values")
    return space


def trials(space: Mapping[str, Sequence[Any]], number: int) -> list[dict[str, Any]]:
    """So many different choices, the first of them none; the same ones in the same order for the same space. Each
    changes about half of the options, for most of a good recipe is right."""
    chance = random.Random(0)
    found: list[dict[str, Any]] = [{}]
    for _ in range(100 * number):
        if len(found) == number:
            break
        changed = {key: chance.choice(values) for key, values in space.items() if chance.random() < 0.5}
        if changed not in found:
            found.append(changed)
    return found


class Trial(NamedTuple):
    """One run: a choice of settings, a data set, a seed."""

    settings: dict[str, Any]
    data: str
    seed: int


def beside(
    best: Sequence[Mapping[str, Any]],
    space: Mapping[str, Sequence[Any]],
    number: int,
    known: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """So many choices that differ from one of `best` in an option or two, and none of `known`."""
    chance = random.Random(1)
    found: list[dict[str, Any]] = []
    for turn in range(100 * number):
        if len(found) == number:
            break
        keys = chance.sample(sorted(space), min(len(space), chance.choice([1, 2])))
        changed = {**best[turn % len(best)], **{key: chance.choice(space[key]) for key in keys}}
        if changed not in found and changed not in known:
            found.append(changed)
    return found


def _search(args: argparse.Namespace, space: Mapping[str, Sequence[Any]], path: Path) -> int:
    if healed := results.heal(path):
        print(healed, file=sys.stderr)
    threads = args.threads or max(1, (os.cpu_count() or 1) // args.jobs)
    for data in args.data:  # what is wrong is said before the first run
        graphs = structmae.load_data(data)
        if getattr(graphs, "level", None) != "node" or graphs.y is None or graphs.split is None:
            raise StructmaeError(
                f"{data} is no single graph with labels and test nodes, which a search here leaves out"
            )
        drawn(graphs, 0, without=graphs.split["test"])
        for change in ({}, *({key: value} for key, values in space.items() for value in values)):
            resolve(args.recipe, change, data=graphs.card, level=graphs.level)
    revision, skipped = results.revision(), list[str]()

    def go(cells: Sequence[Trial]) -> None:
        there = {results.cell(line) for line in results.read(path, TABLE)}
        todo = [cell for cell in cells if results.cell(_about(cell, args.recipe)) not in there]
        made = jobs.done(_run, todo, args.recipe, args.device, threads, jobs=args.jobs, fits=lambda cell: True)
        with closing(made), tqdm(total=len(todo), unit="run", disable=not todo) as bar:
            for cell, found in made:
                bar.update()
                if isinstance(found, StructmaeError):
                    if found.exit_code == INTERRUPTED:
                        raise found
                    skipped.append(f"{cell.data} {json.dumps(cell.settings)}")
                    bar.write(f"skipped {skipped[-1]}: {found}", file=sys.stderr)
                    continue
                results.append(path, [{**_about(cell, args.recipe), **found, "revision": revision}])

    def ranked(seeds: int) -> list[tuple[float, dict[str, float], dict[str, Any]]]:
        mine = {json.dumps(settings, sort_keys=True) for settings in asked}
        lines = [line for line in results.read(path, TABLE) if line["recipe"] == args.recipe]
        lines = [line for line in lines if json.dumps(line["settings"], sort_keys=True) in mine]
        return ranking(lines, args.data, seeds)

    def tried(some: Sequence[dict[str, Any]], seeds: int) -> None:
        go([Trial(settings, data, seed) for settings in some for data in args.data for seed in range(seeds)])

    asked, first = trials(space, args.trials), 1 if args.top else args.seeds
    tried(asked, first)
    if args.near:
        more = beside([settings for *_, settings in ranked(first)[:3]], space, args.near, asked)
        tried(more, first)
        asked += more
    if args.top:
        tried([settings for *_, settings in ranked(1)[: args.top]], args.seeds)
    for mean, each, settings in ranked(args.seeds)[:10]:
        parts = ", ".join(f"{data} {100 * value:.1f}" for data, value in each.items())
        print(f"{100 * mean:.2f}  ({parts})  {json.dumps(settings)}")
    return int(bool(skipped))


def _about(cell: Trial, recipe: str) -> dict[str, Any]:
    return {"table": TABLE, "data": cell.data, "recipe": recipe, "seed": cell.seed, "settings": cell.settings}


def _run(cell: Trial, recipe: str, device: str, threads: int) -> dict[str, Any] | StructmaeError:
    """What a trial's line says, or why there is none."""
    structmae.tune_cpu()
    begin = time.perf_counter()
    try:
        value = validated(_load(cell.data), recipe, cell.settings, cell.seed, device, threads)
    except StructmaeError as error:
        return error
    seconds = round(time.perf_counter() - begin, 1)
    return {"metric": "accuracy", "split": SPLIT, "value": value, "seconds": seconds, "device": device}


_load = functools.cache(structmae.load_data)


def validated(
    graphs: Any, recipe: str, settings: Mapping[str, Any], seed: int, device: str, threads: int | None
) -> float:
    """Accuracy on nodes that are neither test nodes nor read by the probe, over several splits."""
    from structmae.evaluate.probe import accuracy, fit_probe

    asked = {**protocol(recipe), **settings}
    run = structmae.pretrain(
        graphs, recipe, settings=asked, seed=seed, device=device, threads=threads, progress=False
    )  # fmt: skip
    x, found = run.embed(), []
    for split in range(SPLITS):
        parts = drawn(graphs, split, without=graphs.split["test"]).split
        probe = fit_probe(x, graphs.y, parts["train"], parts["validation"], len(graphs.classes), run.recipe.probe)
        found.append(accuracy(probe.predict(x[parts["test"]]), graphs.y[parts["test"]]))
    return statistics.fmean(found)


def ranking(
    lines: Sequence[results.Line], data: Sequence[str], seeds: int
) -> list[tuple[float, dict[str, float], dict[str, Any]]]:
    """Trials that are there on all data sets and seeds: their mean, that of each data set, and their settings."""
    trials: dict[str, dict[str, dict[int, float]]] = {}
    for line in lines:
        on = trials.setdefault(json.dumps(line["settings"], sort_keys=True), {}).setdefault(line["data"], {})
        on[line["seed"]] = line["value"]
    ranked = []
    for settings, found in trials.items():
        if all(set(range(seeds)) <= set(found.get(name, {})) for name in data):
            each = {name: statistics.fmean(found[name][seed] for seed in range(seeds)) for name in data}
            ranked.append((statistics.fmean(each.values()), each, json.loads(settings)))
    return sorted(ranked, key=lambda trial: -trial[0])


if __name__ == "__main__":
    sys.exit(main())
