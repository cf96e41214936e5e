"""From a pre-trained run to one that is fine-tuned on a task: its encoder and a head, in a folder of its own."""

import hashlib
import os
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from structmae import registry
from structmae.checkpoint import Checkpoint, claim, read_json, save_weights, unless_failed, write_json
from structmae.errors import StructmaeError, UsageError
from structmae.nn.build import build_encoder
from structmae.precision import precision as computing
from structmae.pretraining import device_of, new_folder, peak_memory
from structmae.recipe import Recipe, TermOptions, amend, shorthand
from structmae.run import TASKS, Run, build, describe_data, load, read_config, summary
from structmae.threads import thread_limit, threads_of
from structmae.train import Interrupted, Position, fit
from structmae.tuning.model import TaskModel

INITIAL = "random_init"  # the folder, and the file of weights, of the other arm


def finetune(
    run: Run | str | os.PathLike[str],
    task: str | None = None,
    *,
    data: Any = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    precision: str | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    evaluate: bool = False,
    device: str = "auto",
    threads: int | None = None,
    progress: bool = True,
    note: Callable[[str], None] | None = None,
) -> "TunedRun":
    """Train a head on a pre-trained encoder, then both; the epoch that counts is chosen on validation.

    run: a pre-trained run or its folder. task: node_classification, graph_classification, forecasting or
    classification; without it the first that the data allows. data: the run's own without it. settings: options
    `finetune.*`, `train.seed` (which `seed` is short for) of head, dropout and order, and `train.precision`
    (`precision`), which without it is the run's. evaluate: train the same from random initialisation too, and score
    both, into `run.result`. The rest is as in `pretrain`.

    Raises UsageError for tasks and options that do not exist, StructmaeError for data or folders that can't be used,
    Interrupted (with the state saved in `out`) after SIGINT.
    """
    say = note or (lambda text: None)
    number = threads_of(threads)
    base = run if isinstance(run, Run) else load(run)
    if isinstance(base, TunedRun):
        raise UsageError(f"{base.folder or 'this run'} is fine-tuned already: give the pre-trained run it was made of")
    if not any(task in registry.names("finetune") for task in TASKS.get(base.recipe.modality, ())):
        raise UsageError(f"{base.recipe.name} reads {base.recipe.modality} data: fine-tuning is for graphs and series")
    recipe = _settle(base.recipe, shorthand(settings, seed=seed, precision=precision))
    found = base.data(data)
    name = task or base.modality.tasks(found)[0]
    part = _part(name)
    if name not in TASKS[base.recipe.modality]:
        raise UsageError(
            f"task {name} is not for {base.recipe.modality} data: there are {', '.join(base.modality.tasks(found))}"
        )
    registry.get("task", name).check(found, recipe)
    folder = None if out in (None, "auto") else Path(out)
    exists = folder is not None and (folder.exists() or folder.is_symlink())
    if resume and folder is None:
        raise UsageError("--resume needs the folder to go on with: give --out DIR")
    if exists and not resume:
        raise StructmaeError(f"--out {folder} exists: choose another folder, or go on with it by --resume")
    about = {"name": name, **part.shape(found, recipe)}
    tokenizer = deepcopy(base.encoder.tokenizer) if data is None else base.modality.adapt(base.encoder.tokenizer, found)
    config = {
        **base.config,
        "recipe": {key: value for key, value in recipe.describe().items() if key in base.config["recipe"]},
        "tokenizer": tokenizer.config(),
        "data": describe_data(found),
        "task": about,
        "base": {"seed": base.recipe.train.seed, "encoder": _digest(base.encoder)},
        "device": device_of(device).type,
        "threads": number,
    }
    config.pop("precision", None)  # of larger or smaller batches it may be another
    model = build_task(recipe, tokenizer, about)
    _start_from(model, base)
    tuned = TunedRun(recipe, model.to(config["device"]), config, found)
    source = tuned.source(found)
    part.parts(source, found, recipe)  # what can't be split is refused before the work
    if exists and folder is not None:
        _same(folder, config, device, threads)
        if (folder / "result.json").exists():
            say("this run has finished: its result")
            done = load(folder)
            assert isinstance(done, TunedRun)
            if evaluate and not done.result["evaluation"]:
                done.evaluate(progress=say)
                write_json(folder / "result.json", done.result)
            return done
    elif out == "auto":
        folder = new_folder(found.name, f"{recipe.name}-{name}", recipe.train.seed)
    with thread_limit(config["threads"]):
        used = tuned.settle_precision(source, recipe.finetune.batch_size)
        if folder is not None and not exists:
            claim(folder, lambda made: write_json(made / "config.json", config))
        tuned.folder = folder
        say(f"data: {tuned.modality.describe(found, tokenizer)}")
        say(used.remark)
        with unless_failed(folder, new=not exists):
            _train(tuned, evaluate, progress, say)
    if folder is not None:
        write_json(folder / "result.json", tuned.result)
        Checkpoint(folder).state.unlink(missing_ok=True)
    return tuned


