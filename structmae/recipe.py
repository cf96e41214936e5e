"""Recipes: a system of the field is a value of `Recipe`, never a fork of the code.

A value is settled in this order, later ones winning: the defaults of options.py < the recipe < its size < its override
for the data set < a TOML file < `--set key=value`. Nothing here imports torch.
"""

import math
import operator
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from structmae import registry
from structmae.errors import StructmaeError, UsageError
from structmae.options import (
    DataOptions,
    EncoderOptions,
    FinetuneOptions,
    HeadOptions,
    InfonceOptions,
    MaskOptions,
    ProbeOptions,
    TermOptions,
    TokenOptions,
    TrainOptions,
    ViewOptions,
)

__all__ = [
    "DataOptions",
    "EncoderOptions",
    "FinetuneOptions",
    "HeadOptions",
    "InfonceOptions",
    "MaskOptions",
    "Override",
    "ProbeOptions",
    "Recipe",
    "TermOptions",
    "TokenOptions",
    "TrainOptions",
    "ViewOptions",
    "amend",
    "changes",
    "data_options",
    "from_tree",
    "resolve",
    "shorthand",
]


@dataclass(frozen=True)
class Override:
    """Settings of a recipe for one data set (its card's name) or a level ("level:graph"), for one size or for any."""

    on: str
    settings: Mapping[str, Any]
    size: str | None = None


@dataclass(frozen=True)
class Recipe:
    """One system. `sizes` and `overrides` say how it differs at a size or on a data set; `resolve` applies them."""

    name: str = "custom"
    summary: str = ""
    paper: str = ""
    modality: str = "graph"
    default_data: str = "citations"
    size: str = "published"
    data: DataOptions = DataOptions()
    tokens: TokenOptions = TokenOptions()
    mask: MaskOptions = MaskOptions()
    encoder: EncoderOptions = EncoderOptions()
    heads: Mapping[str, HeadOptions] = field(default_factory=lambda: {"features": HeadOptions()})
    views: Mapping[str, ViewOptions] = field(
        default_factory=lambda: {"second": ViewOptions(), "whole": ViewOptions(plan="whole")}
    )
    terms: TermOptions = TermOptions()
    train: TrainOptions = TrainOptions()
    probe: ProbeOptions = ProbeOptions()
    finetune: FinetuneOptions = FinetuneOptions()
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()

    @property
    def reads_edges(self) -> bool:
        """Whether the layers read edge attributes: asked for, or needed since some are hidden and rebuilt."""
        return self.encoder.edge_features or (self.mask.edge_ratio > 0 and not self.mask.takes_edges)

    def settings(self) -> dict[str, Any]:
        """Every option by its dotted key, `{"mask.ratio": 0.5, ...}`; `size` too, without the recipe's descriptions."""
        return {"size": self.size, **_flatten(self.tree())}

    def tree(self) -> dict[str, Any]:
        """The options as nested dicts, as TOML and config.json hold them."""
        groups = {group: _plain(getattr(self, group), self.modality) for group in _GROUPS}
        return {group: options for group, options in groups.items() if options}

    def describe(self) -> dict[str, Any]:
        """What `structmae recipes NAME --json` prints."""
        about = {key: getattr(self, key) for key in ("name", "summary", "paper", "modality", "default_data", "size")}
        return {**about, **self.tree(), "sizes": dict(self.sizes), "overrides": [asdict(o) for o in self.overrides]}

    def to_toml(self) -> str:
        """A file that `--recipe FILE` takes back to the same recipe."""
        import tomli_w

        return tomli_w.dumps({"recipe": self.name, "size": self.size, **self.tree()})

    def reads(self) -> dict[str, ViewOptions]:
        """The views that a head or a term of this recipe compares with, by name."""
        heads = [head.view for head in self.heads.values() if head.target == "latent"]
        terms = [self.terms.infonce.view] * (self.terms.infonce.weight > 0) + ["whole"] * (
            self.terms.clustering.weight > 0
        )
        return {name: view for name, view in self.views.items() if name in (*heads, *terms)}


