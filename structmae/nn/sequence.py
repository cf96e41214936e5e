"""Encoder and decoder of tokens in a row, or on a grid: what series, images and text share."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from structmae.fast.dropout import Dropout
from structmae.masking.torch import take
from structmae.nn.base import Decoder, Encoded, Encoder, placed
from structmae.nn.gnn import ACTIVATIONS
from structmae.nn.transformer import FULL, Attention, Pattern, sines, transformer
from structmae.recipe import EncoderOptions, HeadOptions, Recipe
from structmae.tokens import TokenSet


def positions(kind: str, grid: tuple[int, ...], width: int) -> Tensor:
    """What a place adds to its token: (places, width), learned from sines on, or the sines themselves."""
    made = sines(grid, width)
    return nn.Parameter(made) if kind == "learned" else nn.Buffer(made)


def shifted(h: Tensor, start: Tensor, part: TokenSet) -> Tensor:
    """Each token in the place of the next one of its item, the first place with `start`."""
    first = part.ptr[:-1][part.ptr.diff() > 0]
    return h.roll(1, 0).index_copy(0, first, start.expand(len(first), -1).to(h.dtype))


class SequenceEncoder(Encoder):
    """Tokens of one set, `name`, each with its place on `grid`, and its type where `kinds` are several, read by a
    transformer. Positions are those of `places`, or else of the grid. What makes a vector of a token's content is up to
    the class below it (`embed`)."""

    def __init__(
        self,
        recipe: Recipe,
        tokenizer: Any,
        name: str,
        grid: tuple[int, ...],
        kinds: tuple[str, ...] = (),
        places: tuple[int, ...] = (),
    ):
        super().__init__()
        options = recipe.encoder
        self.name, self.grid, self.kinds, self.size = name, grid, kinds, int(torch.tensor(grid).prod())
        self.tokenizer, self.pool, self.width = tokenizer, options.pool, options.hidden
        self.attention, self.reach = options.attention, options.window
        self.places = places or grid
        self.position = positions(options.positions, self.places, options.hidden)
        self.kind = nn.Parameter(torch.zeros(len(kinds), options.hidden)) if len(kinds) > 1 else None
        self.start = nn.Parameter(torch.empty(1, options.hidden).normal_(std=0.02)) if options.shift else None
        self.dropout = Dropout(options.dropout)

    def read_by(self, options: EncoderOptions) -> None:
        """Makes the layers; after what embeds content, so that weights come in the order in which they are used."""
        self.body = transformer(options.layers, options.hidden, options)

    def sees(self, position: Tensor) -> Pattern:
        """Which tokens see which, by their places."""
        return pattern(self.attention, self.reach, position, self.grid)

    def how(self, tokens: dict[str, TokenSet]) -> str:
        first: Any = self.body.layers[0]
        kernels = first.attention.kernels(self.position, self.sees(torch.zeros(1, dtype=torch.long)))
        return f"attention: {'kernels of our own' if kernels else 'torch'}, {first.attention.heads} heads"

    def encode(self, h: dict[str, Tensor], tokens: dict[str, TokenSet]) -> dict[str, Tensor]:
        part = tokens[self.name]
        assert part.position is not None
        x = h[self.name] if self.start is None else shifted(h[self.name], self.start, part)
        x = x + self.position.index_select(0, part.position)
        if self.kind is not None and part.kind is not None:
            x = x + self.kind[part.kind]
        return {self.name: self.body(self.dropout(x), part.ptr, self.sees(part.position))}

    def layers(self, tokens: dict[str, TokenSet]) -> list[Float[Tensor, "items width"]]:
        """One vector an item from the output of each layer, nothing hidden: which layer is best is for a probe."""
        found: list[Tensor] = []
        hooks = [layer.register_forward_hook(lambda *at: found.append(at[2])) for layer in self.body.layers]
        try:
            encoded = self.read(tokens)
        finally:
            for hook in hooks:
                hook.remove()
        return [self.units(replace(encoded, latent={self.name: latent}))[0] for latent in found]

    def decoder(self, head: HeadOptions, options: EncoderOptions, out: int) -> Decoder:
        return SequenceDecoder(head, options, self, out)


def pattern(kind: str, reach: int, position: Tensor, grid: tuple[int, ...]) -> Pattern:
    """The pattern of an option: with `window`, the tokens' places on the grid."""
    if kind != "window":
        return FULL if kind == "full" else Pattern(kind)
    places, left = [], position
    for extent in reversed(grid):
        places.append(left % extent)
        left = left // extent
    return Pattern(kind, reach, torch.stack(places, 1))


