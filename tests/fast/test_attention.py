"""Attention by kernels: equal to torch's own, gradients too, whatever the items' lengths."""

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from structmae.fast import vectors
from structmae.fast.attention import attention, suits

COUNTS = st.lists(st.sampled_from([0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 48, 70]), min_size=1, max_size=5)


def borders(counts):
    return torch.tensor([0, *np.cumsum(counts)])


def plain(packed, bias, ptr, heads, causal=False, mask=None):
    """Item by item, by torch."""
    packed = packed + bias
    parts = []
    for number, (begin, end) in enumerate(zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True)):
        if begin == end:
            continue
        q, k, v = packed[begin:end].view(end - begin, 3, heads, -1).permute(1, 2, 0, 3)
        if mask is None:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        else:
            out = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) * mask[number] @ v
        parts.append(out.transpose(0, 1).reshape(end - begin, -1))
    return torch.cat([packed[:0, : packed.shape[1] // 3], *parts])


def both(packed, bias, upper, make):
    """The output, and the gradients of both."""
    packed, bias = packed.detach().clone().requires_grad_(), bias.detach().clone().requires_grad_()
    out = make(packed, bias)
    return out.detach(), *torch.autograd.grad(out, (packed, bias), upper)


def close(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-5 * float(b.abs().max() if b.numel() else 0))


@settings(max_examples=40)
@given(
    COUNTS,
    st.sampled_from([1, 2, 3, 4, 16]),
    st.sampled_from([8, 16, 24, 64]),
    st.booleans(),
    st.sampled_from([0.1, 1.0, 2.0]),
)
def test_is_torchs_attention_item_by_item(counts, heads, d, causal, spread):
    torch.manual_seed(sum(counts) + d)
    ptr = borders(counts)
    packed, upper = torch.randn(sum(counts), 3 * heads * d) * spread, torch.randn(sum(counts), heads * d)
    bias = torch.randn(3 * heads * d)
    assert suits(upper, heads)
    close(
        both(packed, bias, upper, lambda x, b: attention(x, b, ptr, heads, causal=causal)),
        both(packed.double(), bias.double(), upper.double(), lambda x, b: plain(x, b, ptr, heads, causal)),
    )


@pytest.mark.parametrize("causal", [False, True])
def test_dropped_weights(causal):
    """The mask is read off by values that name their keys; then output and gradient are those of that mask."""
    counts, heads, d, p = [10, 37], 2, 8, 0.3
    ptr, packed, bias = borders(counts), torch.randn(47, 3 * heads * d), torch.zeros(3 * heads * d)
    named = packed.clone().view(47, 3, heads, d)
    masks = [torch.zeros(heads, n, n) for n in counts]
    for key in range(max(counts)):  # a value of 1 at one key: the output is that key's weight
        named[:, 2] = 0
        for item, n in enumerate(counts):
            if key < n:
                named[ptr[item] + key, 2] = 1
        torch.manual_seed(5)
        kept = attention(named.flatten(1), bias, ptr, heads, p, causal=causal)
        whole = attention(named.flatten(1), bias, ptr, heads, causal=causal)
        ratio = (kept / whole.where(whole > 0, 1.0)).view(47, heads, d)[..., 0]
        for item, n in enumerate(counts):
            if key < n:
                masks[item][:, :, key] = ratio[ptr[item] : ptr[item + 1]].T
    found = torch.cat([mask[:, torch.ones(mask.shape[1:]).tril() > 0].flatten() for mask in masks])
    assert abs(float((found != 0).float().mean()) - 0.7) < 0.05
    assert torch.allclose(found[found != 0], torch.tensor(1 / 0.7), rtol=1e-4)
    if causal:
        return  # the plain path below has no pattern
    bias, upper = torch.randn(3 * heads * d), torch.randn(47, heads * d)

    def again(x, b):
        torch.manual_seed(5)
        return attention(x, b, ptr, heads, p)

    close(both(packed, bias, upper, again), both(packed, bias, upper, lambda x, b: plain(x, b, ptr, heads, mask=masks)))
    assert torch.equal(attention(packed, bias, ptr, heads, p, training=False), attention(packed, bias, ptr, heads))


def test_threads_do_not_matter():
    counts = [40, 3, 100, 16, 57]
    packed, bias, upper = torch.randn(sum(counts), 3 * 64), torch.randn(3 * 64), torch.randn(sum(counts), 64)
    before = numba.get_num_threads()
    results = []
    for number in (1, 2):
        numba.set_num_threads(min(number, numba.config.NUMBA_NUM_THREADS))
        torch.manual_seed(0)
        results.append(both(packed, bias, upper, lambda x, b: attention(x, b, borders(counts), 8, 0.1)))
    numba.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_large_scores_do_not_overflow():
    packed = torch.randn(20, 24) * 100
    found = both(packed, torch.zeros(24), torch.ones(20, 8), lambda x, b: attention(x, b, borders([20]), 1))
    assert all(part.isfinite().all() for part in found)


def test_bfloat16_is_float32_rounded():
    packed, bias, upper = torch.randn(50, 3 * 32).bfloat16(), torch.randn(3 * 32), torch.randn(50, 32).bfloat16()
    ptr = borders([30, 20])
    short = both(packed, bias, upper, lambda x, b: attention(x, b, ptr, 4))
    exact = both(packed, bias, upper, lambda x, b: attention(x.float(), b, ptr, 4).bfloat16())
    assert [part.dtype for part in short] == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert torch.equal(short[0], exact[0])
    for one, other in zip(short, exact, strict=True):  # backward reads the output, which is rounded here
        assert torch.allclose(one.float(), other.float(), rtol=0.02, atol=0.02 * float(other.abs().max()))


def test_what_is_no_number_stays_none():
    packed = torch.randn(20, 24)
    packed[3, 0] = packed[15, 9] = float("nan")  # in a query; in a key of the other item
    out = attention(packed, torch.zeros(24), borders([8, 12]), 1)
    assert out[3].isnan().all()
    assert out[8:].isnan().all()
    assert out[[0, 1, 2, 4, 5, 6, 7]].isfinite().all()


def test_what_it_does_not_suit():
    x = torch.zeros(1, 32)
    assert suits(x, 4)
    assert not suits(x, 8)  # 4 channels a head
    assert not suits(x.double(), 4)
    assert not suits(torch.zeros(1, 128), 1)


@njit
def _exp2(out, x):
    for i in range(0, len(x), 16):
        vectors.store(out, i, vectors.exp2(vectors.load16(x, i)))


def test_powers_of_two():
    x = np.append(np.linspace(-126, 127, 160_000), [-127.0, -1e30, -np.inf, *np.arange(13)]).astype(np.float32)
    out = np.empty_like(x)
    _exp2(out, x)
    exact = np.exp2(x.astype(np.float64))
    inside = x >= -126
    assert np.abs(out[inside] / exact[inside] - 1).max() < 2e-7
    assert not out[~inside].any()
    assert np.array_equal(out[-13:], exact[-13:])
