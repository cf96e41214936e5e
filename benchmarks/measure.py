"""One cell of a table: pre-train and score, or score a baseline, and give the lines."""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import encoders
import results
from cells import TUNED, Cell, check, fresh_peak, loader
from definition import Definition

import structmae
from structmae.errors import StructmaeError

EACH, HELD = 20, 30  # nodes of each class to train on and to validate on, in a random split


class Score(NamedTuple):
    """What an evaluation says of one arm. `at` tells several values of a metric apart; `facts` go into the line."""

    features: str
    metric: str
    value: float
    at: str = ""
    facts: Mapping[str, Any] = {}


_loaders: dict[str, Callable[[Cell], Any]] = {}


def attempt(
    cell: Cell, table: Definition, args: argparse.Namespace, asked: dict[str, str], revision: str | None
) -> list[results.Line] | StructmaeError:
    """The cell's lines, or why there are none. A data set is read once for the cells of a process."""
    structmae.tune_cpu()
    load = _loaders.setdefault(repr((table.name, table.folder, asked)), loader(table, asked))
    try:
        return measure(table, cell, args, asked, load(cell), revision)
    except StructmaeError as error:
        return error


def quiet() -> None:
    """A dependency's deprecations are not the person's."""
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category)


def measure(
    table: Definition,
    cell: Cell,
    args: argparse.Namespace,
    asked: Mapping[str, str],
    data: Any,
    revision: str | None,
) -> list[results.Line]:
    """The cell's lines. Raises StructmaeError where it can't be made."""
    check(table, data)
    fresh_peak()
    make = _joined if cell.parts else _baseline if cell.baseline else _pretrained
    scored, about, cost = make(table, cell, args, asked, data)
    if table.labels and not scored["few_labels"]:
        raise StructmaeError(
            f"labels={list(table.labels)}: {data.name} has too few, each leaves a class without enough"
        )
    found: dict[str, list[Score]] = {}
    for score in scores(table, scored):
        if score.metric in table.metrics:
            found.setdefault(score.features, []).append(score)
    if scored["split"] != table.split or {score.metric for some in found.values() for score in some} != set(
        table.metrics
    ):
        raise StructmaeError(
            f"{table.task} gives {scored['metric']} on {scored['split']}; {table.name} says "
            f"{', '.join(table.metrics)} on {table.split}"
        )
    lines = []
    for method in cell.missing:
        if method.features not in found:
            raise StructmaeError(f"method {method.name}: the evaluation has no features={method.features}")
        trained = cell.baseline or cell.parts or method.features in (*encoders.TRAINED, *TUNED)
        spent = {**(cost if trained else encoders.FREE), **scored.get("costs", {}).get(method.features, {})}
        for score in found[method.features]:
            line = {"table": table.name, "data": cell.data, "recipe": method.name, "seed": cell.seed}
            line |= {"metric": score.metric, "at": score.at, "split": table.split, "value": score.value, **score.facts}
            line |= {"revision": revision, "settings": cell.settings, **about, **spent}
            lines.append(line)
    return lines


