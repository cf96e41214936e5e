"""Parts by name: the built-in ones, imported when first asked for, and those a person registers.

A recipe names its parts ("gat", "sce"); a modality and a task are modules with the functions of the built-in ones.
This table says which code a name stands for. Nothing heavy is imported until
`get`. A checkpoint holds names only, so loading a run never runs code that came with it.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from structmae.errors import UsageError

T = TypeVar("T")

_PARTS: dict[str, dict[str, Any]] = {
    "recipe": {
        "graphmae": "structmae.recipes.graphmae:RECIPE",
        "patchtst": "structmae.recipes.patchtst:RECIPE",
        "tsformer": "structmae.recipes.tsformer:RECIPE",
        "spans": "structmae.recipes.spans:RECIPE",
        "spectrogram": "structmae.recipes.spectrogram:RECIPE",
        "gmae": "structmae.recipes.gmae:RECIPE",
        "graphmae2": "structmae.recipes.graphmae2:RECIPE",
        "maskgae_edge": "structmae.recipes.maskgae_edge:RECIPE",
        "maskgae_path": "structmae.recipes.maskgae_path:RECIPE",
        "duo": "structmae.recipes.duo:RECIPE",
        "structguided": "structmae.recipes.structguided:RECIPE",
        "mae": "structmae.recipes.mae:RECIPE",
        "multimae": "structmae.recipes.multimae:RECIPE",
        "cmae": "structmae.recipes.cmae:RECIPE",
        "igpt": "structmae.recipes.igpt:RECIPE",
        "igpt_masked": "structmae.recipes.igpt:MASKED",
        "bert": "structmae.recipes.bert:RECIPE",
    },
    "layer": {
        "gat": "structmae.nn.gnn:gat_layer",
        "gcn": "structmae.nn.gnn:gcn_layer",
        "gin": "structmae.nn.gnn:gin_layer",
        "mlp": "structmae.nn.gnn:mlp_layer",
    },
    "loss": {
        "sce": "structmae.objectives:scaled_cosine",
        "mse": "structmae.objectives:mse",
        "l1": "structmae.objectives:l1",
        "huber": "structmae.objectives:huber",
        "ce": "structmae.objectives:cross_entropy",
        "bce": "structmae.objectives:edge_bce",
    },
    "modality": {
        "graph": "structmae.graph",
        "series": "structmae.series",
        "image": "structmae.image",
        "text": "structmae.text",
    },
    "finetune": {
        "node_classification": "structmae.tuning.classification",
        "graph_classification": "structmae.tuning.classification",
        "classification": "structmae.tuning.classification",
        "forecasting": "structmae.tuning.forecasting",
    },
    "task": {
        "node_classification": "structmae.evaluate.node_classification",
        "graph_classification": "structmae.evaluate.graph_classification",
        "forecasting": "structmae.evaluate.forecasting",
        "imputation": "structmae.evaluate.imputation",
        "classification": "structmae.evaluate.series_classification",
        "link_prediction": "structmae.evaluate.link_prediction",
        "image_classification": "structmae.evaluate.image_classification",
        "reconstruction": "structmae.evaluate.reconstruction",
        "clustering": "structmae.evaluate.clustering",
    },
}


def near(word: str, words: list[str]) -> str:
    """The end of an error message about an unknown `word`: near misses where there are some, else all of `words`."""
    from difflib import get_close_matches

    close = get_close_matches(word.lower(), words, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"there are {', '.join(words)}" if len(words) <= 12 else "`structmae recipes NAME` lists them all"


def names(kind: str) -> list[str]:
    """Names of the parts of one kind: "recipe", "layer", "loss", "modality" or "task"."""
    if kind not in _PARTS:
        raise UsageError(f"unknown kind of part {kind!r}: {near(kind, list(_PARTS))}")
    return list(_PARTS[kind])


def check(kind: str, name: str) -> None:
    """Raises UsageError with near misses for a name nobody registered. Imports nothing."""
    if name not in names(kind):
        own = "; a part of your own comes with --import FILE.py or structmae.register"
        raise UsageError(f"unknown {kind} {name!r}: {near(name, names(kind))}{own}")


def get(kind: str, name: str) -> Any:
    """The part that `name` stands for. Raises UsageError as `check` does."""
    check(kind, name)
    part = _PARTS[kind][name]
    if isinstance(part, str):
        module, _, attribute = part.partition(":")
        loaded = import_module(module)
        part = _PARTS[kind][name] = getattr(loaded, attribute) if attribute else loaded
    return part


def register(kind: str, name: str) -> Callable[[T], T]:
    """Decorator that adds a part of one's own under a name that recipes and `--set` then know.

        @structmae.register("loss", "mae")
        def mean_absolute(prediction, target, gamma):
            return (prediction - target).abs().mean(-1)

    A recipe is a value, so it is passed: `structmae.register("recipe", "mine")(Recipe(...))`.
    Raises UsageError for an unknown kind or a name that is taken.
    """

    def add(part: T) -> T:
        if name in names(kind):
            raise UsageError(f"{kind} {name!r} is registered already: choose another name")
        _PARTS[kind][name] = part
        return part

    return add
