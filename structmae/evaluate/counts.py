"""What ids say about their neighbours by counting alone: unigrams, and pairs side by side."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix

from structmae.tokens import TokenSet

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # of what the unigrams say: so many counts
CELLS = 1 << 22  # places x vocabulary that are worked on together
Ids = NDArray[np.int64]
Shares = NDArray[np.float64]


def known(part: TokenSet) -> Ids:
    """(M,) ids, -1 where there is no token."""
    assert part.ids is not None
    ids: Ids = part.ids.cpu().numpy()
    return ids if part.valid is None else np.where(part.valid.cpu().numpy(), ids, -1)


@dataclass(frozen=True, eq=False)
class Places:
    """K places of which the id is asked: it, those on both sides (-1: none, or it can't be seen), and where in its item
    each is."""

    truth: Ids
    left: Ids
    right: Ids
    position: Ids

    @classmethod
    def of(cls, part: TokenSet, rows: Ids, visible: Ids) -> "Places":
        """The tokens `rows`, of which neighbours can be seen where they are among `visible`."""
        ids, ptr = known(part), part.ptr.cpu().numpy()
        seen: Ids = np.full(len(ids), -1, np.int64)
        seen[visible] = ids[visible]
        left, right = np.append(-1, seen)[:-1], np.append(seen, -1)[1:]
        some = np.diff(ptr) > 0
        left[ptr[:-1][some]] = right[ptr[1:][some] - 1] = -1  # what stands there is of another item
        position = np.arange(len(ids)) - np.repeat(ptr[:-1], np.diff(ptr))
        return cls(ids[rows], left[rows], right[rows], position[rows])

    @classmethod
    def joined(cls, parts: Sequence["Places"]) -> "Places":
        """Several in a row."""
        return cls(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)))

    def where(self, chosen: Any) -> "Places":
        """Some of them, by an index, a mask or a slice."""
        return Places(*(getattr(self, each.name)[chosen] for each in fields(self)))

    def blocks(self, vocabulary: int) -> Iterator["Places"]:
        """In turn, as many as may be worked on together."""
        size = max(1, CELLS // vocabulary)
        return (self.where(slice(low, low + size)) for low in range(0, len(self.truth), size))


@dataclass(frozen=True)
class Said:
    """The share of places where the likeliest id is right, and the mean bits that the true one takes."""

    accuracy: float
    bits: float


@dataclass(frozen=True, eq=False)
class Counts:
    """How often each id stands in some items (V,), and each pair (V, V) of one and the next."""

    single: Shares
    pairs: Any

    @classmethod
    def of(cls, sets: Iterable[TokenSet], vocabulary: int) -> "Counts":
        """Of packed items of ids below `vocabulary`."""
        single: Shares = np.zeros(vocabulary)
        pairs = csr_matrix((vocabulary, vocabulary))
        for part in sets:
            there = np.flatnonzero(known(part) >= 0)
            places = Places.of(part, there, there)
            single += np.bincount(places.truth, minlength=vocabulary)
            after = places.left >= 0
            ends = places.left[after], places.truth[after]
            pairs = pairs + coo_matrix((np.ones(len(ends[0])), ends), shape=pairs.shape).tocsr()
        return cls(single, pairs)

    @cached_property
    def unigram(self) -> Shares:
        """(V,) the probability of each id, add-one."""
        shares: Shares = (self.single + 1) / (self.single.sum() + len(self.single))
        return shares

    def alone(self, places: Places) -> Said:
        """As the unigrams say."""
        truth = places.truth
        return Said(float((truth == self.unigram.argmax()).mean()), float(-np.log2(self.unigram[truth]).mean()))

    def previous(self, places: Places) -> Said:
        """As the id on the left says, by add-one counts; where there is none as the unigrams say."""
        vocabulary = len(self.single)
        uniform: Shares = np.full(vocabulary, 1 / vocabulary)
        return _said(places, vocabulary, lambda some: self._after(some.left, uniform, float(vocabulary)))

    def between(self, places: Places, strength: float) -> Said:
        """As both neighbours say: P(w | left, right) ~ P(w | left) P(right | w), without a side that can't be seen.
        Each count of pairs has the unigrams behind it, as `strength` more."""

        def shares(some: Places) -> Shares:
            found = self._after(some.left, self.unigram, strength) * self._before(some.right, strength)
            shares: Shares = found / found.sum(1, keepdims=True)
            return shares

        return _said(places, len(self.single), shares)

    def _after(self, left: Ids, prior: Shares, strength: float) -> Shares:
        """(K, V) P(w | left)."""
        counts = self.pairs[np.maximum(left, 0)].toarray()
        found: Shares = (counts + strength * prior) / (counts.sum(1, keepdims=True) + strength)
        found[left < 0] = self.unigram
        return found

    def _before(self, right: Ids, strength: float) -> Shares:
        """(K, V) P(right | w)."""
        counts = self._reversed[np.maximum(right, 0)].toarray()
        found: Shares = (counts + strength * self.unigram[right][:, None]) / (self._begun + strength)
        found[right < 0] = 1.0
        return found

    @cached_property
    def _reversed(self) -> Any:
        return self.pairs.T.tocsr()

    @cached_property
    def _begun(self) -> Shares:
        """(V,) how many pairs begin with each id."""
        return np.asarray(self.pairs.sum(1)).ravel()


def _said(places: Places, vocabulary: int, shares: Callable[[Places], Shares]) -> Said:
    """What a rule that gives (K, V) probabilities of some places says of all."""
    right, bits = 0, 0.0
    for some in places.blocks(vocabulary):
        found = shares(some)
        right += int((found.argmax(1) == some.truth).sum())
        bits -= float(np.log2(found[np.arange(len(found)), some.truth]).sum())
    return Said(right / len(places.truth), bits / len(places.truth))


def by_place(sets: Iterable[TokenSet], vocabulary: int, places: Places) -> Said:
    """As the unigrams of each place of an item say, add-one."""
    shares: Shares = np.ones((int(places.position.max()) + 1, vocabulary))
    for part in sets:
        there = np.flatnonzero(known(part) >= 0)
        of = Places.of(part, there, there)
        asked = of.position < len(shares)
        np.add.at(shares, (of.position[asked], of.truth[asked]), 1.0)
    shares /= shares.sum(1, keepdims=True)
    best = shares.argmax(1)[places.position]
    return Said(float((best == places.truth).mean()), float(-np.log2(shares[places.position, places.truth]).mean()))
