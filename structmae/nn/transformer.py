"""The transformer: attention over the tokens of each item, packed rows in and out."""

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch_geometric.utils import softmax

from structmae.fast import attention as fast
from structmae.fast.batchnorm import normalised
from structmae.fast.chain import product
from structmae.fast.dropout import Dropout, dropout
from structmae.fast.epilogue import activated
from structmae.masking.torch import take
from structmae.nn.gnn import ACTIVATIONS, NORMS
from structmae.precision import at_fp32
from structmae.recipe import EncoderOptions
from structmae.tokens import Relation


@dataclass(frozen=True)
class Pattern:
    """Which tokens of its item a token sees: `full` all, `causal` itself and those before, `window` those whose
    `places` (tokens, axes) are at most `reach` away on every axis, `adjacency` those that lead to it in `relation`."""

    kind: str = "full"
    reach: int = 0
    places: Int[Tensor, "tokens axes"] | None = None
    relation: Relation | None = None


FULL = Pattern()


class Attention(nn.Module):
    """Multi-head attention within items (Vaswani et al., NeurIPS 2017, section 3.2): of tokens to each other, or with
    `across` to those of a context."""

    def __init__(self, width: int, heads: int, dropout: float, *, across: bool = False):
        super().__init__()
        self.heads, self.dropout, self.across = heads, dropout, across
        self.inward = nn.Linear(width, width if across else 3 * width)
        self.context = nn.Linear(width, 2 * width) if across else None
        self.outward = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "tokens width"],
        ptr: Int[Tensor, "items_1"],
        pattern: Pattern = FULL,
        context: tuple[Float[Tensor, "others width"], Int[Tensor, "items_1"]] | None = None,
    ) -> Float[Tensor, "tokens width"]:
        out: Tensor = self.outward(self.mixed(x, ptr, pattern, context))
        return out

    def kernels(self, x: Tensor, pattern: Pattern) -> bool:
        """Whether there are faster kernels than torch's for x (tokens, width)."""
        return self.context is None and pattern.kind in ("full", "causal") and fast.suits(x, self.heads)

    def mixed(
        self, x: Tensor, ptr: Tensor, pattern: Pattern = FULL, context: tuple[Tensor, Tensor] | None = None
    ) -> Float[Tensor, "tokens width"]:
        """What each token reads of the others, all heads side by side: `forward` but for the last product."""
        causal = pattern.kind == "causal"
        if self.kernels(x, pattern) and plain(self.inward):
            made, bias = product(x, self.inward.weight), self.inward.bias
            return fast.attention(made, bias, ptr, self.heads, self.dropout, self.training, causal=causal)
        projected = self.inward(x)
        if pattern.relation is not None and pattern.kind == "adjacency":
            return self._along(projected, pattern.relation)
        if self.context is not None and context is not None:
            q, rows, _ = padded(projected, ptr)
            both, _, allowed = padded(self.context(context[0]), context[1])
            k, v = both.chunk(2, -1)
            mixed = self._mix(self._split(q), self._split(k), self._split(v), allowed, False)
        else:
            projected, rows, allowed = padded(projected, ptr)
            q, k, v = projected.view(*projected.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            if pattern.kind == "window" and pattern.places is not None:
                allowed = near(padded(pattern.places, ptr)[0], pattern.reach, allowed)
            # Padding comes last, so that with `causal` no token sees it.
            mixed = self._mix(q, k, v, None if causal else allowed, causal)
        mixed = mixed.transpose(1, 2).flatten(2).flatten(0, 1)
        return mixed if rows is None else mixed[rows]

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, width) to (B, heads, L, width / heads)."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, causal: bool) -> Tensor:
        if allowed is not None:
            allowed = allowed[:, None, None, :] if allowed.dim() == 2 else allowed[:, None]
        dropped = self.dropout if self.training else 0.0
        mix = partial(F.scaled_dot_product_attention, attn_mask=allowed, dropout_p=dropped, is_causal=causal)
        return at_fp32(mix, q, k, v)

    def _along(self, projected: Tensor, relation: Relation) -> Tensor:
        """Attention over the edges that end at a token: the work of a sparse graph, not of all pairs."""
        q, k, v = projected.view(len(projected), 3, self.heads, -1).unbind(1)
        source, target = relation.edge_index
        scores = (q[target] * k[source]).sum(-1) / math.sqrt(q.shape[-1])
        weights = dropout(softmax(scores, target, num_nodes=len(q)), self.dropout, self.training)
        return torch.zeros_like(v).index_add(0, target, weights[..., None] * v[source]).flatten(1)


def padded(
    x: Tensor, ptr: Int[Tensor, "items_1"]
) -> tuple[Tensor, Int[Tensor, "tokens"] | None, Bool[Tensor, "items longest"] | None]:
    """Packed rows as (items, longest, width); where items differ in length, the rows' places in it and where they are.
    An item without tokens gets one place of zeros, which nobody asks for."""
    counts = ptr.diff()
    longest = max(1, int(counts.max()) if len(counts) else 0)
    if len(counts) * longest == len(x):
        return x.view(len(counts), longest, -1), None, None
    item = torch.arange(len(counts), device=x.device).repeat_interleave(counts, output_size=len(x))
    rows = torch.arange(len(x), device=x.device) + (item * longest - ptr[item])
    out = x.new_zeros(len(counts) * longest, x.shape[1]).index_copy(0, rows, x)
    there = torch.arange(longest, device=x.device) < counts.clamp_min(1)[:, None]
    return out.view(len(counts), longest, -1), rows, there