def _pretrained(
    table: Definition, cell: Cell, args: argparse.Namespace, asked: Mapping[str, str], data: Any
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    from structmae.threads import thread_limit

    scored_on = drawn(data, cell.seed) if table.drawn == "random" else None  # no pre-training reads a split
    run = encoders.trained(cell, args, asked, data)
    options = {"labels": table.labels} if table.labels else {}
    cost = {key: run.result[key] for key in encoders.COSTS}
    with thread_limit(args.threads):  # scikit-learn's threads, too, which wait for each other where cores are busy
        scored = run.evaluate(scored_on, task=table.task, **options)
    if {method.features for method in cell.missing} & set(TUNED):
        scored["costs"] = _tune(run, scored, cell, args, cost)
    return scored, encoders.about(run), cost


def _joined(
    table: Definition, cell: Cell, args: argparse.Namespace, asked: Mapping[str, str], data: Any
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The vectors of all parts side by side, each of length 1, read as those of one. It costs what its parts do."""
    from baselines import ARM

    from structmae.evaluate import node_classification
    from structmae.evaluate.arms import side_by_side
    from structmae.threads import thread_limit

    scored_on = drawn(data, cell.seed) if table.drawn == "random" else data
    found, about, cost = [], dict[str, Any](), dict(encoders.FREE)
    for part in sorted(cell.parts, key=lambda part: not part.baseline):  # so that a line speaks of an encoder's device
        vectors, about, spent = encoders.vectors_of(part, args, asked, data, scored_on)
        found += vectors
        cost |= {key: round(cost[key] + spent[key], 4) for key in ("epochs", "seconds")}
    with thread_limit(args.threads):
        recipe = encoders.recipe_of(data, cell.seed, asked)
        scored = node_classification.score({ARM: side_by_side(found)}, scored_on, recipe, labels=table.labels)
    return scored, {**about, "size": None}, cost


def _tune(
    run: structmae.Run, scored: dict[str, Any], cell: Cell, args: argparse.Namespace, cost: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Adds the errors of encoder and head trained together at each horizon: after pre-training, and without. Gives what
    each costs; the second has no part in the pre-training's `cost`."""
    from structmae.threads import thread_limit

    seconds = dict.fromkeys(TUNED, 0.0)
    assert run.folder is not None
    for row in scored["rows"]:
        horizon = row["horizon"]
        out = run.folder / f"tuned-{horizon}"
        tuned = structmae.finetune(
            run, "forecasting", settings={"finetune.horizon": horizon}, seed=cell.seed, out=out, resume=out.exists(),
            device=args.device, threads=args.threads, progress=sys.stderr.isatty() and args.jobs == 1,
        )  # fmt: skip
        begin = time.perf_counter()
        with thread_limit(args.threads):
            tuned.initial_model()  # is trained here, and kept
            seconds[TUNED[1]] += time.perf_counter() - begin
            found = tuned.evaluate()
        seconds[TUNED[0]] += tuned.result["seconds"]
        row |= dict(zip(TUNED, (found["pretrained"], found["random_init"]), strict=True))
    for arm in TUNED:
        scored[arm] = statistics.fmean(row[arm] for row in scored["rows"])
    finetuned, supervised = TUNED
    return {
        finetuned: {"seconds": round(cost["seconds"] + seconds[finetuned], 4)},
        supervised: {"seconds": round(seconds[supervised], 4), "epochs": 0},
    }


def _baseline(
    table: Definition, cell: Cell, args: argparse.Namespace, asked: Mapping[str, str], data: Any
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    import baselines

    data = drawn(data, cell.seed) if table.drawn == "random" else data
    made, about, cost = encoders.made(cell, args, data, table.labels)
    return baselines.score(made, data, encoders.recipe_of(data, cell.seed), table.labels), about, cost


def drawn(graphs: structmae.Graphs, seed: int) -> structmae.Graphs:
    """The graph with a random split (Shchur et al., Pitfalls of graph neural network evaluation, 2018): of each class
    `EACH` nodes to train and `HELD` to validate, all others to test."""
    import torch

    assert graphs.y is not None
    order = torch.randperm(len(graphs.y), generator=torch.Generator().manual_seed(seed))
    parts: dict[str, list[torch.Tensor]] = {"train": [], "validation": [], "test": []}
    for label in range(len(graphs.classes)):
        mine = order[graphs.y[order] == label]
        if len(mine) <= EACH + HELD:
            raise StructmaeError(
                f"{graphs.name}: class {graphs.classes[label]} has {len(mine)} nodes; a random split takes "
                f"{EACH + HELD} and leaves some to test: give a larger data set"
            )
        for name, part in zip(parts, torch.tensor_split(mine, [EACH, EACH + HELD]), strict=True):
            parts[name].append(part)
    split = {name: torch.cat(some).sort().values for name, some in parts.items()}
    return replace(graphs, split=split, split_source=f"random, seed {seed}")


def scores(table: Definition, scored: Mapping[str, Any]) -> Iterator[Score]:
    """What a task's evaluation says, arm by arm."""
    yield from (_few if table.labels else _READERS.get(table.task, _plain))(scored)


def _plain(scored: Mapping[str, Any]) -> Iterator[Score]:
    for row in scored["rows"]:
        facts = {key: row.get(key) for key in ("validation", "n", "probe", "folds", "chosen", "right") if key in row}
        yield Score(row["features"], scored["metric"], row["value"], facts=facts)


def _few(scored: Mapping[str, Any]) -> Iterator[Score]:
    for row in scored["few_labels"]:
        facts = {"subsets": row["n"], "over_subsets": row["std"], "draws": row["each"]}
        yield Score(row["features"], scored["metric"], row["value"], at=f"{row['labels']} a class", facts=facts)


def _links(scored: Mapping[str, Any]) -> Iterator[Score]:
    for row in scored["rows"]:
        facts = {key: row.get(key) for key in ("validation", "n", "head") if key in row}
        for metric, name in (("auc", "value"), ("ap", "ap")):
            yield Score(row["features"], metric, row[name], facts=facts)


def _panels(scored: Mapping[str, Any]) -> Iterator[Score]:
    """Of forecasts at each horizon, of imputation for each kind of gap."""
    arms = [arm for arm, value in scored.items() if isinstance(value, float)]
    for row in scored["rows"]:
        at = f"{row['horizon']}" if "horizon" in row else row["gaps"]
        facts = {"n": row.get("n_windows", row.get("n_values"))}
        mine = {key: row[key] for key in ("look_back", "validation", "penalty") if key in row}
        for arm in arms:
            trained = arm == "pretrained"
            own = mine if trained else {"look_back": row["nlinear_look_back"]} if arm == "nlinear" else {}
            yield Score(arm, "mse", row["mse" if trained else arm], at, {**facts, **own})


_READERS: dict[str, Callable[[Mapping[str, Any]], Iterator[Score]]] = {
    "link_prediction": _links,
    "forecasting": _panels,
    "imputation": _panels,
}
