"""Stand-ins for a series, its source and an encoder: arrays, and linear features."""

from types import SimpleNamespace

import numpy as np
import torch

from structmae.data.series import Series, SeriesSchema
from structmae.nn.base import Encoder as Base
from structmae.nn.series import SeriesEncoder
from structmae.options import EncoderOptions, TokenOptions
from structmae.recipe import Recipe
from structmae.tokens.series import SeriesSource, SeriesTokenizer

SPLIT = {"train": (0, 240), "validation": (240, 320), "test": (320, 400)}


def panel(values, *, split=None, horizons=(4, 8), period=6, name="made"):
    """A `Series` of one recording (R, C)."""
    values = np.asarray(values, np.float32)
    channels = tuple(f"c{index}" for index in range(values.shape[1]))
    borders = {part: np.array(ends) for part, ends in (split or SPLIT).items()}
    return Series(
        name, values, np.array([0, len(values)]), "panel", channels, None, None, period, None, (), borders, "rows",
        tuple(horizons), SeriesSchema(channels), {}, (),
    )  # fmt: skip


def samples(values, lengths, y, *, split, classes=("a", "b")):
    """A `Series` of recordings, one after another in `values` (R, C)."""
    values = np.asarray(values, np.float32)
    channels = tuple(f"c{index}" for index in range(values.shape[1]))
    parts = {part: np.array(split.get(part, ()), np.int64) for part in ("train", "validation", "test")}
    return Series(
        "recordings", values, np.append(0, np.cumsum(lengths)), "sample", channels, None, None, 1,
        None if y is None else np.asarray(y), classes, parts, "recordings", (), SeriesSchema(channels), {}, (),
    )  # fmt: skip


def waves(seed=0, rows=400, channels=2):
    """(R, C): a season of 6 rows, a slow wave and noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(rows)[:, None]
    phase = rng.uniform(0, 6, channels)
    return (
        np.sin(2 * np.pi * (time + phase) / 6) + np.sin(time / 40 + phase) + 0.2 * rng.standard_normal((rows, channels))
    )


class Source:
    """As `SeriesSource`, its scaler the identity; a window's tokens are its values."""

    device = torch.device("cpu")

    def __init__(self, series, context=12, segment=3, window_norm=True):
        self.series, self.context, self.segment = series, context, segment
        self.tokenizer = SimpleNamespace(
            window_norm=window_norm, tokens=lambda x, observed, ids: {"segment": (x, observed)}
        )

    def values(self, starts, length):
        raw = torch.from_numpy(self.series.windows(starts.numpy(), length))
        return raw.nan_to_num(0.0), ~raw.isnan()

    def at(self, starts):
        return self.tokenizer.tokens(*self.values(starts, self.context), starts)


class Encoder(Base):
    """Latents are the normalised values of a segment times a matrix; zeros of a token that has none."""

    def __init__(self, segment=3, width=4, *, mixed=False, channels=2, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.mixed, self.segment, self.width = mixed, segment, width
        self.matrix = torch.nn.Parameter(torch.randn(segment * (channels if mixed else 1), width, generator=generator))
        self.dropout = torch.nn.Dropout(0.5)

    def embed(self, tokens):
        raise NotImplementedError

    encode = decoder = vectors = units = represent = embed

    def features(self, tokens):
        x, observed = tokens["segment"]
        count = observed.sum(-1, keepdim=True).clamp_min(1)
        mean = (x * observed).sum(-1, keepdim=True) / count
        deviation = (((x - mean).square() * observed).sum(-1, keepdim=True) / count + 1e-5).sqrt()
        x = ((x - mean) / deviation).masked_fill(~observed, 0.0).unflatten(-1, (-1, self.segment))
        if self.mixed:
            return self.dropout(x.transpose(1, 2).flatten(2) @ self.matrix).flatten(1)
        return self.dropout(x @ self.matrix).flatten(2).flatten(0, 1)


def real(series, channels="independent", pool="none"):
    """The toolkit's own source and two encoders over a series, and their recipe."""
    recipe = Recipe(
        modality="series",
        tokens=TokenOptions(context=24, segment=3),
        encoder=EncoderOptions(
            layers=1,
            hidden=8,
            heads=2,
            feed_forward=8,
            channels=channels,
            activation="gelu",
            norm="layernorm",
            pool=pool,
        ),
    )
    tokenizer = SeriesTokenizer.fit(series, recipe)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoders = [SeriesEncoder(recipe, tokenizer) for _ in range(2)]
    return SeriesSource(series, tokenizer), encoders, recipe
