"""All commands and options. Imports nothing heavy, so that --help is quick."""

import argparse
import sys
from typing import NoReturn

from structmae import __version__

_IMPORT = "run a file that registers parts of your own"
_DATA = "other data than the run's own"
_READ = (
    "a data set of `structmae data`; a graph: an edge table, a folder or a .pt file; series: a table, wide or long "
    "(unique_id, ds, y), a .npy array (T, C) or a .ts file; images: a folder of image files or a .npy array (N, C, H, "
    "W); text: a .txt file or a folder of them (the recipe's own)"
)
_TASK = (
    "of graphs node_classification, link_prediction or graph_classification; of series forecasting, imputation, or "
    "classification of recordings; of images image_classification or reconstruction; of text reconstruction; of any "
    "with labels clustering (as the data is)"
)


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line and a pointer."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def parser() -> Parser:
    """All commands and options."""
    top = Parser(
        prog="structmae",
        description="Masked-autoencoder pre-training on structured data: graphs, time series, images and text.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"structmae {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        made.add_argument("--json", action="store_true", help="print one JSON object on stdout")
        return made

    def of_run(name: str, text: str) -> argparse.ArgumentParser:
        made = command(name, text)
        made.add_argument("run", metavar="RUN", help="a run's folder")
        made.add_argument("--data", metavar="NAME|PATH", help=_DATA)
        return made

    pretrain = command("pretrain", "pre-train an encoder and say what it is worth")
    pretrain.add_argument("--data", metavar="NAME|PATH", help=_READ)
    pretrain.add_argument("--nodes", metavar="PATH", help="the node table that goes with an edge table")
    pretrain.add_argument(
        "--kind",
        choices=["graph", "series", "image", "text"],
        help="what the data is, where it does not tell: a table's columns (series), a folder of images and text",
    )
    pretrain.add_argument(
        "--recipe",
        metavar="NAME|FILE.toml",
        help="a name of `structmae recipes`, or a file (graphmae; series: patchtst; images: mae; text: bert)",
    )
    _settings(pretrain, "an option of the recipe")
    _training(pretrain)

    evaluate = of_run("evaluate", "score the encoder of a run")
    evaluate.add_argument("--task", metavar="TASK", help=_TASK)
    evaluate.add_argument(
        "--horizon",
        dest="horizons",
        type=positive,
        action="append",
        metavar="N",
        help="of forecasting: rows ahead; give it again for others (as the data is)",
    )
    _own_parts(evaluate)

    finetune = of_run("finetune", "train the encoder of a run and a head on a task, and score both")
    finetune.add_argument(
        "--task",
        metavar="TASK",
        help="node_classification or graph_classification; of series forecasting, or classification of recordings (as "
        "the data is)",
    )
    _settings(finetune, "an option of fine-tuning, finetune.*")
    _training(finetune)

    forecast = of_run("forecast", "write the rows that follow the end of a table, laid out as it is")
    forecast.add_argument(
        "--horizon", type=positive, metavar="N", help="rows ahead (as the head or the data is, or 96)"
    )
    forecast.add_argument("--out", metavar="FILE", required=True, help="a .csv or .parquet file")
    _own_parts(forecast)

    predict = of_run("predict", "write the classes that a fine-tuned run gives")
    predict.add_argument("--out", metavar="FILE", required=True, help="a .csv or .parquet file")
    _own_parts(predict)

    embed = of_run("embed", "write the encoder's vectors to a file")
    embed.add_argument("--out", metavar="FILE", required=True, help="a .parquet, .npy or .csv file")
    _own_parts(embed)

    recipes = command("recipes", "list the recipes by modality, or show one as TOML that --recipe takes back")
    recipes.add_argument("name", metavar="NAME", nargs="?")
    _own_parts(recipes)

    data = command("data", "list the data sets, or describe one")
    data.add_argument("name", metavar="NAME", nargs="?")
    return top


def _own_parts(made: argparse.ArgumentParser) -> None:
    made.add_argument("--import", dest="imports", action="append", default=[], metavar="FILE.py", help=_IMPORT)


def _settings(made: argparse.ArgumentParser, text: str) -> None:
    made.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help=text)
    _own_parts(made)


def _training(made: argparse.ArgumentParser) -> None:
    """What every command that trains has."""
    made.add_argument("--out", metavar="DIR", help="a new folder for the run (one under runs/)")
    made.add_argument("--seed", type=int, metavar="N", help="short for --set train.seed=N")
    made.add_argument(
        "--precision",
        metavar="fp32|medium|bf16",
        help="short for --set train.precision=NAME; medium, the default, is float32 by oneDNN where that is as exact "
        "and gains, else fp32",
    )
    made.add_argument("--resume", action="store_true", help="go on with the run in --out")
    made.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    made.add_argument("--threads", type=positive, metavar="N", help="of torch and Numba (all cores)")
    made.add_argument("--no-eval", action="store_true", help="stop after training")


def positive(text: str) -> int:
    """A count, as argparse reads one."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return value