def _train(tuned: "TunedRun", evaluate: bool, progress: bool, say: Callable[[str], None]) -> None:
    """Train, save the weights, evaluate, and put the result in the run."""
    folder = tuned.folder
    try:
        position = tuned.train_arm(tuned.model, folder, progress)
        tuned.result = summary(tuned, position, peak_memory(tuned.device))
        tuned.result |= {"task": tuned.task, "best_epoch": position.best_epoch, "validation": position.validation}
        if folder is not None:
            save_weights(folder / "model.safetensors", tuned.model)
        if evaluate:
            tuned.evaluate(progress=say)
    except Interrupted as error:
        raise Interrupted(f"{error}: go on with the same command and --out {folder} --resume") from None


class TunedRun(Run):
    """A run whose model is an encoder with a head for `config["task"]`: what `Run` has, and `predict`."""

    model: Any  # TaskModel
    _initial_best: int | None = None

    @property
    def task(self) -> str:
        return str(self.config["task"]["name"])

    def train_arm(self, model: TaskModel, folder: Path | None, progress: bool = True) -> Position:
        """Fine-tune `model` in place on the run's data, by way of `folder`'s resume state."""
        data, part, device = self.data(), _part(self.task), torch.device(self.config["device"])
        model.to(device)
        source = self.source(data)
        sources, _ = part.parts(source, data, self.recipe)
        checkpoint = None if folder is None else Checkpoint(folder)
        if checkpoint is None or not checkpoint.state.exists():
            part.prepare(model, source, self.recipe)
        return fit(
            model,
            sources["train"],
            _training(self.recipe),
            device=device,
            precision=self.precision.name,
            checkpoint=checkpoint,
            progress=progress,
            validate=lambda: float(part.validation(model, sources["validation"])),
        )

    def initial_model(self) -> TaskModel:
        """The same model, fine-tuned alike from the encoder's weights before pre-training. It is trained when first
        asked for, and kept in the run's folder."""
        model = build_task(self.recipe, self.encoder.tokenizer, self.config["task"])
        seeded = replace(self.recipe, train=replace(self.recipe.train, seed=self.config["base"]["seed"]))
        initial = build(seeded, deepcopy(self.encoder.tokenizer)).encoder
        model.encoder.load_state_dict({**initial.state_dict(), **_buffers(self.encoder)})

        def train(beside: Path | None) -> Position:
            position = self.train_arm(model, beside)
            self._initial_best = position.best_epoch
            if beside is not None:
                chosen = {"best_epoch": position.best_epoch, "validation": position.validation}
                write_json(beside / "position.json", chosen)
            return position

        self.trained_beside(INITIAL, model, train)
        return model.to(self.device).eval()

    def initial_best(self) -> int | None:
        """The epoch that validation chose for the model of `initial_model`."""
        kept = None if self.folder is None else self.folder / INITIAL / "position.json"
        return read_json(kept)["best_epoch"] if kept is not None and kept.exists() else self._initial_best

    def evaluate(self, data: Any = None, *, task: str | None = None, **options: Any) -> dict[str, Any]:
        """Test scores of the fine-tuned model beside the same fine-tuned from random initialisation."""
        if task not in (None, self.task):
            raise UsageError(f"this run was fine-tuned for {self.task}: --task {task} is scored on the pre-trained run")
        horizons, own = options.pop("horizons", None), self.config["task"].get("horizon")
        if horizons is not None and horizons not in (own, [own], (own,)):
            raise UsageError(f"horizons={horizons}: this run's head forecasts {own} rows; leave it out")
        part, say = _part(self.task), options.get("progress") or (lambda text: None)
        found = part.recoded(self.data(data), self.config["task"])
        registry.get("task", self.task).check(found, self.recipe)
        say("fine-tuning the same from random initialisation" if data is None else f"scoring on {found.name}")
        arms = {"pretrained": self.model, "random_init": self.initial_model()}
        source = self.source(found, anew=data is not None)
        with computing(self.precision.name):
            scored: dict[str, Any] = part.evaluation(arms, source, found, self.recipe, self.task)
        scored["best_epoch"] = {"pretrained": self.result.get("best_epoch"), "random_init": self.initial_best()}
        unmoved = [name for name, epoch in scored["best_epoch"].items() if epoch == 0]
        if unmoved and self.task == "forecasting":
            start = "no epoch was better on validation than the start, NLinear and a ridge on the frozen encoder"
            scored["notes"] = [f"{' and '.join(unmoved)}: {start}"]
        if data is None and self.result:
            self.result["evaluation"] = scored
        return scored

    @property
    def head_forecast(self) -> Any:
        """What `forecast` uses: the trained head, or None of a run for another task."""
        return _part(self.task).Trained(self.model) if self.task == "forecasting" else None

    def predict(self, data: Any = None) -> Any:
        """A DataFrame with a row for each node, graph or recording: `id`, `label`, and the share of each class."""
        found = self.data(data)
        if self.task not in self.modality.tasks(found):
            raise UsageError(f"this run was fine-tuned for {self.task}, which {found.name} is not for")
        there, known = (len(getattr(part, "channels", ())) for part in (found, self.encoder.tokenizer))
        if there != known:
            raise StructmaeError(f"{found.name} has {there} channels: this run's head reads {known}")
        with computing(self.precision.name):
            return _part(self.task).predict(self.model, self.source(found), found, self.config["task"])


