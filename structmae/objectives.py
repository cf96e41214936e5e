"""Losses: plain functions of prediction and target (K, P), or (K,) ids, that give the error of each value (K, P), or of
each scored token (K,). Values that were not observed are 0 in both, and their errors are not counted."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from structmae.fast.cosine import Deferred, cosine
from structmae.fast.sparse import SparseRows, dense


def scaled_cosine(
    prediction: Float[Tensor, "scored width"] | Deferred,
    target: Float[Tensor, "scored width"] | SparseRows,
    gamma: float,
) -> Float[Tensor, "scored"]:
    """(1 - cos)^gamma: the angle to the target, with easy tokens weighed down (GraphMAE, section 3.3, equation 2)."""
    return (1 - cosine(prediction, target)).clamp_min(0).pow(gamma)


def mse(
    prediction: Float[Tensor, "scored width"], target: Float[Tensor, "scored width"], gamma: float
) -> Float[Tensor, "scored width"]:
    """Squared error. `gamma` is not read."""
    return (prediction - target).square()


def l1(
    prediction: Float[Tensor, "scored width"], target: Float[Tensor, "scored width"], gamma: float
) -> Float[Tensor, "scored width"]:
    """Absolute error. `gamma` is not read."""
    return (prediction - target).abs()


def huber(
    prediction: Float[Tensor, "scored width"], target: Float[Tensor, "scored width"], gamma: float
) -> Float[Tensor, "scored width"]:
    """Squared up to an error of 1, absolute from there on. `gamma` is not read."""
    return F.huber_loss(prediction, target, reduction="none")


def cross_entropy(
    prediction: Float[Tensor, "scored classes"], target: Int[Tensor, "scored"], gamma: float
) -> Float[Tensor, "scored"]:
    """-log of the probability that the prediction, as logits, gives the target, an id. `gamma` is not read."""
    return F.cross_entropy(prediction, target, reduction="none")


def edge_bce(
    prediction: Float[Tensor, "scored width"], target: Float[Tensor, "scored width"], gamma: float
) -> Float[Tensor, "scored width"]:
    """Binary cross-entropy of logits: whether a pair is an edge. `gamma` is not read."""
    return F.binary_cross_entropy_with_logits(prediction, target, reduction="none")


def average(
    loss: Callable[..., Tensor],
    prediction: Float[Tensor, "scored width"] | Deferred,
    target: Float[Tensor, "scored width"] | Int[Tensor, "scored"] | SparseRows,
    gamma: float,
    observed: Bool[Tensor, "scored width"] | None = None,
) -> Float[Tensor, ""] | None:
    """The mean of a loss over what was observed; None where nothing was."""
    if observed is not None:
        if not bool(observed.any()):
            return None
        prediction, target = dense(prediction).where(observed, 0.0), dense(target).where(observed, 0.0)
    error = loss(*(_in_float32(part) for part in (prediction, target)), gamma)
    if observed is None:
        return error.mean()
    counted = observed if error.dim() == 2 else observed.any(1)
    return error.where(counted, 0.0).sum() / counted.sum()


def _in_float32(part: Any) -> Any:
    """At least: what a model at bfloat16 says is compared as float32."""
    if not isinstance(part, Tensor) or not part.is_floating_point():
        return part
    return part.to(torch.promote_types(part.dtype, torch.float32))
