"""tsai, both ways: its data sets as series, and a pre-trained encoder as a model for its learners.

    >>> import numpy as np, torch, structmae
    >>> from structmae.tsai import from_tsai, to_tsai
    >>> X, y = np.random.default_rng(0).normal(size=(12, 2, 32)), np.array(["sit", "run"] * 6)
    >>> series = from_tsai(X, y, (list(range(8)), list(range(8, 12))), name="steps")
    >>> run = structmae.pretrain(series, "patchtst", settings={"train.epochs": 2}, progress=False)
    >>> model = to_tsai(run, classes=2)
    >>> model(torch.tensor(X, dtype=torch.float32)).shape
    torch.Size([12, 2])

With tsai the last step is a learner, `TSClassifier(X, y, splits=splits, arch=model)` or `ts_learner(dls, model)`, which
find backbone and head by themselves; a plain fastai `Learner` is given `splitter=splitter`. The model takes values as
the data set has them, so batches are not standardised before it. Nothing here imports tsai or fastai: their objects are
read by what they offer, so the adapter works without them.
"""

import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from structmae.data.series import Series
from structmae.data.series_loading import load_series
from structmae.data.series_tables import slug
from structmae.errors import StructmaeError, UsageError
from structmae.nn.series import SeriesEncoder
from structmae.run import Run, load

POOLS = ("mean", "max", "sum")


def from_tsai(X: Any, y: Any = None, splits: Any = None, *, name: str = "samples") -> Series:  # noqa: N803
    """Labelled recordings, as tsai holds them, as series that `structmae.pretrain` takes.

    Arguments:
        X: (samples, channels, steps), NaN where missing; or tsai's TSDatasets or TSDataLoaders, which bring their
            labels and splits, and the variables and steps that they select.
        y: (samples,) labels, None where there are none.
        splits: tuple of index lists, as tsai's `get_splits` gives them: train and valid, or train, valid and test. Of
            two the second is the test part. None: split anew, stratified.
        name: what the series are called.

    Returns:
        Series of level "sample". Of data sets and loaders the recordings come part by part, without the batch
        transforms.

    Raises:
        UsageError: labels or splits beside an object that has its own.
        StructmaeError: other shapes, labels that are no classes, splits that overlap or are out of range.
    """
    if hasattr(X, "loaders") or hasattr(X, "tls"):
        if y is not None or splits is not None:
            raise UsageError(f"{type(X).__name__} brings its own labels and splits: leave y and splits out")
        X, y, splits = _whole(X)  # noqa: N806
    return replace(load_series((X, y, splits)), name=slug(name))


def to_tsai(
    run: Run | str | os.PathLike[str],
    classes: int,
    *,
    pool: str | None = None,
    channels: int | None = None,
    freeze: bool = False,
) -> "TsaiModel":
    """A copy of a run's encoder with a new head: x (B, C, T) -> (B, classes).

    Arguments:
        run: of series, or its folder. Training the model leaves it as it is.
        classes: outputs of the head: `dls.c`.
        pool: of a series' tokens to one vector: mean, max or sum. None: as the recipe has it, mean where it has none.
        channels: of x, where they are not those of pre-training (an encoder that reads each series alone takes any).
        freeze: the backbone begins frozen, and stays in evaluation mode until something unfreezes it.

    Raises:
        UsageError: a run that is not of series; classes, pool or channels that can't be.
        StructmaeError: a folder that holds no finished run.
    """
    run = run if isinstance(run, Run) else load(run)
    encoder = run.encoder
    if not isinstance(encoder, SeriesEncoder):
        raise UsageError(f"{run!r} is of {run.recipe.modality} data: tsai reads series")
    if classes < 1:
        raise UsageError(f"classes={classes}: the head needs an output or more, dls.c of them")
    if pool is not None and pool not in POOLS:
        raise UsageError(f"pool={pool!r} is not a choice: there are {', '.join(POOLS)}")
    own = len(encoder.tokenizer.channels)
    if channels not in (None, own) and (encoder.mixed or not encoder.window_norm):
        raise UsageError(f"channels={channels}: this encoder reads the {own} channels that it was trained on")
    backbone = Backbone(encoder, pool)
    width = encoder.width * (1 if encoder.mixed else channels or own)
    head = nn.Sequential(
        nn.BatchNorm1d(width, affine=False), nn.Dropout(run.recipe.finetune.dropout), nn.Linear(width, classes)
    )
    made = TsaiModel(backbone, head.to(run.device))
    made.backbone.requires_grad_(not freeze)
    return made.eval()


