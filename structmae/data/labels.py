"""Class labels: whatever a person wrote becomes codes 0..C-1, with -1 for unlabelled."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from structmae.errors import StructmaeError

_WHOLE = re.compile(r"[+-]?\d+(\.0*)?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def encode_integers(values: Tensor, blank: Tensor | None = None) -> tuple[Tensor, tuple[str, ...], list[str]]:
    """Integer labels (n,) -> codes (n,), class names in numeric order, notes. `blank` (n,) bool: no label at all.

    -1 means unlabelled, unless the only labels are -1 and 1 (the two classes of MUTAG and many binary sets).
    """
    array = values.numpy()
    labelled = np.ones(array.shape, bool) if blank is None else ~blank.numpy()
    present = np.unique(array[labelled])
    notes: list[str] = []
    if present.tolist() == [-1, 1]:
        notes.append("labels are -1 and 1: read as two classes, none as unlabelled")
    else:
        present = present[present != -1]
    known = labelled & np.isin(array, present)
    codes = np.where(known, np.searchsorted(present, array), -1).astype(np.int64)
    return torch.from_numpy(codes), tuple(str(int(v)) for v in present), notes


def encode_names(values: Sequence[str | None], where: str) -> tuple[Tensor, tuple[str, ...], list[str]]:
    """Label cells of a table -> codes (n,), class names, notes. None or blank is unlabelled.

    Raises:
        StructmaeError: the cells are numbers and some are not whole: a target to regress on, not a class.
    """
    cells = [None if value is None or not value.strip() else value.strip() for value in values]
    given = [cell for cell in cells if cell is not None]
    if given and all(_NUMBER.fullmatch(cell) for cell in given):
        odd = next((cell for cell in given if not _WHOLE.fullmatch(cell)), None)
        if odd is not None:
            raise StructmaeError(
                f"{where}: label {odd} is not a whole number. Labels are classes: use whole numbers or names, "
                "or leave the column out."
            )
        numbers = torch.tensor([0 if cell is None else int(float(cell)) for cell in cells])
        return encode_integers(numbers, torch.tensor([cell is None for cell in cells]))
    classes = tuple(sorted(set(given)))
    code = {name: index for index, name in enumerate(classes)}
    return torch.tensor([-1 if cell is None else code[cell] for cell in cells], dtype=torch.int64), classes, []
