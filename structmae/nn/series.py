"""The encoder and the decoder of series: transformers over segments."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from structmae.errors import StructmaeError
from structmae.nn.base import Decoder, Encoded
from structmae.nn.gnn import pooled
from structmae.nn.sequence import SequenceEncoder, pattern, positions
from structmae.nn.transformer import transformer
from structmae.recipe import EncoderOptions, HeadOptions, Recipe
from structmae.tokens import TokenSet
from structmae.tokens.series import SeriesTokenizer, normalized


class SeriesEncoder(SequenceEncoder):
    """Series to vectors: `encoder(x, observed=None)`, x (B, C, T), a plain module to fine-tune.

    It takes values as the data set has them; scaling and normalising are its own business. Each series is an item of
    its own, with weights that all share; where channels are `mixed`, a step's channels are read together and a window
    is one sequence.
    """

    def __init__(self, recipe: Recipe, tokenizer: SeriesTokenizer):
        size = tokenizer.grid[0] * tokenizer.grid[1]  # tokens of a series
        # Positions of a spectrogram are of its patches in a row, its windows of attention along both axes.
        super().__init__(recipe, tokenizer, "segment", tokenizer.grid, places=(size,))
        options = recipe.encoder
        self.mixed, self.window_norm = options.channels == "mixed", tokenizer.window_norm
        self.token_widths = {"segment": tokenizer.width}
        # Mixed channels are hidden as they are, values and what is missing; a series alone as a vector.
        self.content_widths = {"segment": 2 * tokenizer.width if self.mixed else options.hidden}
        width = tokenizer.width * (len(tokenizer.channels) if self.mixed else 1)
        self.project = nn.Linear(width, options.hidden, bias=False)  # the positions are its bias
        self.missing = nn.Linear(width, options.hidden, bias=False)
        nn.init.zeros_(self.missing.weight)  # a missing value is the mean until training says more
        self.read_by(options)

    def forward(self, x: Tensor, observed: Bool[Tensor, "B C T"] | None = None) -> Float[Tensor, "rows width"]:
        """One vector a token (B * C * L), or one a window where the recipe pools: (B, C * width), (B, width) if mixed.

        x: raw values; NaN, and values where `observed` is False, are missing. T up to the context; a shorter window is
        read as the end of one (where the encoder learned of recordings: as the beginning). Where there are other
        channels than it learned of, each series is scaled by its own values. Raises StructmaeError for channels or
        lengths that the encoder can't read.
        """
        if x.dim() != 3 or not len(x):
            raise StructmaeError(f"x of shape {tuple(x.shape)}: must be (B, C, T), windows by channels by rows")
        x = x.to(self.project.weight.dtype)
        own = x.shape[1] == len(self.tokenizer.channels)
        if not own and (self.mixed or not self.window_norm):
            raise StructmaeError(f"x has {x.shape[1]} channels: this encoder reads {len(self.tokenizer.channels)}")
        there = ~x.isnan() if observed is None else observed & ~x.isnan()
        mean, deviation = self.tokenizer.mean[:, None], self.tokenizer.deviation[:, None]
        # Others have no scaler, and the window's statistics alone would take small units for a constant.
        x = (x - mean) / deviation if own else _standard(x, there)
        ids = torch.arange(len(x), device=x.device)
        return self.represent(self.tokenizer.tokens(x, there, ids))

    def prepare(self, tokens: dict[str, TokenSet], visible: dict[str, Tensor] | None) -> dict[str, TokenSet]:
        if not self.window_norm:
            return tokens
        seen = None if visible is None else visible["segment"]
        return {"segment": normalized(tokens["segment"], seen)[0]}

    def embed(self, tokens: dict[str, TokenSet]) -> dict[str, Tensor]:
        part = tokens["segment"]
        if self.mixed:
            gone = torch.zeros_like(part.values) if part.observed is None else (~part.observed).to(part.values.dtype)
            return {"segment": torch.cat([part.values, gone], 1)}
        h = self.project(part.values)
        if part.observed is not None:
            h = h + self.missing((~part.observed).to(h.dtype))
        return {"segment": h}

    def encode(self, h: dict[str, Tensor], tokens: dict[str, TokenSet]) -> dict[str, Tensor]:
        part, position = tokens["segment"], tokens["segment"].position
        assert position is not None
        if not self.mixed:
            return super().encode(h, tokens)
        channels = len(self.tokenizer.channels)
        windows = len(part.item_id) // channels
        step = part.batch // channels * self.size + position
        steps = h["segment"].new_zeros(windows * self.size, channels, 2 * self.tokenizer.width)
        steps[..., self.tokenizer.width :] = 1.0  # missing, where there is no token
        steps = steps.index_put((step, part.batch % channels), h["segment"])
        there = torch.unique(step)  # a step of which nothing is left is no token
        seen, gone = torch.split(steps[there], self.tokenizer.width, 2)
        x = self.project(seen.flatten(1)) + self.missing(gone.flatten(1)) + self.position[there % self.size]
        borders = torch.arange(0, len(steps) + 1, self.size, device=there.device)
        latent = self.body(self.dropout(x), torch.searchsorted(there, borders), self.sees(there % self.size))
        return {"step": latent.new_zeros(len(steps), self.width).index_copy(0, there, latent)}

    def spread(self, encoded: Encoded) -> Tensor:
        """Latents by place: a row a token (mixed: a step), zeros where there is none."""
        return encoded.latent["step"] if self.mixed else super().spread(encoded)

    def features(self, tokens: dict[str, TokenSet]) -> Float[Tensor, "rows features"]:
        """All latents of a series in a row (mixed: of a window), for a head to read."""
        return self.flat(self.read(tokens))

    def flat(self, encoded: Encoded) -> Float[Tensor, "rows features"]:
        """As `features`, of what has been read."""
        return self.spread(encoded).reshape(-1, self.size * self.width)

    def vectors(self, encoded: Encoded) -> Float[Tensor, "rows width"]:
        vectors = super().vectors(encoded)
        if self.mixed or self.pool == "none":
            return vectors
        return vectors.reshape(-1, encoded.tokens["segment"].members * self.width)

    def pooled(self, encoded: Encoded, how: str) -> Tensor:
        if not self.mixed:
            return super().pooled(encoded, how)
        part, rows, latent = encoded.tokens["segment"], encoded.kept["segment"], encoded.latent["step"]
        of = part.batch if rows is None else part.batch[rows]
        place = torch.arange(len(part), device=latent.device) if rows is None else rows
        steps = torch.unique(of // part.members * self.size + place % self.size)
        return pooled(latent[steps], steps // self.size, len(part.item_id) // part.members, how)

    def decoder(self, head: HeadOptions, options: EncoderOptions, out: int) -> Decoder:
        return StepDecoder(head, options, self, out) if self.mixed else super().decoder(head, options, out)


class StepDecoder(Decoder):
    """Latents of steps, which are all channels at once, to segments: one map, or a transformer first."""

    def __init__(self, head: HeadOptions, options: EncoderOptions, encoder: SeriesEncoder, out: int):
        super().__init__()
        width = (head.hidden or encoder.width) if head.layers else encoder.width
        self.size, self.channels = encoder.size, len(encoder.tokenizer.channels)
        self.grid, self.attention, self.reach = encoder.grid, head.attention, options.window
        self.body: nn.Module | None = None
        if head.layers:
            self.bridge = nn.Linear(encoder.width, width)
            self.position = positions(options.positions, encoder.places, width)
            self.body = transformer(head.layers, width, replace(options, heads=head.heads or options.heads))
        self.out = nn.Linear(width, out * self.channels)

    def forward(self, encoded: Encoded, scored: Tensor, zeroed: Tensor | None) -> Tensor:
        z, part = encoded.latent["step"], encoded.seen["segment"]
        if self.body is not None:
            z = self.bridge(z) + self.position.repeat(len(z) // self.size, 1)
            steps = torch.arange(self.size, device=z.device).repeat(len(z) // self.size)
            sees = pattern(self.attention, self.reach, steps, self.grid)
            z = self.body(z, torch.arange(0, len(z) + 1, self.size, device=z.device), sees)
        out = self.out(z).reshape(len(z) // self.size, self.size, self.channels, -1)
        every: Tensor = out.transpose(1, 2).reshape(len(part), -1)
        return every[scored]


def _standard(x: Tensor, there: Tensor) -> Tensor:
    """Each series (B, C, T) by the mean and deviation of its observed values; a constant one by 1."""
    count = there.sum(-1, keepdim=True).clamp_min(1)
    x = x - x.where(there, 0.0).sum(-1, keepdim=True) / count
    deviation = (x.where(there, 0.0).square().sum(-1, keepdim=True) / count).sqrt()
    return x / deviation.where(deviation > 0, 1.0)
