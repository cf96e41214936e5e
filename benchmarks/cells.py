"""The cells of a table: which pre-trainings it needs, on what data, and about what they cost."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import results
from definition import TASKS, Definition, Method

from structmae import registry
from structmae.data import catalog
from structmae.errors import StructmaeError, UsageError
from structmae.recipe import data_options, resolve
from structmae.registry import near

HARNESS = {"probe.search": "true"}  # of graphs; `structmae pretrain` has the published probe instead
BASE = "graphmae"  # whose features baselines read
TUNED = ("finetuned", "supervised")  # encoder and head trained with targets, after pre-training and without it
MORE = {  # arms that evaluators have besides
    "link_prediction": ("own_decoder", "common_neighbours", "adamic_adar", "preferential_attachment"),
    "forecasting": ("last_value", "seasonal_naive", "nlinear", *TUNED),
    "imputation": ("linear", "last_value", "mean"),
    "classification": ("raw", "rocket"),
}
# Arms that neither weights nor training go into: where test items don't depend on the seed, either, nor do they.
UNTRAINED = {"raw_features", "propagated_features", *(arm for arms in MORE.values() for arm in arms)}
UNTRAINED -= {"own_decoder", *TUNED}
# What things cost, in multiplications of a forward pass, of which a core does some 7e10 a second in training.
PROBE = 7e11  # scoring: some ten seconds
BASELINE = 3e5  # each value of each node's features, of a baseline that is trained


@dataclass(frozen=True)
class Cell:
    """One pre-training, or one baseline. `own` are the methods' settings, `settings` those of --set that change
    something, `missing` the results still to be made. `folder` is where it trains, `kept` where --keep leaves it."""

    data: str
    recipe: str
    seed: int
    own: dict[str, Any]
    settings: dict[str, Any]
    missing: tuple[Method, ...]
    cost: float
    folder: Path
    kept: Path
    baseline: str | None = None
    parts: "tuple[Cell, ...]" = ()  # whose vectors stand side by side

    @property
    def name(self) -> str:
        """As progress says it."""
        method = Path(self.recipe).stem or self.missing[0].name
        return f"{self.data} {method} seed {self.seed}"


def plan(
    table: Definition, seeds: int | None, asked: Mapping[str, str], only: Sequence[str], runs: Path
) -> Iterator[Cell]:
    """Every cell that `only` leaves, with all its methods; `seeds` of each, or as many as the table says. Raises
    UsageError for what can't be asked for."""
    from baselines import BASELINES, CLASSES, OF_GRAPHS, SEEDLESS  # not at the top: --help waits for no torch
    from baselines import check as check_baseline

    from structmae.evaluate.arms import ARMS

    for method in table.methods:
        if method.baseline is not None and method.baseline not in BASELINES:
            raise StructmaeError(f"method {method.name}: {near(method.baseline, list(BASELINES))}")
        fits = "graph_classification" if method.baseline in OF_GRAPHS else "node_classification"
        if method.baseline and table.task != fits:
            raise StructmaeError(f"method {method.name}: baseline {method.baseline} is for {fits}, not {table.task}")
        if method.baseline:
            check_baseline(method.name, method.baseline, dict(method.settings), table.labels)
        if method.recipe:
            _check_recipe(table, method, asked)
        for part in method.of:
            if part.baseline in CLASSES or part.features not in ARMS:
                raise StructmaeError(f"method {method.name}: {part.name} has no vectors to stand beside others")
            if part.recipe and data_options(part.recipe, {**dict(part.settings), **asked}) != data_options(BASE, asked):
                raise StructmaeError(f"method {method.name}: {part.name} reads the data otherwise than {BASE} does")
        if method.features not in ARMS and method.features not in MORE.get(table.task, ()):
            raise StructmaeError(f"method {method.name}: features={method.features!r} is not one of {', '.join(ARMS)}")
    if "train.seed" in asked:
        raise UsageError(f"--set train.seed={asked['train.seed']}: the runner goes through the seeds; give --seeds N")
    rows = [(data, method.name) for data in table.data for method in table.methods]
    wanted = set[tuple[str, str]]()
    for text in only:
        low = {row: (row[0].lower(), row[1].lower(), "/".join(row).lower()) for row in rows}
        found = {row for row in rows if text.lower() in low[row]}
        found = found or {row for row in rows if text.lower() in low[row][2]}
        wanted |= found
        if not found:
            there = f"{', '.join(table.data)}; {', '.join(method.name for method in table.methods)}"
            raise UsageError(f"--only {text} matches no cell: there are {there}")
    for data in table.data:
        for methods in _groups(table.methods):
            if only and wanted.isdisjoint((data, method.name) for method in methods):
                continue
            many = {method: seeds or table.seeds_of(data, method) for method in methods}
            if table.drawn == "given" and all(part.baseline in SEEDLESS for part in methods[0].of or methods):
                many = dict.fromkeys(methods, 1)
            for seed in range(max(many.values())):
                yield _cell(table, data, [m for m in methods if seed < many[m]], seed, asked, runs)


