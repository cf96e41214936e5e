"""Losses: plain functions of prediction and target (K, P) that give each scored token's error (K,)."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def scaled_cosine(
    prediction: Float[Tensor, "scored width"], target: Float[Tensor, "scored width"], gamma: float
) -> Float[Tensor, "scored"]:
    """(1 - cos)^gamma: the angle to the target, with easy tokens weighed down (GraphMAE, section 3.3, equation 2)."""
    return (1 - F.cosine_similarity(prediction, target, dim=-1, eps=1e-12)).clamp_min(0).pow(gamma)


def mse(
    prediction: Float[Tensor, "scored width"], target: Float[Tensor, "scored width"], gamma: float
) -> Float[Tensor, "scored"]:
    """Squared error, the mean over the width. `gamma` is not read."""
    return (prediction - target).square().mean(-1)
