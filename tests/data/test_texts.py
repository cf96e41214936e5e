from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from structmae.data import Texts, TextSchema
from structmae.data.texts import split_texts


def texts(*documents: str) -> Texts:
    titles = tuple(str(number) for number in range(len(documents)))
    return Texts("some", documents, titles, split_texts(documents), "made", {})


def test_the_fingerprint_is_that_of_the_content() -> None:
    base = texts("one", "two", "é")
    assert replace(base, name="x", titles=("a", "b", "c"), notes=("n",)).fingerprint() == base.fingerprint()
    others = [
        texts("one", "twp", "é"),
        texts("onet", "wo", "é"),
        texts("one", "two", "e"),
        replace(base, split={**base.split, "test": base.split["train"]}),
    ]
    assert len({found.fingerprint() for found in (base, *others)}) == 5
    assert (base.num_items, base.num_characters, base.y, base.classes) == (3, 7, None, ())
    assert TextSchema.from_json(base.schema.to_json()) == base.schema


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60), seed=st.integers(0, 5))
def test_a_split_has_each_document_once_and_its_share_of_characters(lengths: list[int], seed: int) -> None:
    split = split_texts(["x" * length for length in lengths], seed)
    assert list(split) == ["train", "validation", "test"]
    assert torch.equal(torch.cat(list(split.values())).sort().values, torch.arange(len(lengths)))
    assert all(torch.equal(part, part.sort().values) for part in split.values())
    if len(lengths) < 3:
        assert sum(len(part) > 0 for part in split.values()) <= 2
        assert len(split["train"])
        return
    total = sum(lengths)
    for part, share in zip(split.values(), (0.8, 0.1, 0.1), strict=True):
        assert len(part)
        assert abs(sum(lengths[number] for number in part) - share * total) <= 2 * max(lengths)


def test_the_split_is_by_seed() -> None:
    documents = ["x"] * 50
    first, again, other = split_texts(documents), split_texts(documents), split_texts(documents, 1)
    assert [len(part) for part in first.values()] == [40, 5, 5]
    assert first["test"].tolist() == again["test"].tolist() != other["test"].tolist()
