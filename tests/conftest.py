"""Shape annotations are checked in the tests, and nothing here reads a person's own data or cache."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Before the first import of the package. The kernels are Numba's to compile, so the masking layer is left out.
install_import_hook(
    [
        f"structmae.{part}"
        for part in (
            "tokens",
            "nn",
            "model",
            "objectives",
            "targets",
            "terms",
            "views",
            "planning",
            "evaluate",
            "train",
            "run",
        )
    ],
    "beartype.beartype",
)

# `small_series`, which tests of several folders read: with --import-mode=importlib no folder is on the path.
sys.path.insert(0, str(Path(__file__).parent))

# A slow machine is no failure, and CI finds what a person finds.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")

TINY = {"train.epochs": 3, "encoder.hidden": 16, "encoder.heads": 2}


@pytest.fixture
def tiny():
    """Settings that train in a moment."""
    return dict(TINY)


@pytest.fixture(scope="session")
def karate():
    import structmae

    return structmae.load_data("karate")


@pytest.fixture(scope="session")
def molecules():
    """A set of six small graphs with categorical nodes, edge attributes and two classes."""
    import torch
    from torch_geometric.data import Data

    import structmae

    generator = torch.Generator().manual_seed(0)
    graphs = []
    for index in range(6):
        nodes = 4 + index
        ring = torch.arange(nodes)
        edges = torch.stack([ring, (ring + 1) % nodes])
        kinds = torch.randint(0, 3, (nodes, 1), generator=generator)
        kinds[0] = 2
        graphs.append(
            Data(
                x=kinds,
                edge_index=edges,
                edge_attr=torch.rand(nodes, 2, generator=generator),
                y=torch.tensor([index % 2]),
            )
        )
    return structmae.load_data(graphs)


@pytest.fixture
def offline_environment(tmp_path):
    """For child processes: no data folder, an empty cache, one thread."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("STRUCTMAE_")}
    return {**env, "STRUCTMAE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