class SequenceDecoder(Decoder):
    """Latents to predictions: one map for each token, or a transformer over all places, where those without a latent
    get a mask token of the decoder's own (He et al., CVPR 2022, section 3).

    `tied` is BERT's head: a dense layer, then the product with the encoder's embedding of ids. `cross` is MultiMAE's
    (section 3.3): the places of one type first read the latents of all.
    """

    def __init__(self, head: HeadOptions, options: EncoderOptions, encoder: SequenceEncoder, out: int):
        super().__init__()
        self.name, self.grid, self.attention, self.reach = encoder.name, encoder.grid, head.attention, options.window
        width = (head.hidden or encoder.width) if head.layers else encoder.width
        self.of = encoder.kinds.index(head.kind) if head.kind != "all" else -1
        self.body: nn.Module | None = None
        self.across: nn.Module | None = None
        if head.layers:
            options = replace(options, heads=head.heads or options.heads)
            self.bridge = nn.Linear(encoder.width, width)
            self.token = nn.Parameter(torch.empty(1, width).normal_(std=0.02))
            self.position = positions(options.positions, encoder.places, width)
            self.kind = nn.Parameter(torch.zeros(len(encoder.kinds), width)) if len(encoder.kinds) > 1 else None
            if head.decoder == "cross":
                self.across = Attention(width, options.heads, options.attention_dropout, across=True)
                self.norm = nn.LayerNorm(width)
            self.body = transformer(head.layers, width, options)
        self.before: nn.Module = nn.Identity()
        if head.tied:
            self.before = nn.Sequential(nn.Linear(width, width), ACTIVATIONS[options.activation](), nn.LayerNorm(width))
        self.out: nn.Module = encoder.scores() if head.tied else nn.Linear(width, out)

    def forward(self, encoded: Encoded, scored: Tensor, zeroed: Tensor | None) -> Tensor:
        part = encoded.seen[self.name]
        z, rows = encoded.latent[self.name], encoded.kept[self.name]
        if self.body is None:
            full = placed(z, rows, len(part))
            full = full if zeroed is None else full.index_fill(0, zeroed, 0.0)
            return self._out(take(full, scored))
        z = self.bridge(z)
        full = placed(z, rows, len(part), self.token)
        full = full if zeroed is None else full.index_fill(0, zeroed, 0.0)
        assert part.position is not None
        full = full + self.position.index_select(0, part.position)
        if self.kind is not None and part.kind is not None:
            full = full + self.kind[part.kind]
        asked = self._asked(part)
        if asked is not None and not len(asked):
            return self._out(take(full, scored))
        x, ptr, position = full, part.ptr, part.position
        assert position is not None
        if asked is not None:
            x, ptr, position = take(full, asked), torch.searchsorted(asked, part.ptr), position[asked]
        if self.across is not None:
            context = full if rows is None else full[rows]
            borders = part.ptr if rows is None else torch.searchsorted(rows, part.ptr)
            x = self.norm(x + self.across(x, ptr, context=(context, borders)))
        sees = pattern(self.attention, self.reach, position, self.grid)
        if asked is None:
            return self._out(self.body(x, ptr, sees, scored))
        # Where all places are scored, as to show them, some may not be asked: their rows are anyone's.
        return self._out(self.body(x, ptr, sees)[torch.searchsorted(asked, scored).clamp_max(len(asked) - 1)])

    def _asked(self, part: TokenSet) -> Tensor | None:
        """The places that are decoded (None: all): those that are there, of one type where types are read across."""
        asked = part.valid
        if self.across is not None and part.kind is not None:
            mine: Tensor = part.kind.eq(self.of)
            asked = mine if asked is None else mine & asked
        return None if asked is None else asked.nonzero()[:, 0]

    def _out(self, z: Tensor) -> Tensor:
        out: Tensor = self.out(self.before(z))
        return out
