import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from structmae.nn.sequence import pattern
from structmae.nn.transformer import FULL, Attention, Pattern, Transformer, sines, waves
from structmae.tokens import Relation

WIDTH, HEADS, INSIDE = 8, 2, 12
few = settings(max_examples=25)


def transformer(seed=0, layers=2, **options):
    torch.manual_seed(seed)
    made = Transformer(layers, WIDTH, heads=HEADS, feed_forward=INSIDE, **options)
    for module in made.modules():  # statistics and scales that do something
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.BatchNorm1d | nn.LayerNorm):
            nn.init.normal_(module.weight)
    return made.double().eval()


def packed(seed, counts):
    x = torch.randn(sum(counts), WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, torch.tensor([0, *counts]).cumsum(0)


def pytorchs(layer):
    """PyTorch's own layer with the same weights."""
    theirs = nn.TransformerEncoderLayer(WIDTH, HEADS, INSIDE, dropout=0.0, activation="gelu", batch_first=True).double()
    inward, outward = layer.attention.inward, layer.attention.outward
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": inward.weight, "self_attn.in_proj_bias": inward.bias,
            "self_attn.out_proj.weight": outward.weight, "self_attn.out_proj.bias": outward.bias,
            "linear1.weight": layer.perceptron[0].weight, "linear1.bias": layer.perceptron[0].bias,
            "linear2.weight": layer.perceptron[3].weight, "linear2.bias": layer.perceptron[3].bias,
            "norm1.weight": layer.norms[0].weight, "norm1.bias": layer.norms[0].bias,
            "norm2.weight": layer.norms[1].weight, "norm2.bias": layer.norms[1].bias,
        }
    )  # fmt: skip
    return theirs


@given(seed=st.integers(0, 10**6), items=st.integers(1, 4), length=st.integers(1, 6))
def test_layers_are_pytorchs_own(seed, items, length):
    ours = transformer(seed)
    theirs = [pytorchs(layer) for layer in ours.layers]
    x, ptr = packed(seed, [length] * items)
    expected = x.view(items, length, WIDTH)
    for layer in theirs:  # in training mode without dropout: the path that is not fused
        expected = layer(expected)
    torch.testing.assert_close(ours(x, ptr), expected.reshape(-1, WIDTH))


