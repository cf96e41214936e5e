"""Keep the tables in the READMEs those that are measured: `python benchmarks/readme.py`, or --check to only compare.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. With `; rows: a, b; columns: c, d` after the name it
has those alone, and no footer.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import definition
import results
import speed_report
import systems
import systems_table
import tables

from structmae.cli import Parser
from structmae.errors import StructmaeError
from structmae.registry import near

HERE = Path(__file__).resolve().parent
FILES = (HERE.parent / "README.md", HERE / "README.md")
MARKED = re.compile(r"(?<=<!-- table: )(?P<asked>[^>]*?)( -->\n)(?P<there>.*?)(?=\n<!-- end -->)", re.DOTALL)


def rendered(asked: str) -> str:
    """The table that a mark asks for, in markdown, without its title."""
    name, *choices = (part.strip() for part in asked.split(";"))
    if name == systems.TABLE:
        return _untitled(systems_table.render(results.FOLDER, "md"))
    if name == speed_report.TABLE:
        return speed_report.render(results.FOLDER, "md")[0]
    table = definition.read(name)
    lines = [line for line in results.read(results.FOLDER / f"{name}.jsonl", name) if line["data"] in table.data]
    shown, made = tables.columns(table, lines), tables.rows(table, lines)
    picked = {key: [word.strip() for word in words.split(",")] for key, _, words in (c.partition(":") for c in choices)}
    for key, there in (("rows", [row.method for row in made]), ("columns", list(shown))):
        for word in picked.setdefault(key, there):
            if word not in there:
                raise StructmaeError(f"table: {asked}: {word!r} is none of its {key}: {near(word, there)}")
    shown = {label: shown[label] for label in picked["columns"]}
    made = [row for row in made if row.method in picked["rows"]]
    foot = [] if choices else tables.footer(table, lines)
    return _untitled(tables.markdown(table, shown, made, foot))


def _untitled(text: str) -> str:
    return text.split("\n", 2)[2].strip()


def updated(text: str) -> str:
    """The text with every marked table as it is measured now."""
    return MARKED.sub(lambda found: f"{found['asked']}{found[2]}{rendered(found['asked'])}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a table can't be made, or with --check one is not current; 2 usage."""
    made = Parser(prog="benchmarks/readme.py", description="Renew the tables of the READMEs.", allow_abbrev=False)
    made.add_argument("--check", action="store_true", help="write nothing; say which file is not current")
    check, old = made.parse_args(arguments).check, []
    try:
        for path in FILES:
            text = path.read_text(encoding="utf-8")
            if (new := updated(text)) != text:
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
