import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structmae.data import Images, ImageSchema
from structmae.data.images import split_images


def images(**changes: object) -> Images:
    x = torch.arange(4 * 3 * 2 * 5, dtype=torch.float32).reshape(4, 3, 2, 5)
    y = torch.tensor([0, 1, 1, -1])
    made = Images("some", x, (("a", 1), ("b", 2)), y, split_images(y, 4), "made", ("p", "q"), {})
    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_schema_comes_back_from_json() -> None:
    schema = images().schema
    assert schema == ImageSchema(3, 2, 5, (("a", 1), ("b", 2)))
    assert ImageSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def test_the_fingerprint_is_that_of_the_content() -> None:
    base = images()
    same = replace(base, name="other", spec={"data": "x"}, notes=("a",), x=base.x.clone())
    assert same.fingerprint() == base.fingerprint()
    changed = base.x.clone()
    changed[3, 2, 1, 4] += 1
    others = [
        images(x=changed),
        images(x=base.x.double()),
        images(x=base.x.reshape(4, 3, 5, 2)),
        images(y=None),
        images(y=torch.tensor([0, 1, 1, 1])),
        images(maps=(("a", 2), ("b", 1))),
        images(split={**base.split, "test": base.split["train"]}),
    ]
    assert len({found.fingerprint() for found in (base, *others)}) == 8


@given(labels=st.lists(st.integers(-1, 4), min_size=1, max_size=80), seed=st.integers(0, 5), labelled=st.booleans())
def test_a_split_has_each_image_once_and_its_share_of_each_class(labels: list[int], seed: int, labelled: bool) -> None:
    count = len(labels)
    y = torch.tensor(labels) if labelled else None
    split = split_images(y, count, seed=seed)
    assert list(split) == ["train", "validation", "test"]
    assert torch.equal(torch.cat(list(split.values())).sort().values, torch.arange(count))
    assert all(torch.equal(rows, rows.sort().values) for rows in split.values())
    sizes = [len(rows) for rows in split.values()]
    if count >= 3:
        assert sizes[1:] == [max(1, int(share * count + 0.5)) for share in (0.1, 0.2)]
    else:
        assert sizes == [count, 0, 0]
    if y is not None:
        # A cut at t leaves a class less than one image off its share of t, and is itself off by one for each class; a
        # part lies between two cuts.
        classes = y.add(1).bincount(minlength=6)
        bound = 2 * (1 + (classes > 0).sum() * classes / count)
        for rows in split.values():
            assert ((y[rows].add(1).bincount(minlength=6) - classes * len(rows) / count).abs() <= bound).all()


def test_splits_by_number_depend_on_the_seed_alone() -> None:
    y = torch.arange(100) % 4
    split = split_images(y, 100, (40, 20, 20))
    assert [y[rows].bincount().tolist() for rows in split.values()] == [[10] * 4, [5] * 4, [5] * 4]
    np.random.seed(5)  # noqa: NPY002  the global generator counts for nothing
    again, other = split_images(y, 100, (40, 20, 20)), split_images(y, 100, (40, 20, 20), seed=1)
    assert all(torch.equal(split[key], again[key]) for key in split)
    assert not torch.equal(split["train"], other["train"])


@pytest.mark.parametrize(("channels", "words"), [(1, "1 channel of 8 x 9 pixels"), (3, "3 channels of 8 x 9 pixels")])
def test_a_schema_in_words(channels: int, words: str) -> None:
    assert str(ImageSchema(channels, 8, 9, ())) == words