def near(
    places: Int[Tensor, "items longest axes"], reach: int, there: Bool[Tensor, "items longest"] | None
) -> Bool[Tensor, "items longest longest"]:
    """Which pairs of an item's tokens are at most `reach` apart on every axis; each token is near itself."""
    apart = (places[:, :, None] - places[:, None]).abs().amax(-1)
    close = apart <= reach
    if there is not None:
        close = close & there[:, None]
    return close | torch.eye(places.shape[1], dtype=torch.bool, device=places.device)


def plain(linear: nn.Module) -> bool:
    """Whether a linear map is what it seems, so that kernels may read its weights: no other kind that a person has put
    in its place, and nothing that is hooked to it."""
    return type(linear) is nn.Linear and not linear._forward_hooks and not linear._forward_pre_hooks


class Layer(nn.Module):
    """Attention, then a perceptron for each token. Each is added to its input and then normalised (post-norm), or reads
    a normalised input and is added as it is (`prenorm`, Xiong et al., ICML 2020)."""

    def __init__(
        self,
        width: int,
        heads: int,
        feed_forward: int,
        dropout: float,
        attention_dropout: float,
        norm: str,
        act: str,
        prenorm: bool = False,
    ):
        super().__init__()
        self.prenorm = prenorm
        self.attention = Attention(width, heads, attention_dropout)
        self.perceptron = nn.Sequential(
            nn.Linear(width, feed_forward), ACTIVATIONS[act](), Dropout(dropout), nn.Linear(feed_forward, width)
        )
        self.dropout = dropout
        self.norms = nn.ModuleList(NORMS["layernorm" if norm == "none" else norm](width) for _ in range(2))

    def forward(
        self, x: Tensor, ptr: Tensor, pattern: Pattern = FULL, rows: Int[Tensor, "wanted"] | None = None
    ) -> Tensor:
        """Of the tokens `rows` only (None: of all). Those that are not wanted are read, and no more than that, unless
        statistics are of them too."""
        first, second = self.norms
        if rows is not None and isinstance(first, nn.BatchNorm1d):
            return take(self(x, ptr, pattern), rows)
        mixed = self.attention.mixed(first(x) if self.prenorm else x, ptr, pattern)
        if rows is not None:
            x, mixed = take(x, rows), take(mixed, rows)
        x = self._joined(x, mixed, self.attention.outward, None if self.prenorm else first)
        rise, act, _, fall = self.perceptron
        read = second(x) if self.prenorm else x
        if isinstance(rise, nn.Linear) and plain(rise):
            h = activated(product(read, rise.weight), rise.bias, act, self.dropout, self.training)
        else:
            h = dropout(act(rise(read)), self.dropout, self.training)
        return self._joined(x, h, fall, None if self.prenorm else second)

    def _joined(self, x: Tensor, branch: Tensor, last: nn.Module, norm: nn.Module | None) -> Tensor:
        """x and the end of a branch, a product of which some is dropped; their sum normalised, by post-norm."""
        if isinstance(last, nn.Linear) and plain(last):
            return normalised(x, product(branch, last.weight), last.bias, self.dropout, norm, self.training)
        out: Tensor = x + dropout(last(branch), self.dropout, self.training)
        return out if norm is None else torch.as_tensor(norm(out))


class Transformer(nn.Module):
    """Layers over packed tokens: (tokens, width) and the items' borders to (tokens, width).

    Tokens see those of their own item only, by `pattern`; batch normalisation takes its statistics over all tokens that
    are there, which padding is not. With `prenorm` one more layer normalisation ends it.
    """

    def __init__(
        self,
        layers: int,
        width: int,
        *,
        heads: int,
        feed_forward: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        norm: str = "layernorm",
        activation: str = "gelu",
        prenorm: bool = False,
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            Layer(width, heads, feed_forward, dropout, attention_dropout, norm, activation, prenorm)
            for _ in range(layers)
        )
        self.end = nn.LayerNorm(width) if prenorm else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "tokens width"],
        ptr: Int[Tensor, "items_1"],
        pattern: Pattern = FULL,
        rows: Int[Tensor, "wanted"] | None = None,
    ) -> Float[Tensor, "rows width"]:
        """All tokens, or the different ones `rows`."""
        if not len(x):  # everything was dropped, or nothing observed
            return x
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x, ptr, pattern, rows if number == last else None)
        out: Tensor = self.end(x)
        return out


def transformer(layers: int, width: int, options: EncoderOptions) -> Transformer:
    """With the settings of a recipe's encoder."""
    return Transformer(
        layers,
        width,
        heads=options.heads,
        feed_forward=options.feed_forward,
        dropout=options.dropout,
        attention_dropout=options.attention_dropout,
        norm=options.norm,
        activation=options.activation,
        prenorm=options.prenorm,
    )


def waves(places: int, width: int) -> Float[Tensor, "{places} {width}"]:
    """Sines and cosines of the place at wavelengths from 2 pi to 2 pi x 10,000 (Vaswani et al., section 3.5): where
    learned positions start. Near places are alike from the first step on, which small random numbers are not."""
    rates = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2) / width)
    angles = torch.arange(places)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]


def sines(grid: tuple[int, ...], width: int) -> Float[Tensor, "places {width}"]:
    """`waves` of each axis of a grid side by side, row-major: 2-D positions as in MAE (He et al., CVPR 2022, appendix
    A.1). Axes of one place are left out; a width that they can't share evenly is filled up with zeros."""
    axes = [axis for axis, places in enumerate(grid) if places > 1] or [0]
    share = width // len(axes)
    at = torch.cartesian_prod(*(torch.arange(places) for places in grid)).reshape(-1, len(grid))
    parts = [waves(grid[axis], share)[at[:, axis]] for axis in axes]
    return F.pad(torch.cat(parts, 1), (0, width - share * len(axes)))
