"""Few labels, honestly: `python benchmarks/few_label.py`. Series as spectrograms against series as segments.

For each data set, recipe and seed an encoder is pre-trained on the training recordings, frozen, and scored with 1, 5,
10, 25 labels a class and with all, beside the same encoder before training, raw values and MiniRocket. The recipes have
one budget, which is checked. Each score becomes a line of results/few_label.jsonl; what is there is not measured again.
"""

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import results
from threadpoolctl import threadpool_limits

import structmae
from structmae.cli import Parser, positive, read_settings
from structmae.data.series import Series
from structmae.errors import StructmaeError, UsageError
from structmae.recipe import resolve

TABLE = "few_label"
DATA = ("basicmotions", "japanesevowels")
RECIPES = ("patchtst", "spectrogram")
ARMS = ("pretrained", "random_init", "raw", "rocket")
OF_RECIPE = ARMS[:2]  # the others read values, scaled as the first recipe has it, and are kept of that alone
LABELS = (1, 5, 10, 25, "all")
BUDGET = (
    "train.epochs", "train.batch_size", "train.items", "train.lr", "encoder.layers", "encoder.hidden", "encoder.heads",
    "encoder.feed_forward",
)  # fmt: skip


def parser() -> Parser:
    made = Parser(prog="benchmarks/few_label.py", description="Measure and print the table.", allow_abbrev=False)
    made.add_argument("--data", action="extend", nargs="+", metavar="DATA", help="names or paths (the two of the UEA)")
    made.add_argument("--seeds", type=positive, default=3, metavar="N", help="seeds 0 to N-1 (3)")
    made.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=_SET)
    made.add_argument("--threads", type=positive, default=1, metavar="N", help="of torch and Numba (1)")
    made.add_argument("--results", type=Path, default=results.FOLDER, metavar="DIR", help="where the lines go")
    return made


