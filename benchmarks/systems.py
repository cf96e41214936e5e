"""The systems at their small sizes, what must hold and what they score: `python benchmarks/run.py systems`.

A row is a system on a data set: it is pre-trained (beside what it stands next to), its mechanism is checked on the
trained model, and the numbers, each with its bound, become one line of results/systems.jsonl. What must hold is in
systems_rows.py, how mechanisms are checked in systems_checks.py. All settings are here; none was tuned on a test part.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jobs
import results
from cells import HARNESS, fresh_peak

import structmae
from structmae.data import catalog
from structmae.errors import StructmaeError, UsageError
from structmae.recipe import resolve
from structmae.registry import near

TABLE = "systems"
KEYS = ("table", "system", "data", "recipe", "seed", "settings", "runs", "checks")
OWN = "own"


@dataclass(frozen=True)
class Case:
    """One pre-training: a recipe on data, at its default size but for `settings`."""

    recipe: str
    data: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def settled(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """All its options with others for some."""
        card = catalog.resolve(self.data)
        return resolve(self.recipe, {**self.settings, **more}, data=card.name, level=card.level).settings()

    def options(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What it is pre-trained with: its settings, and those of `asked` that change something."""
        size = {"size": asked["size"]} if "size" in asked else {}
        before, after = {**self.settled(size), "size": self.settled({})["size"]}, self.settled(asked)
        return {**self.settings, **{key: after[key] for key in asked if after[key] != before[key]}}


@dataclass(frozen=True)
class System:
    """A row: its own case, and by name those it stands beside. `note` is said below the table."""

    name: str
    own: Case
    beside: Mapping[str, Case] = field(default_factory=dict)
    note: str = ""

    @property
    def data(self) -> str:
        return self.own.data

    @property
    def cases(self) -> dict[str, Case]:
        return {OWN: self.own, **self.beside}


_TINY = {**HARNESS, "size": "tiny"}
_GAT = {**_TINY, "encoder.layer": "gat", "heads.features.layer": "gat"}
_GIN = {**_TINY, "encoder.layer": "gin", "heads.features.layer": "gin", "encoder.norm": "batchnorm"}
_TRANSFORMER = {
    **_TINY,
    "encoder.kind": "graph_transformer",
    "encoder.attention": "adjacency",
    "encoder.norm": "layernorm",
}
_TERMS = {"terms.infonce.weight": 0.1, "terms.uniformity.weight": 0.1}
_EQUAL = {"encoder.layers": 3, "train.epochs": 150}  # as cmae at size tiny
_SMALL = "the tables of node and graph classification have the published sizes of graphmae"


def _graphmae(data: str) -> dict[str, Case]:
    return {"graphmae with GAT": Case("graphmae", data, _GAT), "graphmae with GIN": Case("graphmae", data, _GIN)}


