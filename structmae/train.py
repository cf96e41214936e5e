"""The one training loop: plan, step, save, resume to the same bits."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from structmae import masking
from structmae import precision as numerics
from structmae.checkpoint import Checkpoint
from structmae.errors import StructmaeError
from structmae.masking.torch import ahead
from structmae.model import Batch, Trainable
from structmae.planning import Planner
from structmae.recipe import Recipe, TrainOptions
from structmae.threads import worth
from structmae.tokens import Source


class Interrupted(StructmaeError):
    """Training was told to stop and has saved its state."""

    exit_code = 130


@dataclass
class Position:
    """How far training is. `loss_first` is the first step's loss, `loss_last` the mean over the last epoch's steps;
    `seconds` is wall time over all sittings; `best_epoch` and `validation` are of the epoch that validation chose."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    loss_first: float = math.nan
    loss_last: float = math.nan
    best_epoch: int | None = None
    validation: float | None = None


@dataclass
class Best:
    """The epoch with the lowest validation score, and the weights then."""

    epoch: int
    score: float
    model: dict[str, torch.Tensor]


def fit(
    model: Trainable,
    source: Source,
    recipe: Recipe,
    *,
    device: torch.device,
    precision: str | None = None,
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
    validate: Callable[[], float] | None = None,
) -> Position:
    """Train `model` in place for `train.epochs`, from the checkpoint's last state where there is one. `precision` is
    one that `suited` gave; without it `train.precision` is settled here.

    With `validate`, a score of the model as it is (the lower the better), it is asked before the first epoch and after
    each, and the weights of the best one are those that stay; of equals the earlier.

    Torch's generators are seeded inside and put back afterwards. Raises Interrupted after SIGINT or SIGTERM, with the
    state saved (a second signal stops at once), and StructmaeError where nothing can be hidden or the loss is not
    finite.
    """
    options = recipe.train
    planner = Planner.of(recipe)
    work = _work(model, source, options.batch_size)
    used = precision or numerics.settle(options.precision, source.device, work).name
    fused = all(weight.device.type in ("cpu", "cuda") for weight in model.parameters())
    optimizer = torch.optim.Adam(model.groups(), lr=options.lr, weight_decay=options.weight_decay, fused=fused)
    position, best = Position(), None
    cuda = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=cuda),
        numerics.precision(used),
        worth(work),
        _stop_at_signal(checkpoint is not None) as stop,
    ):
        torch.manual_seed(options.seed)
        state = None if checkpoint is None else checkpoint.load()
        if state is not None:
            position = Position(**state["position"])
            best = None if state["best"] is None else Best(**state["best"])
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["generator"])
            if cuda:
                torch.cuda.set_rng_state(state["generator_cuda"], device)
        elif validate is not None:  # the start counts too: training may only make it worse
            best = _now(model, 0, validate())
        model.train()
        with _bar(options.epochs, position.epoch, progress) as bar:
            while position.epoch < options.epochs:
                line = _epoch(model, source, planner, optimizer, options, position, used)
                if validate is not None:
                    score = line["validation"] = validate()
                    model.train()
                    if best is None or score < best.score:
                        best = _now(model, position.epoch, score)
                    position.best_epoch, position.validation = best.epoch, best.score
                bar.set_postfix(loss=f"{position.loss_last:.4f}", refresh=False)
                bar.update()
                if checkpoint is None:
                    continue
                checkpoint.append(line)
                last = position.epoch == options.epochs
                if last or stop.is_set() or position.epoch % options.save_every == 0:
                    checkpoint.save(
                        {
                            "position": asdict(position),
                            "best": None if best is None else vars(best),
                            "model": model.state_dict(),
                            "optimizer": optimizer.state_dict(),
                            "generator": torch.get_rng_state(),
                            "generator_cuda": torch.cuda.get_rng_state(device) if cuda else None,
                        }
                    )
                if stop.is_set():
                    raise Interrupted(f"interrupted after epoch {position.epoch} of {options.epochs}, and saved")
    if best is not None:
        model.load_state_dict(best.model)
    model.eval()
    return position


def suited(wanted: str, model: Trainable, source: Source, batch_size: int) -> numerics.Settled:
    """What the precision `wanted` comes to for steps of so many items."""
    return numerics.settle(wanted, source.device, _work(model, source, batch_size))


def _work(model: Trainable, source: Source, batch_size: int) -> int:
    """Multiply-adds of the largest product of a step."""
    items = torch.arange(min(batch_size, source.num_items))
    return numerics.largest(model, len(next(iter(source.batch(items).values()))))


def _now(model: Trainable, epoch: int, score: float) -> Best:
    return Best(epoch, score, {name: value.detach().clone() for name, value in model.state_dict().items()})


def _epoch(
    model: Trainable,
    source: Source,
    planner: Planner,
    optimizer: torch.optim.Adam,
    options: TrainOptions,
    position: Position,
    precision: str,
) -> dict[str, int | float]:
    """One pass over the items; moves `position` on and gives the line for metrics.jsonl."""
    begin = time.perf_counter()
    lr = options.lr
    if options.schedule == "cosine":
        lr *= 0.5 * (1 + math.cos(math.pi * position.epoch / options.epochs))
    if position.epoch < options.warmup:
        lr *= (position.epoch + 1) / (options.warmup + 1)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("scale", 1.0)
    model.begin(position.epoch, source)
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}  # a term may have nothing to score in a step
    steps = 0
    first = position.step
    for batch in _prepared(source, planner, options, position.epoch, first):
        with numerics.autocast(precision, source.device):
            losses = model(batch)
        position.step += 1
        if losses.total is None:
            continue
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        if options.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        optimizer.step()
        model.stepped()
        values = {"loss": losses.total.item(), **{f"loss_{name}": term.item() for name, term in losses.terms.items()}}
        values |= losses.facts
        if not math.isfinite(values["loss"]):
            raise StructmaeError(
                f"the loss is {values['loss']} in epoch {position.epoch + 1}: lower the learning rate (now {lr:g})"
            )
        if math.isnan(position.loss_first):
            position.loss_first = values["loss"]
        for name, value in values.items():
            sums[name], counts[name] = sums.get(name, 0.0) + value, counts.get(name, 0) + 1
        steps += 1
    if not steps:
        raise StructmaeError(
            f"mask.ratio={planner.spec.ratio:g} hides no token in any item: raise it or give larger items"
        )
    position.epoch += 1
    position.seconds += time.perf_counter() - begin
    means = {name: total / counts[name] for name, total in sums.items()}
    position.loss_last = means["loss"]
    return {"epoch": position.epoch, "time": round(position.seconds, 4), "lr": lr, **means}


def _prepared(source: Source, planner: Planner, options: TrainOptions, epoch: int, first: int) -> Iterator[Batch]:
    """Each step's batch. For a GPU it is made, and moved, while the step before runs. On the CPU the two would share
    cores and Python's lock, and making a batch is a small part of a step."""

    def made() -> Iterator[Batch]:
        for step, items in enumerate(_batches(source.num_items, options, epoch), first):
            yield planner.batch(source, items, visit=epoch, step=step)

    return ahead(made(), ready=_ready) if _on_gpu(source) else made()


def _on_gpu(source: Source) -> bool:
    """Whether the CPU is idle while a step runs."""
    return source.device.type == "cuda"


def _ready(batch: Batch) -> None:
    """Makes the index tensors that a step will ask for."""
    views = (plan for view in batch.views.values() for plan in view.plans.values())
    for plan in (*batch.plans.values(), *views):
        plan.prepare()
        plan.prepare("visible", "kept")
    for redrawn in batch.remasks.values():
        for plan in redrawn:
            plan.prepare("hidden")


def _batches(items: int, options: TrainOptions, epoch: int) -> Iterator[torch.Tensor]:
    """All items in this epoch's order (or the first `train.items` of it), `batch_size` at a time; the last batch is the
    rest, never dropped. A rest of one joins the batch before it, since batch normalisation can't read a single row."""
    order = torch.from_numpy(masking.permutation(items, seed=options.seed, visit=epoch))
    if options.items:
        order = order[: options.items]
        items = len(order)
    ends = list(range(options.batch_size, items, options.batch_size))
    if len(ends) > 0 and items - ends[-1] == 1:
        ends.pop()
    return iter(torch.tensor_split(order, ends))


def _bar(total: int, initial: int, progress: bool) -> Any:
    """On stderr, or in the notebook; a silent stand-in does not even look which."""
    if progress:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    return tqdm(total=total, initial=initial, unit="epoch", disable=not progress, mininterval=0.5)


@contextmanager
def _stop_at_signal(wanted: bool) -> Iterator[threading.Event]:
    """While open, a first SIGINT or SIGTERM sets the event, a second one interrupts at once."""
    stop = threading.Event()
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
