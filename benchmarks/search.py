"""Settings of a recipe, chosen without the test nodes: `python benchmarks/search.py duo space.toml --trials 40`.

A trial is one draw from the space, and the settings of the recipe as it stands come first. It is trained on each data
set with each seed, frozen, and probed as in every table, on the training and validation nodes of the given split; what
counts is its accuracy on the nodes that are in no part, whose labels no table of given splits reads. The 500 validation
nodes would be too few to choose by: at 80% the standard error of an accuracy on them is 1.8 points. Each run is one
line of results/search.jsonl, made once; the same command goes on. What counts of a trial is the mean over data sets.
The last --near trials are one of the three best so far with an option or two changed; with --top only the best go
through more than one seed. A line names the options that it changes (`base`), so a recipe that has moved begins anew.
"""

import argparse
import functools
import hashlib
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import definition
import jobs
import results
from cells import protocol
from measure import quiet
from tqdm.auto import tqdm

import structmae
from structmae.cli import Parser, positive
from structmae.errors import StructmaeError, UsageError
from structmae.recipe import Recipe, read_toml, resolve

TABLE = "search"
SPLIT = "rest"  # the nodes of no part


def parser() -> Parser:
    made = Parser(prog="benchmarks/search.py", description="Try settings, by validation.", allow_abbrev=False)
    made.add_argument("recipe", help="a recipe's name, or a .toml file")
    made.add_argument("space", type=Path, help="a .toml file: an option and its values, as 'mask.ratio' = [0.3, 0.5]")
    made.add_argument("--data", nargs="+", default=["cora", "citeseer", "pubmed"], metavar="DATA")
    made.add_argument(
        "--trials",
        type=positive,
        default=20,
        metavar="N",
        help="trials in the end, the recipe itself one of them (20)",
    )
    made.add_argument("--near", type=positive, default=0, metavar="N", help="those of them beside the best (none)")
    made.add_argument("--seeds", type=positive, default=1, metavar="N", help="seeds of each (1)")
    made.add_argument(
        "--top", type=positive, metavar="K", help="more seeds only of the K best trials on the first seed"
    )
    made.add_argument("--jobs", type=positive, default=1, metavar="N", help="runs at once, sharing the threads (1)")
    made.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    made.add_argument("--threads", type=positive, metavar="N", help="of torch and Numba (all cores)")
    made.add_argument("--results", type=Path, metavar="DIR", help="where the lines go (benchmarks/results)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a trial can't be made, 2 usage, 130 interrupted."""
    args = parser().parse_args(arguments)
    quiet()

    def go() -> int:
        space, (path, runs) = _space(args.space), places(args)
        with results.writing(path, runs / f"{TABLE}.lock"):
            return _search(args, space, path)

    return jobs.exit_code("benchmarks/search.py", go)


def places(args: argparse.Namespace) -> tuple[Path, Path]:
    """Of the lines, and of runs and the lock."""
    return (args.results or results.FOLDER) / f"{TABLE}.jsonl", (args.results or definition.HERE) / "runs"


def _space(path: Path) -> dict[str, list[Any]]:
    space = read_toml(path, "space")
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
    told: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
) -> list[dict[str, Any]]:
    """So many choices that differ from one of `best` in an option or two, and none of `known`, whose number is the seed
    of chance. told: a choice without what changes nothing."""
    chance = random.Random(len(known))
    found: list[dict[str, Any]] = []
    for turn in range(100 * number):
        if len(found) == number:
            break
        keys = chance.sample(sorted(space), min(len(space), chance.choice([1, 2])))
        changed = told({**best[turn % len(best)], **{key: chance.choice(space[key]) for key in keys}})
        if changed not in found and changed not in known:
            found.append(changed)
    return found


