"""What series, images and text share: places, types, pooling, decoders over all places."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_images import MAPS, drawn, images
from torch import nn

from structmae.errors import UsageError
from structmae.nn.base import Encoded
from structmae.nn.sequence import positions, shifted
from structmae.nn.transformer import Attention, sines
from structmae.tokens import TokenSet


def row(counts, width=3, seed=0):
    ptr = torch.tensor([0, *counts]).cumsum(0)
    values = torch.randn(sum(counts), width, generator=torch.Generator().manual_seed(seed))
    return TokenSet(values, ptr, torch.arange(len(counts)), {})


@settings(max_examples=25)
@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_a_shift_moves_tokens_within_their_item(counts):
    part, start = row(counts), torch.full((1, 3), 7.0)
    found = shifted(part.values, start, part)
    for item in range(len(counts)):
        own = slice(int(part.ptr[item]), int(part.ptr[item + 1]))
        assert torch.equal(found[own], torch.cat([start, part.values[own]])[: counts[item]])


@pytest.mark.parametrize("kind", ["learned", "sines"])
def test_places_begin_at_sines_and_only_learned_ones_learn(kind):
    made = positions(kind, (2, 3), 8)
    assert torch.equal(made, sines((2, 3), 8))
    assert isinstance(made, nn.Parameter) == (kind == "learned")
    assert made.requires_grad == (kind == "learned")
    model, _, batch = drawn("mae", **{"encoder.positions": kind})
    model(batch).total.backward()
    assert ("position" in dict(model.encoder.named_parameters())) == (kind == "learned")
    assert "encoder.position" in model.state_dict()


def test_a_token_knows_its_place_and_its_type():
    """The same content elsewhere, or in another map, has another latent; without either it would not."""
    model, _, batch = drawn("multimae", **{"encoder.positions": "learned"})
    encoder, part = model.encoder, batch.tokens["patch"]
    same = replace(part, values=part.values[:1].expand(len(part), -1).contiguous(), kind=torch.zeros_like(part.kind))
    with torch.no_grad():
        encoder.kind[1:] = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
        of_places = encoder.read({"patch": same}).latent["patch"][:27]
        first = encoder.read({"patch": replace(same, kind=torch.arange(len(part)) % 27 // 9)}).latent["patch"][:27]
        assert len(torch.unique(of_places[:9].round(decimals=4), dim=0)) == 9
        torch.testing.assert_close(of_places[:9], of_places[9:18])  # the places of each map are the same
        assert not torch.isclose(first[:9], first[9:18], atol=1e-3).all(1).any()
        encoder.position.zero_()
        encoder.kind.zero_()
        alike = encoder.read({"patch": same}).latent["patch"]
        torch.testing.assert_close(alike, alike[:1].expand_as(alike))


@pytest.mark.parametrize("pool", ["mean", "sum", "max"])
def test_pooled_vectors_are_of_the_tokens_that_have_latents(pool):
    """With plans of the visible ones, without of those that are there; against a loop."""
    data = images(missing=0.5)
    model, _, batch = drawn("mae", data, **{"encoder.pool": pool})
    encoder = model.encoder
    with torch.no_grad():
        for plans in (batch.plans, None):
            encoded = model.encode(batch.tokens, plans)
            part, rows = encoded.tokens["patch"], encoded.kept["patch"]
            latent = encoded.latent["patch"]
            assert torch.equal(rows, batch.plans["patch"].kept if plans else part.valid.nonzero()[:, 0])
            vectors, which = encoder.units(encoded)
            assert which.tolist() == list(range(8))
            for item in range(8):
                own = latent[(rows >= part.ptr[item]) & (rows < part.ptr[item + 1])]
                expected = own.amax(0) if pool == "max" else getattr(own, pool)(0)
                torch.testing.assert_close(vectors[item], expected)
            assert torch.equal(encoder.vectors(encoded), vectors)
            spread = encoder.spread(encoded)
            assert torch.equal(spread[rows], latent)
            gone = torch.ones(len(part), dtype=torch.bool).index_fill(0, rows, False)
            assert gone.any()
            assert not spread[gone].any()


def test_without_pooling_rows_are_tokens_and_units_are_means():
    model, _, batch = drawn("mae", **{"encoder.pool": "none"})
    with torch.no_grad():
        encoded = model.encode(batch.tokens)
        assert torch.equal(model.encoder.vectors(encoded), encoded.latent["patch"])
        means = encoded.latent["patch"].view(8, 9, 16).mean(1)
        torch.testing.assert_close(model.encoder.units(encoded)[0], means)


@pytest.mark.parametrize("prenorm", [False, True])
def test_vectors_of_each_layer(prenorm):
    """Of as many layers as there are, the last is what the encoder gives (but for a norm at the end); the first k of
    them are those of an encoder of k layers."""
    changes = {"encoder.prenorm": prenorm, "encoder.layers": 3}
    model, _, batch = drawn("mae", **changes)
    encoder = model.encoder
    with torch.no_grad():
        found = encoder.layers(batch.tokens)
        assert [tuple(vectors.shape) for vectors in found] == [(8, 16)] * 3
        del encoder.body.layers[2]
        again = encoder.layers(batch.tokens)
        assert all(torch.equal(one, other) for one, other in zip(found, again, strict=False))
        encoder.body.end = nn.Identity()
        torch.testing.assert_close(encoder.represent(batch.tokens), found[1])
        assert not torch.allclose(found[0], found[1])


def test_a_decoder_over_all_places_is_given_latents_and_a_token():
    """Against a loop: latents at their places, the mask token at all others, both with their place."""
    model, _, batch = drawn("mae", **{"heads.pixels.hidden": 8})
    decoder, encoded = model.heads["pixels"].decoder, model.encode(batch.tokens, batch.plans)
    seen = []
    decoder.body.register_forward_pre_hook(lambda module, given: seen.append(given))
    every = torch.arange(72)
    said = decoder(encoded, every, None)
    x, ptr, *_ = seen[0]
    kept = encoded.kept["patch"].tolist()
    latent = decoder.bridge(encoded.latent["patch"])
    assert len(kept) == 8 * 2  # of 9 patches, 75% hidden
    assert torch.equal(ptr, encoded.tokens["patch"].ptr)
    for place in range(72):
        content = latent[kept.index(place)] if place in kept else decoder.token[0]
        torch.testing.assert_close(x[place], content + decoder.position[place % 9])
    some = torch.tensor([40, 3, 71])
    torch.testing.assert_close(decoder(encoded, some, None), said[some])
    other = replace(encoded, latent={"patch": encoded.latent["patch"] + 1.0})
    hidden = torch.tensor([place for place in range(72) if place not in kept])
    assert not torch.isclose(decoder(other, hidden, None), said[hidden]).all(1).any()  # what is hidden is told by these


def test_places_that_are_not_there_are_not_decoded():
    """Values that nobody observed leave all other predictions as they are, and so does a patch that is all of it."""
    data = images(missing=0.0)
    x = data.x.clone()
    x[:, :, 2:4, 2:4] = torch.nan
    model, _, batch = drawn("mae", replace(data, x=x))
    assert not batch.tokens["patch"].valid.all()
    decoder, encoded = model.heads["pixels"].decoder, model.encode(batch.tokens, batch.plans)
    seen = []
    decoder.body.register_forward_pre_hook(lambda module, given: seen.append(given))
    decoder(encoded, batch.plans["patch"].scored, None)
    assert len(seen[0][0]) == 8 * 8
    assert seen[0][1].tolist() == list(range(0, 65, 8))


def test_a_linear_decoder_reads_zeros_where_there_is_no_latent():
    model, _, batch = drawn("igpt_masked")
    decoder, encoded = model.heads["colours"].decoder, model.encode(batch.tokens, batch.plans)
    assert set(dict(decoder.named_parameters())) == {"out.weight", "out.bias"}
    latent = encoded.latent["patch"]
    torch.testing.assert_close(decoder(encoded, torch.tensor([5, 9]), None), decoder.out(latent[[5, 9]]))
    zeroed = decoder(encoded, torch.tensor([5, 9]), torch.tensor([9]))
    torch.testing.assert_close(zeroed, torch.stack([decoder.out(latent[5]), decoder.out.bias]))
    few = Encoded({"patch": latent[:5]}, encoded.tokens, encoded.seen, {"patch": torch.arange(5)})
    torch.testing.assert_close(decoder(few, torch.tensor([9]), None)[0], decoder.out.bias)


def across(decoder, encoded, kind):
    """What a decoder of one type says of its tokens, item by item, by its parts."""
    part, rows = encoded.tokens["patch"], encoded.kept["patch"]
    latent = decoder.bridge(encoded.latent["patch"])
    found = []
    for item in range(len(part.item_id)):
        places = torch.arange(int(part.ptr[item]), int(part.ptr[item + 1]))
        where = {int(place): at for at, place in enumerate(rows)}
        content = [latent[where[int(p)]] if int(p) in where else decoder.token[0] for p in places]
        full = torch.stack(content) + decoder.position[part.position[places]] + decoder.kind[part.kind[places]]
        told = full[[int(p) in where for p in places]]
        mine = full[part.kind[places] == kind]
        borders = torch.tensor([0, len(mine)])
        mine = decoder.norm(mine + decoder.across(mine, borders, context=(told, torch.tensor([0, len(told)]))))
        found.append(decoder.out(decoder.body(mine, borders)))
    return torch.cat(found)


@pytest.mark.parametrize("kind", range(3))
def test_a_cross_decoder_is_its_parts_for_each_item(kind):
    """The places of one map, and mask tokens there, read the latents of all maps; then they read each other."""
    model, _, batch = drawn("multimae")
    with torch.no_grad():
        for head in model.heads.values():
            nn.init.normal_(head.decoder.kind)
        encoded = model.encode(batch.tokens, batch.plans)
        decoder = model.heads[MAPS[kind][0]].decoder
        assert isinstance(decoder.across, Attention)
        mine = (encoded.tokens["patch"].kind == kind).nonzero()[:, 0]
        torch.testing.assert_close(decoder(encoded, mine, None), across(decoder, encoded, kind))
        some = mine[torch.tensor([1, 40, 41])]
        torch.testing.assert_close(decoder(encoded, some, None), across(decoder, encoded, kind)[[1, 40, 41]])


def test_a_cross_decoder_reads_no_other_map_but_by_its_latents():
    model, _, batch = drawn("multimae")
    head = model.heads["gradient"]
    with torch.no_grad():
        encoded = model.encode(batch.tokens, batch.plans)
        asked = head.query(encoded, batch.plans)
        said = head.decoder(encoded, asked, None)
        item, of = encoded.tokens["patch"].batch, encoded.kept["patch"]
        told = of[encoded.tokens["patch"].kind[of] == 0]
        some = int(item[told[len(told) // 2]])  # an item that has visible patches of the first map
        moved = encoded.latent["patch"].clone()
        moved[torch.isin(of, told[item[told] == some])] *= -2.0
        other = head.decoder(replace(encoded, latent={"patch": moved}), asked, None)
        assert torch.equal(said[item[asked] != some], other[item[asked] != some])
        assert not torch.isclose(said[item[asked] == some], other[item[asked] == some]).all(1).any()


def test_heads_divide_the_width():
    with pytest.raises(UsageError, match=r"hidden=5 must be a multiple of its 2 attention heads"):
        drawn("mae", **{"heads.pixels.hidden": 5})
