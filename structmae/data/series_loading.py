"""`load_series`: whatever series a person has, by name, by path or as an object, become `Series`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from structmae.data import catalog, fetch
from structmae.data.lorenz import lorenz96
from structmae.data.series import Series, SeriesSchema
from structmae.data.series_build import SeriesDraft, build
from structmae.data.series_tables import from_file, from_frame
from structmae.errors import StructmaeError


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
    if isinstance(data, Series):
        return data
    spec: dict[str, Any] = {}
    if isinstance(data, (str, os.PathLike)):
        text = os.fspath(data)
        if isinstance(data, str) and catalog.is_known(text):
            draft = _by_name(text)
            spec = {"data": draft.card}
        else:
            path = Path(text).expanduser()
            if not path.exists():
                raise StructmaeError(f"{path}: no such file.")
            draft = from_file(path, time, id, value)
            spec = {"data": str(path.resolve())}
    elif isinstance(data, pd.DataFrame):
        draft = from_frame(data, "the table", time, id, value)
    else:
        raise StructmaeError(f"series of type {type(data).__name__} cannot be read.")
    return build(draft, channels, split, schema, spec)


def _by_name(name: str) -> SeriesDraft:
    card = catalog.resolve(name)
    if card.name == "lorenz96":
        draft = lorenz96()
    else:
        folder = catalog.find(card) or fetch.fetch(card)
        fetch.verify(folder, card)
        if card.name == "exchange_rate":
            values = np.loadtxt(folder / "exchange_rate.txt.gz", delimiter=",", dtype=np.float32)
            names = tuple(f"c{i}" for i in range(values.shape[1]))
            draft = SeriesDraft(card.name, card.name, values, names, SeriesSchema(names), period=1)
        else:
            draft = from_file(folder / "ETTh1.csv", "auto", "auto", "auto")
            ends = np.array([0, 8640, 11520, 14400])
            draft.split = {k: ends[i : i + 2] for i, k in enumerate(("train", "validation", "test"))}
    draft.name = draft.card = card.name
    return draft
