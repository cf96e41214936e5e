"""`load_texts`: a name, a file, a folder or a list of documents becomes `Texts`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from structmae.data import bundled, catalog
from structmae.data.folders import below
from structmae.data.series_tables import slug
from structmae.data.texts import Texts, TextSchema, split_texts
from structmae.errors import StructmaeError

LENGTH = 2000
"""Characters of a document that is cut out of a file: at the first blank line after so many."""


def load_texts(data: Any, *, schema: TextSchema | None = None) -> Texts:
    """Documents from a name, a path or a sequence.

    Arguments:
        data: a name of the catalog (`structmae data` lists them), without regard to case; a `.txt` file, cut at blank
            lines into documents of about 2,000 characters; a folder, of which each `.txt` file, in the folders within
            too, is a document; a sequence of documents; or `Texts`. Files are UTF-8.
        schema: of earlier texts; any text is read as any other.

    Returns:
        The texts. About 80 % of the characters are training documents, 10 % validation and 10 % test, by seed 0. Of
        documents in memory the `spec` is empty.

    Raises:
        UsageError: an unknown name.
        StructmaeError: a file that is missing, is not UTF-8, or has no text.
    """
    if isinstance(data, Texts):
        return data
    notes: list[str] = []
    if isinstance(data, (str, os.PathLike)):
        text = os.fspath(data)
        if isinstance(data, str) and catalog.is_known(text):
            return _by_name(text)
        if isinstance(data, str) and not catalog.looks_like_a_path(text):
            catalog.resolve(text)  # raises, with the near misses
        path = Path(text).expanduser()
        found = _folder(path, notes) if path.is_dir() else _cut(_read(path), path)
        return _texts(slug(path.resolve().stem), found, {"data": str(path.resolve())}, notes)
    return _texts("texts", _listed(data), {}, notes)


def _by_name(name: str) -> Texts:
    card = catalog.resolve(name)
    if card.kind != "text":
        raise StructmaeError(f"'{card.name}' is a set of kind {card.kind}, no text. `structmae data` lists the texts.")
    notes: list[str] = []
    return _texts(card.name, bundled.pydoc_topics(), {"data": card.name}, notes, card.name)


def _texts(
    name: str, found: dict[str, str], spec: dict[str, Any], notes: Sequence[str], card: str | None = None
) -> Texts:
    documents = tuple(found.values())
    source = "made: whole documents, about 80/10/10 % of the characters, seed 0"
    return Texts(name, documents, tuple(found), split_texts(documents), source, spec, tuple(notes), card)


def _listed(data: Any) -> dict[str, str]:
    """Documents in memory; their titles are their numbers."""
    if not isinstance(data, Sequence) or not all(isinstance(document, str) for document in data):
        raise StructmaeError(
            f"this {type(data).__name__} is no text: give a list of documents, each a str, a .txt file, a folder of "
            "them, or a name of `structmae data`."
        )
    if not data:
        raise StructmaeError("a list of no documents: give at least one.")
    for number, document in enumerate(data):
        if not document.strip():
            raise StructmaeError(f"document {number} is empty: leave it out.")
    return {str(number): document for number, document in enumerate(data)}


def _folder(folder: Path, notes: list[str]) -> dict[str, str]:
    """Each .txt file below a folder, by its path within it; hidden ones are left alone."""
    found: dict[str, str] = {}
    empty: list[str] = []
    for path in below(folder, (".txt",)):
        title = path.relative_to(folder)
        text = _read(path)
        if text.strip():
            found[title.as_posix()] = text
        else:
            empty.append(title.as_posix())
    if not found:
        raise StructmaeError(f"{folder}: no .txt file with text in this folder. Put the documents there.")
    if empty:
        notes.append(f"left out, since empty: {empty[0]}" + (f" and {len(empty) - 1} more" if empty[1:] else ""))
    return found


def _read(path: Path) -> str:
    if not path.exists():
        raise StructmaeError(
            f"{path}: no such file. Give a .txt file, a folder of them, or a name of `structmae data`."
        )
    if path.suffix.lower() != ".txt":
        raise StructmaeError(f"{path}: text is read from .txt files, and from folders of them.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StructmaeError(
            f"{path}: byte {error.start} is not UTF-8. Write the file anew in UTF-8, or leave it out."
        ) from None
    except OSError as error:
        raise StructmaeError(f"{path}: cannot be read: {error.strerror}.") from None


def _cut(text: str, path: Path) -> dict[str, str]:
    """Documents of a file, each some paragraphs; a paragraph of many lines is cut at the end of one."""
    documents: list[str] = []
    lines: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        size += len(line)
        if (size >= LENGTH and not line.strip()) or size >= 2 * LENGTH:
            documents.append("".join(lines))
            lines, size = [], 0
    documents.append("".join(lines))
    kept = [document.strip("\n") for document in documents if document.strip()]
    if not kept:
        raise StructmaeError(f"{path}: this file is empty. Give one with text.")
    return {f"{path.stem}:{number}": document for number, document in enumerate(kept)}