def build_task(recipe: Recipe, tokenizer: Any, about: Mapping[str, Any]) -> TaskModel:
    """Encoder and head at their initial weights, which `train.seed` settles."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        encoder = build_encoder(recipe, tokenizer)
        return TaskModel(recipe, encoder, _part(about["name"]).head(encoder, dict(about), recipe))


def _part(task: str) -> Any:
    """What knows the task. Raises UsageError for one that can't be fine-tuned."""
    registry.check("task", task)
    if task not in registry.names("finetune"):
        raise UsageError(f"{task} has no head to fine-tune: there are {', '.join(registry.names('finetune'))}")
    return registry.get("finetune", task)


def _settle(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The run's recipe with other options of fine-tuning."""
    for key in settings:
        if not key.startswith("finetune.") and key not in ("train.seed", "train.precision", "train.save_every"):
            raise UsageError(
                f"--set {key}: the encoder is there already; only finetune.*, train.seed and train.precision can be set"
            )
    settled = amend(recipe, settings)
    if settled.finetune.head_epochs + settled.finetune.epochs == 0:
        raise UsageError("finetune.head_epochs=0 and finetune.epochs=0: nothing would be trained; raise one of them")
    return settled


def _training(recipe: Recipe) -> Recipe:
    """The recipe as the training loop reads it: its options of fine-tuning as those of training."""
    options = recipe.finetune
    train = replace(
        recipe.train,
        epochs=options.head_epochs + options.epochs,
        batch_size=options.batch_size,
        items=options.items,
        lr=options.lr,
        weight_decay=options.weight_decay,
        schedule="cosine",
        warmup=0,
        clip=0.0,
    )
    mask = replace(recipe.mask, ratio=options.mask_ratio, edge_ratio=0.0, curriculum="none")
    return replace(recipe, train=train, heads={}, terms=TermOptions(), mask=mask)


def _start_from(model: TaskModel, base: Run) -> None:
    """The encoder's weights, and its mask tokens where some are hidden while fine-tuning. The scaler stays."""
    model.encoder.load_state_dict({**base.encoder.state_dict(), **_buffers(model.encoder)})
    if len(model.tokens):
        model.tokens.load_state_dict(base.model.tokens.state_dict())


def _buffers(encoder: Any) -> dict[str, Any]:
    """What the tokenizer learnt of the data."""
    return {f"tokenizer.{name}": value for name, value in encoder.tokenizer.state_dict().items()}


def _digest(encoder: Any) -> str:
    """SHA-256 of the encoder's weights, so that a run goes on with the encoder that it began with."""
    found = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _same(folder: Path, config: dict[str, Any], device: str, threads: int | None) -> None:
    """Raises StructmaeError where the run in `folder` is another one; takes over what was left to it."""
    stored = read_config(folder)
    if "task" not in stored:
        raise StructmaeError(f"{folder} is a pre-trained run, not one that is fine-tuned: choose another --out")
    for key, given in (("device", device != "auto"), ("threads", threads is not None)):
        if not given:
            config[key] = stored[key]
    config["precision"] = stored.get("precision", "fp32")
    differ = [key for key in ("recipe", "task", "data", "base", "device", "threads") if stored[key] != config[key]]
    if differ:
        raise StructmaeError(
            f"{folder} cannot go on with other options: {', '.join(differ)} differ. Leave them out, or start a new run"
        )
