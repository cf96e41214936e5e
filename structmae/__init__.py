"""Masked-autoencoder pre-training on structured data.

    >>> import structmae
    >>> run = structmae.pretrain("karate", settings={"train.epochs": 5}, progress=False)
    >>> run.embed().shape
    torch.Size([34, 256])

Importing this loads nothing heavy; a name loads what it needs when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from structmae.errors import StructmaeError, UsageError
from structmae.registry import register

if TYPE_CHECKING:
    from structmae.data import Graphs, Images, Series, Texts
    from structmae.data import load as load_data
    from structmae.finetuning import finetune
    from structmae.malloc import tune_cpu
    from structmae.pretraining import pretrain
    from structmae.recipe import Recipe, resolve
    from structmae.run import Run, load

__version__ = "0.1.0"

__all__ = [
    "Graphs",
    "Images",
    "Series",
    "Texts",
    "Recipe",
    "Run",
    "StructmaeError",
    "UsageError",
    "finetune",
    "load",
    "load_data",
    "pretrain",
    "register",
    "resolve",
    "tune_cpu",
]

_WHERE = {
    "Graphs": "structmae.data:Graphs",
    "Images": "structmae.data:Images",
    "Series": "structmae.data:Series",
    "Texts": "structmae.data:Texts",
    "finetune": "structmae.finetuning:finetune",
    "Recipe": "structmae.recipe:Recipe",
    "Run": "structmae.run:Run",
    "load": "structmae.run:load",
    "load_data": "structmae.data:load",
    "pretrain": "structmae.pretraining:pretrain",
    "resolve": "structmae.recipe:resolve",
    "tune_cpu": "structmae.malloc:tune_cpu",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'structmae' has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    return getattr(import_module(module), attribute)
