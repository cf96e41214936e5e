"""How time and memory grow, and how long a first step takes: `python benchmarks/speed.py --growth`.

Steps of simulated graphs and series of several sizes at the recipe's own settings, each in a process of its own; and
`structmae pretrain` from the shell to the end of its first step, with nothing compiled and then from a cache. What
is measured goes to results/speed_growth.json, a plot to results/speed_growth.png.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import results
from speed_report import JUDGED, processor
from speed_worker import WAIT, Worker
from speed_works import Work

from structmae.errors import StructmaeError

NAME, STEPS, BUDGET = "speed_growth", 8, 15.0  # steps of a size, fewer where they take longer than these seconds
NODES, ROWS, CHANNELS = (1_000, 10_000, 100_000), (10_000, 100_000, 1_000_000), 7
STARTS = {  # an epoch of one step each, on the recipes' own data
    "graphmae on citations": ("--data", "citations", "--recipe", "graphmae"),
    "patchtst on lorenz96": ("--data", "lorenz96", "--recipe", "patchtst", "--set", "train.items=16"),
}
POLL, PATIENCE = 0.01, 600.0  # seconds between looks at a run's folder, and after which nothing is to be expected


def main(threads: int, *, folder: Path = results.FOLDER, quick: bool = False) -> int:
    """`quick` leaves the largest sizes out, and the cold starts."""
    with tempfile.TemporaryDirectory() as beside:
        steps = [
            *(_step("nodes", size, Work("sbm", "graphmae", f"sbm:n={size}", settings={}), threads)
              for size in (NODES[:1] if quick else NODES)),
            *(_step("rows", size, Work("series", "patchtst", _series(size, Path(beside)), settings={}), threads)
              for size in (ROWS[:1] if quick else ROWS)),
        ]  # fmt: skip
        starts = [] if quick else [_start(name, asked, Path(beside)) for name, asked in STARTS.items()]
    for row in steps:
        print(f"{row['size']:>9,} {row['of']:5}  {row['step_ms']:8.1f} ms a step  {row['peak_memory'] / 1e6:6.0f} MB")
    for row in starts:
        print(f"first step of {row['what']}: {row['cold']:.1f} s from the command on, {row['warm']:.1f} s when cached")
    about = {"threads": threads, "processor": processor()}
    (folder / f"{NAME}.json").write_text(json.dumps({**about, "steps": steps, "starts": starts}, indent=1) + "\n")
    _plot(steps, folder / f"{NAME}.png")
    return 0


def _step(of: str, size: int, work: Work, threads: int) -> dict[str, Any]:
    print(f"{size} {of}", file=sys.stderr)
    with Worker("speed_sides", "ours", {"work": asdict(work), "precision": JUDGED}, threads) as side:
        side.ready()
        first = side.turn(1)["ms"][0]
        answer = side.turn(max(2, min(STEPS, int(BUDGET * 1e3 / first))))
    step = round(median(answer["ms"]), 3)
    return {"of": of, "size": size, "recipe": work.recipe, "step_ms": step, "peak_memory": answer["peak_memory"]}


def _series(rows: int, folder: Path) -> str:
    """Seasons and a random walk, as a file that is mapped into memory."""
    draw, time_ = np.random.default_rng(0), np.arange(rows, dtype=np.float32)[:, None]
    seasons = np.sin(time_ * (2 * np.pi / np.linspace(12, 96, CHANNELS, dtype=np.float32)))
    path = folder / f"{rows}.npy"
    np.save(path, seasons + 0.1 * draw.standard_normal((rows, CHANNELS), np.float32).cumsum(0))
    return str(path)


def _start(what: str, asked: Sequence[str], folder: Path) -> dict[str, Any]:
    """Seconds with an empty cache of Numba's, and with what the first of the two left there."""
    print(f"structmae pretrain, {what}", file=sys.stderr)
    cache = folder / f"cache of {what}"
    cold, warm = (round(_first(asked, cache, folder / f"{what}, {name}"), 2) for name in ("cold", "warm"))
    return {"what": what, "cold": cold, "warm": warm}


def _first(asked: Sequence[str], cache: Path, out: Path) -> float:
    """From the command until the first line of metrics.jsonl is there. Raises StructmaeError where it never is."""
    command = [sys.executable, "-m", "structmae", "pretrain", *asked, "--out", str(out), "--no-eval"]
    metrics, begin = out / "metrics.jsonl", time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        env = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=said)
        try:
            while not (metrics.exists() and metrics.stat().st_size):
                time.sleep(POLL)
                if process.poll() is not None or time.perf_counter() - begin > PATIENCE:
                    said.seek(0)
                    raise StructmaeError(f"no first step: {said.read().strip().splitlines()[-1:]}")
            return time.perf_counter() - begin
        finally:
            process.terminate()
            try:
                process.wait(WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _plot(steps: Sequence[dict[str, Any]], path: Path) -> None:
    """Step time and memory against size, both logarithmic, graphs and series side by side."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: it needs matplotlib, pip install structmae[plots]", file=sys.stderr)
        return
    figure = Figure(figsize=(8, 3), layout="constrained")
    titles = {"nodes": "graphmae, sbm", "rows": "patchtst, series"}
    for axis, (of, name) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        some = [row for row in steps if row["of"] == of]
        sizes, times = [row["size"] for row in some], [row["step_ms"] for row in some]
        axis.loglog(sizes, times, "o-", color="C0")
        decades = 10 ** np.floor(np.log10([min(times), 10 * max(times)]))  # a flat line looks flat
        axis.set(title=name, xlabel=of, ylim=decades)
        axis.set_ylabel("ms a step", color="C0")
        memory, used = axis.twinx(), [row["peak_memory"] / 1e6 for row in some]
        memory.plot(sizes, used, "s--", color="C1")
        memory.set_ylabel("peak MB", color="C1")
        memory.set_ylim(0, 1.1 * max(used))
    figure.savefig(path, dpi=150)
    print(f"plot: {path}")
