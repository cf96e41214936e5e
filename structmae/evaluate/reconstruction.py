"""Reconstruction: what the heads of a run make of held-out items, hidden as in training, beside what needs no model."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from structmae.data.images import Images
from structmae.data.texts import Texts
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate.frozen import frozen
from structmae.evaluate.maps import of_maps
from structmae.evaluate.rebuilding import Asked, Held, Losses, Scorer, Tokenwise, scorer
from structmae.model import Batch, Head, MaskedAutoencoder
from structmae.nn.base import Encoder
from structmae.nn.sequence import SequenceEncoder
from structmae.planning import Planner
from structmae.recipe import Recipe

if TYPE_CHECKING:
    from structmae.run import Run

READS_RUN = True
SIMPLE = ("position_mean", "unigram", "bigram", "previous", "position")  # what a head may stand beside
Data = Images | Texts


def check(data: Any, recipe: Recipe) -> None:
    """Raises UsageError where the data are neither images nor texts, StructmaeError where there are no test items."""
    if data.level not in ("image", "text"):
        raise UsageError(f"reconstruction is of images and texts, and {data.name} is neither: leave --task out")
    if not len(data.split["test"]):
        raise StructmaeError(f"{data.name} has no test items, so there is nothing to rebuild: give three or more")


def evaluate(
    encoder: Encoder,
    initial: Encoder,
    source: Any,
    data: Data,
    recipe: Recipe,
    *,
    run: "Run",
    progress: Callable[[str], None] | None = None,
    at_once: int | None = None,
) -> dict[str, Any]:
    """What each head of `run` makes of the test items, with the plan of validation: one row a head.

    `value` is its squared error of values, its accuracy of ids and codes, of a causal model the bits of an id, of other
    heads their loss; `random_init` that of the same model before training; others what counting or averaging over the
    training items gives at the same places; of one of several maps see `maps.of_maps`. progress: takes a line as each
    head is done. at_once: items of a batch, as many as in training without it.

    Raises UsageError for a run that is fine-tuned, and as `check` does; StructmaeError too where no test document has a
    window that is long enough.
    """
    check(data, recipe)
    if not isinstance(run.model, MaskedAutoencoder) or not isinstance(encoder, SequenceEncoder):
        raise UsageError("reconstruction: a fine-tuned run has no heads that rebuild; give the run it was made of")
    rows = source.parts if isinstance(data, Texts) else data.split
    if not len(rows["test"]):
        raise StructmaeError(f"{data.name}: the test documents are too short to hide anything in: give longer ones")
    models = {"pretrained": run.model, "random_init": run.untrained()}
    held = Held(encoder, source, Planner.of(recipe), rows, at_once or recipe.train.batch_size)
    found: list[dict[str, Any]] = []
    with frozen(*models.values()):
        scorers = {name: scorer(head, held) for name, head in run.model.heads.items() if isinstance(head, Head)}
        for batch in held.batches("test"):
            _add(models, batch, scorers)
        maps = of_maps(run.model, held, recipe)
        for name, each in scorers.items():
            if not each.count:
                continue  # nothing of what it rebuilds was there
            found.append({"head": name, "target": each.head.options.target, **each.row(), **maps.get(name, {})})
            if progress is not None:
                progress("{head}: {metric} {value:.4f}, before training {random_init:.4f}".format(**found[-1]))
    if not found:
        raise StructmaeError(f"{data.name}: nothing in the test items was observed, so there is nothing to rebuild")
    first = found[0]
    return {
        "task": "reconstruction",
        "metric": first["metric"],
        "better": first["better"],
        "split": "test",
        "split_source": data.split_source,
        "pretrained": first["value"],
        **{name: first[name] for name in ("random_init", *SIMPLE) if name in first},
        "rows": found,
    }


def _add(models: Mapping[str, MaskedAutoencoder], batch: Batch, scorers: Mapping[str, Scorer]) -> None:
    """One batch of the test items."""
    encoded = {arm: model.encode(batch.tokens, batch.plans) for arm, model in models.items()}
    if any(isinstance(each, Losses) for each in scorers.values()):
        losses = {arm: model(batch).terms for arm, model in models.items()}
    for name, each in scorers.items():
        head, read = each.head, encoded["pretrained"]
        if isinstance(each, Losses):
            if all(name in terms for terms in losses.values()):
                items = len(read.tokens[head.options.of].item_id)
                each.lost({arm: terms[name] for arm, terms in losses.items()}, items)
            continue
        assert isinstance(each, Tokenwise)
        plan = batch.plans[head.options.of]
        asked = head.query(read, batch.plans)
        if not len(asked):
            continue
        zeroed: list[Tensor | None] = [plan.hidden if head.options.remask == "hidden" else None]
        if head.options.remask == "random":
            zeroed = [again.hidden for again in batch.remasks[name]]
        said = {
            arm: [_decoder(model, name)(encoded[arm], asked, places) for places in zeroed]
            for arm, model in models.items()
        }
        target, observed = head.target(read, {}, asked)
        each.add(Asked(read.tokens[head.options.of], plan, asked, target, observed, said))


def _decoder(model: MaskedAutoencoder, name: str) -> Any:
    head: Any = model.heads[name]
    return head.decoder