class Backbone(nn.Module):
    """A copy of an encoder: x (B, C, T), NaN where missing, to a vector a window (B, width)."""

    def __init__(self, encoder: SeriesEncoder, pool: str | None = None):
        super().__init__()
        self.encoder = deepcopy(encoder)
        self.encoder.pool = pool or (encoder.pool if encoder.pool != "none" else "mean")

    def forward(self, x: Float[Tensor, "B C T"]) -> Float[Tensor, "B width"]:
        """What `run.encoder(x)` gives where x fits its context. A longer x is read in windows side by side, whose
        vectors are averaged, each counted by its steps in which something was observed."""
        x = x.as_subclass(Tensor).float()
        parts = torch.split(x, self.encoder.tokenizer.context, dim=-1)
        if len(parts) == 1:
            return torch.as_tensor(self.encoder(x))
        vectors = torch.stack([self.encoder(part) for part in parts])
        weight = torch.stack([(~part.isnan()).any(1).sum(-1) for part in parts]).to(x.dtype)
        return (vectors * (weight / weight.sum(0).clamp_min(1))[..., None]).sum(0)


class TsaiModel(nn.Module):
    """`backbone` and `head`, the names by which tsai finds the two groups of parameters."""

    def __init__(self, backbone: Backbone, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Float[Tensor, "B C T"]) -> Float[Tensor, "B classes"]:
        out: Tensor = self.head(self.backbone(x))
        return out

    def train(self, mode: bool = True) -> Self:
        """As ever, but a backbone of which nothing is trained keeps its dropout and running statistics still."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.eval()
        return self


def splitter(model: TsaiModel) -> list[list[nn.Parameter]]:
    """The parameters of backbone and head apart, for `Learner(..., splitter=splitter)`: `freeze` and `fine_tune` then
    train the head first (and fastai's habit, the norms of the backbone, unless train_bn=False)."""
    return [list(model.backbone.parameters()), list(model.head.parameters())]


def _whole(data: Any) -> tuple[Any, Any, Any]:
    """X, labels and splits of TSDatasets or TSDataLoaders."""
    if hasattr(data, "loaders"):
        parts = [loader.dataset for loader in data.loaders]
    else:
        parts = [data] if data.splits is None else [data.subset(index) for index in range(len(data.splits))]
    read = [part[np.arange(len(part))] for part in parts if len(part)]
    if not read:
        raise StructmaeError(f"{type(data).__name__} is empty: give a data set with samples")
    x = np.concatenate([_array(items[0]) for items in read])
    y = np.concatenate([_array(items[1]) for items in read]) if len(read[0]) > 1 else None
    vocab: Sequence[Any] | None = getattr(parts[0], "vocab", None)
    if y is not None and vocab is not None:
        y = np.asarray([str(name) for name in vocab])[y]
    if len(parts) == 1:
        return x, y, None
    ends = np.cumsum([0, *(len(part) for part in parts)])
    return x, y, tuple(np.arange(ends[at], ends[at + 1]) for at in range(len(parts)))


def _array(part: Any) -> Any:
    """Numbers of a tensor of one of tsai's types."""
    return part.detach().cpu().numpy() if isinstance(part, Tensor) else np.asarray(part)
