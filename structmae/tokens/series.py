"""Series as tokens: segments of a window, or patches of its spectrogram, each series of a window an item."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor, nn

from structmae.data.series import Series
from structmae.errors import StructmaeError
from structmae.recipe import Recipe
from structmae.tokens.sets import RowSource, TokenSet

FEWEST = 4  # segments of a window: with fewer there is little to hide and to hide it by


class SeriesTokenizer(nn.Module):
    """Scaled windows (B, C, T) to tokens. Each series of a window is an item, a grid of tokens: (1, T / segment), or of
    its spectrogram (frequencies / bands, frames / segment).

    `mean` and `deviation` (C,) are the scaler, of the training rows. A spectrogram is log(1 + |amplitude|) of frames
    that do not overlap, without the highest frequency; a frame with a missing value is not observed. Of `recordings` a
    shorter window is the beginning of one, as they are filled up at their end; of a long table it is the end.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        channels: tuple[str, ...],
        context: int,
        segment: int,
        spectrum: int,
        bands: int,
        normalize: str,
        window_norm: bool,
        shrunk_from: int | None = None,
        recordings: bool = False,
    ):
        super().__init__()
        self.channels, self.context, self.segment = tuple(channels), context, segment
        self.spectrum, self.bands, self.normalize, self.window_norm = spectrum, bands, normalize, window_norm
        self.shrunk_from, self.recordings = shrunk_from, recordings
        self.unit = segment * max(spectrum, 1)  # rows of a token
        self.grid = ((spectrum // 2) // bands if spectrum else 1, context // self.unit)
        self.width = (bands if spectrum else 1) * segment
        self.register_buffer("mean", torch.zeros(len(self.channels)))
        self.register_buffer("deviation", torch.ones(len(self.channels)))

    @classmethod
    def fit(cls, series: Series, recipe: Recipe) -> "SeriesTokenizer":
        """The scaler of the training rows. Windows shrink to what the data has. Raises StructmaeError where that leaves
        fewer than 4 segments, or where bands do not divide a spectrogram's frequencies."""
        options = recipe.tokens
        unit = options.segment * max(options.spectrum, 1)
        if options.spectrum and (options.spectrum // 2) % options.bands:
            raise StructmaeError(
                f"tokens.bands={options.bands} does not divide the {options.spectrum // 2} frequencies of "
                f"tokens.spectrum={options.spectrum}: choose a divisor"
            )
        context = options.context // unit * unit
        if series.level == "panel":
            begin, end = series.split["train"].tolist()
            there = (end - begin) // 2  # so that windows, and what follows them, fit in the training rows
        else:
            there = -(-int(np.diff(series.ptr).max()) // unit) * unit  # the longest recording, filled up
        fits = min(context, there // unit * unit)
        if fits < FEWEST * unit:
            lower = "spectrum" if options.spectrum else "segment"
            raise StructmaeError(
                f"{series.name}: windows of {min(context, there)} rows hold {fits // unit} segments of {unit} rows, "
                f"and {FEWEST} are needed: give more rows, or set tokens.{lower} lower"
            )
        made = cls(
            channels=series.channels,
            context=fits,
            segment=options.segment,
            spectrum=options.spectrum,
            bands=options.bands,
            normalize="standard" if options.normalize == "auto" else options.normalize,
            window_norm=options.window_norm,
            shrunk_from=options.context if fits < context and series.level == "panel" else None,
            recordings=series.level == "sample",
        )
        if made.normalize == "standard":
            mean, deviation = series.scale()
            made.mean.copy_(torch.from_numpy(mean))
            made.deviation.copy_(torch.from_numpy(deviation))
        return made

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to build it again, JSON-able; the scaler is in the weights file."""
        names = ("context", "segment", "spectrum", "bands", "normalize", "window_norm", "shrunk_from", "recordings")
        return {"channels": list(self.channels), **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "SeriesTokenizer":
        """The tokenizer whose `config()` this is."""
        return cls(**{**config, "channels": tuple(config["channels"])})

    def tokens(
        self, x: Float[Tensor, "B C T"], observed: Bool[Tensor, "B C T"] | None, ids: Int[Tensor, "B"]
    ) -> dict[str, TokenSet]:
        """Scaled windows, of which values that are not observed are not read, as one set "segment": item b * C + c is
        series c of window b, whose name is `ids[b]`. T may be shorter than the context: what is missing before it (of
        recordings: after it) is not valid. Raises StructmaeError where T is longer."""
        windows, channels, rows = x.shape
        if rows > self.context or rows < 1:
            raise StructmaeError(f"a window of {rows} rows: this encoder reads 1 to {self.context}")
        if rows < self.context:
            observed = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
            missing = self.context - rows
            filled = (0, missing) if self.recordings else (missing, 0)
            x, observed = (nn.functional.pad(part, filled) for part in (x, observed))
        if observed is not None:
            x = x.where(observed, 0.0)
        values, seen = self._patches(x, observed)
        size = self.grid[0] * self.grid[1]
        items = windows * channels
        place = torch.arange(size, device=x.device)
        valid = None if seen is None else seen.any(1)
        if valid is not None and bool(valid.all()):
            valid = None
        channel = torch.arange(channels, device=x.device)
        part = TokenSet(
            values,
            torch.arange(0, (items + 1) * size, size, device=x.device),
            (ids.to(x.device)[:, None] * channels + channel).reshape(-1),
            {},
            valid=valid,
            observed=seen,
            grid=self.grid,
            position=place.repeat(items),
            set_id=ids.to(x.device).repeat_interleave(channels),
            members=channels,
        )
        return {"segment": part}

    def _patches(self, x: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(M, P) values, and which of them were observed (None: all)."""
        if observed is not None and bool(observed.all()):
            observed = None
        if not self.spectrum:
            return x.reshape(-1, self.segment), None if observed is None else observed.reshape(-1, self.segment)
        frames = x.reshape(*x.shape[:2], -1, self.spectrum)
        field = torch.fft.rfft(frames).abs().log1p()[..., :-1]  # (B, C, frames, frequencies)
        whole = None
        if observed is not None:
            whole = observed.reshape(frames.shape).all(-1, keepdim=True).expand_as(field)
            field = field.where(whole, 0.0)
        return self._cut(field), None if whole is None else self._cut(whole)

    def _cut(self, field: Tensor) -> Tensor:
        """(B, C, frames, frequencies) to patches (M, bands * segment): by frequency, then time."""
        rows, columns = self.grid
        parts = field.reshape(*field.shape[:2], columns, self.segment, rows, self.bands)
        return parts.permute(0, 1, 4, 2, 5, 3).reshape(-1, self.width)

    def join(self, values: Float[Tensor, "tokens width"], channels: int) -> Float[Tensor, "B C T"]:
        """Segments back to windows. Raises StructmaeError for a spectrogram, which has lost the phase."""
        if self.spectrum:
            raise StructmaeError("a spectrogram has lost the phase: it can't be turned back into a series")
        return values.reshape(-1, channels, self.context)


class SeriesSource(RowSource):
    """Windows of a table of series. An epoch goes through those in the training rows, or the training recordings."""

    def __init__(
        self, series: Series, tokenizer: SeriesTokenizer, device: torch.device | None = None, *, anew: bool = False
    ):
        """anew: take the scaler of these series' training rows, though the tokenizer knows channels of these names."""
        self.series, self.tokenizer, self.device = series, tokenizer, device or torch.device("cpu")
        self.context, self.segment = tokenizer.context, tokenizer.segment
        own = series.channels == tokenizer.channels and not (anew and series.level == "panel")
        mean, deviation = tokenizer.mean.cpu(), tokenizer.deviation.cpu()
        if not own and tokenizer.normalize == "standard":  # other series have a scaler of their own training rows
            mean, deviation = (torch.from_numpy(part).float() for part in series.scale())
        elif not own:
            mean, deviation = torch.zeros(len(series.channels)), torch.ones(len(series.channels))
        self.mean, self.deviation = mean, deviation
        train = torch.from_numpy(np.asarray(series.split["train"]))
        if series.level == "panel":
            begin, end = train.tolist()
            self.rows = torch.arange(begin, max(end - self.context + 1, begin))
        else:
            begins, ends = torch.from_numpy(series.ptr[:-1])[train], torch.from_numpy(series.ptr[1:])[train]
            self.rows = torch.cat([torch.arange(a, b, self.context) for a, b in zip(begins, ends, strict=True)])

    def at(self, starts: Int[Tensor, "B"]) -> dict[str, TokenSet]:
        """The windows of `context` rows that start at these rows; a window's name is its first row."""
        tokens = self.tokenizer.tokens(*self._windows(starts, self.context), starts)
        return {name: part.to(self.device) for name, part in tokens.items()}

    def values(
        self, starts: Int[Tensor, "B"], length: int
    ) -> tuple[Float[Tensor, "B C length"], Bool[Tensor, "B C length"]]:
        """Scaled rows from each start on, 0 where nothing was observed; and where something was."""
        scaled, observed = self._windows(starts, length)
        return scaled, torch.ones_like(scaled, dtype=torch.bool) if observed is None else observed

    def _windows(self, starts: Int[Tensor, "B"], length: int) -> tuple[Tensor, Tensor | None]:
        """As `values`; None where everything was observed. Cut out of the scaled table in one go, or where there is
        none, or rows are asked for that it has not, read and scaled for themselves."""
        rows = starts.numpy()
        if self._table is None or not self.series.inside(rows, length):
            return self._scaled(torch.from_numpy(self.series.windows(rows, length)))
        scaled, observed = self._table
        return _cut(scaled, rows, length), None if observed is None else _cut(observed, rows, length)

    @cached_property
    def _table(self) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None] | None:
        """All rows as `values` gives them, channel by channel (C, R): as much memory again as the data. None of a file
        that is mapped into memory, which may be larger than that."""
        if isinstance(self.series.values, np.memmap):
            return None
        scaled, observed = self._scaled(torch.from_numpy(np.ascontiguousarray(self.series.values.T, np.float32)))
        return scaled.numpy(), None if observed is None else observed.numpy()

    def _scaled(self, raw: Float[Tensor, "*B C R"]) -> tuple[Tensor, Tensor | None]:
        observed = ~raw.isnan()
        scaled = (raw - self.mean[:, None]) / self.deviation[:, None]
        return scaled.nan_to_num_(0.0), None if bool(observed.all()) else observed

    def sweep(self, at_once: int = 256) -> Iterator[dict[str, TokenSet]]:
        """All of the data in order: the recordings, or windows side by side, the last one ending with the data."""
        starts = torch.from_numpy(self.series.ptr[:-1])
        if self.series.level == "panel":
            rows = int(self.series.ptr[-1])
            starts = torch.arange(0, max(rows - self.context, 0) + 1, self.context)
            if len(starts) and int(starts[-1]) + self.context < rows:
                starts = torch.cat([starts, torch.tensor([rows - self.context])])
        for part in torch.split(starts, at_once):
            yield self.at(part)


def _cut(table: NDArray[Any], rows: NDArray[np.int64], length: int) -> Tensor:
    """Windows (B, C, length) of table (C, R)."""
    return torch.from_numpy(sliding_window_view(table, length, 1).swapaxes(0, 1)[rows])


def normalized(
    part: TokenSet, visible: Int[Tensor, "seen"] | None
) -> tuple[TokenSet, Float[Tensor, "items"], Float[Tensor, "items"]]:
    """Items normalised by the mean and deviation of their visible, observed values; those statistics. Values that were
    not observed stay 0. An item with nothing to see keeps mean 0 and deviation 1."""
    items = len(part.item_id)
    counted = torch.ones(len(part), 1, dtype=torch.bool, device=part.values.device)
    if visible is not None:
        counted = torch.zeros_like(counted).index_fill(0, visible, True)
    if part.observed is not None:
        counted = counted & part.observed
    counted = counted.expand_as(part.values).reshape(items, -1)
    values = part.values.reshape(items, -1)
    count = counted.sum(1, keepdim=True)
    mean = values.where(counted, 0.0).sum(1, keepdim=True) / count.clamp_min(1)
    variance = (values - mean).where(counted, 0.0).square().sum(1, keepdim=True) / count.clamp_min(1)
    deviation = torch.where(count > 0, (variance + 1e-5).sqrt(), 1.0)
    scaled = ((values - mean) / deviation).reshape(part.values.shape)
    if part.observed is not None:
        scaled = scaled.where(part.observed, 0.0)
    return replace(part, values=scaled), mean[:, 0], deviation[:, 0]
