"""The .ts format of the UCR and UEA archives, as sktime and aeon write it: labelled recordings, one a line."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from structmae.data.series import Integers
from structmae.errors import StructmaeError

Recording = NDArray[np.float32]


def read_ts(path: Path) -> tuple[list[Recording], list[str] | None]:
    """The recordings of a file, each (C, T_i) float32 with NaN where missing, and their labels (None: no labels).

    A line holds the channels with colons between them, the values of a channel with commas, and the label last.

    Raises:
        StructmaeError: a file with stamps (@timestamps true), without @data, or with a line that cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StructmaeError(f"{path}: cannot be read as text: {error}.") from None
    header: dict[str, list[str]] = {}
    start = None
    for number, line in enumerate(lines):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].lower() == "@data":
            start = number + 1
            break
        if not words[0].startswith("@"):
            raise StructmaeError(f"{path}: line {number + 1} comes before @data and is no @ entry. Is this a .ts file?")
        header[words[0][1:].lower()] = words[1:]
    if start is None:
        raise StructmaeError(f"{path}: no @data line. Is this a .ts file of the UCR or UEA archive?")
    if _flag(header, "timestamps"):
        raise StructmaeError(f"{path}: @timeStamps true: recordings with stamps are not read. Save them at even steps.")
    if "targetlabel" in header and _flag(header, "targetlabel"):
        raise StructmaeError(
            f"{path}: @targetLabel true: targets to regress on are no classes. Use a @classLabel file."
        )
    labelled = _flag(header, "classlabel")
    names = header.get("classlabel", [])[1:]
    recordings: list[Recording] = []
    labels: list[str] = []
    for number, line in enumerate(lines[start:], start + 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.strip().split(":")
        if labelled:
            labels.append(parts.pop().strip())
            if names and labels[-1] not in names:
                raise StructmaeError(
                    f"{path}: line {number} has the label '{labels[-1]}', which is not among those of @classLabel "
                    f"({', '.join(names[:8])})."
                )
        recordings.append(_recording(parts, path, number))
        if recordings[-1].shape[0] != recordings[0].shape[0]:
            raise StructmaeError(
                f"{path}: line {number} has {recordings[-1].shape[0]} channels; the first recording has "
                f"{recordings[0].shape[0]}. Is a colon missing?"
            )
    if not recordings:
        raise StructmaeError(f"{path}: no recording below @data.")
    return recordings, labels if labelled else None


def read_folder(folder: Path) -> tuple[list[Recording], list[str] | None, dict[str, Integers] | None, str]:
    """The recordings of NAME_TRAIN.ts and NAME_TEST.ts, their labels, the given split, and the name.

    Raises:
        StructmaeError: no such pair of files, or more than one; files that do not go together.
    """
    pairs = sorted((path for path in folder.iterdir() if path.name.upper().endswith("_TRAIN.TS")), key=lambda p: p.name)
    if len(pairs) != 1:
        found = f"{len(pairs)} files NAME_TRAIN.ts" if pairs else "no NAME_TRAIN.ts"
        raise StructmaeError(
            f"{folder}: {found} in this folder. Give a folder with one NAME_TRAIN.ts and NAME_TEST.ts."
        )
    name = pairs[0].name[: -len("_TRAIN.ts")]
    test = next((path for path in folder.iterdir() if path.name.upper() == f"{name}_TEST.ts".upper()), None)
    if test is None:
        raise StructmaeError(f"{folder}: no {name}_TEST.ts beside {pairs[0].name}. Give the file itself to split it.")
    (first, one), (second, two) = read_ts(pairs[0]), read_ts(test)
    if first[0].shape[0] != second[0].shape[0] or (one is None) != (two is None):
        raise StructmaeError(
            f"{test}: {second[0].shape[0]} channels{', no labels' if two is None else ''}; {pairs[0].name} has "
            f"{first[0].shape[0]}{', no labels' if one is None else ''}. Do the two files go together?"
        )
    ends = np.arange(len(first) + len(second), dtype=np.int64)
    split = {"train": ends[: len(first)], "validation": ends[:0], "test": ends[len(first) :]}
    return first + second, None if one is None or two is None else one + two, split, name


def read_one(path: Path) -> tuple[list[Recording], list[str] | None, dict[str, Integers] | None, str]:
    """The recordings of one file, which has no split."""
    recordings, labels = read_ts(path)
    return recordings, labels, None, path.stem


def _flag(header: dict[str, list[str]], key: str) -> bool:
    return header.get(key, ["false"])[:1] in (["true"], ["True"], ["TRUE"])


def _recording(parts: list[str], path: Path, number: int) -> Recording:
    """One line as (C, T); channels that end early are not observed after that."""
    rows = []
    for part in parts:
        try:
            rows.append(np.array([_value(cell) for cell in part.split(",")] if part.strip() else [], np.float32))
        except ValueError:
            bad = next(cell for cell in part.split(",") if not _is_number(cell))
            hint = " (stamps in brackets are not read)" if "(" in part else ""
            raise StructmaeError(
                f"{path}: line {number} holds '{bad.strip()[:40]}', which is no number{hint}."
            ) from None
    length = max((row.size for row in rows), default=0)
    if length == 0:
        raise StructmaeError(f"{path}: line {number} has no values.")
    out = np.full((len(rows), length), np.nan, np.float32)
    for channel, row in enumerate(rows):
        out[channel, : row.size] = row
    return out


def _value(cell: str) -> float:
    text = cell.strip()
    return np.nan if text in ("?", "") else float(text)


def _is_number(cell: str) -> bool:
    try:
        _value(cell)
    except ValueError:
        return False
    return True
