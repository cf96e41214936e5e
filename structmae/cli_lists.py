"""The commands that list: recipes and data sets."""

import argparse
import json
import sys
from itertools import groupby
from typing import Any

_KEYS = ("name", "modality", "paper", "default_data", "summary")


def show_recipes(args: argparse.Namespace) -> None:
    """The recipes by modality, or one of them as TOML."""
    from structmae import registry, resolve

    if args.name is None:
        found = [registry.get("recipe", name) for name in registry.names("recipe")]
        modalities = [*dict.fromkeys((*registry.names("modality"), *(recipe.modality for recipe in found)))]
        found.sort(key=lambda recipe: modalities.index(recipe.modality))
        if args.json:
            print(json.dumps([{key: getattr(recipe, key) for key in _KEYS} for recipe in found]))
            return
        for modality, several in groupby(found, lambda recipe: str(recipe.modality)):
            print(modality)
            for recipe in several:
                print(f"  {recipe.name:13s} {recipe.summary}")
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


def show_data(args: argparse.Namespace) -> None:
    """The data sets, or one of them."""
    from structmae.data import cards, describe

    if args.name is None:
        about = [describe(name) for name in cards()]
        if args.json:
            print(json.dumps(about))
            return
        for each in about:
            print(f"{each['name']:14s} {each['kind']:7s} {each['where'] or 'not here':38s} {each['title']}")
        print("any other TU data set goes by its name, files of your own by their path", file=sys.stderr)
        return
    about_one = describe(args.name)
    if args.json:
        print(json.dumps(about_one))
        return
    for key, value in about_one.items():
        if key != "files":
            print(f"{key:11s} {_one_line(value) if isinstance(value, dict) else value}")


def _one_line(values: Any) -> str:
    return ", ".join(f"{key} = {value}" for key, value in values.items())
