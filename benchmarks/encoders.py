"""What scores are made of: a pre-trained run, kept or new, what a baseline makes, and the vectors of both."""

import argparse
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cells import BASE, Cell, protocol

import structmae
from structmae.errors import StructmaeError

if TYPE_CHECKING:
    from torch import Tensor

COSTS, ABOUT = ("epochs", "seconds", "peak_memory"), ("versions", "device", "threads", "size")
TRAINED = ("pretrained", "own_decoder")  # features that pre-training went into
FREE = {"epochs": 0, "seconds": 0.0, "peak_memory": None}  # what others cost
REVISION = "revision"  # a file in a kept run


def trained(cell: Cell, args: argparse.Namespace, asked: Mapping[str, str], data: Any) -> structmae.Run:
    """The cell's run: one that is kept, or its own, gone on with where it stopped. What was begun with other threads
    (those of --jobs, say), on another device or on data that have changed since is begun anew."""
    if cell.folder.exists() and not _alike(cell.folder, args, data):
        shutil.rmtree(cell.folder)
    return structmae.pretrain(
        data, cell.recipe, settings={**protocol(cell.recipe), **cell.own, **asked}, seed=cell.seed,
        out=cell.kept if _serves(cell, args, data) else cell.folder, resume=True, device=args.device,
        threads=args.threads, progress=sys.stderr.isatty() and args.jobs == 1,
    )  # fmt: skip


def _serves(cell: Cell, args: argparse.Namespace, data: Any) -> bool:
    """Whether what is kept is whole, and what this cell would train."""
    return (cell.kept / "result.json").exists() and _alike(cell.kept, args, data)


def _alike(folder: Path, args: argparse.Namespace, data: Any) -> bool:
    """Whether the run there is of this data, with these threads and on this device. One that was killed while it was
    made has nothing in it."""
    from structmae.run import read_config

    try:
        config = read_config(folder)
    except StructmaeError:
        return False
    alike = config["threads"] == args.threads and args.device in ("auto", config["device"])
    return alike and config["data"]["fingerprint"] == data.fingerprint()


def leave(cell: Cell, keep: bool, revision: str | None) -> None:
    """Put the cell's runs where all tables find them, or remove them. `revision` is of the code that trained."""
    for one in cell.parts or (cell,):
        if keep and (one.folder / "result.json").exists() and not one.kept.exists():
            (one.folder / REVISION).write_text(revision or "", encoding="utf-8")
            one.kept.parent.mkdir(exist_ok=True)
            with suppress(OSError):  # another table's runner was first
                one.folder.rename(one.kept)
    shutil.rmtree(cell.folder, ignore_errors=True)


def about(run: structmae.Run) -> dict[str, Any]:
    """What a line says of a run; of a kept one by which revision it was trained."""
    said = {key: run.result[key] for key in ABOUT}
    assert run.folder is not None
    with suppress(OSError):
        said["revision"] = (run.folder / REVISION).read_text(encoding="utf-8") or None
    return said


_last: list[Any] = []  # what depends on no seed, of this process's data set, and its key


def made(
    cell: Cell, args: argparse.Namespace, data: Any, labels: Sequence[int] = ()
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """What a baseline makes of data, of few `labels` where there are some; what a line says of it, and the cost."""
    import baselines
    import torch

    from structmae import registry
    from structmae.run import versions
    from structmae.threads import thread_limit

    assert cell.baseline is not None
    options = dict(cell.missing[0].settings)
    key = data.fingerprint(), cell.baseline, options, args.threads, labels
    if not _last or _last[0] != key:
        recipe = recipe_of(data, cell.seed)
        modality = registry.get("modality", recipe.modality)
        source = modality.source(data, modality.fit(data, recipe), torch.device("cpu"))
        with thread_limit(args.threads):
            begin = time.perf_counter()
            task = baselines.Task(data, source, recipe.probe)
            found = baselines.make(cell.baseline, task, cell.seed, options, labels)
            seconds = time.perf_counter() - begin
            said = {"versions": versions(), "device": "cpu", "threads": torch.get_num_threads(), "size": None}
        cost = {"epochs": found.epochs, "seconds": round(seconds, 4), "peak_memory": None}
        if cell.baseline not in baselines.SEEDLESS:
            return found, said, cost
        _last[:] = key, (found, said, cost)
    again: tuple[Any, dict[str, Any], dict[str, Any]] = _last[1]
    return again


def vectors_of(
    part: Cell, args: argparse.Namespace, asked: Mapping[str, str], data: Any, scored_on: Any
) -> tuple[list["Tensor"], dict[str, Any], dict[str, Any]]:
    """(N, width) of each of a part's methods, what a line says of them, and the cost. `scored_on` has the split that a
    baseline may read."""
    from structmae.evaluate.arms import arms
    from structmae.precision import precision
    from structmae.threads import thread_limit

    if part.baseline:
        found, said, cost = made(part, args, scored_on)
        return [found.vectors], said, cost
    run = trained(part, args, asked, data)
    with thread_limit(args.threads), precision(run.precision.name):
        every = arms(run.encoder, run.initial_encoder(), run.source(run.data()), pool="none")
    features = [method.features for method in part.missing]
    cost = {key: run.result[key] for key in COSTS} if set(features) & set(TRAINED) else FREE
    return [every[name] for name in features], about(run), cost


def recipe_of(data: Any, seed: int, asked: Mapping[str, str] | None = None) -> structmae.Recipe:
    """Whose features baselines read, and whose probe vectors that are nobody's. Folds are shuffled by the seed."""
    from structmae.recipe import resolve

    asked = {**protocol(BASE), **(asked or {}), "train.seed": str(seed)}
    return resolve(BASE, asked, data=data.card, level=data.level)
