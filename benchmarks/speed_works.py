"""What speed.py times."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PUBLISHED = {"size": "published"}


@dataclass(frozen=True)
class Work:
    """`must` and `aim` are of the ratio at medium. `against` is plain, transformers, or full (our own, nothing
    dropped); `same` says that the other side has our malloc and precision, and not torch's defaults."""

    name: str
    recipe: str
    data: str
    must: float = 1.0
    aim: float | None = None
    settings: Mapping[str, Any] = field(default_factory=lambda: PUBLISHED)
    against: str = "plain"
    same: bool = False
    unit: str = "step"  # or epoch
    part: str = "whole"  # or encoder

    @property
    def other(self) -> str:
        """The other side in words."""
        length = "the same" if self.part == "whole" else "its encoder"
        what = {"plain": "plain GraphMAE", "transformers": "transformers PatchTSTForPretraining"}
        return f"{what.get(self.against, length + ' at full length')}, {'same settings' if self.same else 'defaults'}"


def _with(layer: str) -> dict[str, Any]:
    """A person's own recipe."""
    return {**PUBLISHED, "encoder.layer": layer, "heads.features.layer": layer, "encoder.norm": "batchnorm"}


WORKS = (
    Work("graphmae_cora_tuned", "graphmae", "cora", 2.0, 3.0, same=True),
    Work("graphmae_cora", "graphmae", "cora", 4.5, 7.0),
    Work("graphmae_citeseer", "graphmae", "citeseer", 4.5, 7.0),
    Work("graphmae_pubmed", "graphmae", "pubmed", 4.5, 7.0),
    Work("graphmae_mutag", "graphmae", "mutag", 2.0, unit="epoch"),
    Work("patchtst", "patchtst", "etth1", 3.0, 5.0, against="transformers"),
    Work("tsformer_visible", "tsformer", "etth1", 2.2, against="full", same=True),
    Work("tsformer_visible_encoder", "tsformer", "etth1", 3.5, against="full", same=True, part="encoder"),
    Work("gcn_cora", "graphmae", "cora", 1.5, settings=_with("gcn"), same=True),
    Work("gin_cora", "graphmae", "cora", 1.5, settings=_with("gin"), same=True),
)
