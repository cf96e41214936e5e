"""Whole runs on Cora, ours and plain: `python benchmarks/speed.py --seeds 5`. What is faster must be as good.

Each run is one line of results/speed_seeds.jsonl, and is made once: the same command goes on where it was stopped.
Plain GraphMAE (speed_plain.py) trains as many epochs and goes through the same probe; it has our malloc settings, which
change no number and save time.
"""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import results
from speed_report import processor
from speed_worker import call
from speed_works import PUBLISHED

TABLE, DATA, OURS, PLAIN = "speed_seeds", "cora", "graphmae", "plain"
MINUTES, SHARE = 3.0, 0.05  # of our training, at most; of it that the evaluation may take


def main(
    seeds: int,
    threads: int,
    *,
    folder: Path = results.FOLDER,
    data: str = DATA,
    settings: Mapping[str, Any] = PUBLISHED,
) -> int:
    """Makes the runs that are missing and prints what all of them say. `settings` are of both sides."""
    path = folder / f"{TABLE}.jsonl"
    with results.writing(path, folder / "runs" / f"{TABLE}.lock"):
        if healed := results.heal(path):
            print(healed, file=sys.stderr)
        done = {results.cell(line) for line in results.read(path, TABLE)}
        revision = results.revision()
        for seed in range(seeds):
            for side in (OURS, PLAIN):
                about = {"table": TABLE, "data": data, "recipe": side, "seed": seed, "settings": dict(settings)}
                if results.cell(about) in done:
                    continue
                print(f"{data}, {side}, seed {seed}", file=sys.stderr)
                asked = {"data": data, "side": side, "seed": seed, "threads": threads, "settings": dict(settings)}
                found = call("speed_seeds", "cell", **asked)
                made = {"threads": threads, "processor": processor(), "revision": revision}
                results.append(path, [{**about, **found, **made}])
        every = [line for line in results.read(path, TABLE) if line["settings"] == settings and line["data"] == data]
    print(summary([line for line in every if line["seed"] < seeds]))
    return 0


def cell(data: str, side: str, seed: int, threads: int, settings: dict[str, Any]) -> dict[str, Any]:
    """One run, in a process of its own: accuracies, `seconds` of training and of its evaluation."""
    from structmae.run import versions

    train = _ours if side == OURS else _plain
    scored, arm, seconds, evaluated = train(data, seed, threads, settings)
    row = next(row for row in scored["rows"] if row["features"] == arm)
    return {
        "metric": scored["metric"], "split": scored["split"], "value": row["value"], "validation": row["validation"],
        "probe": row["probe"], "seconds": round(seconds, 2), "evaluation_seconds": round(evaluated, 3),
        "versions": versions(),
    }  # fmt: skip


def _ours(data: str, seed: int, threads: int, settings: dict[str, Any]) -> tuple[dict[str, Any], str, float, float]:
    """As `structmae pretrain` does it; its evaluation has four arms."""
    import structmae
    from structmae.threads import thread_limit

    structmae.tune_cpu()
    run = structmae.pretrain(
        data, OURS, settings=settings, seed=seed, device="cpu", threads=threads, progress=sys.stderr.isatty()
    )
    begin = time.perf_counter()
    with thread_limit(threads):
        scored = run.evaluate()
    return scored, "pretrained", run.result["seconds"], time.perf_counter() - begin


def _plain(data: str, seed: int, threads: int, settings: dict[str, Any]) -> tuple[dict[str, Any], str, float, float]:
    import speed_plain
    import torch
    from speed_sides import load
    from tqdm.auto import tqdm

    import structmae
    from structmae.evaluate.node_classification import score

    structmae.tune_cpu()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    recipe, graphs, _, source = load(OURS, data, settings)
    begin = time.perf_counter()
    with tqdm(total=recipe.train.epochs, unit="epoch", disable=not sys.stderr.isatty()) as bar:
        model = speed_plain.train(recipe, source, after_epoch=bar.update)
    seconds, begin = time.perf_counter() - begin, time.perf_counter()
    node = source.all["node"]
    with torch.no_grad():
        vectors = model.eval().encoder(node.values, node.relations["edges"].edge_index)
    return score({PLAIN: vectors}, graphs, recipe), PLAIN, seconds, time.perf_counter() - begin


def summary(lines: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy of both sides, and whether ours is within plain's seeds; time of a run, and of its evaluation."""
    said, of = [], {side: [line for line in lines if line["recipe"] == side] for side in (OURS, PLAIN)}
    for side, some in of.items():
        values = [100 * line["value"] for line in some]
        std = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        seconds = statistics.median(line["seconds"] for line in some)
        mean = f"{statistics.fmean(values):.2f}{std} (n={len(values)})"
        said.append(f"{side:8}  test accuracy {mean}, {seconds:.0f} s a run")
    ours = statistics.fmean(line["value"] for line in of[OURS])
    low, high = (end(line["value"] for line in of[PLAIN]) for end in (min, max))
    where = "inside" if low <= ours <= high else "above" if ours > high else "BELOW"
    said.append(f"our mean is {where} the range of plain's seeds, {100 * low:.2f} to {100 * high:.2f}")
    minutes = max(line["seconds"] for line in of[OURS]) / 60
    share = statistics.median(line["evaluation_seconds"] / line["seconds"] for line in of[OURS])
    said.append(f"our slowest run trains for {minutes:.1f} minutes, {_holds(minutes <= MINUTES)}: at most {MINUTES:g}")
    said.append(f"its evaluation takes {share:.1%} of that, {_holds(share <= SHARE)}: at most {SHARE:.0%}")
    return "\n".join(said)


def _holds(right: bool) -> str:
    return "yes" if right else "NO"
