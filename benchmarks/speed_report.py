"""What speed.py says: rows as JSON, and a table of them in text, Markdown or CSV."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from masking_report import processor, rendered
from speed_works import Work

TABLE = "speed"
JUDGED = "medium"
HEADS = (
    "work", "precision", "ours ms", "other ms", "ratio", "must, aim", "floor ms", "x floor", "ours MB", "other MB",
    "against",
)  # fmt: skip
LEGEND = (
    "Medians; ratio: other / ours, median of pairs, above 1 is faster. What it must reach is judged at medium.",
    "floor: matrix products of our step at the rate that they reach alone, and the bytes that Adam and layers over "
    "edges must move at the rate of a copy, both measured in the same run.",
    "MB: most memory of the process at once, its libraries and the data included.",
    "same settings: our malloc and precision on both sides; defaults: torch as it is.",
)
KEYS = ("work", "precision", "ours_ms", "other", "other_ms", "ratio", "floor_ms", "threads", "processor")


@dataclass
class Row:
    """A work at a precision: milliseconds of each pair's turns, and what a step of ours needs at least."""

    work: Work
    precision: str
    threads: int
    ours: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)
    floor: float = 0.0
    memory: tuple[int | None, int | None] = (None, None)

    def public(self, versions: dict[str, str]) -> dict[str, Any]:
        ratio = median(b / a for a, b in zip(self.ours, self.other, strict=True))
        return {
            "work": self.work.name, "precision": self.precision, "ours_ms": round(median(self.ours), 3),
            "other": self.work.other, "other_ms": round(median(self.other), 3), "ratio": round(ratio, 3),
            "floor_ms": round(self.floor, 3), "threads": self.threads, "processor": processor(),
            "pairs": len(self.ours), "must": self.work.must, "aim": self.work.aim, "ours_memory": self.memory[0],
            "other_memory": self.memory[1], "versions": versions,
        }  # fmt: skip


def cells(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Heads, and a line a row."""
    body = [
        (
            row["work"], row["precision"], _three(row["ours_ms"]), _three(row["other_ms"]), f"{row['ratio']:.2f}",
            _wanted(row), _three(row["floor_ms"]), f"{row['ours_ms'] / row['floor_ms']:.1f}",
            _mega(row.get("ours_memory")), _mega(row.get("other_memory")), row["other"],
        )
        for row in rows
    ]  # fmt: skip
    return [HEADS, *body]


def text(rows: Sequence[dict[str, Any]]) -> str:
    lines = cells(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = "<<>>><>>>><"
    aligned = (
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)).rstrip()
        for line in lines
    )
    return "\n".join([*aligned, "", *LEGEND, *about(rows)])


def about(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What the rows were measured on."""
    on = {f"{row['processor']}, threads: {row['threads']}; {_versions(row)}" for row in rows}
    return [f"Measured on {where}." for where in sorted(on)]


def render(folder: Path, form: str) -> tuple[str, list[str]]:
    """The table of speed.json in `folder`, as md or csv, and its notes. Raises UsageError for another format,
    StructmaeError for a file that is missing or is none of speed.py's."""
    return rendered(folder, TABLE, form, cells, "<<>>><>>>><", lambda rows: [*LEGEND, *about(rows)])


def _wanted(row: dict[str, Any]) -> str:
    if row["precision"] != JUDGED:
        return "-"
    goals = [goal for goal in (row.get("must"), row.get("aim")) if goal]
    return ", ".join(f"{goal:g} {'yes' if row['ratio'] >= goal else 'NO'}" for goal in goals) or "-"


def _versions(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {found}" for name, found in (row.get("versions") or {}).items())


def _three(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _mega(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.0f}"
