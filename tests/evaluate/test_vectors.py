import math

import pytest
import torch
from rebuild_cases import images, run

from structmae.evaluate.frozen import frozen
from structmae.evaluate.vectors import effective_rank, item_vectors, layer_vectors, spread, standardised


def both_ways(*lengths, width=8):
    """Rows +l e_i and -l e_i: their mean is 0, and their singular values are in the proportions of the lengths."""
    x = torch.zeros(2 * len(lengths), width)
    for axis, length in enumerate(lengths):
        x[2 * axis, axis], x[2 * axis + 1, axis] = length, -length
    return x


@pytest.mark.parametrize("directions", [1, 3, 8])
def test_as_many_equal_directions_as_there_are(directions):
    assert effective_rank(both_ways(*[2.0] * directions)) == pytest.approx(directions)


def test_the_entropy_of_shares():
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(both_ways(3.0, 1.0)) == pytest.approx(math.exp(entropy))


def test_rank_knows_no_place_scale_or_turn():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=generator) * torch.tensor([5.0, 3.0, 1.0, 1.0, 0.1, 0.0])
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    assert 1 < effective_rank(x) < 5
    assert effective_rank(100 * (x @ turn) + 7) == pytest.approx(effective_rank(x), rel=1e-3)


def test_rows_that_are_all_the_same_have_rank_and_spread_zero():
    x = torch.full((30, 5), 0.1)
    assert effective_rank(x) == 0
    assert spread(x) == pytest.approx(0, abs=1e-6)


def test_of_many_rows_some_count():
    x = torch.randn(5_001, 4, generator=torch.Generator().manual_seed(0))
    assert effective_rank(x) == effective_rank(x[::3])


def test_spread_by_hand():
    # Directions e_1, -e_1, e_2, -e_2 of 4: two columns deviate by the root of 1/2, two by nothing.
    x = both_ways(3.0, 0.2, width=4)
    assert spread(x) == pytest.approx(2 * math.sqrt(0.5) / 4 * 2)


def test_spread_is_one_in_all_directions_and_falls_with_a_common_part():
    x = torch.randn(4_000, 16, generator=torch.Generator().manual_seed(0))
    assert spread(x) == pytest.approx(1, abs=0.02)
    assert spread(x + 20) < 0.1


def test_standardised_by_the_rows_that_are_given():
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0], [100.0, 6.0]])
    assert standardised(x, x[:2]).tolist() == [[-1.0, 0.0], [1.0, 0.0], [98.0, 1.0]]


@pytest.fixture(scope="module")
def made():
    return run(images(20), "mae")


def test_vectors_do_not_depend_on_the_batch(made):
    source = made.source(made.data())
    with frozen(made.encoder):
        whole = item_vectors(made.encoder, source)
        torch.testing.assert_close(item_vectors(made.encoder, source, at_once=3), whole)
    torch.testing.assert_close(whole, made.embed())  # which pools by the mean too


def test_the_last_layer_is_the_output_before_its_norm(made):
    source = made.source(made.data())
    with frozen(made.encoder):
        layers = layer_vectors(made.encoder, source, at_once=6)
        assert [tuple(layer.shape) for layer in layers] == [(20, 16)] * 2
        assert not torch.allclose(*layers)
        encoded = made.encoder.read(source.at(torch.arange(20)))
        assert not made.encoder.body.layers[0]._forward_hooks
        latents = []
        hook = made.encoder.body.layers[1].register_forward_hook(lambda *at: latents.append(at[2]))
        made.encoder.read(source.at(torch.arange(20)))
        hook.remove()
    assert len(encoded.latent["patch"]) == len(latents[0])
    torch.testing.assert_close(layers[1], latents[0].view(20, 4, 16).mean(1))
