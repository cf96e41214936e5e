"""Settings of a recipe by validation alone: `python benchmarks/search.py duo space.toml --trials 40`. No test item is
scored, or read.

A trial is one draw from the space, and the settings of the recipe as it stands come first. It is trained on each data
set with each seed, and its probe (the grid of every table) gives an accuracy on validation nodes. Each is one line of
results/search.jsonl, made once; the same command goes on. What counts of a trial is the mean over data sets.
"""

import argparse
import json
import random
import statistics
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import results
from cells import protocol
from measure import quiet
from tqdm.auto import tqdm

import structmae
from structmae.cli import Parser, positive
from structmae.errors import StructmaeError, UsageError

TABLE = "search"


def parser() -> Parser:
    made = Parser(prog="benchmarks/search.py", description="Try settings, by validation.", allow_abbrev=False)
    made.add_argument("recipe", help="a recipe's name, or a .toml file")
    made.add_argument("space", type=Path, help="a .toml file: an option and its values, as 'mask.ratio' = [0.3, 0.5]")
    made.add_argument("--data", nargs="+", default=["cora", "citeseer", "pubmed"], metavar="DATA")
    made.add_argument("--trials", type=positive, default=20, metavar="N", help="draws, the recipe itself included (20)")
    made.add_argument("--seeds", type=positive, default=1, metavar="N", help="seeds of each (1)")
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
            _search(args, trials(space, args.trials), path)
    except StructmaeError as error:
        print(f"benchmarks/search.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("benchmarks/search.py: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


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


def _search(args: argparse.Namespace, asked: Sequence[Mapping[str, Any]], path: Path) -> None:
    if healed := results.heal(path):
        print(healed, file=sys.stderr)
    done = {results.cell(line) for line in results.read(path, TABLE)}
    cells = [(settings, data, seed) for settings in asked for data in args.data for seed in range(args.seeds)]
    loaded = {data: structmae.load_data(data) for data in args.data}
    structmae.tune_cpu()
    for settings, data, seed in tqdm(cells, unit="run"):
        about = {"table": TABLE, "data": data, "recipe": args.recipe, "seed": seed, "settings": dict(settings)}
        if results.cell(about) in done:
            continue
        begin = time.perf_counter()
        value = validated(loaded[data], args.recipe, settings, seed, args.threads)
        seconds = round(time.perf_counter() - begin, 1)
        line = {**about, "metric": "accuracy", "split": "validation", "value": value, "seconds": seconds}
        results.append(path, [{**line, "revision": results.revision()}])
    lines = [line for line in results.read(path, TABLE) if line["recipe"] == args.recipe and line["data"] in args.data]
    for mean, each, settings in ranking(lines, args.data, args.seeds)[:10]:
        parts = ", ".join(f"{data} {100 * value:.1f}" for data, value in each.items())
        print(f"{100 * mean:.2f}  ({parts})  {json.dumps(settings)}")


def validated(graphs: Any, recipe: str, settings: Mapping[str, Any], seed: int, threads: int | None) -> float:
    """Accuracy on validation nodes of the best probe of the grid."""
    from structmae.evaluate.probe import fit_probe

    run = structmae.pretrain(
        graphs,
        recipe,
        settings={**protocol(recipe), **settings},
        seed=seed,
        device="cpu",
        threads=threads,
        progress=False,
    )
    train, validation = graphs.split["train"], graphs.split["validation"]
    found = fit_probe(run.embed(), graphs.y, train, validation, len(graphs.classes), run.recipe.probe)
    assert found.validation is not None
    return found.validation


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
