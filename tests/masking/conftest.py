"""Makes masking_oracle and masking_cases importable, and warms the kernels.

(--import-mode=importlib leaves sys.path alone.)
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="session")
def warm():
    """Compiles or loads the kernels of a draw, so that no hypothesis example pays for it."""
    from structmae.masking import Spec, draw, layout
    from structmae.masking.adjacency import grid
    from structmae.masking.strategies import STRATEGIES

    at = layout([0, 4, 8], stratum=[0, 0, 1, 1] * 2, weight=[1.0] * 8, adjacency=grid((4,), 2), shape=(2, 2))
    for strategy in STRATEGIES:
        plan = draw(at, Spec(strategy, random=0.25, keep=0.25), seed=0, visit=0)
        assert len(plan.restore) == 8
