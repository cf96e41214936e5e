import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from structmae.data.splits import per_class, stratified

labels = st.lists(st.integers(-1, 4), min_size=1, max_size=80).map(torch.tensor)


@given(labels)
def test_a_stratified_split_is_a_partition_with_every_class(y: torch.Tensor) -> None:
    split = stratified(y, 0.1, 0.1)
    counts = torch.bincount(y[y >= 0], minlength=5)
    if split is None:
        large = int((counts >= 3).sum())
        assert large == 0 or int((counts > 0).sum()) < 2
        return
    together = torch.cat([split["train"], split["validation"], split["test"]])
    assert sorted(together.tolist()) == (y >= 0).nonzero().flatten().tolist()
    for label in (counts >= 3).nonzero().flatten().tolist():
        assert all(bool((y[index] == label).any()) for index in split.values())
    assert all(torch.equal(index, index.sort().values) for index in split.values())


def test_shares_of_a_stratified_split() -> None:
    y = torch.arange(1000) % 4
    split = stratified(y, 0.1, 0.1)
    assert split is not None
    assert {key: len(index) for key, index in split.items()} == {"train": 100, "validation": 100, "test": 800}
    assert torch.bincount(y[split["train"]]).tolist() == [25] * 4


def test_a_split_depends_on_its_seed_alone() -> None:
    y = torch.arange(60) % 3
    np.random.seed(1)  # noqa: NPY002 - the global generator must not matter
    one = stratified(y, 0.1, 0.1)
    np.random.seed(2)  # noqa: NPY002
    same, other = stratified(y, 0.1, 0.1), stratified(y, 0.1, 0.1, seed=1)
    assert one is not None
    assert same is not None
    assert other is not None
    assert torch.equal(one["test"], same["test"])
    assert not torch.equal(one["test"], other["test"])


def test_too_few_labels_give_no_split() -> None:
    assert stratified(torch.tensor([0, 1, -1, -1]), 0.1, 0.1) is None
    assert stratified(torch.zeros(50, dtype=torch.int64), 0.1, 0.1) is None
    assert stratified(torch.tensor([0, 1, 2]), 0.1, 0.1) is None


def test_per_class_takes_the_same_number_of_each() -> None:
    y = torch.cat([torch.zeros(400), torch.ones(100), torch.full((30,), 2.0), torch.full((5,), -1.0)]).long()
    split = per_class(y, 20, 100, 300, np.random.default_rng(0))
    assert split is not None
    assert torch.bincount(y[split["train"]]).tolist() == [20, 20, 10]  # a third of a class that is too small
    assert (len(split["validation"]), len(split["test"])) == (100, 300)
    together = torch.cat(list(split.values()))
    assert together.unique().numel() == together.numel()
    assert bool((y[together] >= 0).all())
