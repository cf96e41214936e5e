"""What masking.py prints: a table, and what a reader must know to read it."""

import csv
import io
import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from structmae.errors import StructmaeError, UsageError

if TYPE_CHECKING:
    from masking_works import Work

TABLE = "masking"
FASTER = 1.6  # what two threads should reach over one, on the large works


@dataclass
class Row:
    """One work at a number of threads: milliseconds of each pair, and the least that memory allows."""

    work: "Work"
    threads: int
    ours: list[float]
    other: list[float]
    floor: float

    @property
    def ratio(self) -> float:
        return median(b / a for a, b in zip(self.ours, self.other, strict=True))

    def public(self) -> dict[str, Any]:
        ours, other = median(self.ours), median(self.other)
        return {
            "work": self.work.name, "size": self.work.size, "threads": self.threads, "ours_ms": round(ours, 4),
            "other": self.work.against, "other_ms": round(other, 4), "ratio": round(self.ratio, 3),
            "floor_ms": round(self.floor, 4),
        }  # fmt: skip


def report(rows: list[Row], notes: list[str]) -> str:
    """A table, and below it what else there is to know."""
    from structmae.run import versions

    heads = [
        "work", "size", "threads", "pairs", "ours ms", "other ms", "ratio", "floor ms", "ours/floor", "2/1", "wanted",
        "against",
    ]  # fmt: skip
    lines = [heads]
    one = {id(row.work): median(row.ours) for row in rows if row.threads == 1}
    for row in rows:
        ours, other, work = median(row.ours), median(row.other), row.work
        faster = one[id(work)] / ours
        if row.threads == 1:
            wanted = [(goal, row.ratio) for goal in (work.target, work.aim) if goal]
        else:
            wanted = [(FASTER, faster)] if work.large else []
        lines.append([
            work.name, work.size, str(row.threads), str(len(row.ours)), f"{ours:.3f}", f"{other:.2f}",
            f"{row.ratio:.2f}", f"{row.floor:.3f}", f"{ours / row.floor:.1f}",
            f"{faster:.2f}" if row.threads > 1 else "-",
            ", ".join(f"{goal:g} {'yes' if got >= goal else 'NO'}" for goal, got in wanted) or "-", work.against,
        ])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = ["<", "<", *">>>>>>>>", "<", "<"]
    table = [
        "  ".join(f"{text:{side}{width}}" for text, side, width in zip(line, sides, widths, strict=True))
        for line in lines
    ]
    found = {**versions(), **{name: version_of(name) for name in ("tsai", "pyg-lib")}}
    about = f"{processor()}, {os.cpu_count()} cores; " + ", ".join(f"{name} {v}" for name, v in found.items())
    return "\n".join([*(line.rstrip() for line in table), "", *_LEGEND, "", *notes, *_once(rows), about])


_LEGEND = (
    "Medians of process time (1 thread) or wall time (2). ratio: other / ours, median of pairs; above 1 is faster.",
    "floor: bytes that must move, over bandwidth. What fits the cache can be below it, random steps are far above.",
    "2/1: how much faster than 1 thread. wanted: of ratio at 1 thread; of 2/1 at 2 threads, on the large works.",
)


def render(folder: Path, form: str) -> tuple[str, list[str]]:
    """The table of masking.json in `folder`, as md or csv, and its notes. Raises as `rendered` does."""
    return rendered(folder, TABLE, form, _public_cells, "<<<>>>>>>", lambda rows: list(_LEGEND[:2]))


def _public_cells(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Heads, and a line a work: what it took at one thread, and what two threads make of it."""
    heads = ("work", "size", "against", "ours ms", "other ms", "ratio", "floor ms", "ratio, 2 threads", "2/1")
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["work"], row["size"]), {})[row["threads"]] = row
    lines = [heads]
    for (work, size), some in found.items():
        one, two = some[1], some.get(2)
        lines.append((
            work, size, one["other"], f"{one['ours_ms']:.3g}", f"{one['other_ms']:.4g}", f"{one['ratio']:.1f}",
            f"{one['floor_ms']:.2g}", f"{two['ratio']:.1f}" if two else "-",
            f"{one['ours_ms'] / two['ours_ms']:.2f}" if two else "-",
        ))  # fmt: skip
    return lines


def rendered(
    folder: Path,
    name: str,
    form: str,
    cells: Callable[[Sequence[dict[str, Any]]], Sequence[tuple[str, ...]]],
    sides: str,
    notes: Callable[[Sequence[dict[str, Any]]], list[str]],
) -> tuple[str, list[str]]:
    """The table that the script `name` left as JSON in `folder`, as md or csv, and its notes. Raises UsageError for
    another format, StructmaeError for a file that is missing or is none of the script's."""
    if form not in ("md", "csv"):
        raise UsageError(f"--format {form}: the table of {name} is made as md or csv")
    path = folder / f"{name}.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        lines, said = cells(rows), notes(rows)
    except OSError as error:
        makes = f"python benchmarks/{name}.py --json {path} makes it"
        raise StructmaeError(f"{path}: {error.strerror}; {makes}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StructmaeError(f"{path} is not what benchmarks/{name}.py --json writes") from None
    if form == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(lines)
        return out.getvalue().rstrip("\n"), said
    ruled = [lines[0], tuple("---" if side == "<" else "---:" for side in sides), *lines[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in ruled), said


def _once(rows: list[Row]) -> Iterator[str]:
    """Set-up that is not counted, each graph's once."""
    seen = set()
    for row in rows:
        graph = getattr(row.work, "graph", None)
        for on, setups in ((f"graph of {graph}", graph.setups if graph else {}), (row.work.name, row.work.setups)):
            if setups and id(setups) not in seen:
                seen.add(id(setups))
                parts = ", ".join(f"{what} {seconds * 1e3:.1f} ms" for what, seconds in setups.items())
                yield f"once, not counted: {on}: {parts}"


def version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
