"""Philox against the published vectors, streams, and words that do not fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from masking_oracle import philox

from structmae.errors import UsageError
from structmae.masking import VALIDATION, Purpose, kernels, philox4x32, stream

WORD = st.integers(0, 2**32 - 1)

# Random123, kat_vectors: philox4x32 10.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_published_vectors(counter, key, expected):
    assert list(philox4x32(counter, key)) == expected
    assert philox(counter, key) == expected  # the oracle too


@given(st.lists(WORD, min_size=4, max_size=4), st.lists(WORD, min_size=2, max_size=2))
def test_philox_is_the_oracle(counter, key):
    assert list(philox4x32(counter, key)) == philox(counter, key)


@given(st.integers(0, 2**63 - 1), WORD, WORD, WORD, st.integers(0, 40))
def test_rank_layout(item, visit, seed, which, n):
    """Words of a rank: key (seed, stream), counter (id low, id high, visit, local // 4), output local % 4."""
    words = np.uint64(visit), np.uint64(seed), np.uint64(which)
    got = np.empty(n, np.uint32)
    kernels.ranks(got, 0, item, *words)
    low, high = item & 0xFFFFFFFF, item >> 32
    assert got.tolist() == [philox([low, high, visit, p // 4], [seed, which])[p % 4] for p in range(n)]
    locals_ = np.arange(n)[::-1].copy()
    assert kernels.ranks_at(np.full(n, item), locals_, *words).tolist() == got[::-1].tolist()


def test_rank_of_a_far_position():
    """Positions above 2**32 tokens' worth of words stay in the counter's word."""
    local = 2**33 + 5
    got = kernels.ranks_at(np.array([7]), np.array([local]), np.uint64(1), np.uint64(2), np.uint64(3))
    assert got.tolist() == [philox([7, 0, 1, local // 4], [2, 3])[1]]


@given(st.integers(0, 15), st.integers(0, 255), st.sampled_from(list(Purpose)), st.integers(0, 2**16 - 1))
def test_stream_packs_without_loss(view, token_set, purpose, draw):
    s = stream(view, token_set, purpose, draw)
    assert (s >> 28, s >> 20 & 255, s >> 16 & 15, s & 0xFFFF) == (view, token_set, purpose, draw)
    assert s < 2**32


def test_numbers_that_never_change():
    assert [(p.name, int(p)) for p in Purpose] == [
        ("HIDE", 0),
        ("SHARE", 1),
        ("SWAP", 2),
        ("SOURCE", 3),
        ("REMASK", 4),
        ("NEGATIVES", 5),
        ("ORDER", 6),
        ("BUDGET", 7),
    ]
    assert VALIDATION == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: stream(view=16), "view = 16"),
        (lambda: stream(token_set=-1), "token_set = -1"),
        (lambda: stream(draw=1 << 16), "draw = 65536"),
        (lambda: stream(draw=1.5), "draw = 1.5"),
        (lambda: philox4x32([0, 0, 0, 1 << 32], [0, 0]), "word = 4294967296"),
        (lambda: philox4x32([0] * 3, [0] * 3), "3 counter and 3 key words"),
    ],
)
def test_refused(call, says):
    with pytest.raises(UsageError, match=says):
        call()
