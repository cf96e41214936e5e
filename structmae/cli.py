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
from typing import Any, NoReturn

from structmae import __version__
from structmae.errors import StructmaeError, UsageError


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line and a pointer."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def parser() -> Parser:
    """All commands and options."""
    top = Parser(
        prog="structmae", description="Masked-autoencoder pre-training on structured data.", allow_abbrev=False
    )
    top.add_argument("--version", action="version", version=f"structmae {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        made.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        return made

    def own_parts(made: argparse.ArgumentParser) -> None:
        made.add_argument("--import", dest="imports", action="append", default=[], metavar="FILE.py", help=_IMPORT)

    pretrain = command("pretrain", "pre-train an encoder and say what it is worth")
    pretrain.add_argument(
        "--data", metavar="NAME|PATH", help="a data set, an edge table, a folder or a .pt file (citations)"
    )
    pretrain.add_argument("--nodes", metavar="PATH", help="the node table that goes with an edge table")
    pretrain.add_argument(
        "--kind", choices=["graph", "series"], help="of a table whose columns do not tell (series: a later version)"
    )
    pretrain.add_argument(
        "--recipe", metavar="NAME|FILE.toml", help="a name of `structmae recipes`, or a file (graphmae)"
    )
    pretrain.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="an option of the recipe"
    )
    own_parts(pretrain)
    pretrain.add_argument("--out", metavar="DIR", help="a new folder for the run (runs/DATA-RECIPE-SEED)")
    pretrain.add_argument("--seed", type=int, metavar="N", help="short for --set train.seed=N")
    pretrain.add_argument("--resume", action="store_true", help="go on with the run in --out")
    pretrain.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    pretrain.add_argument("--threads", type=positive, metavar="N", help="of torch and Numba (all cores)")
    pretrain.add_argument("--no-eval", action="store_true", help="stop after training")

    evaluate = command("evaluate", "score the encoder of a run")
    evaluate.add_argument("run", metavar="RUN", help="a run's folder")
    evaluate.add_argument("--data", metavar="NAME|PATH", help="other data than the run's own")
    evaluate.add_argument(
        "--task", metavar="TASK", help="node_classification or graph_classification (as the labels are)"
    )
    own_parts(evaluate)

    embed = command("embed", "write the encoder's vectors to a file")
    embed.add_argument("run", metavar="RUN", help="a run's folder")
    embed.add_argument("--data", metavar="NAME|PATH", help="other data than the run's own")
    embed.add_argument("--out", metavar="FILE", required=True, help="a .parquet, .npy or .csv file")
    own_parts(embed)

    recipes = command("recipes", "list the recipes, or show one as TOML that --recipe takes back")
    recipes.add_argument("name", metavar="NAME", nargs="?")
    own_parts(recipes)

    data = command("data", "list the data sets, or describe one")
    data.add_argument("name", metavar="NAME", nargs="?")
    return top


_IMPORT = "run a file that registers parts of your own"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    args = parser().parse_args(arguments)
    # A dependency's own deprecations are no concern of a person at the command line.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
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
        out="auto" if args.out is None and not args.resume else args.out,
        resume=args.resume,
        evaluate=not args.no_eval,
        nodes=args.nodes,
        kind=args.kind,
        device=args.device,
        threads=args.threads,
        note=_note,
    )
    if args.json:
        print(json.dumps(run.result))
        return
    print(_table(run.result["evaluation"]) if run.result["evaluation"] else "no evaluation")
    print(f"{run.result['epochs']} epochs in {run.result['seconds']:.1f} s, saved in {run.folder}")


def _evaluate(args: argparse.Namespace) -> None:
    from structmae.run import load

    evaluation = load(args.run).evaluate(args.data, task=args.task)
    print(json.dumps(evaluation) if args.json else _table(evaluation))


def _embed(args: argparse.Namespace) -> None:
    from structmae.export import check_suffix, write_vectors
    from structmae.run import load

    path = check_suffix(Path(args.out))
    run = load(args.run)
    data = run.data(args.data)
    vectors = run.embed(data)
    whole = run.recipe.encoder.pool == "none"
    write_vectors(path, vectors, getattr(data, "ids", None) if whole else None)
    rows, width = vectors.shape
    print(json.dumps({"out": str(path), "rows": rows, "width": width}) if args.json else f"{rows} x {width} in {path}")


def _recipes(args: argparse.Namespace) -> None:
    from structmae import registry, resolve

    if args.name is None:
        about = [registry.get("recipe", name).describe() for name in registry.names("recipe")]
        rows = [{key: each[key] for key in ("name", "modality", "paper", "default_data", "summary")} for each in about]
        print(
            json.dumps(rows)
            if args.json
            else "\n".join(f"{row['name']:12s} {row['modality']:8s} {row['summary']}" for row in rows)
        )
        return
    recipe = resolve(args.name, {"size": "published"})
    if args.json:
        print(json.dumps(recipe.describe()))
        return
    print(f"# {recipe.summary}\n# {recipe.paper}\n{recipe.to_toml()}", end="")
    for size, settings in recipe.sizes.items():
        print(f"\n# size = {size}: {_one_line(settings)}", end="")
    for override in recipe.overrides:
        print(
            f"\n# on {override.on}{f', size {override.size}' if override.size else ''}: {_one_line(override.settings)}",
            end="",
        )
    print()


def _data(args: argparse.Namespace) -> None:
    from structmae.data import cards, describe

    if args.name is None:
        about = [describe(name) for name in cards()]
        if args.json:
            print(json.dumps(about))
            return
        for each in about:
            print(f"{each['name']:14s} {each['kind']:7s} {each['where'] or 'not here':38s} {each['title']}")
        _note("any other TU data set goes by its name, files of your own by their path; series are for a later version")
        return
    about_one = describe(args.name)
    if args.json:
        print(json.dumps(about_one))
        return
    for key, value in about_one.items():
        if key != "files":
            print(f"{key:11s} {_one_line(value) if isinstance(value, dict) else value}")


_COMMANDS = {"pretrain": _pretrain, "evaluate": _evaluate, "embed": _embed, "recipes": _recipes, "data": _data}


def _table(evaluation: dict[str, Any]) -> str:
    """The evaluation for a person: one line an arm."""
    rows = evaluation["rows"]
    scored = f"{rows[0]['n']} scored; {evaluation['split_source']}"
    lines = [f"{evaluation['task']}, {evaluation['metric']} on {evaluation['split']} ({scored})"]
    for row in rows:
        spread = "" if row["std"] is None else f" +- {row['std']:.4f} over folds"
        lines.append(f"  {row['features'].replace('_', ' '):20s} {row['value']:.4f}{spread}")
    values = {row["features"]: row["value"] for row in rows}
    if evaluation["task"] == "node_classification":
        probes = {(row["probe"]["lr"], row["probe"]["weight_decay"]) for row in rows}
        lines.append(
            "probe: lr and weight decay of each arm chosen on validation"
            if len(probes) > 1
            else "probe: lr {}, weight decay {} for every arm; --set probe.search=true tunes each".format(*probes.pop())
        )
    better = [
        name.replace("_", " ")
        for name, value in values.items()
        if name != "pretrained" and value > values["pretrained"]
    ]
    if better:
        lines.append(f"the pre-trained encoder is behind {' and '.join(better)} here")
    return "\n".join(lines)


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


def positive(text: str) -> int:
    """A count, as argparse reads one."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return value


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


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _one_line(values: Any) -> str:
    return ", ".join(f"{key} = {value}" for key, value in values.items())
