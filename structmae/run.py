"""A run: the object in a notebook, and the folder on disk."""

import html
import os
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from structmae import registry
from structmae.checkpoint import SCHEMA, Checkpoint, claim, load_weights, read_json, save_weights, write_json
from structmae.data.graphs import Graphs
from structmae.data.images import Images
from structmae.data.series import Series
from structmae.data.texts import Texts
from structmae.errors import StructmaeError, UsageError
from structmae.evaluate.arms import embed
from structmae.model import MaskedAutoencoder
from structmae.nn.base import Encoder
from structmae.nn.build import build_encoder
from structmae.precision import Settled, precision, settle
from structmae.recipe import Recipe, TermOptions, from_tree
from structmae.tokens import Source
from structmae.train import Position, fit, suited

Structure = Graphs | Series | Images | Texts
# The built-in tasks, by the modality of the data that they score.
TASKS = {
    "graph": ("node_classification", "graph_classification", "link_prediction", "clustering"),
    "series": ("forecasting", "imputation", "classification", "clustering"),
    "image": ("image_classification", "reconstruction", "clustering"),
    "text": ("reconstruction",),
}


class Run:
    """A pre-trained encoder with what it was made of: `recipe`, `config`, `encoder`, `result`, `folder` (None if it was
    never saved)."""

    def __init__(self, recipe: Recipe, model: Any, config: dict[str, Any], data: Structure | None = None):
        self.recipe, self.model, self.config, self._data = recipe, model, config, data
        self.folder: Path | None = None
        self.result: dict[str, Any] = {}

    @property
    def encoder(self) -> Encoder:
        """The plain module, on `run.device`: `encoder(x, edge_index, edge_attr=None, batch=None)` of graphs,
        `encoder(x, observed=None)`, x (B, C, T), of series. It takes values as the data set has them; call `.train()`
        to fine-tune."""
        encoder: Encoder = self.model.encoder
        return encoder

    def untrained(self) -> MaskedAutoencoder:
        """The same model before training, at the weights that `train.seed` gave it: training is compared with it."""
        return build(self.recipe, deepcopy(self.model.encoder.tokenizer)).to(self.device)

    def initial_encoder(self) -> Encoder:
        """The encoder of `untrained`."""
        return self.untrained().encoder

    def plain_encoder(self, progress: Callable[[str], None] | None = None) -> Encoder:
        """The encoder of the same recipe trained as long without its terms: this run's own where it has none. It is
        trained when first asked for, and kept in the run's folder."""
        if not self.model.terms:
            return self.encoder
        recipe = replace(self.recipe, terms=TermOptions())
        model = build(recipe, deepcopy(self.encoder.tokenizer)).to(self.device)

        def train(beside: Path | None) -> Position:
            if progress is not None:
                progress("training the same recipe without its terms, to compare with")
            checkpoint, shown = None if beside is None else Checkpoint(beside), progress is not None
            source, used = self.source(self.data()), self.precision.name
            return fit(model, source, recipe, device=self.device, precision=used, checkpoint=checkpoint, progress=shown)

        self.trained_beside("plain", model, train)
        return model.encoder.eval()

    def trained_beside(self, name: str, model: nn.Module, train: Callable[[Path | None], Position]) -> None:
        """Give `model` the weights that `train` does, by way of a folder of that name in the run's. They are kept, and
        found there the next time; where the run has no folder they are in memory alone."""
        weights = None if self.folder is None else self.folder / f"{name}.safetensors"
        if weights is not None and weights.exists():
            load_weights(weights, model)
            return
        beside = None if self.folder is None else self.folder / name
        if beside is not None:
            beside.mkdir(exist_ok=True)
        train(beside)
        if beside is not None and weights is not None:
            save_weights(weights, model)
            Checkpoint(beside).state.unlink(missing_ok=True)

    def data(self, data: Any = None, nodes: str | os.PathLike[str] | None = None) -> Structure:
        """`data`, read as the run's own data was (columns, categories, directions); without it the run's own data.

        Raises StructmaeError where that was an object in memory, or is no longer what it was."""
        options, spec = self.recipe.data, self.config["data"]["spec"]
        if data is not None:
            known, kind = self.config["data"]["schema"], spec.get("kind")
            loaded: Structure = self.modality.load_like(data, options, known, self.encoder, nodes=nodes, kind=kind)
            return loaded
        if self._data is None:
            if not spec:
                raise StructmaeError("this run was made of an object in memory: pass the data")
            found: Structure = self.modality.load(spec["data"], options, nodes=spec.get("nodes"), kind=spec.get("kind"))
            if found.fingerprint() != self.config["data"]["fingerprint"]:
                raise StructmaeError(f"{spec['data']} has changed since this run was made of it: name the data to use")
            self._data = found
        return self._data

    def embed(self, data: Any = None, nodes: str | os.PathLike[str] | None = None) -> Tensor:
        """Vectors of the frozen encoder, nothing hidden: (N, width), or (G, width) where it pools, on the CPU. Of
        series: a vector a token, or one a window (of a long table windows side by side) where it pools; which is which
        says `structmae.export.series_columns`."""
        with precision(self.precision.name):
            return embed(self.encoder, self.source(self.data(data, nodes)))

    def evaluate(self, data: Any = None, *, task: str | None = None, **options: Any) -> dict[str, Any]:
        """The evaluation object: the encoder beside its random initialisation and simple methods. That of the run's own
        data is kept in `result`.

        `task` is "node_classification" or "graph_classification", and of series "forecasting" (option `horizons`),
        "imputation" or "classification"; without it the first that the data allows. Raises StructmaeError where the
        data has no labels to score.
        """
        found = self.data(data)
        possible = self.modality.tasks(found)
        mine = TASKS.get(self.recipe.modality, ())
        if task not in mine and any(task in names for names in TASKS.values()):
            raise UsageError(f"task {task} is not for {self.recipe.modality} data: there are {', '.join(possible)}")
        part = registry.get("task", task or possible[0])
        part.check(found, self.recipe)
        if getattr(part, "READS_RUN", False):
            options["run"] = self
        source = self.source(found, anew=data is not None)
        arms = self.encoder, self.initial_encoder()
        with precision(self.precision.name):
            scored: dict[str, Any] = part.evaluate(*arms, source, found, self.recipe, **options)
        if data is None and self.result:
            self.result["evaluation"] = scored
        return scored

    def forecast(
        self, data: Any = None, horizon: int | None = None, *, note: Callable[[str], None] | None = None
    ) -> pd.DataFrame:
        """The rows after the end of a table of series, laid out as it is: see `structmae.forecasting.forecast`."""
        from structmae.forecasting import forecast

        with precision(self.precision.name):
            return forecast(self, data, horizon, note=note)

    def plot_forecast(
        self, data: Any = None, horizon: int | None = None, *, channels: Any = None, ax: Any = None
    ) -> Any:
        """A picture of `forecast`, after the last rows of the data: see `structmae.report.plot_forecast`."""
        from structmae.report import plot_forecast

        made, history = self.forecast(data, horizon), self.data(data)
        assert isinstance(history, Series)
        return plot_forecast(history, made, channels=channels, ax=ax)

    def plot_reconstruction(
        self, data: Any = None, *, start: int | None = None, channel: int | str = 0, ax: Any = None
    ) -> Any:
        """A picture of the input, of what is hidden in it and of how it is rebuilt: of series one window, of others
        some items. See `structmae.report.plot_reconstruction`."""
        from structmae.report import plot_reconstruction

        return plot_reconstruction(self, data, start=start, channel=channel, ax=ax)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the run to a new folder, which `structmae.load` and the command line take. Raises StructmaeError where
        the folder exists or can't be made."""
        path = Path(folder)
        if path.exists():
            raise StructmaeError(f"{path} exists: choose another folder")
        self.result = {**self.result, "out": str(path), "picture": None}
        claim(path, self._write)
        self.folder = path
        return path

    def _write(self, folder: Path) -> None:
        write_json(folder / "config.json", self.config)
        save_weights(folder / "model.safetensors", self.model)
        write_json(folder / "result.json", self.result)

    def source(self, data: Structure, *, anew: bool = False) -> Source:
        """Batches of data, as tokens; of series with `anew` scaled by their own training rows."""
        made: Source = self.modality.source(data, self.encoder.tokenizer, self.device, anew=anew)
        return made

    @property
    def modality(self) -> Any:
        """What knows the recipe's kind of data: see `structmae.graph` and `structmae.series`."""
        return registry.get("modality", self.recipe.modality)

    def settle_precision(self, source: Source, batch_size: int) -> Settled:
        """What it is trained in: as its config says, or by now what `train.precision` comes to for these batches."""
        if "precision" in self.config:
            return self.precision
        used = suited(self.recipe.train.precision, self.model, source, batch_size)
        self.config["precision"] = used.name
        return used

    @property
    def precision(self) -> Settled:
        """What it computes in: as it was trained, where that is as exact on this machine."""
        return settle(self.config.get("precision", "fp32"), self.device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def __repr__(self) -> str:
        about = self.config["data"]
        return f"Run({self.recipe.name} on {about['name']}, seed {self.recipe.train.seed}, folder={self.folder})"

    def _repr_html_(self) -> str:
        """A notebook's view: what was trained, and the table where there is one."""
        about, encoder = self.config["data"], self.recipe.encoder
        layer = encoder.layer if self.recipe.modality == "graph" and encoder.kind == "gnn" else "transformer"
        facts = {
            "recipe": f"{self.recipe.name} ({self.recipe.size})",
            "data": about["name"],
            "encoder": f"{encoder.layers} x {encoder.hidden} {layer}",
            "hidden": f"{self.recipe.mask.ratio:.0%} of the tokens",
            "epochs": self.recipe.train.epochs,
            "seed": self.recipe.train.seed,
            "loss": f"{self.result['loss_first']:.4f} to {self.result['loss_last']:.4f}" if self.result else "",
            "folder": self.folder or "not saved",
        }
        evaluation = self.result.get("evaluation") or {}
        facts |= {
            name: f"{value:.3f} {evaluation['metric']}" for name, value in evaluation.items() if type(value) is float
        }
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(key.replace('_', ' '))}</th>"
            f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
            for key, value in facts.items()
        )
        return f"<table><caption style='text-align:left'><b>structmae run</b></caption>{cells}</table>"