_GROUPS = ("data", "tokens", "mask", "encoder", "heads", "views", "terms", "train", "probe", "finetune")


def resolve(
    recipe: str | os.PathLike[str] | Recipe = "graphmae",
    settings: Mapping[str, Any] | None = None,
    *,
    data: str | None = None,
    level: str | None = None,
) -> Recipe:
    """The recipe with every value settled.

    `recipe`: a name, the path of a TOML file (it ends in .toml), or a Recipe. `settings`: dotted keys; text values are
    read by the option's type. `data` and `level`: the data set's card name and "node" or "graph", for the overrides.
    Raises UsageError for an unknown name or key (with near misses) and for a value of the wrong type or range.
    """
    from structmae.rules import check

    chosen = _settle(recipe, settings or {}, data, level)
    check(chosen)
    return chosen


def amend(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """A settled recipe with other values for some options. Raises UsageError as `resolve` does."""
    from structmae.rules import check

    chosen = _apply(recipe, settings)
    check(chosen)
    return chosen


def shorthand(settings: Mapping[str, Any] | None, **given: Any) -> dict[str, Any]:
    """`settings` with what is given as options of training: seed=1 is short for train.seed. None is not given. Raises
    UsageError where they disagree."""
    asked = dict(settings or {})
    for name, value in given.items():
        if value is not None and asked.setdefault(f"train.{name}", value) not in (value, str(value)):
            raise UsageError(f"{name} {value} and train.{name}={asked[f'train.{name}']} disagree: give one of them")
    return asked


def data_options(recipe: str | os.PathLike[str] | Recipe, settings: Mapping[str, Any] | None = None) -> DataOptions:
    """How a recipe reads data, for when the data set, and so its overrides, is not known yet."""
    return _settle(recipe, settings or {}, None, None).data


def changes(
    stored: Recipe, recipe: str | os.PathLike[str] | None, settings: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """What options given anew, a file or settings, would change in a `stored` recipe: (key, stored, given)."""
    from_file = _read(Path(recipe))[1] if recipe is not None and str(recipe).endswith(".toml") else {}
    given = {**from_file, **settings}
    before, after = stored.settings(), _apply(stored, given).settings()
    after["size"] = given.get("size", stored.size)
    return [(key, before[key], after[key]) for key in before if before[key] != after[key]]


def _settle(
    recipe: str | os.PathLike[str] | Recipe, settings: Mapping[str, Any], data: str | None, level: str | None
) -> Recipe:
    from_file: dict[str, Any] = {}
    if isinstance(recipe, Recipe):
        chosen = recipe
    elif str(recipe).endswith(".toml"):
        chosen, from_file = _read(Path(recipe))
    else:
        chosen = registry.get("recipe", str(recipe).lower())
    given = dict(settings)
    if "size" in from_file and given.get("size", from_file["size"]) != from_file["size"]:
        raise UsageError(
            f"size={given['size']}: the file {recipe} has size={from_file['size']} and its values; change it there, or "
            "take the recipe by its name"
        )
    size = given.get("size", from_file.get("size"))
    if size is None:
        published = any(o.on == data and o.size == "published" for o in chosen.overrides)
        stays = isinstance(recipe, Recipe) or published or not chosen.sizes.get("tiny")
        size = chosen.size if stays else "tiny"
    sizes = ["published", *(name for name in chosen.sizes if name != "published")]
    if size not in sizes:
        raise UsageError(f"size={size!r} is not a size of {chosen.name}: {registry.near(str(size), sizes)}")
    chosen = replace(chosen, size=size)
    layers = [chosen.sizes.get(size, {})]
    for on in (f"level:{level}", data):
        layers += [o.settings for o in chosen.overrides if o.on == on and o.size in (None, size)]
    for layer in (*layers, from_file, given):
        chosen = _apply(chosen, layer)
    return chosen


def from_tree(about: Mapping[str, Any]) -> Recipe:
    """The recipe that config.json holds: resolved, so nothing is looked up. Raises UsageError as `resolve` does."""
    named = {key: about[key] for key in ("name", "summary", "paper", "modality", "size") if key in about}
    heads, views = about.get("heads", {}), about.get("views", {})
    base = Recipe(**named, heads={name: HeadOptions() for name in heads}, views={name: ViewOptions() for name in views})
    options = {group: about[group] for group in base.tree() if group in about}
    return _apply(base, _flatten(options))


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Raises StructmaeError, which says `what` the file should be, where it is not there or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StructmaeError(f"{what} {path}: {error.strerror or error}; give a .toml file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StructmaeError(f"{what} {path} is not TOML: {error}") from None


def _read(path: Path) -> tuple[Recipe, dict[str, Any]]:
    """A TOML file: its base recipe (key `recipe`, else plain defaults) and its settings."""
    tree = read_toml(path, "recipe file")
    base = tree.pop("recipe", None)
    if base is not None and not isinstance(base, str):
        raise UsageError(f"recipe file {path}: recipe={base!r} must be the name of a recipe in quotes")
    chosen = Recipe(name=path.stem) if base is None else registry.get("recipe", base)
    extra = tree.get("heads")
    if isinstance(extra, dict):  # a file may add heads; built-in names keep their values
        chosen = replace(chosen, heads={**{name: HeadOptions() for name in extra}, **chosen.heads})
    if isinstance(more := tree.get("views"), dict):
        chosen = replace(chosen, views={**{name: ViewOptions() for name in more}, **chosen.views})
    return chosen, _flatten(tree)


def _apply(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    known = recipe.settings()
    for key, value in settings.items():
        if key == "size":
            continue
        if key not in known:
            raise UsageError(f"unknown key {key!r}: {registry.near(key, list(known))}")
        recipe = _set(recipe, key.split("."), value, key)
    return recipe


def _set(owner: Any, path: list[str], value: Any, key: str) -> Any:
    """A copy of `owner` (dataclass or mapping) with the value at `path` replaced."""
    name, rest = path[0], path[1:]
    if isinstance(owner, Mapping):
        return {**owner, name: _set(owner[name], rest, value, key)}
    if rest:
        return replace(owner, **{name: _set(getattr(owner, name), rest, value, key)})
    rule = next(f for f in fields(owner) if f.name == name)
    return replace(owner, **{name: _checked(key, value, rule.type, rule.metadata)})


def _checked(key: str, value: Any, kind: Any, rule: Mapping[str, Any]) -> Any:
    """`value` as the option's type and within its range. Text comes from the command line and is read by the type."""
    given = value
    if isinstance(value, str) and kind is not str:
        try:
            value = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            raise UsageError(f"{key}={given} is not {_KINDS[kind]}") from None
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise UsageError(f"{key}={given!r} is not {_KINDS[kind]}")
    choices = rule.get("choices")
    if isinstance(choices, str):
        registry.check(choices, value)
    elif choices is not None and value not in choices:
        raise UsageError(f"{key}={value!r} is not a choice: {registry.near(value, list(choices))}")
    bounds = [name for name in _BOUNDS if name in rule]
    finite = kind is not float or math.isfinite(value)
    if not (finite and all(_BOUNDS[name][1](value, rule[name]) for name in bounds)):
        wanted = " and ".join(f"{_BOUNDS[name][0]} {rule[name]}" for name in bounds) or "finite"
        raise UsageError(f"{key}={given} is out of range: it must be {wanted} ({rule['why']})")
    return value


_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "low": ("at least", operator.ge),
    "high": ("at most", operator.le),
    "above": ("more than", operator.gt),
    "below": ("less than", operator.lt),
}
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _plain(value: Any, modality: str) -> Any:
    """Options as plain values, without those of other modalities."""
    if is_dataclass(value) and not isinstance(value, type):
        mine = [f for f in fields(value) if modality in (f.metadata.get("of") or (modality,))]
        return {f.name: _plain(getattr(value, f.name), modality) for f in mine}
    if isinstance(value, Mapping):
        return {key: _plain(part, modality) for key, part in value.items()}
    return value


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat
