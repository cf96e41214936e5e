"""The one training loop: plan, step, save, resume to the same bits."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch

from structmae import masking
from structmae.checkpoint import Checkpoint
from structmae.errors import StructmaeError
from structmae.masking.torch import TorchPlan, to_torch
from structmae.model import MaskedAutoencoder
from structmae.recipe import MaskOptions, Recipe, TrainOptions
from structmae.tokens import Source, TokenSet


class Interrupted(StructmaeError):
    """Training was told to stop and has saved its state."""

    exit_code = 130


class Planner:
    """Draws the plan of each token set; the set-up that a set needs is kept for as long as the set lives."""

    def __init__(self, options: MaskOptions, seed: int):
        self.seed = seed
        self.spec = masking.Spec(**asdict(options))
        self._layouts: WeakKeyDictionary[TokenSet, masking.Layout] = WeakKeyDictionary()

    def draw(self, tokens: dict[str, TokenSet], *, visit: int, step: int) -> dict[str, TorchPlan]:
        """A plan for each set: the same for an item whatever batch it comes in (scope batch aside)."""
        plans = {}
        for index, (name, part) in enumerate(tokens.items()):
            plan = masking.draw(self._layout(part), self.spec, seed=self.seed, visit=visit, token_set=index, step=step)
            plans[name] = to_torch(plan, device=part.values.device)
        return plans

    def _layout(self, part: TokenSet) -> masking.Layout:
        if part not in self._layouts:
            valid = None if part.valid is None else part.valid.cpu().numpy()
            self._layouts[part] = masking.layout(
                part.ptr.cpu().numpy(), item_id=part.item_id.cpu().numpy(), valid=valid
            )
        return self._layouts[part]


@dataclass
class Position:
    """How far training is. `loss_first` is the first step's loss, `loss_last` the mean over the last epoch's steps;
    `seconds` is wall time over all sittings."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    loss_first: float = math.nan
    loss_last: float = math.nan


def fit(
    model: MaskedAutoencoder,
    source: Source,
    recipe: Recipe,
    *,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
) -> Position:
    """Train `model` in place for `train.epochs`, from the checkpoint's last state where there is one.

    Torch's generators are seeded inside and put back afterwards. Raises Interrupted after SIGINT or SIGTERM, with the
    state saved (a second signal stops at once), and StructmaeError where nothing can be hidden or the loss is not
    finite.
    """
    options = recipe.train
    planner = Planner(recipe.mask, options.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    position = Position()
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), _stop_at_signal(checkpoint is not None) as stop:
        torch.manual_seed(options.seed)
        state = None if checkpoint is None else checkpoint.load()
        if state is not None:
            position = Position(**state["position"])
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["generator"])
            if cuda:
                torch.cuda.set_rng_state(state["generator_cuda"], device)
        model.train()
        with _bar(options.epochs, position.epoch, progress) as bar:
            while position.epoch < options.epochs:
                line = _epoch(model, source, planner, optimizer, options, position)
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
                            "model": model.state_dict(),
                            "optimizer": optimizer.state_dict(),
                            "generator": torch.get_rng_state(),
                            "generator_cuda": torch.cuda.get_rng_state(device) if cuda else None,
                        }
                    )
                if stop.is_set():
                    raise Interrupted(f"interrupted after epoch {position.epoch} of {options.epochs}, and saved")
    model.eval()
    return position


def _epoch(
    model: MaskedAutoencoder,
    source: Source,
    planner: Planner,
    optimizer: torch.optim.Adam,
    options: TrainOptions,
    position: Position,
) -> dict[str, int | float]:
    """One pass over the items; moves `position` on and gives the line for metrics.jsonl."""
    begin = time.perf_counter()
    lr = options.lr
    if options.schedule == "cosine":
        lr *= 0.5 * (1 + math.cos(math.pi * position.epoch / options.epochs))
    for group in optimizer.param_groups:
        group["lr"] = lr
    sums: dict[str, float] = {}
    steps = 0
    for items in _batches(source.num_items, options, position.epoch):
        tokens = source.batch(items)
        plans = planner.draw(tokens, visit=position.epoch, step=position.step)
        losses = model(tokens, plans)
        position.step += 1
        if losses.total is None:
            continue
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()
        values = {"loss": losses.total.item(), **{f"loss_{name}": term.item() for name, term in losses.terms.items()}}
        if not math.isfinite(values["loss"]):
            raise StructmaeError(
                f"the loss is {values['loss']} in epoch {position.epoch + 1}: lower train.lr (now {lr:g})"
            )
        if math.isnan(position.loss_first):
            position.loss_first = values["loss"]
        sums = {name: sums.get(name, 0.0) + value for name, value in values.items()}
        steps += 1
    if not steps:
        raise StructmaeError(
            f"mask.ratio={planner.spec.ratio:g} hides no token in any item: raise it or give larger items"
        )
    position.epoch += 1
    position.seconds += time.perf_counter() - begin
    means = {name: total / steps for name, total in sums.items()}
    position.loss_last = means["loss"]
    return {"epoch": position.epoch, "time": round(position.seconds, 4), "lr": lr, **means}


def _batches(items: int, options: TrainOptions, epoch: int) -> Iterator[torch.Tensor]:
    """All items in this epoch's order, `batch_size` at a time; the last batch is the rest, never dropped. A rest of one
    joins the batch before it, since batch normalisation can't read a single row."""
    order = torch.from_numpy(masking.permutation(items, seed=options.seed, visit=epoch))
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
