"""Makes masking_oracle and masking_cases importable, and warms the kernels.

(--import-mode=importlib leaves sys.path alone.)
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="session")
def warm():
    """Compiles or loads the serial kernels, so that no hypothesis example pays for it."""
    from structmae.masking import Spec, draw, layout

    plan = draw(layout([0, 8]), Spec(random=0.25, keep=0.25), seed=0, visit=0)
    assert len(plan.restore) == 8
