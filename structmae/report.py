"""Pictures of a run: a forecast after what came before it, and a window with what was hidden and rebuilt. They need
matplotlib, `pip install "structmae[plots]"`."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from structmae.data.series import Series, SeriesSchema
from structmae.data.series_tables import from_frame
from structmae.data.stamps import Roles
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate.frozen import frozen
from structmae.masking import VALIDATION
from structmae.model import Batch
from structmae.tokens.series import normalized
from structmae.train import Planner

if TYPE_CHECKING:
    from structmae.run import Run

# Okabe and Ito's colours, as in `masking.plot`.
TRUE, REBUILT, HIDDEN = "#1a1a1a", "#d55e00", "#56b4e9"
LINES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
SHOWN = 3  # channels of a forecast, unless asked for others


def plot_forecast(
    history: pd.DataFrame | Series,
    forecast: pd.DataFrame,
    *,
    channels: Sequence[str] | None = None,
    rows: int | None = None,
    ax: Any = None,
) -> Any:
    """Draw a forecast after the end of the table that it goes on from; returns the axes.

    history: the table, wide or long, or `Series`. forecast: what `Run.forecast` made of it; read back from a file it
    needs columns that tell what they are. channels: the first three without it. rows: how much of the history, three
    times the forecast without it. `ax` None makes a figure.

    Raises UsageError for a channel that does not exist, StructmaeError without matplotlib or for tables that do not
    fit each other.
    """
    pyplot = _pyplot()
    schema = None if "schema" not in forecast.attrs else SeriesSchema.from_json(forecast.attrs["schema"])
    if isinstance(history, Series):
        known: Any = history
        schema = schema or (history.schema if history.written is None else history.written.schema)
    else:
        known = from_frame(history, Roles() if schema is None else _roles(schema, history))
        schema = schema or known.schema
    stamps: pd.Index | None = known.stamps
    ahead = _wide(forecast, schema)
    chosen = list(known.channels[:SHOWN] if channels is None else channels)
    for name in chosen:
        if name not in known.channels or name not in ahead.columns:
            raise UsageError(
                f"no channel '{name}' in both tables; the forecast has {', '.join(map(str, ahead.columns))}"
            )
    total = len(known.values)
    first = max(0, total - (rows or max(3 * len(ahead), 24)))
    before: Any = np.arange(first, total) if stamps is None else _ticks(stamps[first:])
    after: Any = np.arange(total, total + len(ahead)) if stamps is None else _ticks(ahead.index)
    if ax is None:
        ax = pyplot.subplots(figsize=(9.0, 3.2), layout="constrained")[1]
    for place, name in enumerate(chosen):
        column = known.channels.index(name)
        colour = LINES[place % len(LINES)]
        ax.plot(before, np.asarray(known.values[first:, column]), color=colour, linewidth=1.2, label=str(name))
        ax.plot(after, ahead[name].to_numpy(), color=colour, linewidth=1.6, linestyle=(0, (3, 1.2)))
    ax.axvline(before[-1], color="#999999", linewidth=0.8)
    ax.plot([], [], color="#666666", linewidth=1.6, linestyle=(0, (3, 1.2)), label=f"forecast, {len(ahead)} rows")
    _finish(ax, before, "row" if stamps is None else str(schema.time))
    return ax


def plot_reconstruction(
    run: "Run", data: Any = None, *, start: int | None = None, channel: int | str = 0, ax: Any = None
) -> Any:
    """Draw one window as the model sees it: its values, what is hidden (shaded), and how that is rebuilt.

    Of a spectrogram there are three images: the input, what is left of it, and it with the hidden patches rebuilt.
    Tokens are hidden as in training, by the draw that is kept for validation.

    start: the first row of the window, of recordings the number of one; without it the first test window. channel: its
    place or its name. ax: axes to draw on, of a spectrogram three; None makes a figure. Returns the axes.

    Raises UsageError for a run of graphs or one that is fine-tuned, and a start or channel that does not exist;
    StructmaeError without matplotlib.
    """
    pyplot = _pyplot()
    if run.recipe.modality != "series":
        raise UsageError(f"plot_reconstruction: {run.recipe.name} reads graphs; give a run of series")
    if not hasattr(run.model, "rebuild"):
        raise UsageError(
            "plot_reconstruction: a fine-tuned run has no decoder; give the pre-trained run it was made of"
        )
    series: Any = run.data(data)
    source: Any = run.source(series)
    tokenizer = source.tokenizer
    place, first = _channel(series, channel), _first(series, source.context, start)
    field = _rebuilt(run, source, first, place)
    images = bool(tokenizer.spectrum)
    if ax is None:
        size = (9.0, 5.4) if images else (9.0, 3.2)
        ax = pyplot.subplots(3 if images else 1, 1, figsize=size, layout="constrained", sharex=True)[1]
    if np.size(ax) != (3 if images else 1):
        raise UsageError(f"ax: {np.size(ax)} axes; a spectrogram has three images, other windows one picture")
    shown = first - int(series.ptr[np.searchsorted(series.ptr, first, side="right") - 1]) if first >= 0 else first
    if images:
        _draw_images(ax, field, shown, tokenizer.bands, tokenizer.spectrum)
    else:
        stamped = series.stamps is not None and first >= 0 and first + source.context <= series.num_rows
        at = _ticks(series.stamps[first : first + source.context]) if stamped else shown + np.arange(source.context)
        name = str(series.schema.time) if stamped else "row"
        _draw_segments(ax, field, at, name, float(source.mean[place]), float(source.deviation[place]))
    shares = f"{field.hidden[field.there.any(-1)].mean():.0%} hidden, mse of the hidden {field.error:.3g} (scaled)"
    title = f"{series.name}, {series.channels[place]}: {shares}"
    (ax[0] if images else ax).set_title(title, loc="left", fontsize=10)
    return ax


@dataclass(frozen=True, eq=False)
class _Field:
    """A window's tokens of one channel, (rows, columns, width), in scaled values; which are hidden (rows, columns), and
    which of their values were observed (rows, columns, width)."""

    true: NDArray[np.float32]
    rebuilt: NDArray[np.float32]
    hidden: NDArray[np.bool_]
    there: NDArray[np.bool_]

    @property
    def error(self) -> float:
        """Mean squared error of what is hidden and observed; NaN where nothing is."""
        scored = self.hidden[..., None] & self.there
        return float(np.square(self.rebuilt - self.true)[scored].mean()) if scored.any() else float("nan")


def _rebuilt(run: "Run", source: Any, first: int, channel: int) -> _Field:
    """What the model makes of the window that starts at row `first`."""
    start = torch.tensor([first])
    x, observed = source.values(start, source.context)
    made = source.tokenizer.tokens(x, observed, start.clamp_min(0))  # a window's name, where it begins before row 0
    tokens = {name: part.to(source.device) for name, part in made.items()}
    train = run.recipe.train
    planner = Planner(run.recipe.mask, train.seed, epochs=train.epochs, heads=run.recipe.heads)
    plans = planner.draw(tokens, visit=VALIDATION, step=0)
    with frozen(run.model):
        rebuilt = next(iter(run.model.rebuild(Batch(tokens, plans)).values()))
    part, plan = tokens["segment"], plans["segment"]
    if source.tokenizer.window_norm:
        _, mean, deviation = normalized(part, plan.visible)
        rebuilt = rebuilt * deviation[part.batch][:, None] + mean[part.batch][:, None]
    hidden = torch.zeros(len(part), 1, dtype=torch.bool, device=rebuilt.device).index_fill(0, plan.hidden, True)
    there = torch.ones_like(part.values, dtype=torch.bool) if part.observed is None else part.observed
    mine = slice(int(part.ptr[channel]), int(part.ptr[channel + 1]))
    arrays = [
        each[mine].cpu().reshape(*source.tokenizer.grid, -1).numpy() for each in (part.values, rebuilt, hidden, there)
    ]
    return _Field(arrays[0], arrays[1], arrays[2][..., 0], arrays[3])


def _draw_segments(ax: Any, field: _Field, at: Any, name: str, mean: float, deviation: float) -> None:
    """The values of a window as a line, with what is hidden shaded and rebuilt."""
    true, rebuilt, there = (each[0].ravel() for each in (field.true, field.rebuilt, field.there))
    width = field.true.shape[-1]
    hidden = field.hidden[0].repeat(width)
    gaps = not bool(there.all())
    line = np.where(there, true * deviation + mean, np.nan)
    ax.plot(at, line, color=TRUE, linewidth=1.1, marker="." if gaps else None, markersize=3, label="true")
    line = np.where(hidden, rebuilt * deviation + mean, np.nan)
    ax.plot(at, line, color=REBUILT, linewidth=1.6, marker="." if width == 1 else None, markersize=4, label="rebuilt")
    half = (at[1] - at[0]) / 2
    borders = np.flatnonzero(np.diff(np.pad(hidden, 1).astype(np.int8))).reshape(-1, 2)
    for place, (low, high) in enumerate(borders.tolist()):
        label = {"label": "hidden"} if place == 0 else {}
        ax.axvspan(at[low] - half, at[high - 1] + half, color=HIDDEN, alpha=0.25, linewidth=0, **label)
    ax.margins(x=0.01)
    _finish(ax, at, name)


def _finish(ax: Any, at: Any, name: str) -> None:
    """What both kinds of lines have: short dates, an open frame, a legend beside it."""
    if at.dtype.kind == "M":
        dates: Any = import_module("matplotlib.dates")  # which brings no types
        locator = dates.AutoDateLocator()
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    ax.set_xlabel(name)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)


def _draw_images(axes: Any, field: _Field, first: int, bands: int, spectrum: int) -> None:
    """The spectrogram of a window, what is left of it, and it with the hidden patches rebuilt."""
    rows, columns, width = field.true.shape

    def image(values: Any) -> Any:
        """Tokens to (frequencies, frames)."""
        return values.reshape(rows, columns, bands, width // bands).transpose(0, 2, 1, 3).reshape(rows * bands, -1)

    hidden = field.hidden[..., None]
    true = np.where(field.there, field.true, np.nan)
    pictures = {
        "input": true,
        "visible": np.where(hidden, np.nan, true),
        "rebuilt": np.where(hidden, field.rebuilt, true),
    }
    span = (first, first + columns * (width // bands) * spectrum, 0, rows * bands)
    low, high = (float(pick(field.true[field.there])) if field.there.any() else 0.0 for pick in (np.min, np.max))
    for ax, (name, values) in zip(axes, pictures.items(), strict=True):
        ax.set_facecolor("#dcdcdc")
        ax.imshow(
            image(values), origin="lower", aspect="auto", interpolation="nearest", extent=span, vmin=low, vmax=high
        )
        ax.set_ylabel(f"{name}\nfrequency")
    axes[-1].set_xlabel("row")


def _first(series: Any, context: int, start: int | None) -> int:
    """The first row of the window to show."""
    if series.level == "sample":
        test = series.split["test"] if len(series.split["test"]) else series.split["train"]
        chosen = int(test[0]) if start is None else start
        if not 0 <= chosen < series.num_items:
            raise UsageError(f"start={start}: {series.name} has recordings 0 to {series.num_items - 1}")
        return int(series.ptr[chosen])
    last = series.num_rows - context
    if start is None:
        return int(min(series.split["test"][0], last))  # before row 0 where there are too few rows
    if not 0 <= start <= max(last, 0):
        raise UsageError(f"start={start}: a window has {context} rows of {series.num_rows}, so 0 to {max(last, 0)}")
    return start


def _channel(series: Any, channel: int | str) -> int:
    """Its place."""
    if channel in series.channels:
        return int(series.channels.index(channel))
    if isinstance(channel, int) and 0 <= channel < series.num_channels:
        return channel
    shown = ", ".join(series.channels[:8]) + (", ..." if series.num_channels > 8 else "")
    raise UsageError(f"channel={channel!r}: {series.name} has {series.num_channels}: {shown}")


def _roles(schema: SeriesSchema, table: pd.DataFrame) -> Roles:
    """The columns of a schema, as far as the table has them: stamps without a name are its index."""
    names = {str(name) for name in (*table.columns, *table.index.names) if name is not None}
    time, id, value = (name if name in names else "auto" for name in (schema.time, schema.id, schema.value))
    return Roles("none" if schema.time is None else str(time), str(id), str(value))


def _wide(table: pd.DataFrame, schema: SeriesSchema) -> pd.DataFrame:
    """A table by the columns that the schema names: stamps in the index, a column a channel, named as text."""
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    table = table.set_axis([str(name) for name in table.columns], axis=1)
    names = [schema.id, schema.time, schema.value] if schema.layout == "long" else [schema.time]
    lacking = [name for name in names if name is not None and name not in table.columns]
    if schema.layout == "long":
        if lacking:
            raise StructmaeError(
                f"the forecast has no column {', '.join(map(str, lacking))}: its history is a long table"
            )
        made = table.pivot(index=schema.time, columns=schema.id, values=schema.value)
        return made.set_axis([str(name) for name in made.columns], axis=1)
    return table if schema.time is None or lacking else table.set_index(schema.time)


def _ticks(stamps: pd.Index) -> Any:
    """Stamps as matplotlib takes them; of a zone, its own clock."""
    if isinstance(stamps, pd.PeriodIndex):
        stamps = stamps.to_timestamp()
    if not isinstance(stamps, pd.DatetimeIndex) and not pd.api.types.is_numeric_dtype(stamps):
        stamps = pd.DatetimeIndex(pd.to_datetime(stamps))
    return stamps.tz_localize(None).to_numpy() if isinstance(stamps, pd.DatetimeIndex) else stamps.to_numpy()


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise StructmaeError('a plot needs matplotlib, which is missing: pip install "structmae[plots]"') from None
    return pyplot
