"""Rows ahead of a table: the last window through the encoder and a head, laid out as the table is."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from structmae.data.series import Floats, Series
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate.forecasting import fit_head

if TYPE_CHECKING:
    from structmae.run import Run

HORIZON = 96  # where neither a trained head nor the data names one
Note = Callable[[str], None]


def forecast(run: "Run", data: Any = None, horizon: int | None = None, *, note: Note | None = None) -> pd.DataFrame:
    """The `horizon` rows after the end of `data` (the run's own without it), laid out as the table is.

    What is read is the last window of rows; where there are fewer, the rows before them count as not observed. The head
    is the trained one of a run that was fine-tuned for forecasting, else a ridge: fitted on the training rows of
    `data`, its penalty chosen on the validation rows, or where those are too few on the run's own data.
    `attrs` says which ("head"), and has "horizon", "notes" (remarks) and "schema" (the layout).

    A wide table gives a wide one, with its column of stamps or its index, a long one its columns of ids, stamps and
    values. Stamps go on by the step of the series (business days, month ends too); rows without stamps by their number.
    In a long table they go on from the last stamp of all: a channel that ends before it is forecast for the same rows.

    Arguments:
        horizon: rows ahead; without it those of the trained head, else the fewest that the data is scored on, else 96.
        note: takes one-line remarks, which head it is the first of them.

    Returns:
        The table. A channel that `data` never observed is NaN, and nothing else is.

    Raises:
        UsageError: a run of graphs, labelled recordings, a horizon below 1.
        StructmaeError: too few rows to fit a head, data that can't be read.
    """
    if run.recipe.modality != "series":
        raise UsageError(f"forecast: {run.recipe.name} reads {run.recipe.modality} data: give a run of series")
    if horizon is not None and (not isinstance(horizon, int) or horizon < 1):
        raise UsageError(f"horizon={horizon}: must be 1 or more; give how many rows ahead")
    notes: list[str] = []

    def say(text: str) -> None:
        notes.append(text)
        if note is not None:
            note(text)

    series: Any = run.data(data)
    if series.level != "panel":
        raise UsageError(f"forecast: {series.name} is a set of recordings, which have no common clock: give one table")
    wanted = horizon or _usual(run, series)
    head, about = _head(run, data, series, wanted, say)
    if note is not None:
        note(f"head: {about}")
    for remark in series.notes if data is not None else ():
        say(remark)
    source: Any = run.source(series)
    start = torch.tensor([series.num_rows - source.context])
    if int(start) < 0:
        say(f"{series.num_rows} rows, and a window has {source.context}: those before them count as not observed")
    scaled = head.predict(run.encoder, source, start)[0, :, :wanted].detach().cpu().double()
    values = (scaled * source.deviation[:, None] + source.mean[:, None]).T.numpy()
    seen = source.values(start, source.context)[1][0].any(-1).tolist()
    for channel, name in enumerate(series.channels):
        if seen[channel]:
            continue
        if bool(np.isnan(series.values[:, channel]).all()):
            values[:, channel] = np.nan
            say(f"channel '{name}' is never observed: its forecast is NaN")
        else:
            say(f"channel '{name}' has no value in the last {source.context} rows: its forecast has nothing to go by")
    table = lay_out(series, values)
    schema = series.schema if series.written is None else series.written.schema
    table.attrs = {"head": about, "horizon": wanted, "notes": notes, "schema": schema.to_json()}
    return table


def head_of(run: "Run", horizon: int | None, note: Note) -> Any | None:
    """The trained head of a run that was fine-tuned for forecasting, if it reaches `horizon` rows ahead.

    It has `horizon` and `predict(encoder, source, starts)`, scaled values (B, C, its horizon), as
    `evaluate.forecasting.ForecastHead` does.
    """
    head = getattr(run, "head_forecast", None)
    if head is None or horizon is None or head.horizon >= horizon:
        return head
    note(f"the fine-tuned head forecasts {head.horizon} rows, not {horizon}: a ridge takes its place")
    return None


def _usual(run: "Run", series: Series) -> int:
    """The horizon where none is asked for."""
    trained = head_of(run, None, lambda text: None)
    if trained is not None:
        return int(trained.horizon)
    return min(series.horizons, default=HORIZON)


def _head(run: "Run", data: Any, series: Series, horizon: int, say: Note) -> tuple[Any, str]:
    """A head and what it is, for a person."""
    trained = head_of(run, horizon, say)
    if trained is not None:
        return trained, "the fine-tuned one"
    try:
        head = fit_head(run.encoder, run.source(series), horizon, run.recipe)
        return head, f"a ridge on the frozen encoder, fitted on the training rows of {series.name}"
    except StructmaeError as error:
        if data is None:
            raise
        refused = error
    # An encoder that mixes channels has been given its own, one that does not takes any: the run's own rows serve both.
    try:
        own = run.data()
        head = fit_head(run.encoder, run.source(own), horizon, run.recipe)
    except StructmaeError as error:
        raise StructmaeError(f"no head can be fitted: {refused}. Nor on the run's own data: {error}") from None
    say(f"{series.name} has too little for a head of its own ({refused})")
    return head, f"a ridge on the frozen encoder, fitted on the training rows of the run's own data, {own.name}"


def lay_out(series: Series, values: Floats) -> pd.DataFrame:
    """Values (H, C) after the end of a panel as a table like the one that it was read from; of an array a column a
    channel and row numbers."""
    stamps = series.following(len(values))
    if series.written is None:
        return pd.DataFrame(values, columns=list(series.channels), index=stamps)
    schema, like = series.written.schema, series.written.head
    column = {str(name): name for name in like.columns}  # those of several levels keep the names they were read by
    time = schema.time
    if time is not None:
        stamps = _as(stamps, like[column[time]].dtype if time in column else like.index.dtype)
    if schema.layout == "long":
        assert time is not None and schema.id is not None and schema.value is not None  # noqa: PT018
        ids: Any = pd.Index(schema.channels)
        if schema.id in column and pd.api.types.is_numeric_dtype(like[column[schema.id]]):
            ids = pd.to_numeric(ids)
        parts: dict[Any, Any] = {
            schema.id: ids.repeat(len(values)),
            time: stamps.append([stamps] * (len(ids) - 1)),
            schema.value: values.T.ravel(),
        }
        table = pd.DataFrame(parts)
    else:
        table = pd.DataFrame(values, columns=list(schema.channels))
        if time is None:
            table.index = stamps
        else:
            table.insert(0, time, stamps)
    order = [name for name in column if name in table.columns]
    table = table[[*(name for name in table.columns if name not in order), *order]]
    aside = [name for name in (schema.id, time) if name is not None and name not in column]  # they were the index
    if isinstance(like.index, pd.MultiIndex):
        levels = dict(zip(map(str, like.reset_index().columns), like.index.names, strict=False))
        aside.sort(key=list(levels).index)
        named = [levels[name] for name in aside]
    else:
        named = [like.index.name]
    table = table.set_index(aside).rename_axis(named) if aside else table
    return table.rename(columns=column)


def _as(stamps: pd.Index, kind: Any) -> pd.Index:
    """Stamps as the table has them: periods where it has periods, numbers as an index of values."""
    if isinstance(kind, pd.PeriodDtype) and isinstance(stamps, pd.DatetimeIndex):
        return stamps.to_period(str(kind)[len("period[") : -1])  # an offset's own name is no name of a period
    return pd.Index(stamps.to_numpy()) if isinstance(stamps, pd.RangeIndex) else stamps
