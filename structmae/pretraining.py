"""From what a person asked for to a finished run: settle, check, claim the folder, train, evaluate, leave a picture."""

import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch

from structmae import registry
from structmae.checkpoint import Checkpoint, claim, save_weights, unless_failed, write_json
from structmae.errors import StructmaeError, UsageError
from structmae.recipe import Recipe, changes, data_options, from_tree, resolve, shorthand
from structmae.run import Run, build, describe, load, read_config, summary
from structmae.threads import thread_limit, threads_of
from structmae.tokens import Source
from structmae.train import Interrupted, fit

Kind = Literal["graph", "series", "image", "text"]
DEVICES = ("auto", "cpu", "cuda")
DEFAULT_RECIPES = {"graph": "graphmae", "series": "patchtst", "image": "mae", "text": "bert"}


def pretrain(
    data: Any = None,
    recipe: str | os.PathLike[str] | Recipe | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    precision: str | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    evaluate: bool = False,
    nodes: str | os.PathLike[str] | None = None,
    kind: Kind | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: bool = True,
    note: Callable[[str], None] | None = None,
) -> Run:
    """Pre-train an encoder on a graph, a set of graphs, a table of series, images or text.

    data: a name (`structmae data` lists them), a path, a PyTorch Geometric `Data`, list of them or data set, a
    DataFrame or an array of series, an array of images (N, C, H, W), a list of texts; the recipe's own data without it.
    recipe: a name, a TOML file or a Recipe (without it "graphmae" for graphs, "patchtst" for series, "mae" for images,
    "bert" for text). kind: of data that does not tell. settings: options by dotted key, `{"train.epochs": 100}`; seed
    and precision are short for "train.seed" and "train.precision". out: a new folder to save to as training goes,
    "auto" for runs/DATA-RECIPE-SEED[-n] (without it the run stays in memory; `run.save` writes it). resume: go on with
    the run in `out`. evaluate: score it too, into `run.result`. device: auto, cpu or cuda. threads: of torch and Numba.
    note: takes one-line remarks.

    In a folder, picture.png shows input, hidden and rebuilt, where matplotlib is installed.

    Raises UsageError for names, keys and values that do not exist, StructmaeError for data or folders that can't be
    used, Interrupted (with the state saved in `out`) after SIGINT. Nothing is written before all inputs are checked.
    """
    say = note or (lambda text: None)
    asked, number = shorthand(settings, seed=seed, precision=precision), threads_of(threads)
    folder = None if out in (None, "auto") else Path(out)
    if resume and folder is None:
        raise UsageError("--resume needs the folder to go on with: give --out DIR")
    exists = folder is not None and (folder.exists() or folder.is_symlink())
    if exists and not resume:
        raise StructmaeError(f"--out {folder} exists: choose another folder, or go on with it by --resume")
    if folder is not None and exists:
        run = _reopen(folder, data, recipe, asked, nodes, kind, device, threads)
        if run.result:
            say("this run has finished: its result")
            if evaluate and not run.result["evaluation"]:
                _evaluate(run, say)
                write_json(folder / "result.json", run.result)
            return run
    else:
        chosen = recipe if recipe is not None else _usual(data, kind)
        base = resolve(chosen)
        if kind is not None and kind != base.modality:
            raise UsageError(f"--kind {kind}: the recipe {base.name} is for {base.modality} data; take another")
        modality = registry.get("modality", base.modality)
        options = data_options(chosen, asked)
        found = modality.load(base.default_data if data is None else data, options, nodes=nodes, kind=kind)
        settled = resolve(chosen, asked, data=found.card, level=found.level)
        if evaluate:
            _check_task(modality, found, settled)
        tokenizer = modality.fit(found, settled)
        config = describe(settled, found, tokenizer, device_of(device), number)
        config["asked"] = _named(chosen)
        run = Run(settled, build(settled, tokenizer), config, found)
        for remark in found.notes:
            say(remark)
        if resume:
            say(f"{folder} is not there yet: starting a new run")
        if out == "auto":
            folder = new_folder(found.name, settled.name, settled.train.seed)
    with thread_limit(run.config["threads"]):
        run.model.to(run.config["device"])
        source = run.source(run.data())
        used = run.settle_precision(source, run.recipe.train.batch_size)
        if folder is not None and not exists:
            claim(folder, lambda made: write_json(made / "config.json", run.config))
            run.folder = folder
        say(f"recipe: {run.recipe.name}, size {run.recipe.size}{_other_size(run.recipe)}")
        say(f"data: {run.modality.describe(run.data(), run.encoder.tokenizer)}")
        say(run.recipe.to_toml().rstrip())
        say(used.remark)
        if how := run.encoder.how(next(iter(source.sweep(1)))):
            say(how)
        with unless_failed(folder, new=not exists):
            _train(run, source, evaluate, progress, say)
        if run.folder is not None:  # the run is safe by now, whatever becomes of its picture
            _leave_picture(run, run.folder, source, say)
    return run


def _train(run: Run, source: Source, evaluate: bool, progress: bool, say: Callable[[str], None]) -> None:
    """Train, save, evaluate, and put the result in the run and its folder."""
    device = run.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    checkpoint = None if run.folder is None else Checkpoint(run.folder)
    try:
        position = fit(
            run.model,
            source,
            run.recipe,
            device=device,
            precision=run.precision.name,
            checkpoint=checkpoint,
            progress=progress,
        )
    except Interrupted as error:
        raise Interrupted(f"{error}: go on with structmae pretrain --out {run.folder} --resume") from None
    run.result = {**summary(run, position, peak_memory(device)), "picture": None}
    if run.folder is not None:
        save_weights(run.folder / "model.safetensors", run.model)
    if evaluate:
        _evaluate(run, say)
    if checkpoint is not None and run.folder is not None:
        write_json(run.folder / "result.json", run.result)
        checkpoint.state.unlink(missing_ok=True)


