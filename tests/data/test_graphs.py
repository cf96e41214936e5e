import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structmae.data.graphs import Graphs, Schema
from structmae.data.validate import Draft, build

cells = st.one_of(st.integers(-5, 500), st.text(max_size=8))
schemas = st.builds(
    Schema,
    width=st.integers(1, 5),
    names=st.none() | st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=5).map(tuple),
    categories=st.dictionaries(st.integers(0, 4), st.lists(cells, max_size=6).map(tuple), max_size=3),
    source=st.sampled_from(["given", "degree"]),
    edge_width=st.integers(0, 4),
)


@given(schemas)
def test_a_schema_survives_json(schema: Schema) -> None:
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def graph(**changes: object) -> Graphs:
    values: dict[str, object] = {
        "name": "g",
        "edge_index": torch.tensor([[0, 1, 2], [1, 2, 0]]),
        "num_nodes": 4,
        "x": torch.arange(8.0).reshape(4, 2),
        "y": torch.tensor([0, 1, 0, 1]),
        "classes": ("a", "b"),
        **changes,
    }
    return build(Draft(**values))  # type: ignore[arg-type]


def test_counts() -> None:
    graphs = graph()
    assert (graphs.num_items, graphs.num_nodes, graphs.num_edges) == (1, 4, 6)


def test_the_fingerprint_follows_the_content_only() -> None:
    one = graph()
    assert one.fingerprint() == graph(name="another", notes=["a remark"]).fingerprint()
    assert len(one.fingerprint()) == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"x": torch.arange(8.0).reshape(4, 2) + 1},
        {"edge_index": torch.tensor([[0, 1, 2], [1, 2, 3]])},
        {"edge_attr": torch.ones(3, 1)},
        {"y": torch.tensor([1, 1, 0, 0])},
        {"y": None},
        {"num_nodes": 4, "ptr": torch.tensor([0, 3, 4]), "level": "graph", "y": torch.tensor([0, 1])},
        {
            "split": {"train": torch.tensor([3]), "validation": torch.tensor([2]), "test": torch.tensor([0, 1])},
            "split_source": "given",
        },
    ],
)
def test_the_fingerprint_changes_with_each_part(changes: dict[str, object]) -> None:
    assert graph(**changes).fingerprint() != graph().fingerprint()
