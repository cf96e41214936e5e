"""What `structmae.tune_cpu` gives and what memory it costs: `python benchmarks/malloc.py`. Some minutes on 2 cores.

Each training is a process of its own, with malloc as it comes or tuned, in turn. The table has medians: milliseconds of
an epoch after the first, page faults of the whole training, and the most memory of the process, its libraries included.
`DATA/RECIPE` names other trainings.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from structmae.cli import Parser, positive

WORKS = ("citations/graphmae", "lorenz96/patchtst", "digits-images/mae", "cora/graphmae", "etth1/patchtst")
SETTINGS = {"train.items": 512, "train.schedule": "constant"}  # epochs of some batches, which are as good as long ones


def train(work: str, epochs: int, threads: int | None, tuned: bool) -> dict[str, float]:
    """One training, in this process."""
    import resource

    import structmae

    if tuned and not structmae.tune_cpu():
        sys.exit("malloc cannot be tuned here: it is not the GNU C library's")
    data, _, recipe = work.partition("/")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        settings = {**SETTINGS, "train.epochs": epochs}
        structmae.pretrain(data, recipe, settings=settings, out=out, threads=threads, progress=False)
        ends = [json.loads(line)["time"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    used = resource.getrusage(resource.RUSAGE_SELF)
    step = median(after - before for before, after in pairwise(ends))
    return {"ms": 1e3 * step, "faults": used.ru_minflt, "memory": used.ru_maxrss / 1024}


def measure(work: str, args: argparse.Namespace) -> list[Any]:
    """A row of the table."""
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for number in range(2 * args.rounds):
        tuned = number % 4 in (1, 2)  # the sides take turns to be first
        one = [sys.executable, "-W", "ignore", __file__, work, "--epochs", str(args.epochs), "--one", str(int(tuned))]
        one += ["--threads", str(args.threads)] if args.threads else []
        made = subprocess.run(one, text=True, capture_output=True)
        if made.returncode:
            said = made.stderr.strip().splitlines() or [f"exit code {made.returncode}"]
            sys.exit(f"benchmarks/malloc.py: {work}: {said[-1]}")
        found[tuned].append(json.loads(made.stdout.splitlines()[-1]))
    before, after = ({key: median(one[key] for one in found[side]) for key in found[side][0]} for side in (False, True))
    grows = f"{after['memory'] - before['memory']:+.0f} ({after['memory'] / before['memory'] - 1:+.0%})"
    times = [f"{before['ms']:.1f}", f"{after['ms']:.1f}", f"{before['ms'] / after['ms']:.2f}"]
    faults = [f"{side['faults'] / 1e3:.0f}" for side in (before, after)]
    return [work, *times, *faults, f"{before['memory']:.0f}", f"{after['memory']:.0f}", grows]


def main(arguments: Sequence[str] | None = None) -> int:
    about = "Time an epoch with malloc as it comes and tuned, and say what memory each takes."
    made = Parser(prog="benchmarks/malloc.py", description=about, allow_abbrev=False)
    made.add_argument("works", nargs="*", default=WORKS, metavar="DATA/RECIPE", help=", ".join(WORKS))
    made.add_argument("--epochs", type=positive, default=6, metavar="N", help="of a training; two or more (6)")
    made.add_argument("--rounds", type=positive, default=3, metavar="N", help="trainings of each side (3)")
    made.add_argument("--threads", type=positive, metavar="N", help="of torch and Numba (all cores)")
    made.add_argument("--one", type=int, choices=(0, 1), help=argparse.SUPPRESS)
    args = made.parse_args(arguments)
    if args.epochs < 2:
        made.error(f"--epochs {args.epochs}: the first is not counted; give 2 or more")
    for work in args.works:
        if not all(work.partition("/")):
            made.error(f"{work}: give DATA/RECIPE, such as {WORKS[0]}")
    if args.one is not None:
        print(json.dumps(train(args.works[0], args.epochs, args.threads, bool(args.one))))
        return 0
    heads = ["", "ms", "tuned", "ratio", "1000 faults", "tuned", "MB", "tuned", "grows by"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for work in args.works:
        print(f"| {' | '.join(measure(work, args))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