@pytest.mark.parametrize("norm", ["batchnorm", "layernorm"])
@pytest.mark.parametrize("prenorm", [False, True])
def test_some_rows_are_those_of_all(norm, prenorm):
    model = transformer(norm=norm, prenorm=prenorm).train()
    x, ptr = packed(0, [4, 0, 7])
    rows = torch.tensor([0, 2, 3, 9])
    found = []
    for out in (model(x, ptr, rows=rows), model(x, ptr)[rows]):
        found.append((out, *torch.autograd.grad((out**2).sum(), [*model.parameters()])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["full", "causal"])
@pytest.mark.parametrize(("norm", "prenorm", "activation"), [("batchnorm", False, "gelu"), ("layernorm", True, "relu")])
def test_kernels_of_float32_are_the_plain_path_of_float64(norm, prenorm, activation, kind):
    torch.manual_seed(2)
    model = Transformer(
        2, 32, heads=4, feed_forward=64, norm=norm, prenorm=prenorm, activation=activation, dropout=0.0
    ).train()
    x, ptr = torch.randn(60, 32), torch.tensor([0, 17, 17, 60])
    found = []
    for side in (model, copy.deepcopy(model).double()):
        given = x.clone().to(next(side.parameters()).dtype).requires_grad_()
        out = side(given, ptr, Pattern(kind))
        found.append((out, *torch.autograd.grad((out**2 * x).sum(), [given, *side.parameters()])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("norm", ["layernorm", "batchnorm", "none"])
@given(seed=st.integers(0, 10**6), counts=st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_packed_items_are_each_as_it_is_alone(norm, seed, counts):
    """The gradients too. An item without tokens, none at all even, does no harm."""
    model = transformer(seed, norm=norm)
    x, ptr = packed(seed, counts)
    x.requires_grad_()
    together = model(x, ptr)
    items = [part for part in x.split(counts) if len(part)]
    alone = torch.cat([*(model(part, torch.tensor([0, len(part)])) for part in items), x[:0]])
    torch.testing.assert_close(together, alone)
    if items:
        weight = torch.randn(alone.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        wanted = [x, *model.parameters()]
        gradients = (torch.autograd.grad((out * weight).sum(), wanted, allow_unused=True) for out in (together, alone))
        for one, other in zip(*gradients, strict=True):
            assert torch.isfinite(one).all()
            torch.testing.assert_close(one, other)


@given(seed=st.integers(0, 10**6), counts=st.lists(st.integers(0, 5), min_size=2, max_size=5))
def test_permuting_items_or_their_tokens_permutes_rows(seed, counts):
    model = transformer(seed)
    x, ptr = packed(seed, counts)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(counts), generator=generator).tolist()
    inside = [torch.randperm(counts[item], generator=generator) + ptr[item] for item in order]
    rows = torch.cat(inside)
    moved = torch.tensor([0, *(counts[item] for item in order)]).cumsum(0)
    torch.testing.assert_close(model(x[rows], moved), model(x, ptr)[rows])


def test_tokens_read_their_own_item_only():
    model = transformer()
    x, ptr = packed(0, [3, 0, 2])
    other = x.clone()
    other[3:] += 1.0
    one, two = model(x, ptr), model(other, ptr)
    assert torch.equal(one[:3], two[:3])
    assert not torch.isclose(one[3:], two[3:]).all(1).any()
    other = x.clone()
    other[0] += 1.0  # within an item each token reads every other
    assert not torch.isclose(one[:3], model(other, ptr)[:3]).all(1).any()


def test_batch_statistics_are_of_the_tokens_that_are_there():
    """Padding would pull the running mean of the first norm towards what it gives."""
    model = transformer(norm="batchnorm", layers=1)
    norm = model.layers[0].norms[0]
    norm.momentum = 1.0
    seen = []
    norm.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    x, ptr = packed(0, [5, 1, 0, 2])
    model.train()(x, ptr)
    assert seen[0].shape == (8, WIDTH)
    torch.testing.assert_close(norm.running_mean, seen[0].mean(0))


def test_dropout_is_of_training_only():
    model = transformer(dropout=0.5, attention_dropout=0.5)
    x, ptr = packed(0, [4, 3])
    assert torch.equal(model(x, ptr), model(x, ptr))
    model.train()
    assert not torch.equal(model(x, ptr), model(x, ptr))


def dense(attention, x, allowed):
    """One item's attention with a mask (to, from), by torch's own function."""
    q, k, v = (part.view(len(x), HEADS, WIDTH // HEADS).transpose(0, 1) for part in attention.inward(x).split(WIDTH, 1))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    return attention.outward(mixed.transpose(0, 1).flatten(1))


def attention_of(seed, **options):
    torch.manual_seed(seed)
    return Attention(WIDTH, HEADS, 0.0, **options).double().eval()


@few
@given(seed=st.integers(0, 10**6), counts=st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_causal_attention_is_that_of_a_lower_triangle(seed, counts):
    ours = attention_of(seed)
    x, ptr = packed(seed, counts)
    items = [part for part in x.split(counts) if len(part)]
    expected = [dense(ours, part, torch.ones(len(part), len(part)).tril().bool()) for part in items]
    torch.testing.assert_close(ours(x, ptr, Pattern("causal")), torch.cat([*expected, x[:0]]))


GRID = (3, 4)


def scattered(seed, items):
    """Some of the places of a grid in each of `items`, as after dropping, and their borders."""
    generator = torch.Generator().manual_seed(seed)
    places = [torch.randperm(12, generator=generator)[: 1 + (seed + item) % 12].sort().values for item in range(items)]
    return torch.cat(places), [len(part) for part in places]


@few
@given(seed=st.integers(0, 10**6), items=st.integers(1, 4), reach=st.integers(1, 3))
def test_a_window_is_its_mask_by_hand(seed, items, reach):
    """Rows and columns at most `reach` apart, whatever places of the grid are there."""
    ours = attention_of(seed)
    position, counts = scattered(seed, items)
    x, ptr = packed(seed, counts)
    expected = []
    for part, places in zip(x.split(counts), position.split(counts), strict=True):
        near = [
            [abs(a // 4 - b // 4) <= reach and abs(a % 4 - b % 4) <= reach for b in places.tolist()]
            for a in places.tolist()
        ]
        expected.append(dense(ours, part, torch.tensor(near)))
    found = ours(x, ptr, pattern("window", reach, position, GRID))
    torch.testing.assert_close(found, torch.cat(expected))


def test_patterns_of_options():
    position = torch.tensor([0, 5, 11])
    assert pattern("full", 2, position, GRID) is FULL
    assert pattern("causal", 2, position, GRID) == Pattern("causal")
    assert [sorted(at) for at in pattern("window", 2, position, GRID).places.tolist()] == [[0, 0], [1, 1], [2, 3]]
    assert pattern("window", 2, position, (12,)).places.tolist() == [[0], [5], [11]]


@few
@given(seed=st.integers(0, 10**6), nodes=st.integers(1, 8), share=st.floats(0, 1))
def test_attention_over_edges_is_dense_attention_where_there_are_edges(seed, nodes, share):
    """The gradient too. Edges need not go both ways."""
    ours = attention_of(seed)
    x, ptr = packed(seed, [nodes])
    x.requires_grad_()
    leads = (torch.rand(nodes, nodes, generator=torch.Generator().manual_seed(seed)) < share) | torch.eye(nodes).bool()
    relation = Relation.of(leads.T.nonzero().T, nodes)  # leads[i, j]: an edge from j to i
    found, expected = ours(x, ptr, Pattern("adjacency", relation=relation)), dense(ours, x, leads)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = [x, *ours.parameters()]
    gradients = (torch.autograd.grad((out * weight).sum(), wanted) for out in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("prenorm", [False, True])
@pytest.mark.parametrize("kind", ["full", "causal", "window"])
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), items=st.integers(1, 4))
def test_packed_items_are_each_as_it_is_alone_by_any_pattern(prenorm, kind, seed, items):
    model = transformer(seed, prenorm=prenorm)
    position, counts = scattered(seed, items)
    x, ptr = packed(seed, counts)
    together = model(x, ptr, pattern(kind, 1, position, GRID))
    alone = [
        model(part, torch.tensor([0, len(part)]), pattern(kind, 1, places, GRID))
        for part, places in zip(x.split(counts), position.split(counts), strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


@few
@given(seed=st.integers(0, 10**6), items=st.integers(1, 4), length=st.integers(1, 6))
def test_normalised_inputs_are_pytorchs_own(seed, items, length):
    """And the norm at the end is that of its stack."""
    ours = transformer(seed, prenorm=True)
    x, ptr = packed(seed, [length] * items)
    expected = x.view(items, length, WIDTH)
    for layer in ours.layers:
        theirs = pytorchs(layer)
        theirs.norm_first = True
        expected = theirs(expected)
    expected = F.layer_norm(expected, (WIDTH,), ours.end.weight, ours.end.bias)
    torch.testing.assert_close(ours(x, ptr), expected.reshape(-1, WIDTH))


@few
@given(
    seed=st.integers(0, 10**6),
    counts=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=4),
)
def test_attention_across_is_pytorchs_own(seed, counts):
    ours = attention_of(seed, across=True)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([ours.inward.weight, ours.context.weight]),
            "in_proj_bias": torch.cat([ours.inward.bias, ours.context.bias]),
            "out_proj.weight": ours.outward.weight, "out_proj.bias": ours.outward.bias,
        }
    )  # fmt: skip
    asking, told = zip(*counts, strict=True)
    (x, ptr), (context, borders) = packed(seed, asking), packed(seed + 1, told)
    found = ours(x, ptr, context=(context, borders))
    pairs = zip(x.split(asking), context.split(told), strict=True)
    expected = [theirs(part[None], of[None], of[None])[0][0] for part, of in pairs if len(part)]
    torch.testing.assert_close(found, torch.cat([*expected, x[:0]]))


def test_an_item_without_a_context_does_no_harm():
    ours = attention_of(0, across=True)
    (x, ptr), (context, borders) = packed(0, [2, 3, 1]), packed(1, [2, 0, 4])
    found = ours(x, ptr, context=(context, borders))
    without = ours(torch.cat([x[:2], x[5:]]), torch.tensor([0, 2, 3]), context=(context, torch.tensor([0, 2, 6])))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(torch.cat([found[:2], found[5:]]), without)


def test_waves_are_their_formula():
    found = waves(7, 6)
    for place in range(7):
        for pair in range(3):
            angle = place / 10_000 ** (2 * pair / 6)
            assert found[place, 2 * pair : 2 * pair + 2].tolist() == pytest.approx(
                [math.sin(angle), math.cos(angle)], abs=1e-6
            )


@few
@given(rows=st.integers(2, 5), columns=st.integers(2, 5), planes=st.integers(1, 3), width=st.integers(6, 17))
def test_sines_of_a_grid_are_waves_of_each_axis(rows, columns, planes, width):
    """Side by side; an axis of one place has none, and what can't be shared evenly is zeros."""
    found = sines((planes, rows, columns), width)
    assert found.shape == (planes * rows * columns, width)
    extents = [extent for extent in (planes, rows, columns) if extent > 1]
    share = width // len(extents)
    for place, vector in enumerate(found):
        at = place // (rows * columns), place // columns % rows, place % columns
        along = [index for index, extent in zip(at, (planes, rows, columns), strict=True) if extent > 1]
        parts = [waves(extent, share)[index] for index, extent in zip(along, extents, strict=True)]
        expected = torch.cat([*parts, torch.zeros(width - share * len(extents))])
        torch.testing.assert_close(vector, expected)
    assert len(torch.unique(found, dim=0)) == len(found)
    assert torch.equal(sines((1, columns), width), waves(columns, width))
    assert torch.equal(sines((1, 1), width), waves(1, width))
