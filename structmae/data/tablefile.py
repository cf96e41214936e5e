"""Reading a CSV or Parquet file so that ids stay text and a message can say which line was wrong."""

import gzip
import math
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from structmae.errors import StructmaeError

SUFFIXES = (".csv", ".parquet")
#: Cells that mean "missing" in a feature column. In ids, labels and splits only a blank does: a node may be called NA.
MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A"]


@dataclass(frozen=True)
class TableFile:
    """A table as read; `special` maps the columns of structure, in lower case, to the person's spelling."""

    path: Path
    frame: pd.DataFrame
    special: dict[str, str]

    @classmethod
    def read(cls, path: Path, special: tuple[str, ...], rows: int | None = None) -> "TableFile":
        """The table in a file, with blank lines left out; of a CSV file the first `rows` rows alone.

        Raises:
            StructmaeError: an unknown suffix, or a file that cannot be parsed.
        """
        suffix = _suffix(path)
        if suffix == ".csv":
            return _csv(path, special, rows)
        if suffix == ".parquet":
            return _parquet(path, special)
        raise StructmaeError(
            f"{path}: unknown kind of file '{path.suffix}'. Tables are .csv or .parquet, graphs .pt, arrays .npy, "
            "labelled recordings .ts."
        )

    def place(self, row: int) -> str:
        """How a message names row `row`, counted from 0 in `frame`."""
        if _suffix(self.path) != ".csv":
            return f"row {row}"
        # The parser skips blank lines, so that the line of a row is found by counting the others.
        unpack: Any = gzip.open if self.path.suffix.lower() == ".gz" else open
        with unpack(self.path, "rt", encoding="utf-8-sig", errors="replace") as file:
            filled = (number for number, line in enumerate(file, 1) if line.strip())
            return f"line {next(islice(filled, row + 1, None), row + 2)}"

    def text(self, key: str) -> list[str | None]:
        """A special column as stripped text, None where it is blank."""
        return [_text(value) for value in self.frame[self.special[key]].tolist()]

    def others(self) -> list[str]:
        """The columns that are not special, in order."""
        taken = set(self.special.values())
        return [name for name in self.frame.columns if name not in taken]


def column_names(path: Path) -> list[str]:
    """The names of a table's columns, of a Parquet file without its data.

    Raises:
        StructmaeError: an unknown suffix, or a file that cannot be parsed.
    """
    if _suffix(path) != ".parquet":
        return list(TableFile.read(path, (), rows=0).frame.columns)
    try:
        # pyarrow brings no types: read_schema(path).names is a list of str.
        return [str(name) for name in import_module("pyarrow.parquet").read_schema(path).names]
    except (ValueError, OSError) as error:
        raise StructmaeError(f"{path}: not a Parquet table that can be read: {error}.") from None


def _suffix(path: Path) -> str:
    """ ".csv" also of a .csv.gz."""
    name = path.name.lower()
    return ".csv" if name.endswith(".csv.gz") else Path(name).suffix


def _csv(path: Path, special: tuple[str, ...], rows: int | None = None) -> TableFile:
    try:
        with warnings.catch_warnings():
            # A line with more cells than the header would lose them with no more than this warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            header = pd.read_csv(path, nrows=0, encoding="utf-8-sig", index_col=False)
            names = [str(name) for name in header.columns]
            written = pd.read_csv(path, nrows=1, header=None, dtype=str, encoding="utf-8-sig", index_col=False)
            first = [str(name) for name in written.iloc[0].dropna()] if len(written) else []
            twice = next((name for at, name in enumerate(first) if name in first[:at]), None)
            if twice is not None:
                raise StructmaeError(f"{path}: two columns are named '{twice}'. Rename one.")
            found = _special(path, names, special)
            kept = set(found.values())
            frame = pd.read_csv(
                path,
                encoding="utf-8-sig",
                index_col=False,
                dtype=dict.fromkeys(kept, str),
                keep_default_na=False,
                na_values={name: [""] if name in kept else MISSING for name in names},
                low_memory=False,
                nrows=rows,
            )
    except pd.errors.EmptyDataError:
        raise StructmaeError(f"{path}: the file is empty. A table starts with a line of column names.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StructmaeError(f"{path}: not a CSV table that can be read: {reason}.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise StructmaeError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    return TableFile(path, frame, found)


def _parquet(path: Path, special: tuple[str, ...]) -> TableFile:
    try:
        frame = pd.read_parquet(path)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StructmaeError(f"{path}: not a Parquet table that can be read: {reason}.") from None
    # A named index is a column that pandas had put aside, and so are stamps without a name.
    if isinstance(frame.index, pd.DatetimeIndex) and frame.index.name is None and "time" not in frame.columns:
        frame.index.name = "time"
    frame = frame.reset_index(drop=all(name is None for name in frame.index.names))
    frame.columns = [str(name) for name in frame.columns]
    return TableFile(path, frame, _special(path, list(frame.columns), special))


def _special(path: Path, names: Iterable[str], special: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        key = name.strip().lower()
        if key not in special:
            continue
        if key in found:
            raise StructmaeError(f"{path}: columns '{found[key]}' and '{name}' are both {key}. Drop one.")
        found[key] = name
    return found


def _text(value: object) -> str | None:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None