_SET = "an option of both recipes; such results are a table of their own"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all cells are there, 1 some can't be made, 2 usage, 130 interrupted."""
    args = parser().parse_args(arguments)
    for category in (FutureWarning, DeprecationWarning):  # a dependency's deprecations are not the person's
        warnings.filterwarnings("ignore", category=category)
    try:
        asked = read_settings(args.settings)
        if "train.seed" in asked:
            raise UsageError(f"--set train.seed={asked['train.seed']}: give --seeds N")
        for recipe in RECIPES:  # a key that does not exist is no fault of the data
            resolve(recipe, asked, level="sample")
        path = args.results / f"{TABLE}.jsonl"
        with results.writing(path, args.results / "runs" / f"{TABLE}.lock"):
            return _run(args, path, asked)
    except UsageError as error:
        print(f"benchmarks/few_label.py: {error} (see benchmarks/few_label.py --help)", file=sys.stderr)
        return error.exit_code
    except StructmaeError as error:
        print(f"benchmarks/few_label.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("benchmarks/few_label.py: interrupted; the same command goes on", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace, path: Path, asked: dict[str, str]) -> int:
    healed = results.heal(path)
    if healed:
        print(healed, file=sys.stderr)
    done = {_key(line) for line in _read(path)}
    failed, names, revision = False, [], results.revision()
    for data in args.data or DATA:
        try:
            series = structmae.load_data(data)
            budgets = {recipe: _budget(recipe, series, asked) for recipe in RECIPES}
            if len({json.dumps(budget) for budget in budgets.values()}) > 1:
                raise StructmaeError(f"{series.name}: budgets differ, so nothing is compared: {budgets}")
        except UsageError:
            raise
        except StructmaeError as error:
            print(f"skipped {data}: {error}", file=sys.stderr)
            failed = True
            continue
        names.append(series.name)
        for seed in range(args.seeds):
            for recipe in RECIPES:
                about = {"table": TABLE, "data": series.name, "recipe": recipe, "seed": seed, "settings": asked}
                if _key(about) in done:
                    continue
                print(f"{series.name}, {recipe}, seed {seed}", file=sys.stderr)
                results.append(path, _measure(series, about, revision, args.threads))
    lines = [line for line in _read(path) if line["settings"] == asked and line["seed"] < args.seeds]
    for name in names:
        print(table(name, [line for line in lines if line["data"] == name]), end="\n\n")
    return int(failed)


def _measure(series: Series, about: dict[str, Any], revision: str | None, threads: int) -> list[results.Line]:
    """One pre-training and its lines: each arm at each number of labels."""
    run = structmae.pretrain(
        series, about["recipe"], settings=about["settings"], seed=about["seed"], device="cpu", threads=threads,
        progress=False,
    )  # fmt: skip
    with threadpool_limits(threads):  # scikit-learn's own, which wait for each other where cores are busy
        scored = run.evaluate()
    for note in scored["notes"]:
        print(f"  {note}", file=sys.stderr)
    common = {
        "metric": scored["metric"], "split": scored["split"], "size": run.result["size"],
        "versions": {**run.result["versions"], "tsai": _tsai()}, "device": run.result["device"], "threads": threads,
        "revision": revision,
    }  # fmt: skip
    rows = [{**row, "labels": "all"} for row in scored["rows"]] + scored["few_labels"]
    lines = []
    for row in rows:
        if row["features"] not in OF_RECIPE and about["recipe"] != RECIPES[0]:
            continue
        trained = row["features"] == "pretrained"
        cost = {"epochs": run.result["epochs"] if trained else 0, "seconds": run.result["seconds"] if trained else 0.0}
        score = {"arm": row["features"], "labels": row["labels"], "value": row["value"], "std": row["std"]}
        lines.append({**about, **score, "n": len(series.split["test"]), **common, **cost})
    return lines


def table(name: str, lines: Iterable[results.Line]) -> str:
    """Mean and deviation over seeds, in percent; of raw values and MiniRocket, which have no seed, one value."""
    found: dict[tuple[str, Any], dict[int, float]] = {}
    for line in lines:
        label = f"{line['recipe']}, {line['arm']}" if line["arm"] in OF_RECIPE else line["arm"]
        found.setdefault((label, line["labels"]), {})[line["seed"]] = line["value"]
    rows = [f"{recipe}, {arm}" for recipe in RECIPES for arm in OF_RECIPE] + [
        arm for arm in ARMS if arm not in OF_RECIPE
    ]
    head = [[f"{name}: labels a class", *map(str, LABELS)], ["---", *["---:"] * len(LABELS)]]
    body = [[label, *(_text(found.get((label, size)), label in ARMS) for size in LABELS)] for label in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in head + body)


def _text(values: dict[int, float] | None, fixed: bool) -> str:
    if not values:
        return "-"
    mean = f"{100 * statistics.fmean(values.values()):.1f}"
    return mean if fixed or len(values) < 2 else f"{mean} ± {100 * statistics.stdev(values.values()):.1f}"


def _key(line: dict[str, Any]) -> tuple[str, str, int, str]:
    """What makes a cell one: never measured twice. Its lines are written together."""
    return line["data"], line["recipe"], line["seed"], json.dumps(line["settings"], sort_keys=True)


def _read(path: Path) -> list[results.Line]:
    """All lines; none where there is no file. Raises StructmaeError for one that is no result of this table."""
    lines = []
    for number, text in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict) or line.get("table") != TABLE:
            raise StructmaeError(f"{path}, line {number} is no result of {TABLE}: mend or delete it")
        lines.append(line)
    return lines


def _budget(recipe: str, series: Series, asked: dict[str, str]) -> dict[str, Any]:
    if series.level != "sample" or series.y is None:
        raise StructmaeError(f"{series.name} has no labelled recordings to classify")
    settled = resolve(recipe, asked, data=series.card, level=series.level).settings()
    return {key: settled[key] for key in BUDGET}


def _tsai() -> str | None:
    try:
        return version("tsai")
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