def _leave_picture(run: Run, folder: Path, source: Source, say: Callable[[str], None]) -> None:
    """What the run hides and rebuilds, as a file in its folder, and in its result where that is."""
    try:
        from structmae.report import save_picture

        run.result["picture"] = str(save_picture(run, folder, source))
    except StructmaeError as error:
        say(f"no picture of this run: {error}")
    except Exception as error:  # drawing is another library's, and no reason to fail after hours of training
        say(f"no picture of this run: {type(error).__name__}: {' '.join(str(error).split())}")
    else:
        write_json(folder / "result.json", run.result)


def _other_size(recipe: Recipe) -> str:
    """How to get the paper's size, where this is another."""
    return "" if recipe.size == "published" else " (the paper's: --set size=published)"


def _evaluate(run: Run, say: Callable[[str], None]) -> None:
    """The evaluation into the run's result, or the reason why there is none."""
    try:
        run.evaluate()
    except StructmaeError as error:
        run.result["evaluation_note"] = f"no evaluation: {error}"
        say(run.result["evaluation_note"])


def _reopen(
    folder: Path,
    data: Any,
    recipe: Any,
    asked: Mapping[str, Any],
    nodes: Any,
    kind: Kind | None,
    device: str,
    threads: int | None,
) -> Run:
    """The run in `folder`, after making sure that no option given again differs from what it was started with."""
    config = read_config(folder)
    if "task" in config:
        raise StructmaeError(f"{folder} is a run that is fine-tuned: go on with structmae finetune, or choose another")
    stored = from_tree(config["recipe"])
    if isinstance(recipe, Recipe):
        before, after = stored.settings(), recipe.settings()
        differ = [(key, before[key], after.get(key)) for key in before if before[key] != after.get(key)]
    else:
        other = recipe is not None and _named(recipe) != config["asked"]
        differ = [("recipe", config["asked"], _named(recipe))] if other else changes(stored, recipe, asked)
    if device != "auto" and device != config["device"]:
        differ.append(("device", config["device"], device))
    if threads is not None and threads != config["threads"]:
        differ.append(("threads", config["threads"], threads))
    spec = config["data"]["spec"]
    if data is None and not spec:
        raise StructmaeError(f"{folder} was made of an object in memory: pass the data to go on")
    modality = registry.get("modality", stored.modality)
    where = spec["data"] if data is None else data
    found = modality.load(where, stored.data, nodes=nodes or spec.get("nodes"), kind=kind or spec.get("kind"))
    if found.name != config["data"]["name"]:
        differ.append(("data", config["data"]["name"], found.name))
    elif found.fingerprint() != config["data"]["fingerprint"]:
        raise StructmaeError(f"{folder} cannot go on: the content of {found.name} has changed since it was started")
    if differ:
        what = ", ".join(f"{key} was {before}, now {after}" for key, before, after in differ)
        raise StructmaeError(f"{folder} cannot go on with other options: {what}. Leave them out, or start a new run")
    if (folder / "result.json").exists():
        run = load(folder)
        run._data = found
    else:
        device_of(config["device"])
        run = Run(stored, build(stored, modality.fit(found, stored)), config, found)
        run.folder = folder
    return run


def _usual(data: Any, kind: Kind | None) -> str:
    """The recipe for data of this kind."""
    if data is None:
        return DEFAULT_RECIPES[kind or "graph"]
    from structmae.data import kind_of

    return DEFAULT_RECIPES[kind_of(data, kind)]


def _check_task(modality: Any, data: Any, recipe: Recipe) -> None:
    """A recipe that can't be scored on this level is refused before the work. Data that can't be (no labels, too few)
    still trains, and the evaluation says why there is none."""
    try:
        registry.get("task", modality.tasks(data)[0]).check(data, recipe)
    except UsageError:
        raise
    except StructmaeError:
        return


def _named(recipe: Any) -> str:
    """What a person called the recipe: its name in the registry's spelling, or its file wherever it is named from."""
    if isinstance(recipe, Recipe):
        return "a Recipe"
    return str(Path(recipe).resolve()) if str(recipe).endswith(".toml") else str(recipe).lower()


def device_of(name: str) -> torch.device:
    """Raises UsageError for a name that is none, StructmaeError for a CUDA device that is not there."""
    if name not in DEVICES:
        raise UsageError(f"device={name!r}: must be {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise StructmaeError("--device cuda: torch sees no CUDA device; use --device cpu")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else "cpu" if name == "auto" else name)


def peak_memory(device: torch.device) -> int | None:
    """Bytes: of the CUDA device where there is one, else of this process since it started (None on Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):  # Linux, whose getrusage counts the memory of the process that started this one
        status = Path("/proc/self/status").read_text(encoding="ascii")
        if (found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)) is not None:
            return 1024 * int(found[1])
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def new_folder(data: str, recipe: str, seed: int, under: Path = Path("runs")) -> Path:
    """runs/DATA-RECIPE-SEED, with -2, -3 and so on where that exists."""
    name = f"{data}-{recipe}-{seed}"
    return next(
        path for number in count(1) if not (path := under / (name if number == 1 else f"{name}-{number}")).exists()
    )
