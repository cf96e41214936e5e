"""What is compared: the encoder, the same one before training, and features that need no training at all."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from structmae.nn.base import Encoder
from structmae.nn.gnn import averaged, pooled
from structmae.tokens import Source, TokenSet
from structmae.tokens.graph import GraphSource

ARMS = ("pretrained", "random_init", "raw_features", "propagated_features")
HOPS = 2


def propagate(tokens: TokenSet, hops: int = HOPS) -> Float[Tensor, "tokens width"]:
    """Features averaged over neighbours `hops` times (Wu et al., ICML 2019)."""
    return averaged(tokens.values, tokens.relations["edges"], hops)


def embed(encoder: Encoder, source: Source, *, at_once: int = 256) -> Float[Tensor, "rows width"]:
    """The encoder's vectors of every token, or of every item where it pools, in order, on the CPU."""
    training = encoder.training
    encoder.eval()
    with torch.no_grad():
        parts = [encoder.represent(tokens).cpu() for tokens in source.sweep(at_once)]
    encoder.train(training)
    return torch.cat(parts)


def side_by_side(parts: Sequence[Float[Tensor, "rows _"]]) -> Float[Tensor, "rows width"]:
    """Vectors of several encoders as one of each row: each of length 1, so that none speaks for all."""
    return torch.cat([functional.normalize(part) for part in parts], 1)


def arms(
    encoder: Encoder, random: Encoder, source: GraphSource, *, pool: str
) -> dict[str, Float[Tensor, "rows width"]]:
    """Features of every arm: one row a node, or a graph's where `pool` is not "none"."""
    whole = source.all["node"]
    plain = {"raw_features": whole.values, "propagated_features": propagate(whole)}
    if pool != "none":
        plain = {name: pooled(x, whole.batch, source.num_items, pool) for name, x in plain.items()}
    return {"pretrained": embed(encoder, source), "random_init": embed(random, source), **plain}
