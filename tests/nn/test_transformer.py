import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from structmae.nn.transformer import Transformer

WIDTH, HEADS, INSIDE = 8, 2, 12


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
