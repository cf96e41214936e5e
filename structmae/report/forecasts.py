"""A picture of a forecast after what came before it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from structmae.data.series import Series, SeriesSchema
from structmae.data.series_tables import from_frame
from structmae.data.stamps import Roles
from structmae.errors import StructmaeError, UsageError
from structmae.report.base import LINES, pyplot
from structmae.report.series import finish, ticks

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
    figures = pyplot()
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
    before: Any = np.arange(first, total) if stamps is None else ticks(stamps[first:])
    after: Any = np.arange(total, total + len(ahead)) if stamps is None else ticks(ahead.index)
    if ax is None:
        ax = figures.subplots(figsize=(9.0, 3.2), layout="constrained")[1]
    for place, name in enumerate(chosen):
        column = known.channels.index(name)
        colour = LINES[place % len(LINES)]
        ax.plot(before, np.asarray(known.values[first:, column]), color=colour, linewidth=1.2, label=str(name))
        ax.plot(after, ahead[name].to_numpy(), color=colour, linewidth=1.6, linestyle=(0, (3, 1.2)))
    ax.axvline(before[-1], color="#999999", linewidth=0.8)
    ax.plot([], [], color="#666666", linewidth=1.6, linestyle=(0, (3, 1.2)), label=f"forecast, {len(ahead)} rows")
    finish(ax, before, "row" if stamps is None else str(schema.time))
    return ax


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