def _search(args: argparse.Namespace, space: Mapping[str, Sequence[Any]], path: Path) -> int:
    if healed := results.heal(path):
        print(healed, file=sys.stderr)
    threads = args.threads or max(1, (os.cpu_count() or 1) // args.jobs)
    for data in args.data:  # what is wrong is said before the first run
        graphs = fit_to_search(data)
        for change in ({}, *({key: value} for key, values in space.items() for value in values)):
            resolve(args.recipe, change, data=graphs.card, level=graphs.level)
    revision, failed = results.revision(), list[dict[str, Any]]()
    own = [_options(args.recipe, data) for data in args.data]
    base = {(Path(args.recipe).stem, data, _base(args.recipe, data)) for data in args.data}

    def ranked(seeds: int) -> list[tuple[float, dict[str, float], dict[str, Any]]]:
        lines = results.read(path, TABLE)
        return ranking([x for x in lines if (x["recipe"], x["data"], x["base"]) in base], args.data, seeds)

    def told(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in settings.items() if any(options[key] != value for options in own)}

    def go(some: Sequence[dict[str, Any]], seeds: int) -> None:
        there = {results.cell(line) for line in results.read(path, TABLE)}
        cells = [Trial(settings, data, seed) for settings in some for data in args.data for seed in range(seeds)]
        todo = [cell for cell in cells if results.cell(_about(cell, args.recipe)) not in there]
        bar.total = max(bar.total, bar.n + len(todo))
        with closing(
            jobs.done(_run, todo, args.recipe, args.device, threads, jobs=args.jobs, fits=lambda cell: True)
        ) as made:
            for cell, found in made:
                bar.update()
                if isinstance(found, StructmaeError):
                    if found.exit_code == jobs.INTERRUPTED:
                        raise found
                    bar.write(f"skipped {cell.data} {json.dumps(cell.settings)}: {found}", file=sys.stderr)
                    if cell.settings not in failed:
                        failed.append(cell.settings)
                    continue
                results.append(path, [{**_about(cell, args.recipe), **found, "revision": revision}])

    draws, first = list[dict[str, Any]](), 1 if args.top else args.seeds
    for draw in map(told, trials(space, args.trials)):
        draws += [draw] if draw not in draws else []
    runs, more = args.trials * len(args.data) * first, (args.top or 0) * len(args.data) * (args.seeds - 1)
    with tqdm(total=runs + more, initial=min(runs, len(ranked(first)) * len(args.data) * first), unit="run") as bar:
        while True:
            best = [settings for *_, settings in ranked(first)]
            known = [told(settings) for settings in best + failed]
            free = min(args.jobs, args.trials - len(known))
            fresh = free if not args.near else min(free, args.trials - args.near - len(known))
            some = [draw for draw in draws if draw not in known][: max(0, fresh)]
            if args.near and not some and best:
                some = beside(best[:3], space, free, known, told)
            if not some:
                break
            go(some, first)
        if args.top:
            go([settings for *_, settings in ranked(1)[: args.top]], args.seeds)
    for mean, each, settings in ranked(args.seeds)[:10]:
        parts = ", ".join(f"{data} {100 * value:.1f}" for data, value in each.items())
        print(f"{100 * mean:.2f}  ({parts})  {json.dumps(settings)}")
    return int(bool(failed))


@functools.cache
def _options(recipe: str, data: str) -> dict[str, Any]:
    return resolve(recipe, protocol(recipe), data=load(data).card, level="node").settings()


@functools.cache
def _base(recipe: str, data: str) -> str:
    """A mark of what a trial changes, the options on the data set that are no defaults, and of what is scored."""
    options = _options(recipe, data)
    plain = Recipe(name="plain").settings()
    own = {key: value for key, value in options.items() if plain.get(key) != value}
    return hashlib.sha256(json.dumps([SPLIT, own], sort_keys=True).encode()).hexdigest()[:10]


def _about(cell: Trial, recipe: str) -> dict[str, Any]:
    name = Path(recipe).stem  # of a file
    about = {"table": TABLE, "data": cell.data, "recipe": name, "seed": cell.seed, "settings": cell.settings}
    return {**about, "base": _base(recipe, cell.data)}


def _run(cell: Trial, recipe: str, device: str, threads: int) -> dict[str, Any] | StructmaeError:
    """What a trial's line says, or why there is none."""
    structmae.tune_cpu()
    begin = time.perf_counter()
    try:
        value = validated(load(cell.data), recipe, cell.settings, cell.seed, device, threads)
    except StructmaeError as error:
        return error
    seconds = round(time.perf_counter() - begin, 1)
    return {"metric": "accuracy", "split": SPLIT, "value": value, "seconds": seconds, "device": device}


load = functools.cache(structmae.load_data)


def fit_to_search(data: str) -> Any:
    """The graph; raises StructmaeError where it has nothing to choose by."""
    graphs = load(data)
    if getattr(graphs, "level", None) != "node" or graphs.y is None or graphs.split is None:
        raise StructmaeError(f"{data} is no single graph with labels and a split, which a search needs")
    if not len(rest(graphs)):
        raise StructmaeError(f"{data}: every node is in a part, so none is left to choose settings by")
    return graphs


def validated(
    graphs: Any, recipe: str, settings: Mapping[str, Any], seed: int, device: str, threads: int | None
) -> float:
    """Accuracy on the nodes of no part, of a probe that reads the parts that are not for testing."""
    asked = {**protocol(recipe), **settings}
    run = structmae.pretrain(
        graphs, recipe, settings=asked, seed=seed, device=device, threads=threads, progress=False
    )  # fmt: skip
    return score(run.embed(), graphs, run.recipe.probe)


def score(x: Any, graphs: Any, options: Any) -> float:
    """Accuracy of a probe of vectors (N, width) on the nodes of no part."""
    from structmae.evaluate.probe import accuracy, fit_probe

    y, parts = graphs.y, graphs.split
    probe = fit_probe(x, y, parts["train"], parts["validation"], len(graphs.classes), options)
    others = rest(graphs)
    return accuracy(probe.predict(x[others]), y[others])


def rest(graphs: Any) -> Any:
    """The nodes that are in no part."""
    import torch

    free = torch.ones(len(graphs.y), dtype=torch.bool)
    for rows in graphs.split.values():
        free[rows] = False
    return free.nonzero()[:, 0]


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
