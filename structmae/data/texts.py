"""`Texts`: documents; and `TextSchema`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from structmae.data.splits import KEYS, Split

#: Shares of training, validation and test characters.
SHARES = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class TextSchema:
    """What texts are like: any text is read as any other, so there is nothing to keep."""

    def to_json(self) -> dict[str, Any]:
        """An empty dict; `from_json` gives the schema back."""
        return {}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TextSchema":
        """The schema that `to_json` wrote."""
        return cls()


@dataclass(frozen=True, eq=False)
class Texts:
    """Documents, none of them empty. `split` has sorted int64 numbers of documents under the keys train, validation,
    test; the latter two are empty of fewer than three documents."""

    name: str
    documents: tuple[str, ...]
    titles: tuple[str, ...]
    split: dict[str, Tensor]
    split_source: str
    spec: dict[str, Any]
    notes: tuple[str, ...] = ()
    card: str | None = None
    level: Literal["text"] = "text"
    schema: TextSchema = TextSchema()
    y: None = None
    classes: tuple[str, ...] = ()

    @property
    def num_items(self) -> int:
        """Documents."""
        return len(self.documents)

    @property
    def num_characters(self) -> int:
        """Characters over all documents."""
        return sum(map(len, self.documents))

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the documents and the split. Names, titles, notes and paths do not count."""
        digest = hashlib.sha256()
        for document in self.documents:
            encoded = document.encode()
            digest.update(f"{len(encoded)};".encode())
            digest.update(encoded)
        for key in KEYS:
            digest.update(f"split.{key}:{self.split[key].tolist()};".encode())
        return digest.hexdigest()


def split_texts(documents: Sequence[str], seed: int = 0) -> Split:
    """Whole documents in an order by `seed`, each to the part that lacks the most characters of its share."""
    lengths = np.array([len(document) for document in documents])
    lacks = np.array(SHARES) * lengths.sum()
    parts: list[list[int]] = [[], [], []]
    for document in np.random.default_rng(seed).permutation(len(documents)).tolist():
        part = int(lacks.argmax())
        parts[part].append(document)
        lacks[part] -= lengths[document]
    for part in (1, 2):  # of few documents, all may have gone elsewhere
        if not parts[part] and len(documents) >= 3:
            parts[part].append(max(parts, key=len).pop())
    return {key: torch.tensor(sorted(part), dtype=torch.int64) for key, part in zip(KEYS, parts, strict=True)}
