"""Keep the marked tables of the READMEs those that are measured: `python benchmarks/readme.py`; --check only compares.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. With `; rows: a, b; columns: c, d` after the name it
has those alone, and no footer.
"""

import re
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import definition
import results
import systems
import systems_table
import tables

from structmae.cli import Parser
from structmae.errors import StructmaeError
from structmae.registry import near

HERE = Path(__file__).resolve().parent
OTHERS = (systems.TABLE, *tables.REPORTS)  # tables that no definition makes
FILES = (HERE.parent / "README.md", HERE / "README.md")
MARK = re.compile(r"<!--\s*(?:table:(?P<asked>.*?)|(?P<end>end))\s*-->")


def rendered(asked: str) -> str:
    """The table that a mark asks for, in markdown, without its title."""
    name, *choices = (part.strip() for part in asked.split(";"))
    picked: dict[str, list[str]] = {}
    for key, colon, words in (choice.partition(":") for choice in choices):
        if key.strip() not in ("rows", "columns") or not colon or key.strip() in picked:
            raise StructmaeError(
                f"table: {asked}: {key + colon + words!r} is not rows: a, b or columns: c, d, each once"
            )
        picked[key.strip()] = [word.strip() for word in words.split(",")]
    if name in OTHERS and picked:
        raise StructmaeError(f"table: {asked}: {name} is only there as a whole")
    if name == systems.TABLE:
        return _untitled(systems_table.render(results.FOLDER, "md"))
    if name in tables.REPORTS:
        grid, notes = tables.REPORTS[name](results.FOLDER, "md")
        return "\n".join([grid, "", *notes])
    table = definition.read(name, OTHERS)
    path = results.FOLDER / f"{table.name}.jsonl"
    lines = [line for line in results.read(path, table.name) if line["data"] in table.data]
    shown, made = tables.columns(table, lines), tables.rows(table, lines)
    for key, there in (("rows", [row.method for row in made]), ("columns", list(shown))):
        for word in picked.setdefault(key, there):
            if word not in there:
                raise StructmaeError(f"table: {asked}: {word!r} is none of its {key}: {near(word, there)}")
    shown = {label: column for label, column in shown.items() if label in picked["columns"]}
    made = [row for row in made if row.method in picked["rows"]]
    return _untitled(tables.markdown(table, shown, made, [] if choices else tables.footer(table, lines)))


def _untitled(text: str) -> str:
    return text.split("\n", 2)[2].strip()


def updated(text: str) -> str:
    """The text with every marked table as it is measured now. Raises StructmaeError where marks are no pairs."""
    marks = list(MARK.finditer(text))
    parts, at = list[str](), 0
    for begin, end in zip_longest(marks[::2], marks[1::2]):
        if begin["end"] or end is None or not end["end"]:
            raise StructmaeError(f"{begin[0]} has no end of its own: write <!-- table: NAME -->, then <!-- end -->")
        parts += [text[at : begin.end()], "\n", rendered(begin["asked"].strip()), "\n"]
        at = end.start()
    return "".join([*parts, text[at:]])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a table can't be made, or with --check one is not current; 2 usage."""
    made = Parser(prog="benchmarks/readme.py", description="Renew the tables of the READMEs.", allow_abbrev=False)
    made.add_argument("--check", action="store_true", help="write nothing; say which file is not current")
    check, old = made.parse_args(arguments).check, []
    try:
        for path in FILES:
            text = path.read_text(encoding="utf-8")
            try:
                new = updated(text)
            except StructmaeError as error:
                raise StructmaeError(f"{path}: {error}") from None
            if new != text:
                old.append(path)
                if not check:
                    path.write_text(new, encoding="utf-8")
    except StructmaeError as error:
        print(f"benchmarks/readme.py: {error}", file=sys.stderr)
        return 1
    for path in old:
        print(f"{path.relative_to(HERE.parent)}: {'not current: run benchmarks/readme.py' if check else 'renewed'}")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
