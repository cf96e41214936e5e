"""The command line: arguments only. Results go to stdout, progress and remarks to stderr.

Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted (after saving).
"""

import argparse
import json
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from structmae.cli_lists import show_data, show_recipes
from structmae.cli_parser import Parser, parser, positive
from structmae.cli_tables import table
from structmae.errors import StructmaeError, UsageError
from structmae.malloc import tune_cpu

KINDS = {"graph": "graphs", "series": "series", "image": "images", "text": "text"}

__all__ = ["Parser", "main", "parser", "positive", "read_settings"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    args = parser().parse_args(arguments)
    # A dependency's own deprecations are no concern of a person at the command line.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        if args.command not in _LISTS:
            tune_cpu()
        for file in getattr(args, "imports", []):
            _import(Path(file))
        _COMMANDS[args.command](args)
        sys.stdout.flush()
    except UsageError as error:
        print(f"structmae {args.command}: {error} (see structmae {args.command} --help)", file=sys.stderr)
        return error.exit_code
    except StructmaeError as error:
        print(f"structmae {args.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"structmae {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _pretrain(args: argparse.Namespace) -> None:
    from structmae.pretraining import pretrain

    run = pretrain(
        args.data,
        args.recipe,
        settings=read_settings(args.settings),
        seed=args.seed,
        precision=args.precision,
        out="auto" if args.out is None and not args.resume else args.out,
        resume=args.resume,
        evaluate=not args.no_eval,
        nodes=args.nodes,
        kind=args.kind,
        device=args.device,
        threads=args.threads,
        note=_note,
    )
    _trained(run, args.json)


def _finetune(args: argparse.Namespace) -> None:
    from structmae.finetuning import finetune
    from structmae.run import load

    settings = read_settings(args.settings)
    base = _of(load(args.run), ("graph", "series"), "fine-tuning is for graphs and series")
    run = finetune(
        base,
        args.task,
        data=args.data,
        settings=settings,
        seed=args.seed,
        precision=args.precision,
        out="auto" if args.out is None and not args.resume else args.out,
        resume=args.resume,
        evaluate=not args.no_eval,
        device=args.device,
        threads=args.threads,
        note=_note,
    )
    _trained(run, args.json)


def _trained(run: Any, as_json: bool) -> None:
    """The result of a run, which has been saved."""
    evaluation = run.result["evaluation"]
    _notes(evaluation)
    if as_json:
        print(json.dumps(run.result))
        return
    print(table(evaluation) if evaluation else "no evaluation")
    print(f"{run.result['epochs']} epochs in {run.result['seconds']:.1f} s, saved in {run.folder}")
    if run.result.get("picture"):
        print(f"input, hidden and rebuilt: {run.result['picture']}")


def _evaluate(args: argparse.Namespace) -> None:
    from structmae.run import load

    options: dict[str, Any] = {}
    task = args.task
    if args.horizons:
        task = task or "forecasting"
        if task != "forecasting":
            raise UsageError(f"--horizon is of the task forecasting, not of {task}: leave it out")
        options["horizons"] = args.horizons
    run = load(args.run)
    if args.horizons:
        _of(run, ("series",), "--horizon is of series", "leave it out")
    if run.recipe.modality != "graph" or task == "clustering":  # the others take long
        options["progress"] = _note
    evaluation = run.evaluate(args.data, task=task, **options)
    _notes(evaluation)
    print(json.dumps(evaluation) if args.json else table(evaluation))


def _forecast(args: argparse.Namespace) -> None:
    from structmae.export import TABLES, check_suffix, write_table
    from structmae.run import load

    path = check_suffix(Path(args.out), TABLES)
    run = _of(load(args.run), ("series",), "forecast is for series, which have rows to come")
    made = run.forecast(args.data, args.horizon, note=_note)
    head, horizon = made.attrs["head"], made.attrs["horizon"]
    made.attrs = {}
    write_table(path, made)
    about = {"out": str(path), "rows": len(made), "horizon": horizon, "head": head}
    print(json.dumps(about) if args.json else f"{horizon} rows ahead, {len(made)} lines in {path}")


def _predict(args: argparse.Namespace) -> None:
    from structmae.export import TABLES, check_suffix, write_table
    from structmae.run import load

    path = check_suffix(Path(args.out), TABLES)
    run: Any = _of(load(args.run), ("graph", "series"), "classes come of fine-tuning, which is for graphs and series")
    if not hasattr(run, "predict"):
        raise UsageError(f"{args.run} is pre-trained only, and knows no classes: structmae finetune comes first")
    made = run.predict(args.data)
    write_table(path, made)
    print(json.dumps({"out": str(path), "rows": len(made)}) if args.json else f"{len(made)} rows in {path}")


def _embed(args: argparse.Namespace) -> None:
    from structmae.export import check_suffix, columns_of, write_vectors
    from structmae.run import load

    path = check_suffix(Path(args.out))
    run = load(args.run)
    data = run.data(args.data)
    vectors = run.embed(data)
    write_vectors(path, vectors, columns=columns_of(run.encoder, run.source(data), data))
    rows, width = vectors.shape
    print(json.dumps({"out": str(path), "rows": rows, "width": width}) if args.json else f"{rows} x {width} in {path}")


_COMMANDS = {
    "pretrain": _pretrain,
    "evaluate": _evaluate,
    "finetune": _finetune,
    "forecast": _forecast,
    "predict": _predict,
    "embed": _embed,
    "recipes": show_recipes,
    "data": show_data,
}
_LISTS = ("recipes", "data")  # they compute nothing


def read_settings(pairs: list[str]) -> dict[str, str]:
    """What `--set KEY=VALUE` says, by key. Raises UsageError for a pair that is none, or a key given two values."""
    settings: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {pair}: write KEY=VALUE, such as --set mask.ratio=0.6")
        if settings.get(key, value) != value:
            raise UsageError(f"--set {key} is given twice, as {settings[key]} and {value}: give it once")
        settings[key] = value
    return settings


def _import(path: Path) -> None:
    """Run a person's own file, which registers parts by `structmae.register`."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise StructmaeError(f"--import {path}: no such Python file")
    module = module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a person's own code may raise anything, and what they need is the line of it
        inside = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = inside[-1].lineno if inside else getattr(error, "lineno", None)
        reason = " ".join(str(error).split())
        raise StructmaeError(f"--import {path}, line {line}: {type(error).__name__}: {reason}") from None


def _of(run: Any, modalities: Sequence[str], rule: str, fix: str = "give another run") -> Any:
    """The run, if a command is for its kind of data."""
    if run.recipe.modality not in modalities:
        raise UsageError(f"{rule}, and this run is of {KINDS[run.recipe.modality]}: {fix}")
    return run


def _notes(evaluation: Any) -> None:
    """What an evaluation remarks on, to stderr."""
    for text in (evaluation or {}).get("notes", []):
        _note(text)


def _note(text: str) -> None:
    print(text, file=sys.stderr)
