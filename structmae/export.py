"""Vectors to a file: Parquet, NumPy or CSV, by suffix."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from structmae.checkpoint import replacing
from structmae.errors import StructmaeError, UsageError

SUFFIXES = (".parquet", ".npy", ".csv")


def check_suffix(path: Path) -> Path:
    """`path`, if it is one that `write_vectors` can write. Raises before any work is done for it."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {path}: the suffix says the format; it must be {', '.join(SUFFIXES)}")
    if not path.parent.is_dir() or path.is_dir():
        raise StructmaeError(f"--out {path} cannot be written: {path.parent} is not a folder, or {path} is one")
    return path


def write_vectors(path: Path, vectors: Tensor, ids: Sequence[str | int] | None = None) -> None:
    """(rows, width) to `path`: `.npy` the array alone, the others a column `id` (the row's number without `ids`) and
    columns e0, e1, ... Raises StructmaeError where the file can't be written."""
    array = vectors.numpy()
    try:
        with replacing(path) as beside:
            if path.suffix.lower() == ".npy":
                with beside.open("wb") as file:
                    np.save(file, array, allow_pickle=False)
                return
            table = pd.DataFrame(array, columns=[f"e{column}" for column in range(array.shape[1])])
            table.insert(0, "id", list(range(len(array))) if ids is None else list(ids))
            if path.suffix.lower() == ".csv":
                table.to_csv(beside, index=False)
            else:
                table.to_parquet(beside, index=False)
    except OSError as error:
        raise StructmaeError(f"--out {path} cannot be written: {error.strerror or error}") from None
