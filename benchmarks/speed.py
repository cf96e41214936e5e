"""Time training steps against what is used elsewhere: `python benchmarks/speed.py`. It takes under half an hour.

Each side is a process of its own (speed_worker.py), and the two take turns. The works are in speed_works.py, both sides
of each in speed_sides.py and speed_plain.py, the floor in speed_floor.py. `--seeds N` and `--growth` measure something
else in place of the table: see speed_seeds.py and speed_growth.py.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import count
from statistics import median

import speed_growth
import speed_seeds
from masking import WIDE, bandwidth, output_file
from masking_report import version_of
from speed_report import JUDGED, Row, text
from speed_worker import Worker
from speed_works import WORKS, Work
from tqdm.auto import tqdm

from structmae.cli import Parser, positive
from structmae.errors import StructmaeError

PRECISIONS = (JUDGED, "fp32", "bf16")
LIMIT = 1500.0  # seconds for all, but for the least number of pairs; beyond it that number alone
BUDGET = {JUDGED: 45.0, "fp32": 15.0, "bf16": 15.0}  # seconds for the pairs of a row
LEAST, MOST = 4, 60  # pairs
TURN = 0.5  # seconds that a side goes on before the other has its turn
PAUSE = 0.05  # seconds after which the other side's idle threads have stopped to spin
INTERRUPTED = 130


def parser() -> Parser:
    about = "Time training steps against what is used elsewhere: a table, in under half an hour."
    made = Parser(prog="benchmarks/speed.py", description=about, allow_abbrev=False)
    names = [work.name for work in WORKS]
    made.add_argument("--only", nargs="+", choices=names, metavar="WORK", help=f"of {', '.join(names)}")
    made.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="ours (all three)")
    made.add_argument("--threads", type=positive, default=os.cpu_count(), metavar="N", help="of both sides (all cores)")
    made.add_argument("--quick", action="store_true", help="few pairs: whether it runs, not how fast")
    made.add_argument("--json", type=output_file, metavar="FILE", help="write the rows as a JSON list, too")
    what = made.add_mutually_exclusive_group()
    what.add_argument("--seeds", type=positive, metavar="N", help="no table: runs on Cora, ours and plain, N seeds")
    what.add_argument("--growth", action="store_true", help="no table: step and memory by size, time to the first step")
    return made


def main(arguments: Sequence[str] | None = None, works: Sequence[Work] = WORKS) -> int:
    """Exit codes: 0 done, whatever the ratios; 1 something can't be measured, 2 usage, 130 interrupted."""
    made = parser()
    args = made.parse_args(arguments)
    if (args.seeds or args.growth) and (args.json or args.only):
        made.error("arguments --json and --only are of the table: leave them out, or --seeds and --growth")
    for category in (FutureWarning, DeprecationWarning):  # a dependency's deprecations are not the person's
        warnings.filterwarnings("ignore", category=category)
    try:
        if args.seeds:
            return speed_seeds.main(args.seeds, args.threads)
        if args.growth:
            return speed_growth.main(args.threads, quick=args.quick)
        return _table([work for work in works if work.name in (args.only or [work.name])], args)
    except (StructmaeError, OSError) as error:
        print(f"benchmarks/speed.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks/speed.py: interrupted", file=sys.stderr)
        return INTERRUPTED


def _table(works: Sequence[Work], args: argparse.Namespace) -> int:
    from structmae.run import versions

    begin = time.perf_counter()
    left_out, rows, found = [], [], {**versions(), "transformers": version_of("transformers")}
    speed = bandwidth(args.threads, WIDE // 16 if args.quick else WIDE)
    todo = [(work, precision) for work in works for precision in args.precision]
    with tqdm(todo) as bar:
        for number, (work, precision) in enumerate(bar):
            bar.set_description(f"{work.name}, {precision}")
            left = (begin + LIMIT - time.perf_counter()) / (len(todo) - number)
            budget = 0.0 if args.quick else min(BUDGET[precision], left)
            try:
                row = measure(work, precision, args.threads, speed, budget)
            except StructmaeError as error:
                left_out.append(f"left out: {work.name} at {precision}: {error}")
                continue
            rows.append(row.public(found))
            if args.json:  # after each row, so that what was measured stays
                args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print("\n".join([*([text(rows)] if rows else []), *left_out]))
    print(f"{time.perf_counter() - begin:.0f} s in all")
    return 1 if left_out else 0


def measure(work: Work, precision: str, threads: int, speed: float, budget: float) -> Row:
    """Raises StructmaeError where a side can't run. `speed` is that of a copy, in bytes a second."""
    about = {"work": asdict(work), "precision": precision}
    with ExitStack() as stack:
        ours, other = (stack.enter_context(Worker("speed_sides", side, about, threads)) for side in ("ours", "other"))
        row = pairs(Row(work, precision, threads), ours, other, budget)
        least = ours.count(precision)
    row.floor = (least["flops"] / least["rate"] + least["moved"] / speed) * 1e3
    return row


def pairs(row: Row, ours: Worker, other: Worker, budget: float) -> Row:
    """Fills in the times of turns and the memory of both sides. Every other pair begins with the other side."""
    sides = (ours, other)
    for side in sides:
        side.ready()
    for side in sides:
        side.turn(1)  # whatever is compiled or opened late
    steps = [max(1, min(50, int(TURN * 1e3 / side.turn(2)["ms"][-1]))) for side in sides]
    begin = time.perf_counter()
    for number in count(1):
        answers = {}
        for place in (0, 1) if number % 2 else (1, 0):
            time.sleep(PAUSE)
            answers[place] = sides[place].turn(steps[place])
        row.ours.append(median(answers[0]["ms"]))
        row.other.append(median(answers[1]["ms"]))
        row.memory = (answers[0]["peak_memory"], answers[1]["peak_memory"])
        late = time.perf_counter() - begin > budget
        if number % 2 == 0 and (number >= MOST or (number >= LEAST and late)):
            return row
    raise AssertionError


if __name__ == "__main__":
    sys.exit(main())
