import numpy as np
import pytest
import torch

from structmae.evaluate.counts import Counts, Places, by_place, known
from structmae.tokens import TokenSet


def items(*rows, valid=None):
    """Ids of some items."""
    lengths = torch.tensor([len(row) for row in rows])
    flat = torch.tensor([piece for row in rows for piece in row], dtype=torch.int64)
    ptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    position = torch.arange(len(flat)) - ptr[:-1].repeat_interleave(lengths)
    there = None if valid is None else torch.tensor(valid)
    return TokenSet(
        torch.zeros(len(flat), 0), ptr, torch.arange(len(rows)), {}, valid=there, position=position, ids=flat
    )


def places(part, rows=None, visible=None):
    every = range(len(part))
    return Places.of(part, *(np.array(every if some is None else some, np.int64) for some in (rows, visible)))


def test_neighbours_stay_in_their_item_and_are_seen():
    part = items([0, 1, 2], [], [3, 4])
    found = places(part)
    assert found.left.tolist() == [-1, 0, 1, -1, 3]
    assert found.right.tolist() == [1, 2, -1, 4, -1]
    assert found.position.tolist() == [0, 1, 2, 0, 1]
    some = places(part, [1, 4], [0, 1, 4])
    assert (some.truth.tolist(), some.left.tolist(), some.right.tolist()) == ([1, 4], [0, -1], [-1, -1])


def test_what_is_not_there_is_no_neighbour():
    part = items([0, 1, 2], valid=[True, False, True])
    assert known(part).tolist() == [0, -1, 2]
    counts = Counts.of([part], 3)
    assert counts.single.tolist() == [1, 0, 1]
    assert counts.pairs.nnz == 0


TOY = ([0, 1, 0, 1, 0, 2], [1, 0, 2])  # "ab ab ac", "b ac"


def test_counts_by_hand():
    counts = Counts.of([items(TOY[0]), items(TOY[1])], 3)
    assert counts.single.tolist() == [4, 3, 2]
    assert counts.pairs.toarray().tolist() == [[0, 2, 2], [3, 0, 0], [0, 0, 0]]
    assert counts.unigram.tolist() == pytest.approx([5 / 12, 4 / 12, 3 / 12])


def test_unigram_and_previous_by_hand():
    counts = Counts.of([items(*TOY)], 3)
    asked = places(items([0, 2]))
    alone = counts.alone(asked)
    assert alone.accuracy == 0.5
    assert alone.bits == pytest.approx(-(np.log2(5 / 12) + np.log2(3 / 12)) / 2)
    # The first by the unigrams; 2 after 0 is 2 of 4 pairs, each of three with one more.
    said = counts.previous(asked)
    assert said.bits == pytest.approx(-(np.log2(5 / 12) + np.log2((2 + 1) / (4 + 3))) / 2)


def test_between_two_neighbours_by_hand():
    counts = Counts.of([items(*TOY)], 3)
    asked, one, strength = places(items([1, 0, 1]), [1]), counts.unigram, 2.0
    after = [(c + strength * p) / (3 + strength) for c, p in zip([3, 0, 0], one, strict=True)]  # w after 1
    before = [(c + strength * one[1]) / (n + strength) for c, n in zip([2, 0, 0], [4, 3, 0], strict=True)]  # 1 after w
    shares = np.array(after) * before
    said = counts.between(asked, strength)
    assert said.bits == pytest.approx(-np.log2(shares[0] / shares.sum()))
    assert said.accuracy == 1


def test_a_hidden_side_is_left_out():
    counts = Counts.of([items(*TOY)], 3)
    part = items([1, 0, 1])
    neither = counts.between(places(part, [1], []), 2.0)
    assert neither.bits == pytest.approx(-np.log2(5 / 12))
    left = counts.between(places(part, [1], [0]), 2.0)
    assert left.bits == pytest.approx(-np.log2((3 + 2 * 5 / 12) / 5))


def slow(training, asked, vocabulary, strength):
    """`between` by loops."""
    single, pairs = np.zeros(vocabulary), np.zeros((vocabulary, vocabulary))
    for row in training:
        for place, piece in enumerate(row):
            single[piece] += 1
            if place:
                pairs[row[place - 1], piece] += 1
    prior = (single + 1) / (single.sum() + vocabulary)
    right, bits = 0, 0.0
    for truth, before, after in zip(asked.truth, asked.left, asked.right, strict=True):
        shares = np.zeros(vocabulary)
        for w in range(vocabulary):
            one = (
                prior[w] if before < 0 else (pairs[before, w] + strength * prior[w]) / (pairs[before].sum() + strength)
            )
            two = 1.0 if after < 0 else (pairs[w, after] + strength * prior[after]) / (pairs[w].sum() + strength)
            shares[w] = one * two
        shares /= shares.sum()
        right += shares.argmax() == truth
        bits -= np.log2(shares[truth])
    return right / len(asked.truth), bits / len(asked.truth)


def test_between_is_what_loops_give(monkeypatch):
    monkeypatch.setattr("structmae.evaluate.counts.CELLS", 40)  # several blocks
    rng = np.random.default_rng(0)
    training = [rng.integers(0, 9, rng.integers(1, 30)).tolist() for _ in range(20)]
    part = items(*[rng.integers(0, 9, 12).tolist() for _ in range(5)])
    asked = places(part, np.flatnonzero(rng.random(60) < 0.4), np.flatnonzero(rng.random(60) < 0.7))
    said = Counts.of([items(*training[:7]), items(*training[7:])], 9).between(asked, 1.5)
    assert (said.accuracy, said.bits) == pytest.approx(slow(training, asked, 9, 1.5))


def test_by_place_by_hand():
    training = items([0, 1], [0, 2], [1, 2, 1])
    said = by_place([training], 3, places(items([0, 2])))
    # At the first place 0 twice and 1 once, at the second 2 twice and 1 once; one more of each.
    assert said.bits == pytest.approx(-np.log2(3 / 6))
    assert said.accuracy == 1
