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
from definition import Definition, Method

import structmae
from structmae import registry
from structmae.data import catalog
from structmae.errors import StructmaeError, UsageError
from structmae.recipe import data_options, resolve

HARNESS = {"probe.search": "true"}  # the protocol of every table; `structmae pretrain` has the published probe instead
PROBE = 2e11  # about what scoring costs, in multiplications of a forward pass: some ten seconds on a core


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


def plan(table: Definition, seeds: int, asked: Mapping[str, str], only: Sequence[str], runs: Path) -> Iterator[Cell]:
    """Every cell that `only` leaves, with all its methods. Raises UsageError for what can't be asked for."""
    from structmae.evaluate.arms import ARMS  # not at the top: --help waits for no torch

    for method in table.methods:
        if method.features not in ARMS:
            raise StructmaeError(f"method {method.name}: features={method.features!r} is not one of {', '.join(ARMS)}")
    if "train.seed" in asked:
        raise UsageError(f"--set train.seed={asked['train.seed']}: the runner goes through the seeds; give --seeds N")
    whole = [f"{data}/{method.name}".lower() for data in table.data for method in table.methods]
    for text in only:
        if not any(text.lower() in name for name in whole):
            there = f"{', '.join(table.data)}; {', '.join(method.name for method in table.methods)}"
            raise UsageError(f"--only {text} matches no cell: there are {there}")
    for data in table.data:
        for recipe in dict.fromkeys(method.recipe for method in table.methods):
            methods = tuple(method for method in table.methods if method.recipe == recipe)
            if only and not any(text.lower() in f"{data}/{method.name}".lower() for text in only for method in methods):
                continue
            options, settings, cost = _settle(table, data, recipe, asked)
            for seed in range(seeds):
                # The folder stands for all options: one of an older version of a recipe is not gone on with.
                mark = hashlib.sha256(json.dumps([data, recipe, options, seed], sort_keys=True).encode()).hexdigest()
                name = f"{table.name}-{Path(data).stem}-{Path(recipe).stem}-{seed}-{mark[:10]}"
                name = re.sub(r"[^\w.]+", "-", name)
                yield Cell(data, recipe, seed, settings, methods, cost, runs / name)


def _settle(
    table: Definition, data: str, recipe: str, asked: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any], float]:
    """All options of a cell, those of `asked` that change something, and about what it costs."""
    known = catalog.is_known(data)
    if not known and not (table.folder / data).exists() and Path(data).name == Path(data).stem == data:
        catalog.resolve(data)  # a name, not a path: raises, with the near misses
    card = catalog.resolve(data) if known else None
    on = {"data": card.name if card else None, "level": card.level if card else table.task.partition("_")[0]}
    size = {"size": asked["size"]} if "size" in asked else {}
    published = resolve(recipe, HARNESS, **on).settings()
    default = resolve(recipe, {**HARNESS, **size}, **on).settings()
    options = resolve(recipe, {**HARNESS, **asked}, **on).settings()
    base = {**default, "size": published["size"]}
    settings = {key: options[key] for key in sorted(asked) if options[key] != base[key]}
    shape = card.statistics if card else {}
    width = options["encoder.hidden"]
    work = shape.get("features", 100) + options["encoder.layers"] * width
    return options, settings, PROBE + options["train.epochs"] * shape.get("nodes", 10_000) * width * work


def left(table: Definition, cell: Cell, done: set[Any]) -> Cell:
    """The cell with only those methods that have no line yet."""
    about = {"table": table.name, "data": cell.data, "seed": cell.seed, "settings": cell.settings}
    missing = tuple(m for m in cell.missing if results.key({**about, "recipe": m.name}) not in done)
    return replace(cell, missing=missing)


def loader(table: Definition, asked: Mapping[str, str]) -> Callable[[Cell], structmae.Graphs]:
    """Reads a data set once for all its seeds, a failure included."""
    last: dict[tuple[str, str], structmae.Graphs | StructmaeError] = {}

    def load(cell: Cell) -> structmae.Graphs:
        if (cell.data, cell.recipe) not in last:
            last.clear()
            source = cell.data if catalog.is_known(cell.data) else str(table.folder / cell.data)
            try:
                modality = registry.get("modality", resolve(cell.recipe).modality)
                last[cell.data, cell.recipe] = modality.load(source, data_options(cell.recipe, asked))
            except StructmaeError as error:
                last[cell.data, cell.recipe] = error
        found = last[cell.data, cell.recipe]
        if isinstance(found, StructmaeError):
            raise found
        return found

    return load


def check(table: Definition, graphs: structmae.Graphs) -> None:
    """What would only come out after the pre-training."""
    level = table.task.partition("_")[0]
    if graphs.level != level or graphs.y is None:
        raise StructmaeError(f"{table.task} needs {level} labels, and {graphs.name} has none")
    if level == "node" and (graphs.split is None or not len(graphs.split["validation"])):
        raise StructmaeError(f"{graphs.name} has no validation nodes, on which the protocol chooses the probe")


def fresh_peak() -> None:
    """Start the peak of memory anew, so that a cell isn't charged with the ones before it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # Linux only; elsewhere the peak is the process's
        Path("/proc/self/clear_refs").write_text("5")
