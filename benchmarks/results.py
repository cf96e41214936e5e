"""The lines of a table, `results/TABLE.jsonl`: one JSON object a result, only ever appended."""

import json
import math
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from definition import FRACTIONS

import structmae
from structmae.errors import StructmaeError

FOLDER = Path(__file__).resolve().parent / "results"
KEYS = ("table", "data", "recipe", "seed", "metric", "split", "value", "settings")
Line = dict[str, Any]


def cell(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What is measured at once, and never twice. `base`: what the settings of a search change."""
    settings = json.dumps(line["settings"], sort_keys=True)
    return line["table"], line["data"], line["recipe"], line["seed"], settings, line.get("base")


def key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes a result one: of a cell there may be several metrics, and several `at` (a horizon, a kind of gap)."""
    return *cell(line), line.get("metric"), line.get("at", "")


def read(path: Path, table: str) -> list[Line]:
    """All whole lines; none where there is no file. A last line cut short by a kill is left out.

    Raises StructmaeError, naming the line, for one that is no result of `table`, and for a result that is there twice.
    """
    lines: list[Line] = []
    first: dict[tuple[Any, ...], int] = {}
    for number, text in enumerate(whole(path)[0].splitlines(), start=1):
        where = f"{path}, line {number}"
        line = parse(text)
        if line is None or any(name not in line for name in KEYS):
            raise StructmaeError(f"{where} is no result (a JSON object with {', '.join(KEYS)}): mend or delete it")
        if line["table"] != table:
            raise StructmaeError(
                f"{where} belongs to the table {line['table']!r}, not {table!r}: move it to its own file"
            )
        value, most = line["value"], 1 if line["metric"] in FRACTIONS else math.inf
        if type(value) not in (int, float) or not 0 <= value <= most:
            raise StructmaeError(f"{where}: value={value} is not a fraction of 1")
        named = all(type(line[name]) is str for name in ("data", "recipe", "metric", "split"))
        if not named or type(line["seed"]) is not int or type(line["settings"]) is not dict:
            raise StructmaeError(
                f"{where}: data, recipe, metric and split must be words, seed a whole number, settings an object"
            )
        if line.get("right") is not None and not re.fullmatch("([0-9a-f]{2})+", str(line["right"])):
            raise StructmaeError(f"{where}: right={line['right']} is not hexadecimal")
        if first.setdefault(key(line), number) != number:
            raise StructmaeError(f"{where} repeats the result of line {first[key(line)]}: delete one of them")
        lines.append(line)
    return lines


def heal(path: Path) -> str | None:
    """Cut a last line that a kill left unfinished, and say so. One that only lacks its line end gets it."""
    kept, torn = whole(path)
    if torn:
        os.truncate(path, len(kept))
        return f"{path}: the last line was cut short ({len(torn)} bytes) and is removed; its result is made again"
    if kept and not kept.endswith(b"\n"):
        _write(path, b"\n")
    return None


def append(path: Path, lines: Sequence[Line]) -> None:
    """Add lines by one write, and come back when they are on the disk."""
    _write(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


@contextmanager
def writing(path: Path, lock: Path) -> Iterator[None]:
    """Keep a second runner off the same file. The lock ends with the process, however it ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = lock.open("a")
    except OSError as error:
        raise StructmaeError(
            f"{path.parent} cannot be written: {error.strerror}; choose another by --results"
        ) from None
    with held:
        try:
            import fcntl

            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows has no flock; there it is left to the person
            pass
        except BlockingIOError:
            raise StructmaeError(f"another runner is writing {path}: wait for it, or give --results DIR") from None
        yield


def revision() -> str | None:
    """The commit of this checkout, "-dirty" where its code differs; None where the package comes from elsewhere."""
    root = FOLDER.parent.parent
    if Path(structmae.__file__).resolve().parent.parent != root:
        return None
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    code = ["structmae", "benchmarks", "datasets", ":(exclude)benchmarks/results"]
    said = []
    for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", *code]):
        try:
            git = ["git", "-C", str(root), *command]
            said.append(subprocess.run(git, env=env, check=True, capture_output=True, text=True).stdout.strip())
        except (OSError, subprocess.CalledProcessError):
            return None
    return said[0] + ("-dirty" if said[1] else "")


def whole(path: Path) -> tuple[bytes, bytes]:
    """The whole lines of a file, and what is left of an unfinished last one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b"", b""
    except OSError as error:
        raise StructmaeError(f"{path} cannot be read: {error.strerror}") from None
    last = content[content.rfind(b"\n") + 1 :]
    return (content, b"") if not last or parse(last) is not None else (content[: -len(last)], last)


def parse(text: bytes) -> Line | None:
    """The object of a line; None where it is none."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _write(path: Path, content: bytes) -> None:
    try:
        with path.open("ab", buffering=0) as file:
            written = file.write(content)
            os.fsync(file.fileno())
    except OSError as error:
        raise StructmaeError(f"{path} cannot be written: {error.strerror}; choose another place by --results") from None
    if written != len(content):
        raise StructmaeError(f"{path}: the disk took {written} of {len(content)} bytes: make room and run again")
