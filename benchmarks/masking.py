"""Time the masking layer against what is used elsewhere: `python benchmarks/masking.py`. It takes some three minutes.

Ours and the other alternate, after both were checked to do the same job: process time at 1 thread, wall time at 2. What
is done once for a data set is printed and not counted. The works are in masking_works.py and masking_graphs.py.
"""

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masking_report import Row, report
from tqdm.auto import tqdm

import structmae
from structmae.cli import Parser
from structmae.errors import StructmaeError

if TYPE_CHECKING:
    from masking_works import Work

NAMES = ("mae_indices", "mae_gather", "spans", "node_noise", "nodes", "edges", "paths", "paths_tuned", "tube", "block")
LIMIT = 420.0  # seconds for all, but for the least number of pairs; beyond it that number alone
BUDGET = 10.0  # seconds for a work at a number of threads
WARM, LEAST, MOST = 2, 5, 51  # pairs: not kept, and kept
WIDE = 2**29  # bytes copied to measure bandwidth: well above any cache
INTERRUPTED = 130


def parser() -> Parser:
    about = "Time the masking layer against what is used elsewhere, at 1 and 2 threads."
    made = Parser(prog="benchmarks/masking.py", description=about, allow_abbrev=False)
    what = made.add_mutually_exclusive_group()
    what.add_argument("--only", type=_names, metavar="WORK,...", help=f"of {', '.join(NAMES)}")
    what.add_argument("--cold", action="store_true", help="time the first run after installation, and nothing else")
    made.add_argument("--json", type=output_file, metavar="FILE", help="write the rows as a JSON list, too")
    return made


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in NAMES:
            raise argparse.ArgumentTypeError(f"{name!r} is no work: there are {', '.join(NAMES)}")
    return names


def output_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: must be a file in a folder that is there")
    return path


