"""`load_series`: whatever series a person has, by name, by path or as an object, become `Series`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from structmae.data import catalog, fetch, series_arrays, tsfile
from structmae.data.catalog import Card
from structmae.data.lorenz import lorenz96
from structmae.data.series import Series, SeriesSchema
from structmae.data.series_build import SeriesDraft, build
from structmae.data.series_tables import from_file, from_frame
from structmae.data.splits import KEYS
from structmae.data.stamps import Roles
from structmae.errors import StructmaeError, UsageError


def load_series(
    data: Any,
    *,
    time: str = "auto",
    id: str = "auto",
    value: str = "auto",
    channels: str | Sequence[str] = "all",
    split: str = "auto",
    schema: SeriesSchema | None = None,
) -> Series:
    """A multichannel recording, or a set of recordings, from a name, a path or an object.

    Arguments:
        data: a name of the catalog (`structmae data` lists them), without regard to case; a table `.csv`, `.csv.gz` or
            `.parquet`, or a DataFrame: wide (a column a channel; stamps in the index, a column, or none) or long
            (unique_id, ds, y); a `.npy` array (T, C), mapped into memory, or (N, C, T); a `.ts` file, or a folder with
            NAME_TRAIN.ts and NAME_TEST.ts; an array (T, C) to forecast or (N, C, T) of samples; (X, y) or
            (X, y, splits) as tsai gives them; or `Series`.
        time: the column of stamps; "auto": a datetime index, else a column date, ds, time, timestamp or datetime, else
            the first text column that reads as dates; "none": rows have no stamps.
        id: the column of ids of a long table; "auto": unique_id.
        value: the column of values of a long table; "auto": y, or the only numeric one.
        channels: "all", or the names of those to read, with commas or as a sequence.
        split: "auto": that of the card or the data, else in time order 0.7/0.1/0.2, and of samples stratified
            0.7/0/0.3; or shares "0.6/0.2/0.2" or counts "8640/2880/2880" of train, validation and test.
        schema: read the data as an earlier series with this schema was read; the channels are matched by name.

    Returns:
        The series. See `Series` for shapes. Of an object the `spec` is empty. What a mapped file holds is checked when
        it is read.

    Raises:
        UsageError: an unknown name, column, channel or split.
        StructmaeError: data that is missing, damaged, irregular, or no series; the column is named.
    """
    if isinstance(data, Series):
        asked = {"time": time, "id": id, "value": value, "channels": channels, "split": split}
        given = [f"data.{key}={told}" for key, told in asked.items() if told not in ("auto", "all")]
        if given:
            raise UsageError(f"{given[0]} is for a table that is read, and this is a Series already: leave it out")
        if schema is not None and data.channels != schema.channels:
            raise StructmaeError(
                f"{data.name} has channels {', '.join(data.channels[:5])}, and {', '.join(schema.channels[:5])} are "
                "needed, in this order: give the table that it was made of"
            )
        return data
    roles = _roles(time, id, value)
    only = None if isinstance(channels, str) and channels == "all" else _listed(channels)
    spec: dict[str, Any] = {}
    if isinstance(data, (str, os.PathLike)):
        text = os.fspath(data)
        if isinstance(data, str) and catalog.is_known(text):
            draft = _by_name(text)
            spec = {"data": draft.card}
        else:
            if isinstance(data, str) and not catalog.looks_like_a_path(text):
                catalog.resolve(text)  # raises, with the near misses
            path = Path(text).expanduser()
            draft = _by_path(path, roles, schema, only)
            spec = {"data": str(path.resolve())}
        options = {"time": time, "id": id, "value": value, "split": split}
        spec |= {key: given for key, given in options.items() if given != "auto"}
        if only is not None:
            spec["channels"] = channels if isinstance(channels, str) else only
    elif isinstance(data, (pd.DataFrame, pd.Series)):
        data = data.to_frame("y" if data.name is None else data.name) if isinstance(data, pd.Series) else data
        draft = from_frame(data, _with_schema(roles, schema, list(data.columns)), only)
    else:
        draft = series_arrays.from_object(data)
    return build(draft, channels, split, schema, spec)


def _roles(time: str, id: str, value: str) -> Roles:
    for key, given in (("time", time), ("id", id), ("value", value)):
        if not isinstance(given, str) or not given.strip():
            raise UsageError(f"{key}={given!r} is no column name; give one, or auto.")
    return Roles(time, id, value)


def _listed(channels: str | Sequence[str]) -> list[str]:
    return [name.strip() for name in channels.split(",")] if isinstance(channels, str) else [str(n) for n in channels]


def _with_schema(roles: Roles, schema: SeriesSchema | None, columns: Sequence[Any]) -> Roles:
    """The names of the earlier table where this one has them, and nothing else was said."""
    if schema is None:
        return roles

    def pick(asked: str, known: str | None) -> str:
        return known if asked == "auto" and known is not None and known in columns else asked

    return Roles(pick(roles.time, schema.time), pick(roles.id, schema.id), pick(roles.value, schema.value))


def _by_name(name: str) -> SeriesDraft:
    card = catalog.resolve(name)
    if card.kind != "series":
        raise StructmaeError(
            f"'{card.name}' is a set of {card.kind} data, no series. `structmae data` lists the series."
        )
    draft = lorenz96() if card.loader == "simulated" else _published(card)
    draft.name = draft.card = draft.where = card.name
    draft.period = card.series.get("period", draft.period)
    draft.horizons = tuple(card.series["horizons"]) if "horizons" in card.series else draft.horizons
    if borders := card.series.get("borders"):
        draft.split = {key: np.array(borders[at : at + 2], np.int64) for at, key in enumerate(KEYS)}
        draft.split_source = card.split
    return draft


def _published(card: Card) -> SeriesDraft:
    folder = catalog.find(card) or fetch.fetch(card)
    fetch.verify(folder, card)
    if card.loader == "uea":
        return series_arrays.from_samples(*tsfile.read_folder(folder), where=card.name)
    path = folder / next(iter(card.files))
    if names := card.series.get("channels"):  # a table without a line of names
        frame = pd.read_csv(path, header=None, names=names)
        return from_frame(frame, Roles(time="none"), where=str(path))
    return from_file(path, Roles())


def _by_path(path: Path, roles: Roles, schema: SeriesSchema | None, only: list[str] | None) -> SeriesDraft:
    if not path.exists():
        raise StructmaeError(
            f"{path}: no such file. Give a table (.csv, .parquet), an array (.npy), a .ts file, or a name of "
            "`structmae data`."
        )
    if path.is_dir():
        return series_arrays.from_samples(*tsfile.read_folder(path), where=str(path))
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return series_arrays.from_npy(path)
    if suffix == ".ts":
        return series_arrays.from_samples(*tsfile.read_one(path), where=str(path))
    if schema is not None:
        from structmae.data.tablefile import column_names

        roles = _with_schema(roles, schema, column_names(path))
    return from_file(path, roles, only)
