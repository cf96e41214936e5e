"""One vector an item from a frozen encoder, and whether these vectors fill the space that they are in."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from structmae.nn.base import Encoder
from structmae.nn.sequence import SequenceEncoder
from structmae.tokens import Source

MOST = 2_000  # rows that singular values are taken of: the work grows with the square


def item_vectors(encoder: Encoder, source: Source, *, at_once: int = 256) -> Float[Tensor, "items width"]:
    """What losses compare (`Encoder.units`) of all data in order, nothing hidden, on the CPU. The encoder is to be
    frozen."""
    return torch.cat([encoder.units(encoder.read(tokens))[0].cpu() for tokens in source.sweep(at_once)])


def layer_vectors(
    encoder: SequenceEncoder, source: Source, *, at_once: int = 256
) -> list[Float[Tensor, "items width"]]:
    """As `item_vectors`, of the output of each layer."""
    parts = [[layer.cpu() for layer in encoder.layers(tokens)] for tokens in source.sweep(at_once)]
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def standardised(x: Float[Tensor, "items width"], fitted: Float[Tensor, "some width"]) -> Float[Tensor, "items width"]:
    """`x` by the mean and deviation of each column of `fitted`; a column that is constant there is divided by 1."""
    deviation, mean = torch.std_mean(fitted.double(), 0, correction=0)
    deviation = torch.where(deviation > 1e-6 * (mean.abs() + 1e-6), deviation, 1.0)
    return ((x.double() - mean) / deviation).float()


def effective_rank(x: Float[Tensor, "items width"]) -> float:
    """exp of the entropy of the singular values of the centred rows, as shares of their sum (Roy and Vetterli, EUSIPCO
    2007): how many directions the rows differ in. 0 where they are all the same. Of many rows, evenly spaced ones."""
    whole = x[:: -(-len(x) // MOST) or 1].double()
    values = torch.linalg.svdvals(whole - whole.mean(0))
    rounding = max(x.shape) * torch.finfo(x.dtype).eps * float(torch.linalg.matrix_norm(whole, 2))
    values = values[values > rounding]
    if not len(values):
        return 0.0
    shares = values / values.sum()
    return float((-(shares * shares.log()).sum()).exp())


def spread(x: Float[Tensor, "items width"]) -> float:
    """The mean over columns of the deviation of rows of length 1, times the root of the width (Chen and He, SimSiam,
    CVPR 2021, section 4.1): 1 where they point in all directions alike, 0 where all point in one."""
    directions = F.normalize(x.double(), dim=1)
    return float(directions.std(0, correction=0).mean() * x.shape[1] ** 0.5)
