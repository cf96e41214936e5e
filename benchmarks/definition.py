"""What a table compares: one small TOML file, `definitions/NAME.toml` or a person's own by its path."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from structmae.data import catalog
from structmae.errors import StructmaeError, UsageError
from structmae.recipe import read_toml
from structmae.registry import near

HERE = Path(__file__).resolve().parent
METRICS = {"accuracy": "higher", "auc": "higher", "ap": "higher", "mse": "lower"}  # which is better
TASKS = {  # what recipes for them are of, and what they give
    "node_classification": ("graph", ["accuracy"]),
    "graph_classification": ("graph", ["accuracy"]),
    "link_prediction": ("graph", ["auc", "ap"]),
    "forecasting": ("series", ["mse"]),
    "imputation": ("series", ["mse"]),
    "classification": ("series", ["accuracy"]),
}
FRACTIONS = ("accuracy", "auc", "ap")  # of 1
SPLITS = ["test"]
DATA = "data sets that the table lacks: names of `structmae data`, or paths"
DRAWN = ["given", "random"]  # splits of a node classification


@dataclass(frozen=True)
class Method:
    """A row of the table: features that the pre-training of `recipe` with `settings` yields, "pretrained" or another
    arm; or a `baseline` of baselines.py with its options, which has no recipe; or the vectors `of` other methods side
    by side."""

    name: str
    recipe: str
    features: str = "pretrained"
    settings: tuple[tuple[str, Any], ...] = ()
    baseline: str | None = None
    chosen: tuple[tuple[str, Any], ...] = ()  # of its grid: short names of options, and values
    of: tuple["Method", ...] = ()


@dataclass(frozen=True)
class Published:
    """What a paper says, never mixed with what is measured here. `values`: data set to (mean, std or None)."""

    method: str
    source: str
    values: dict[str, tuple[float, float | None]]  # by column: the data set, and the metric where there are several


@dataclass(frozen=True)
class Definition:
    """A table. `folder` is where paths of data sets and recipe files start."""

    name: str
    folder: Path
    title: str
    task: str
    metrics: tuple[str, ...]
    split: str
    seeds: int
    how: str
    data: tuple[str, ...]
    methods: tuple[Method, ...]
    published: tuple[Published, ...]
    fewer: dict[str, int]  # seeds by "data" or "data/method", where the table has another number
    drawn: str  # "random": a split of its own for each seed
    labels: tuple[int, ...] = ()  # a class: classification with so few, each a column; without it with all

    def seeds_of(self, data: str, method: Method) -> int:
        """How many seeds the table has of a method on a data set."""
        return self.fewer.get(f"{data}/{method.name}", self.fewer.get(data, self.seeds))


def read(table: str, more: Sequence[str] = ()) -> Definition:
    """The table of a name or of a file that ends in .toml; an error names those that have no definition (`more`), too.

    Raises UsageError for an unknown name (with near misses), StructmaeError for a file that defines no table.
    """
    known = {path.stem: path for path in sorted((HERE / "definitions").glob("*.toml"))}
    path = Path(table) if table.endswith(".toml") else known.get(table)
    if path is not None and path.stem in (*known, *more) and path.resolve().parent != HERE / "definitions":
        raise UsageError(
            f"{table}: {path.stem} is a table of the toolkit's; name the file otherwise, its lines go by it"
        )
    if path is None:
        raise UsageError(f"unknown table {table!r}: {near(table, [*known, *more])}; a file of your own ends in .toml")
    tree = read_toml(path, "table")
    kinds = {"title": str, "task": str, "metrics": list, "split": str, "seeds": int, "how": str, "data": list}
    optional = {"published": list, "seeds_of": dict, "splits": str, "labels": list}
    _keys(path, "the table", tree, {**kinds, "methods": dict}, optional)
    data = tree["data"]
    if not data or not all(isinstance(name, str) for name in data) or len(set(data)) < len(data):
        raise StructmaeError(f"{path}: data={data} must be names or paths in quotes, each once, and one at least")
    tree.setdefault("splits", DRAWN[0])
    given = TASKS.get(tree["task"], ("", list(METRICS)))[1]
    asked = [("task", tree["task"], list(TASKS)), *(("metrics", metric, given) for metric in tree["metrics"])]
    for key, word, words in [*asked, ("split", tree["split"], SPLITS), ("splits", tree["splits"], DRAWN)]:
        if word not in words:
            raise StructmaeError(f"{path}: {key}={word!r} is not one of this table's: {near(str(word), words)}")
    if not tree["metrics"]:
        raise StructmaeError(f"{path}: metrics=[] names none: give one at least, such as ['accuracy']")
    if tree["seeds"] < 1:
        raise StructmaeError(f"{path}: seeds={tree['seeds']} must be 1 or more")
    labels = tuple(tree.get("labels", ()))
    if not all(type(size) is int and size > 0 for size in labels):
        raise StructmaeError(f"{path}: labels={list(labels)} must be whole numbers from 1 on, such as [1, 5, 10]")
    if labels and tree["task"] not in ("node_classification", "classification"):
        raise StructmaeError(f"{path}: labels={list(labels)} are for node_classification and classification")
    joined = [name for name, about in tree["methods"].items() if isinstance(about, dict) and "of" in about]
    rows = {name: tuple(_methods(path, name, about)) for name, about in tree["methods"].items() if name not in joined}
    simple = [method for some in rows.values() for method in some]
    rows |= {name: (_joined(path, name, tree, simple),) for name in joined}
    methods = tuple(method for name in tree["methods"] for method in rows[name])
    if not methods:
        raise StructmaeError(
            f"{path}: [methods] is empty: name one at least, such as graphmae = {{ recipe = 'graphmae' }}"
        )
    published = tuple(_published(path, about, data, tree["metrics"]) for about in tree.get("published", []))
    fewer = tree.get("seeds_of", {})
    cells = [*data, *(f"{name}/{method.name}" for name in data for method in methods)]
    for where, number in fewer.items():
        if where not in cells or type(number) is not int or number < 1:
            rule = "a data set or data/method of the table, and a whole number from 1 on"
            raise StructmaeError(f"{path}: seeds_of {where} = {number!r}: must be {rule}")
    plain = {key: tree[key] for key in kinds if key not in ("data", "metrics")}
    lists: dict[str, Any] = {
        "labels": labels,
        "data": tuple(data),
        "metrics": tuple(tree["metrics"]),
        "methods": methods,
        "published": published,
    }
    return Definition(name=path.stem, folder=path.parent, fewer=fewer, drawn=tree["splits"], **lists, **plain)


def with_data(table: Definition, more: Sequence[str]) -> Definition:
    """The table with a column more for each data set, a path going by its place from the table's folder. Raises
    UsageError for what is no data set, or is in the table."""
    data = list(table.data)
    for name in more:
        known = catalog.is_known(name)
        if not known and not Path(name).exists():
            catalog.resolve(name)  # raises, with the near misses
        found = name if known else os.path.relpath(name, table.folder)
        if found in data:
            raise UsageError(f"--data {name}: the table has it; --only {name} picks it")
        data.append(found)
    return replace(table, data=tuple(data))


def with_recipes(table: Definition, files: Sequence[Path]) -> Definition:
    """The table with a method more for each recipe file. Raises UsageError for one that is not there, or whose name
    the table has."""
    from structmae.recipe import resolve

    methods = list(table.methods)
    for file in files:
        if file.suffix != ".toml" or not file.is_file():
            raise UsageError(f"--add {file}: give a recipe's .toml file")
        if file.stem in (method.name for method in methods):
            raise UsageError(f"--add {file}: the table has a method {file.stem}; name the file otherwise")
        try:
            resolve(str(file))
        except StructmaeError as error:
            raise type(error)(f"--add {file}: {error}") from None
        hidden = (("data.edges", "train"),) if table.task == "link_prediction" else ()
        methods.append(Method(file.stem, str(file), settings=hidden))
    return replace(table, methods=tuple(methods))


def _methods(path: Path, name: str, about: Any) -> Iterator[Method]:
    """One; or with a `grid`, an option and its values, one for each choice, called by what it chooses."""
    if isinstance(about, dict) and "baseline" in about:
        _keys(path, f"method {name}", about, {"baseline": str}, {"settings": dict})
        yield Method(name, "", settings=tuple(about.get("settings", {}).items()), baseline=about["baseline"])
        return
    _keys(path, f"method {name}", about, {"recipe": str}, {"features": str, "settings": dict, "grid": dict})
    recipe, grid = about["recipe"], about.get("grid", {})
    if recipe.endswith(".toml"):
        recipe = str(path.parent / recipe)
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise StructmaeError(f"{path}: {key}={values!r} in the grid of {name} must be a list of values")
    for choice in product(*grid.values()):
        settings = {**about.get("settings", {}), **dict(zip(grid, choice, strict=True))}
        for key, value in settings.items():
            if isinstance(value, dict | list):
                raise StructmaeError(
                    f"{path}: {key}={value} of method {name} must be one value of one option; write its name in "
                    'quotes, such as "encoder.layers" = 3'
                )
        chosen = tuple((key.rpartition(".")[2], value) for key, value in zip(grid, choice, strict=True))
        called = ", ".join(f"{key}={value}" for key, value in chosen) or name
        features = about.get("features", "pretrained")
        yield Method(called, recipe, features, tuple(settings.items()), chosen=chosen)


def _joined(path: Path, name: str, tree: dict[str, Any], methods: Sequence[Method]) -> Method:
    """The vectors of several methods side by side."""
    about, there = tree["methods"][name], {method.name: method for method in methods}
    _keys(path, f"method {name}", about, {"of": list})
    if tree["task"] != "node_classification":
        raise StructmaeError(f"{path}: method {name}: vectors side by side are for node_classification")
    for each in about["of"]:
        if not isinstance(each, str) or each not in there:
            others = near(str(each), list(there))
            raise StructmaeError(f"{path}: method {name}: of {each!r}, which is no method of one's own: {others}")
    if len(set(about["of"])) < max(2, len(about["of"])):
        raise StructmaeError(f"{path}: method {name}: of={about['of']} must name two methods or more, each once")
    return Method(name, "", of=tuple(there[each] for each in about["of"]))


def _published(path: Path, about: Any, data: list[str], metrics: list[str]) -> Published:
    """Which horizons and the like there are in its columns, only results say."""
    _keys(path, "published", about, {"method": str, "source": str, "values": dict})
    fractions = set(metrics) <= set(FRACTIONS)
    most = 1 if fractions else 1e9
    ends = [f" {metric}" for metric in metrics] if len(metrics) > 1 else [""]
    columns = [name + end for name in data for end in ends]
    values: dict[str, tuple[float, float | None]] = {}
    for name, pair in about["values"].items():
        where = f"{path}: published {about['method']}, {name} = {pair}"
        if name not in columns and not any(name.startswith(f"{d} ") and name.endswith(e) for d in data for e in ends):
            raise StructmaeError(f"{where}: the table has no such column: {near(name, columns)}")
        numbers = pair if isinstance(pair, list) else [pair]
        if len(numbers) not in (1, 2) or not all(type(n) in (int, float) and 0 <= n <= most for n in numbers):
            what = "as fractions of 1, such as [0.842, 0.004]" if fractions else "0 or more, such as [0.363, 0.002]"
            raise StructmaeError(f"{where}: write [mean, std] or a mean, {what}")
        values[name] = (float(numbers[0]), float(numbers[1]) if len(numbers) == 2 else None)
    return Published(about["method"], about["source"], values)


def _keys(path: Path, what: str, tree: Any, needed: dict[str, type], more: dict[str, type] | None = None) -> None:
    """Every needed key is there, no unknown one, each of its type."""
    kinds = {**needed, **(more or {})}
    if not isinstance(tree, dict):
        raise StructmaeError(f"{path}: {what} must be a table with {', '.join(kinds)}")
    for key, value in tree.items():
        if key not in kinds:
            raise StructmaeError(f"{path}: {what} has an unknown key {key!r}: {near(key, list(kinds))}")
        if type(value) is not kinds[key]:
            raise StructmaeError(f"{path}: {key}={value!r} of {what} must be of type {kinds[key].__name__}")
    missing = [key for key in needed if key not in tree]
    if missing:
        raise StructmaeError(f"{path}: {what} lacks {', '.join(missing)}")
