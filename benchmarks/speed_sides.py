"""Both sides of a work, each run in a process of its own. Ours is the training loop itself, held after each step."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import speed_plain
import torch
from cells import fresh_peak
from speed_floor import moved
from speed_worker import Turns
from speed_works import Work

import structmae
from structmae import precision as numerics
from structmae import registry
from structmae.data import catalog
from structmae.errors import StructmaeError
from structmae.model import MaskedAutoencoder
from structmae.planning import Planner
from structmae.recipe import Recipe, data_options, resolve
from structmae.run import build
from structmae.threads import thread_limit
from structmae.train import fit, suited

CPU = torch.device("cpu")
ENDLESS = {"train.epochs": 1_000_000}  # a side is stopped from outside; its learning rate stays near the first one


def ours(turns: Turns, threads: int, *, work: Mapping[str, Any], precision: str) -> None:
    """Our side, as the command line trains."""
    _run(turns, threads, Work(**work), {"train.precision": precision})


def other(turns: Turns, threads: int, *, work: Mapping[str, Any], precision: str) -> None:
    """The other side: of works with the same settings with our malloc and precision, else as torch comes."""
    asked = Work(**work)
    if asked.against == "full":
        _run(turns, threads, asked, {"train.precision": precision, "mask.act": "token"})
        return
    if asked.same:
        structmae.tune_cpu()
    recipe, _, _, source = load(asked.recipe, asked.data, {**asked.settings, **ENDLESS})
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.train.seed)
    fresh_peak()
    after = {f"after_{asked.unit}": turns}
    if asked.against == "transformers":
        speed_plain.patchtst(recipe, source, turns)
    elif asked.same:
        with numerics.precision(precision):
            speed_plain.train(recipe, source, **after, cast=lambda: numerics.autocast(precision, CPU))
    else:
        speed_plain.train(recipe, source, **after)


class Loaded(NamedTuple):
    """What `structmae pretrain` makes of recipe and data."""

    recipe: Recipe
    data: Any
    tokenizer: Any
    source: Any


def load(recipe: str, data: str, settings: Mapping[str, Any]) -> Loaded:
    """Raises StructmaeError where the data is not here."""
    if catalog.is_known(data) and catalog.where(data) is None:
        raise StructmaeError(f"data not here: {data} lies neither under $STRUCTMAE_DATA nor in the cache")
    modality = registry.get("modality", resolve(recipe).modality)
    found = modality.load(data, data_options(recipe, settings))
    settled = resolve(recipe, settings, data=found.card, level=found.level)
    tokenizer = modality.fit(found, settled)
    return Loaded(settled, found, tokenizer, modality.source(found, tokenizer, CPU))


def _run(turns: Turns, threads: int, work: Work, changes: Mapping[str, Any]) -> None:
    structmae.tune_cpu()
    with thread_limit(threads):
        recipe, _, tokenizer, source = load(work.recipe, work.data, {**work.settings, **ENDLESS, **changes})
        model = build(recipe, tokenizer)
        batches = -(-source.num_items // recipe.train.batch_size)
        updates = 0 if work.part == "encoder" else 1 if work.unit == "step" else batches
        turns.moved = moved(model, source, updates)
        fresh_peak()
        if work.part == "encoder":
            encode(model, source, recipe, turns)
        else:
            hook(model, "stepped" if work.unit == "step" else "begin", turns)
            fit(model, source, recipe, device=CPU, progress=False)


def hook(model: MaskedAutoencoder, method: str, turns: Turns) -> None:
    """Has the training loop come by after each step (`stepped`) or before each epoch (`begin`)."""
    its_own = getattr(model, method)

    def then(*arguments: Any) -> None:
        its_own(*arguments)
        turns()

    setattr(model, method, then)


def encode(model: MaskedAutoencoder, source: Any, recipe: Recipe, turns: Turns) -> None:
    """Forward and backward of the encoder alone, on one batch."""
    torch.manual_seed(recipe.train.seed)
    batch = Planner.of(recipe).batch(source, torch.arange(recipe.train.batch_size), visit=0, step=0)
    used = suited(recipe.train.precision, model, source, recipe.train.batch_size).name
    gradient: torch.Tensor | None = None
    model.train()
    with numerics.precision(used):
        while True:
            with numerics.autocast(used, CPU):
                latent = model.encode(batch.tokens, batch.plans).latent[model.encoder.name]
            gradient = torch.randn_like(latent) if gradient is None else gradient
            latent.backward(gradient)
            model.zero_grad(set_to_none=True)
            turns()