def build(recipe: Recipe, tokenizer: nn.Module | Mapping[str, Any]) -> MaskedAutoencoder:
    """The model of a recipe at its initial weights, which `train.seed` settles. Torch's generators stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        return MaskedAutoencoder(recipe, build_encoder(recipe, tokenizer))


def load(path: str | os.PathLike[str], *, device: str = "cpu") -> Run:
    """A finished run from its folder: its encoder gives what it gave when it was saved.

    Reads JSON and safetensors only. Raises StructmaeError for a folder that holds no finished run, or one of a newer
    schema; UsageError where the recipe names a part that is not registered.
    """
    run = _from_folder(Path(path))
    load_weights(Path(path) / "model.safetensors", run.model)
    run.model.eval().to(torch.device(device))
    result = Path(path) / "result.json"
    run.result = read_json(result) if result.exists() else {}
    return run


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a run's folder, of a schema that is known."""
    if not (folder / "config.json").exists():
        raise StructmaeError(f"{folder} is not a run: it has no config.json")
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("schema") != SCHEMA:
        found = config.get("schema") if isinstance(config, dict) else None
        raise StructmaeError(f"{folder}/config.json has schema {found}: this version reads {SCHEMA}")
    return config


def _from_folder(folder: Path, data: Structure | None = None) -> Run:
    config = read_config(folder)
    try:
        recipe, tokenizer = from_tree(config["recipe"]), config["tokenizer"]
    except KeyError as error:
        raise StructmaeError(f"{folder}/config.json has no {error}: the run's folder is damaged") from None
    if "task" in config:  # a run that is fine-tuned has another model
        from structmae.finetuning import TunedRun, build_task

        run: Run = TunedRun(recipe, build_task(recipe, tokenizer, config["task"]), config, data)
    else:
        run = Run(recipe, build(recipe, tokenizer), config, data)
    run.folder = folder
    return run