def _check_recipe(table: Definition, method: Method, asked: Mapping[str, str]) -> None:
    """What would only come out when data are read, or after the pre-training."""
    kind, wanted = resolve(method.recipe).modality, TASKS[table.task][0]
    if kind != wanted:
        raise StructmaeError(f"method {method.name}: its recipe is for {kind} data, and {table.task} is of {wanted}")
    hides = table.task == "link_prediction"
    if hides and data_options(method.recipe, {**dict(method.settings), **asked}).edges != "train":
        rule = 'link prediction hides edges from pre-training: give it settings = { "data.edges" = "train" }'
        raise StructmaeError(f"method {method.name}: {rule}")


def _groups(methods: Sequence[Method]) -> list[list[Method]]:
    """Methods that one pre-training serves, together."""
    groups: dict[tuple[Any, ...], list[Method]] = {}
    for method in methods:
        groups.setdefault((method.baseline, method.recipe, method.settings, method.of), []).append(method)
    return list(groups.values())


def _cell(
    table: Definition, data: str, methods: Sequence[Method], seed: int, asked: Mapping[str, str], runs: Path
) -> Cell:
    from baselines import CLASSES, SEEDLESS

    from structmae.evaluate.few import SUBSETS

    first = methods[0]
    parts = tuple(_cell(table, data, some, seed, asked, runs) for some in _groups(first.of))
    own = dict(first.settings) if first.recipe else {}
    options, settings, cost = _settle(table, data, first.recipe or BASE, {**own, **asked}, own)
    of: Any = [part.kept.name for part in parts] or first.baseline or Path(first.recipe).stem
    if parts:
        read = {key: value for key, value in settings.items() if key.partition(".")[0] in ("data", "probe")}
        settings = {**read, **{key: value for part in parts for key, value in part.settings.items()}}
        cost = PROBE + sum(part.cost for part in parts)
    elif first.baseline:
        shape = _shape(data)
        training = 0 if first.baseline in SEEDLESS else BASELINE * shape["nodes"] * shape["features"]
        training *= len(table.labels) * SUBSETS if first.baseline in CLASSES and table.labels else 1
        settings = {key: value for key, value in settings.items() if key.startswith("data.")}
        options, cost = {**options, **dict(first.settings)}, PROBE + training
    # The folder stands for all options: one of an older version of a recipe is not gone on with.
    mark = hashlib.sha256(json.dumps([data, of, options, seed], sort_keys=True).encode()).hexdigest()
    stem = first.name if parts else first.baseline or Path(first.recipe).stem
    name = re.sub(r"[^\w.]+", "-", f"{Path(data).stem}-{stem}-{seed}-{mark[:10]}")
    folder, kept = runs / f"{table.name}-{name}", runs / "kept" / name
    parts = tuple(replace(part, folder=folder / part.kept.name) for part in parts)
    cost = PROBE if kept.exists() else cost
    return Cell(data, first.recipe, seed, own, settings, tuple(methods), cost, folder, kept, first.baseline, parts)