def main(arguments: Sequence[str] | None = None, scale: float = 1.0) -> int:
    """Exit codes: 0 done, 1 a work went wrong or the file can't be written, 2 usage, 130 interrupted.

    A `scale` below 1 makes the works smaller; its rows mean nothing.
    """
    made = parser()
    args = made.parse_args(arguments)
    if args.cold and args.json:
        made.error("argument --json: --cold makes no rows; leave one of them out")
    begin = time.perf_counter()
    try:
        first = [] if args.only else [cold()]
        if args.cold:
            print(first[0])
            return 0
        todo = [work for work in works(scale) if work.name in (args.only or NAMES)]
        rows, notes, right = measure(todo, scale, begin)
        print(report(rows, first + notes))
        print(f"{time.perf_counter() - begin:.0f} s in all")
        if args.json:
            args.json.write_text(json.dumps([row.public() for row in rows], indent=1) + "\n", encoding="utf-8")
    except (StructmaeError, OSError) as error:
        print(f"benchmarks/masking.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks/masking.py: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0 if right else 1


def works(scale: float) -> "list[Work]":
    """All of them, in the order of NAMES; nothing is set up yet."""
    import torch
    from masking_graphs import Graph, Nodes, Paths, PathsTuned, UndirectedEdges
    from masking_works import Block, MaeGather, MaeIndices, NodeNoise, Spans, Tube

    random.seed(0)
    torch.manual_seed(0)

    def few(n: int) -> int:
        return max(8, round(n * scale))

    graph = Graph(few(1_000_000), 5 * few(1_000_000))
    mae = [kind(shape) for kind in (MaeIndices, MaeGather) for shape in ((few(4096), 196, 64), (few(256), 1024, 128))]
    spans = [Spans((few(64), 7, 512)), Spans((few(256), 32, 1024))]
    on_graph = [kind((), graph=graph) for kind in (Nodes, UndirectedEdges, Paths, PathsTuned)]
    rest = [Tube((few(1024), 8, 14, 14)), Block((few(1024), 14, 14))]
    return [*mae, *spans, NodeNoise((few(100_000), 128)), *on_graph, *rest]


def measure(todo: "list[Work]", scale: float, begin: float) -> tuple[list[Row], list[str], bool]:
    """Rows in the order of the works, notes, and whether all works do the same job as the others.

    One thread comes first, before torch has others that may spin.
    """
    import numba
    import torch
    from masking_works import Absent

    before = torch.get_num_threads(), numba.get_num_threads()
    counts = [n for n in (1, 2) if n <= numba.config.NUMBA_NUM_THREADS]
    if len(counts) == 1:
        print("rows of 2 threads are left out: Numba has one", file=sys.stderr)
    rows: dict[tuple[int, int], Row] = {}
    notes, out, right = [], set(), True
    try:
        with tqdm(total=len(todo) * len(counts)) as bar:
            for threads in counts:
                _use(threads, threads)
                speed = bandwidth(threads, max(1 << 20, int(WIDE * scale)))
                many = "1 thread" if threads == 1 else f"{threads} threads"
                notes.append(f"bandwidth with {many}: {speed / 1e9:.1f} GB/s, reads and writes together")
                for number, work in enumerate(todo):
                    bar.set_description(f"{work.name}, {work.size}, threads: {threads}")
                    if threads == 1:
                        try:
                            work.setup()
                            work.check()
                        except StructmaeError as error:
                            bar.write(f"{work.name}, {work.size}, is left out: {error}", file=sys.stderr)
                            out.add(number)
                            right &= isinstance(error, Absent)
                        _use(threads, threads)  # an import may have changed them
                    if number not in out:
                        left = (begin + LIMIT - time.perf_counter()) / (bar.total - bar.n)
                        ours, other = pairs(work, threads, min(BUDGET, left))
                        rows[number, threads] = Row(work, threads, ours, other, work.moved / speed * 1e3)
                    bar.update()
    finally:
        _use(*before)
    return [rows[key] for key in sorted(rows)], notes, right


def _use(torch_threads: int, numba_threads: int) -> None:
    import numba
    import torch

    torch.set_num_threads(torch_threads)
    numba.set_num_threads(numba_threads)


def pairs(work: "Work", threads: int, budget: float) -> tuple[list[float], list[float]]:
    """Milliseconds of ours and of the other, in turns. What a call gives is let go of within its time."""
    clock = time.process_time if threads == 1 else time.perf_counter

    def took(call: Callable[..., Any], *args: int) -> float:
        begin = clock()
        call(*args)
        return (clock() - begin) * 1e3

    ours: list[float] = []
    other: list[float] = []
    gc.collect()
    gc.disable()
    try:
        for visit in count(1):
            both = took(work.ours, visit), took(work.other)
            if visit <= WARM:
                begin = time.perf_counter()
                continue
            ours.append(both[0])
            other.append(both[1])
            if len(ours) == MOST or (len(ours) >= LEAST and time.perf_counter() - begin > budget):
                break
    finally:
        gc.enable()
    return ours, other


def bandwidth(threads: int, size: int) -> float:
    """Bytes a second of the fastest of some copies of `size` bytes, reads and writes counted."""
    import numpy as np

    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    halves = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    clock = time.process_time if threads == 1 else time.perf_counter
    taken = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(7):
            begin = clock()
            list(pool.map(lambda half: np.copyto(*half), halves))
            taken.append(clock() - begin)
    return 2 * size / max(min(taken), 1e-9)


_FIRST = """
import os, time
from pathlib import Path
begin = time.perf_counter()
import structmae.masking.edge_tokens, structmae.masking.torch, structmae.masking.plan
import numpy as np
from structmae.masking import Spec, draw, layout
from structmae.masking.adjacency import grid
imported = time.perf_counter() - begin
compiled = len(list(Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*.nbc")))
begin = time.perf_counter()
at = layout([0, 16, 32], adjacency=grid((4, 4), 2), weight=np.ones(32))
for strategy in ("uniform", "weighted", "block", "span", "walk"):
    plan = draw(at, Spec(strategy=strategy, random=0.2, keep=0.1), seed=0, visit=0)
    plan.hidden, plan.visible, plan.scored, plan.restore
print(compiled, imported, time.perf_counter() - begin)
"""


def cold() -> str:
    """How long a first process compiles, and how long a second takes to load that."""
    said = []
    with tempfile.TemporaryDirectory() as folder:
        here = str(Path(structmae.__file__).parents[1])
        paths = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "NUMBA_CACHE_DIR": folder, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}
        for _ in range(2):
            done = subprocess.run([sys.executable, "-c", _FIRST], env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                raise StructmaeError(f"the cold first run failed: {done.stderr.strip().splitlines()[-1:]}")
            said.append(done.stdout.split())
    (compiled, imported, first), (_, _, second) = said
    return (
        f"cold first run: a small plan of each strategy took {float(first):.1f} s with nothing compiled, and "
        f"{float(second):.1f} s in the next process, from the cache on disk; importing took {float(imported):.1f} s "
        f"and compiled {compiled if int(compiled) else 'nothing'}"
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's idle threads sleep, and ours can have the core
    sys.exit(main())
