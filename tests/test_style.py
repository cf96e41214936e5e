"""Format, lint and types are clean, files short, and the core knows no recipe, so that nobody has to remember."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from structmae import registry

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "command", ["ruff check --no-cache", "ruff format --check --no-cache", "mypy --no-incremental"]
)
def test_clean(command):
    shown = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr


PACKAGE = ROOT / "structmae"
CORE = [
    *(PACKAGE / f"{name}.py" for name in ("model", "train", "planning", "terms", "targets", "views")),
    *(path for folder in ("nn", "tokens", "masking") for path in PACKAGE.glob(f"{folder}/*.py")),
]
# Recipes that are called after what they hide or read, of which the core has to speak.
WORDS = {"spans", "spectrogram"}


def said(path):
    """Names and texts of a file's code, docstrings and comments aside; and what it reads of a recipe."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            docs.add(id(body[0].value))
    names, texts = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            texts.add(node.value)
        names |= {
            getattr(node, field) for field in ("id", "attr", "arg", "name", "asname", "module") if field in node._fields
        }
    return {name for name in names if isinstance(name, str)}, texts


def test_the_core_names_no_recipe():
    """Neither in a name nor in a text of its code: what a system does is said by its options."""
    known = registry.names("recipe")
    for path in CORE:
        names, texts = said(path)
        for recipe in known:
            assert recipe not in texts, f"{path.name} compares with {recipe}"
            if recipe in WORDS:
                continue
            word = re.compile(rf"(?<![a-z]){recipe}(?![a-z])", re.IGNORECASE)
            assert [text for text in (*names, *texts) if word.search(text)] == [], f"{path.name} names {recipe}"
    assert len(CORE) > 30


def test_the_core_asks_no_recipe_for_its_name():
    for path in CORE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "name":
                assert ast.unparse(node.value) not in ("recipe", "self.recipe", "options.recipe"), path.name


def test_a_recipe_in_the_core_would_be_found(tmp_path):
    """The test above, tested."""
    file = tmp_path / "core.py"
    file.write_text('"""As bert."""\n\n\ndef of(x):\n    """Of mae."""\n    # cmae\n    return x.gmae == "igpt"\n')
    names, texts = said(file)
    assert texts == {"igpt"}
    assert names == {"of", "x", "gmae"}


def test_the_core_and_its_recipes_are_short():
    def lines(path):
        return len(path.read_text(encoding="utf-8").splitlines())

    assert lines(PACKAGE / "model.py") <= 220
    recipes = {path.name: lines(path) for path in PACKAGE.glob("recipes/*.py")}
    assert {name: count for name, count in recipes.items() if count > 90} == {}