def _settle(
    table: Definition, data: str, recipe: str, asked: Mapping[str, Any], own: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], float]:
    """All options of a cell, those of `asked` that change something of the method's `own`, and about what it costs."""
    known = catalog.is_known(data)
    if not known and not (table.folder / data).exists() and Path(data).name == Path(data).stem == data:
        catalog.resolve(data)  # a name, not a path: raises, with the near misses
    card = catalog.resolve(data) if known else None
    on = {"data": card.name if card else None, "level": card.level if card else _level(table)}
    size = {"size": asked["size"]} if "size" in asked else {}
    rules = protocol(recipe)
    published = resolve(recipe, {**rules, **own}, **on).settings()
    default = resolve(recipe, {**rules, **own, **size}, **on).settings()
    options = resolve(recipe, {**rules, **asked}, **on).settings()
    base = {**default, "size": published["size"]}
    settings = {key: options[key] for key in sorted(asked) if options[key] != base[key]}
    shape, width = _shape(data), options["encoder.hidden"]
    work = shape["features"] + options["encoder.layers"] * width
    return options, settings, PROBE + options["train.epochs"] * shape["nodes"] * width * work


def _shape(data: str) -> dict[str, Any]:
    """As the card has it, or a guess."""
    return {"nodes": 10_000, "features": 100} | (catalog.resolve(data).statistics if catalog.is_known(data) else {})


def protocol(recipe: str) -> dict[str, str]:
    """What every table asks of a recipe beside its own settings."""
    return HARNESS if resolve(recipe).modality == "graph" else {}


def left(table: Definition, cell: Cell, done: set[Any]) -> Cell:
    """The cell with only those methods that have no line yet: lines of a cell are written together."""
    about = {"table": table.name, "data": cell.data, "seed": cell.seed, "settings": cell.settings}
    missing = tuple(m for m in cell.missing if results.cell({**about, "recipe": m.name}) not in done)
    return replace(cell, missing=missing)


def loader(table: Definition, asked: Mapping[str, str]) -> Callable[[Cell], Any]:
    """Reads a data set once for all its seeds, a failure included."""
    last: dict[tuple[str, str], Any] = {}

    def load(cell: Cell) -> Any:
        recipe = cell.recipe or BASE
        options = data_options(recipe, {**cell.own, **asked})
        wanted = cell.data, repr(options)
        if wanted not in last:
            last.clear()
            source = cell.data if catalog.is_known(cell.data) else str(table.folder / cell.data)
            try:
                modality = registry.get("modality", resolve(recipe).modality)
                last[wanted] = modality.load(source, options)
            except StructmaeError as error:
                last[wanted] = error
        found = last[wanted]
        if isinstance(found, StructmaeError):
            raise found
        return found

    return load


def _level(table: Definition) -> str:
    levels = {
        "graph_classification": "graph",
        "forecasting": "panel",
        "imputation": "panel",
        "classification": "sample",
    }
    return levels.get(table.task, "node")


def check(table: Definition, data: Any) -> None:
    """What would only come out after the pre-training."""
    level, labels = _level(table), table.task.endswith("classification")
    if data.level != level or (labels and data.y is None):
        needs = f"{level} labels" if labels else "a single graph" if level == "node" else "a table of series"
        needs = "labelled recordings" if level == "sample" else needs
        raise StructmaeError(f"{table.task} needs {needs}, and {data.name} has none")
    reads = level == "node" and labels and table.drawn == "given"
    if reads and (data.split is None or not len(data.split["validation"])):
        raise StructmaeError(f"{data.name} has no validation nodes, on which the protocol chooses the probe")


def fresh_peak() -> None:
    """Start the peak of memory anew, so that a cell isn't charged with the ones before it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # Linux only; elsewhere the peak is the process's
        Path("/proc/self/clear_refs").write_text("5")