SYSTEMS = (
    System("mae", Case("mae", "digits-images")),
    System("bert", Case("bert", "pydoc-topics")),
    System("igpt", Case("igpt", "digits-images")),
    System("cmae", Case("cmae", "digits-images"), {"mae": Case("mae", "digits-images", _EQUAL)}),
    System("multimae", Case("multimae", "digits-maps")),
    System(
        "gmae", Case("gmae", "cora", HARNESS), _graphmae("cora"),
        f"gmae and graphmae at size tiny, gmae on neighbourhoods (15 epochs of 1,024); {_SMALL}.",
    ),
    System(
        "gmae", Case("gmae", "mutag", HARNESS), _graphmae("mutag"),
        "gmae and graphmae at size tiny, 15 and 20 epochs.",
    ),
    System(
        "graph_transformer", Case("graphmae", "cora", _TRANSFORMER), _graphmae("cora"),
        f"graphmae at size tiny with encoder.kind=graph_transformer, equal epochs; {_SMALL}.",
    ),
    System(
        "graph_transformer", Case("graphmae", "mutag", _TRANSFORMER), _graphmae("mutag"),
        "graphmae at size tiny with encoder.kind=graph_transformer, equal epochs.",
    ),
    System(
        "graphmae2", Case("graphmae2", "cora", {**_TINY, "train.epochs": 150}),
        {"graphmae": Case("graphmae", "cora", {**_TINY, "encoder.hidden": 128})},
        f"both at size tiny, 128 wide, equal epochs; {_SMALL}.",
    ),
    System(
        "maskgae_path", Case("maskgae_path", "cora", {**HARNESS, "data.edges": "train"}),
        {"all edges": Case("maskgae_path", "cora", HARNESS)},
        "links are scored by a run that never had the scored edges, nodes by one of the whole graph, as in the paper.",
    ),
    System(
        "clustering", Case("mae", "digits-images", {"terms.clustering.weight": 0.1}),
        note="mae with the clustering term (its weight as in Guo et al., IJCAI 2017); plain: the same without it.",
    ),
    System("terms", Case("graphmae", "citations", {**_TERMS, "size": "tiny"}), note="graphmae with two terms added."),
    System(
        "terms", Case("tsformer", "lorenz96", {**_TERMS, "train.items": 512}),
        note="tsformer with two terms added, a quarter of its windows an epoch.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A system and a seed. `folders` has each case's, of which several rows may have the same."""

    system: System
    seed: int
    asked: Mapping[str, str]
    folders: Mapping[str, Path]

    def about(self) -> dict[str, Any]:
        """What makes its line one."""
        own = self.system.own
        return {
            "table": TABLE, "system": self.system.name, "data": own.data, "recipe": own.recipe, "seed": self.seed,
            "settings": own.options(self.asked),
        }  # fmt: skip

    def runs(self) -> dict[str, dict[str, Any]]:
        cases = self.system.cases.items()
        return {name: {"recipe": c.recipe, "data": c.data, "settings": c.options(self.asked)} for name, c in cases}


def plan(only: Sequence[str], seeds: int, asked: Mapping[str, str], runs: Path) -> Iterator[Row]:
    """The rows that `only` leaves: names of systems, or system/data. Raises UsageError for what can't be asked for."""
    if "train.seed" in asked:
        raise UsageError(f"--set train.seed={asked['train.seed']}: the runner goes through the seeds; give --seeds N")
    names = list(dict.fromkeys(name for s in SYSTEMS for name in (s.name, f"{s.name}/{s.data}")))
    for text in only:
        if text.lower() not in names:
            raise UsageError(f"--only {text} is no system: {near(text, list(dict.fromkeys(s.name for s in SYSTEMS)))}")
    wanted = {text.lower() for text in only}
    for system in SYSTEMS:
        if wanted and not wanted & {system.name, f"{system.name}/{system.data}"}:
            continue
        for seed in range(seeds):
            folders = {name: _folder(case, seed, asked, runs) for name, case in system.cases.items()}
            yield Row(system, seed, asked, folders)


def _folder(case: Case, seed: int, asked: Mapping[str, str], runs: Path) -> Path:
    """It stands for all options, so that no run of an older version of a recipe is gone on with."""
    about = [case.data, case.recipe, case.settled(asked), seed]
    mark = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return runs / f"{TABLE}-{case.data}-{case.recipe}-{seed}-{mark[:10]}"


def key(line: Mapping[str, Any]) -> str:
    """What makes a line one: its own case, its seed and those it stands beside."""
    runs = {name: [run["recipe"], run["data"], run["settings"]] for name, run in line["runs"].items()}
    return json.dumps([*(line[part] for part in ("system", "data", "seed", "settings")), runs], sort_keys=True)


def read(path: Path) -> list[results.Line]:
    """All lines; none where there is no file. A last line cut short by a kill is left out. Raises StructmaeError for
    one that is no result of this table, and for a row that is there twice."""
    lines: list[results.Line] = []
    first: dict[str, int] = {}
    for number, text in enumerate(results.whole(path)[0].splitlines(), start=1):
        line = results.parse(text)
        if line is None or any(name not in line for name in KEYS) or line["table"] != TABLE:
            raise StructmaeError(f"{path}, line {number} is no result of {TABLE}: mend or delete it")
        if first.setdefault(key(line), number) != number:
            raise StructmaeError(f"{path}, line {number} repeats the result of line {first[key(line)]}: delete one")
        lines.append(line)
    return lines


def measure(args: argparse.Namespace, asked: dict[str, str]) -> int:
    """Make the rows that are missing. Exit codes: 0 all are there, 1 some can't be made."""
    folder = args.results or results.FOLDER
    path = folder / f"{TABLE}.jsonl"
    runs = folder / "runs" if args.results else Path(__file__).resolve().parent / "runs"
    rows = list(plan(args.only, args.seeds or 1, asked, runs))
    with results.writing(path, runs / f"{TABLE}.lock"):
        healed = results.heal(path)
        if healed:
            print(healed, file=sys.stderr)
        done = {key(line): line for line in read(path)}
        return _run(args, path, rows, done)


def _run(args: argparse.Namespace, path: Path, rows: Sequence[Row], done: dict[str, results.Line]) -> int:
    import torch  # not at the top: --help waits for none

    from structmae.pretraining import thread_limit

    todo = [row for row in rows if _key(row) not in done]
    revision = results.revision()
    skipped: list[dict[str, Any]] = []
    with thread_limit(args.threads or torch.get_num_threads()):
        for number, row in enumerate(todo, start=1):
            name = f"{row.system.name} on {row.system.data}, seed {row.seed}"
            print(f"{number}/{len(todo)} {name}", file=sys.stderr)
            try:
                line = _measure(args, row, revision)
            except StructmaeError as error:
                if error.exit_code == jobs.INTERRUPTED:
                    raise
                print(f"skipped {name}: {error}", file=sys.stderr)
                about = {"system": row.system.name, "data": row.system.data, "seed": row.seed}
                skipped.append({**about, "reason": str(error)})
                continue
            results.append(path, [line])
            done[key(line)] = line
    _clear(rows, done)
    failing = [
        {part: there[part] for part in ("system", "data", "seed")} | each
        for row in rows if (there := done.get(_key(row))) is not None
        for each in there["checks"] if each["holds"] is False
    ]  # fmt: skip
    for each in failing:
        print(
            "does not hold: {system} on {data}, seed {seed}: {what}: {value} {must} {bound}".format(**each),
            file=sys.stderr,
        )
    summary = {
        "table": TABLE, "ran": len(todo) - len(skipped), "there": len(rows) - len(todo), "skipped": skipped,
        "failing": failing, "results": str(path),
    }  # fmt: skip
    counts = f"{summary['ran']} rows ran, {summary['there']} were there already, {len(skipped)} skipped"
    print(json.dumps(summary) if args.json else f"{counts}, {len(failing)} checks fail: {path}")
    return 1 if skipped else 0


def _key(row: Row) -> str:
    return key({**row.about(), "runs": row.runs()})


def _clear(rows: Sequence[Row], done: Mapping[str, Any]) -> None:
    """Remove the folders of rows that are done, but those that others go on with."""
    needed = {folder for row in rows if _key(row) not in done for folder in row.folders.values()}
    for row in rows:
        for folder in set(row.folders.values()) - needed:
            shutil.rmtree(folder, ignore_errors=True)


def _measure(args: argparse.Namespace, row: Row, revision: str | None) -> results.Line:
    """Pre-train, check, and give the line."""
    from systems_rows import CHECKS

    for case in row.system.cases.values():
        if catalog.where(case.data) is None:
            raise StructmaeError(f"data not here: {case.data} lies neither under $STRUCTMAE_DATA nor in the cache")
    fresh_peak()
    begin, runs = time.perf_counter(), {}
    for name, case in row.system.cases.items():
        folder = row.folders[name]
        if folder.exists() and not (folder / "config.json").exists():
            shutil.rmtree(folder)  # killed while it was made: nothing in it
        runs[name] = structmae.pretrain(
            case.data, case.recipe, settings=case.options(row.asked), seed=row.seed, out=folder, resume=True,
            device=args.device, threads=args.threads, progress=sys.stderr.isatty(),
        )  # fmt: skip
    checks = CHECKS[row.system.name](runs)
    own = runs[OWN].result
    facts = ("size", "epochs", "seconds", "loss_first", "loss_last")
    made = {name: {**about, **{key: runs[name].result[key] for key in facts}} for name, about in row.runs().items()}
    return {
        **row.about(), "checks": checks, "runs": made, "seconds": own["seconds"],
        "wall": round(time.perf_counter() - begin, 3),
        "peak_memory": max(run.result["peak_memory"] or 0 for run in runs.values()) or None, "revision": revision,
        **{key: own[key] for key in ("versions", "device", "threads", "size", "epochs")},
    }  # fmt: skip
