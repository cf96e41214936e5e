"""MiniRocket features by tsai, where that is installed: the strong simple method of series classification."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHORTEST = 10  # rows: the kernels are 9 long
NOTE = "rocket: not scored, for tsai is not installed: pip install structmae[tsai]"


def available() -> bool:
    """Whether tsai can be imported; nothing is imported to find out."""
    return find_spec("tsai") is not None


def features(
    train: NDArray[np.float32], others: NDArray[np.float32], *, seed: int, at_once: int = 64
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """MiniRocket (Dempster, Schmidt and Webb, KDD 2021) of series (N, C, T), fitted on `train`: (N, 9996) of each.

    Shorter than `SHORTEST` rows they are filled up with zeros. NumPy's global generator, which tsai seeds, is put back.
    """
    import torch

    made: Any = import_module("tsai.models.MINIROCKET_Pytorch")
    short = max(0, SHORTEST - train.shape[-1])
    train, others = (np.pad(part, ((0, 0), (0, 0), (0, short))) for part in (train, others))
    state = np.random.get_state()  # noqa: NPY002
    try:
        rocket = made.MiniRocketFeatures(train.shape[1], train.shape[2], random_state=seed)
        with torch.no_grad():
            rocket.fit(torch.from_numpy(train))
            first, second = (
                torch.cat([rocket(rows) for rows in torch.split(torch.from_numpy(part), at_once)]).numpy()
                if len(part)
                else np.zeros((0, rocket.num_features), np.float32)
                for part in (train, others)
            )
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return first, second
