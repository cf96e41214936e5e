"""An encoder with a head for a task that has labels: what fine-tuning trains."""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from structmae.evaluate.frozen import features
from structmae.evaluate.heads import unfold
from structmae.model import Batch, Losses, Trainable
from structmae.nn.base import Encoded, Encoder
from structmae.nn.series import SeriesEncoder
from structmae.recipe import Recipe
from structmae.tokens import Source


class TaskHead(nn.Module, ABC):
    """Latents to what a task asks for."""

    @abstractmethod
    def forward(self, encoder: Encoder, encoded: Encoded, target: dict[str, Tensor]) -> Tensor:
        """The prediction. `target` holds what else it reads of the batch, beside what it is to say."""

    @abstractmethod
    def loss(self, prediction: Tensor, target: dict[str, Tensor]) -> Tensor | None:
        """The mean error over what is known; None where nothing is."""


class TaskModel(Trainable):
    """Encoder and head. The encoder is frozen for the first `finetune.head_epochs`; then both are trained, each with a
    learning rate of its own. With `finetune.mask_ratio`, tokens are hidden from it as in pre-training (Huang et al.,
    Audio-MAE, NeurIPS 2022, section 3)."""

    def __init__(self, recipe: Recipe, encoder: Encoder, head: TaskHead):
        super().__init__()
        self.encoder, self.head, self.options = encoder, head, recipe.finetune
        self.tokens = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(1, width)) for name, width in encoder.content_widths.items()}
            if self.options.mask_ratio
            else {}
        )

    def forward(self, batch: Batch) -> Losses:
        assert batch.target is not None
        prediction = self.predict(batch, hide=bool(self.options.mask_ratio))
        loss = self.head.loss(prediction, batch.target)
        return Losses(loss, {} if loss is None else {"task": loss})

    def predict(self, batch: Batch, *, hide: bool = False) -> Tensor:
        """The head's output for the batch, with nothing hidden unless `hide`."""
        assert batch.target is not None
        plans, tokens = (batch.plans, dict(self.tokens.items())) if hide else (None, None)
        prediction: Tensor = self.head(self.encoder, self.encoder.read(batch.tokens, plans, tokens), batch.target)
        return prediction

    def groups(self) -> list[dict[str, Any]]:
        slow = self.options.encoder_lr / self.options.lr
        return [
            {"params": list(self.head.parameters())},
            {"params": [*self.encoder.parameters(), *self.tokens.parameters()], "scale": slow},
        ]

    def begin(self, epoch: int, source: Source) -> None:
        frozen = epoch < self.options.head_epochs
        self.encoder.train(not frozen)
        self.encoder.requires_grad_(not frozen)


class ClassHead(TaskHead):
    """A linear map of normalised vectors to class scores (He et al., CVPR 2022, appendix A.1: a batch normalisation
    without weights before it)."""

    def __init__(self, width: int, classes: int, dropout: float):
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm1d(width, affine=False), nn.Dropout(dropout)
        self.out = nn.Linear(width, classes)

    def forward(self, encoder: Encoder, encoded: Encoded, target: dict[str, Tensor]) -> Tensor:
        out: Tensor = self.out(self.dropout(self.norm(encoder.vectors(encoded))))
        return out

    def loss(self, prediction: Tensor, target: dict[str, Tensor]) -> Tensor | None:
        rows = target.get("rows")
        return F.cross_entropy(prediction if rows is None else prediction[rows], target["y"])


class ForecastHead(TaskHead):
    """A linear map of all latents of a window, and with `skip` of its own values, to `horizon` rows ahead.

    Features are those of `evaluate.frozen.Latents`, so the ridge on a frozen encoder is where training starts.
    """

    def __init__(self, latents: int, context: int, horizon: int, channels: int, *, skip: bool, dropout: float):
        """channels: of a row; 1 where each series is a row of its own."""
        super().__init__()
        self.horizon, self.channels, self.skip, self.dropout = horizon, channels, skip, nn.Dropout(dropout)
        width = latents + 1 + (context * channels + 1 if skip else 0)
        self.weight = nn.Parameter(torch.zeros(width, horizon * channels))

    def forward(self, encoder: Encoder, encoded: Encoded, target: dict[str, Tensor]) -> Tensor:
        """(B, C, horizon), scaled. Of target: mean and deviation (B, C) of the windows, and NLinear's `own` features
        and `level`."""
        assert isinstance(encoder, SeriesEncoder)
        together = self.channels > 1
        own = (target["own"], target["level"]) if self.skip else None
        flat = self.dropout(encoder.flat(encoded))
        rows, level = features(flat, target["mean"], target["deviation"], own, together)
        return unfold(rows @ self.weight, level, together)

    def loss(self, prediction: Tensor, target: dict[str, Tensor]) -> Tensor | None:
        observed = target["observed"]
        if not bool(observed.any()):
            return None
        return (prediction - target["y"]).masked_fill(~observed, 0.0).square().sum() / observed.sum()
