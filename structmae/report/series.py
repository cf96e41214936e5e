"""A window of series as the model sees it: a line with what is hidden shaded, or three images of a spectrogram."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from structmae.errors import UsageError
from structmae.report.base import (
    COVERED,
    HIDDEN,
    REBUILT,
    TRUE,
    Axes,
    Scene,
    array,
    caveat,
    look,
    teller_of_all,
    values,
)
from structmae.tokens.series import normalized

if TYPE_CHECKING:
    from structmae.run import Run


def scene(run: "Run", series: Any, source: Any, start: int | None, channel: int | str) -> Scene:
    """The window that starts at row `start` (recordings: that of this number; without it the first test window)."""
    tokenizer = source.tokenizer
    place, first = _channel(series, channel), _first(series, source.context, start)
    field, remark = _rebuilt(run, source, first, place)
    images = bool(tokenizer.spectrum)
    shown = first - int(series.ptr[np.searchsorted(series.ptr, first, side="right") - 1]) if first >= 0 else first
    shares = f"{field.hidden[field.there.any(-1)].mean():.0%} hidden, mse of the hidden {field.error:.3g} (scaled)"
    title = f"{series.name}, {series.channels[place]}: {shares}{remark}"

    def draw(axes: Axes) -> None:
        if images:
            _draw_images(axes, field, shown, tokenizer.bands, tokenizer.spectrum)
        else:
            stamped = series.stamps is not None and first >= 0 and first + source.context <= series.num_rows
            at = ticks(series.stamps[first : first + source.context]) if stamped else shown + np.arange(source.context)
            name = str(series.schema.time) if stamped else "row"
            _draw_segments(axes[0], field, at, name, float(source.mean[place]), float(source.deviation[place]))
        axes[0].set_title(title, loc="left", fontsize=10, parse_math=False)

    needs = "a spectrogram has three images, other windows one picture"
    return Scene(3 if images else 1, 1, (9.0, 5.4) if images else (9.0, 3.2), needs, draw, shared=True)


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


def _rebuilt(run: "Run", source: Any, first: int, channel: int) -> tuple[_Field, str]:
    """What the model makes of the window that starts at row `first`, and what there is to say of it."""
    start = torch.tensor([first])
    x, observed = source.values(start, source.context)
    made = source.tokenizer.tokens(x, observed, start.clamp_min(0))  # a window's name, where it begins before row 0
    part = made["segment"].to(source.device)
    seen = look(run, made, "segment", source.device)
    head = teller_of_all(run, seen.said)
    rebuilt = values(head, seen.said[head.name], seen.part.values, seen.part.observed)
    if source.tokenizer.window_norm:
        _, mean, deviation = normalized(part, seen.plan.visible)
        rebuilt = rebuilt * deviation[part.batch][:, None] + mean[part.batch][:, None]
    hidden = torch.zeros(len(part), 1, dtype=torch.bool, device=rebuilt.device).index_fill(0, seen.asked, True)
    there = torch.ones_like(part.values, dtype=torch.bool) if part.observed is None else part.observed
    mine = slice(int(part.ptr[channel]), int(part.ptr[channel + 1]))
    arrays = [array(each[mine]).reshape(*source.tokenizer.grid, -1) for each in (part.values, rebuilt, hidden, there)]
    remark = "\nnothing is hidden: each segment is told from those before it" if seen.in_order else ""
    return _Field(arrays[0], arrays[1], arrays[2][..., 0], arrays[3]), remark + caveat(head, "segment")


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
    finish(ax, at, name)


def finish(ax: Any, at: Any, name: str) -> None:
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

    def image(tokens: Any) -> Any:
        """Tokens to (frequencies, frames)."""
        return tokens.reshape(rows, columns, bands, width // bands).transpose(0, 2, 1, 3).reshape(rows * bands, -1)

    hidden = field.hidden[..., None]
    true = np.where(field.there, field.true, np.nan)
    pictures = {
        "input": true,
        "visible": np.where(hidden, np.nan, true),
        "rebuilt": np.where(hidden, field.rebuilt, true),
    }
    span = (first, first + columns * (width // bands) * spectrum, 0, rows * bands)
    low, high = (float(pick(field.true[field.there])) if field.there.any() else 0.0 for pick in (np.min, np.max))
    for ax, (name, shown) in zip(axes, pictures.items(), strict=True):
        ax.set_facecolor(COVERED)
        ax.imshow(
            image(shown), origin="lower", aspect="auto", interpolation="nearest", extent=span, vmin=low, vmax=high
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


def ticks(stamps: pd.Index) -> Any:
    """Stamps as matplotlib takes them; of a zone, its own clock."""
    if isinstance(stamps, pd.PeriodIndex):
        stamps = stamps.to_timestamp()
    if not isinstance(stamps, pd.DatetimeIndex) and not pd.api.types.is_numeric_dtype(stamps):
        stamps = pd.DatetimeIndex(pd.to_datetime(stamps))
    return stamps.tz_localize(None).to_numpy() if isinstance(stamps, pd.DatetimeIndex) else stamps.to_numpy()