def describe(recipe: Recipe, data: Structure, tokenizer: Any, device: torch.device, threads: int) -> dict[str, Any]:
    """What config.json says."""
    about = {
        key: value for key, value in recipe.describe().items() if key not in ("sizes", "overrides", "default_data")
    }
    return {
        "schema": SCHEMA,
        "versions": versions(),
        "recipe": about,
        "tokenizer": tokenizer.config(),
        "data": describe_data(data),
        "device": device.type,
        "threads": threads,
    }


def describe_data(data: Structure) -> dict[str, Any]:
    """What config.json says of data, so that it is found again."""
    return {
        "name": data.name,
        "card": data.card,
        "level": data.level,
        "spec": data.spec,
        "schema": data.schema.to_json(),
        "fingerprint": data.fingerprint(),
    }


def versions() -> dict[str, str]:
    """What a result depends on."""
    packages = ("structmae", "torch", "torch-geometric", "numba", "numpy", "scikit-learn")
    return {"python": sys.version.split()[0], **{package: version(package) for package in packages}}


def summary(run: Run, position: Position, peak_memory: int | None) -> dict[str, Any]:
    """The result object, before its evaluation."""
    return {
        "recipe": run.recipe.name,
        "size": run.recipe.size,
        "data": run.config["data"]["name"],
        "seed": run.recipe.train.seed,
        "epochs": position.epoch,
        "seconds": round(position.seconds, 3),
        "seconds_per_epoch": round(position.seconds / position.epoch, 5),
        "peak_memory": peak_memory,
        "out": None if run.folder is None else str(run.folder),
        "loss_first": position.loss_first,
        "loss_last": position.loss_last,
        "device": run.config["device"],
        "threads": run.config["threads"],
        "precision": run.precision.name,
        "versions": run.config["versions"],
        "evaluation": None,
        "evaluation_note": None,
    }
