import pytest
import torch
from small_images import documents, ready

from structmae.errors import StructmaeError
from structmae.nn.build import build_encoder


def some(pool="none", **changes):
    model, source, recipe = ready("bert", **{"encoder.pool": pool, **changes})
    return model.eval().encoder, source, recipe


@pytest.mark.parametrize("pool", ["none", "mean", "max", "sum"])
def test_text_gives_what_the_source_gives(pool):
    """A row a piece, or one a text; together or each alone."""
    encoder, source, _ = some(pool)
    documents_ = [
        encoder.tokenizer.decode(source.flat[a : a + n].tolist())
        for a, n in zip(source.starts, source.lengths, strict=True)
    ]
    texts = documents_[:3] + documents_[-1:]
    ids = [encoder.tokenizer.encode(text) for text in texts]
    with torch.no_grad():
        together = encoder(texts)
        expected = encoder.represent(encoder.tokenizer.tokens(ids, torch.arange(4)))
        assert torch.equal(together, expected)
        torch.testing.assert_close(torch.cat([encoder([text]) for text in texts]), together, rtol=1e-4, atol=1e-5)
    assert together.shape == (4 if pool != "none" else sum(map(len, ids)), 16)


def test_windows_of_the_source_are_read_as_their_text_is():
    encoder, source, _ = some("mean")
    windows = source.rows[:4]
    texts = [
        encoder.tokenizer.decode(source.flat[source.starts[w] : source.starts[w] + source.lengths[w]].tolist())
        for w in windows
    ]
    assert [encoder.tokenizer.encode(text) for text in texts] == [
        source.flat[source.starts[w] : source.starts[w] + source.lengths[w]].tolist() for w in windows
    ]
    with torch.no_grad():
        assert torch.equal(encoder(texts), encoder.represent(source.at(windows)))


def test_of_a_long_text_the_first_pieces_count():
    encoder, _, _ = some()
    context = encoder.tokenizer.context
    long = documents(1, 300)[0]
    ids = encoder.tokenizer.encode(long)
    assert len(ids) > context
    with torch.no_grad():
        found = encoder([long])
        assert found.shape == (context, 16)
        cut = encoder.represent(encoder.tokenizer.tokens([ids[:context]], torch.arange(1)))
    assert torch.equal(found, cut)


@pytest.mark.parametrize("texts", ["one string", [], ["red tin", ""]])
def test_what_is_no_list_of_texts_is_refused(texts):
    encoder, _, _ = some()
    words = "text 1 is empty" if "red tin" in texts else "a list of texts"
    with pytest.raises((StructmaeError, TypeError), match=words):
        encoder(texts)


def test_any_bytes_are_read():
    """What training never saw is bytes, and has vectors all the same."""
    encoder, _, _ = some("mean")
    with torch.no_grad():
        found = encoder(["été", "\U0001f600", "\n\n\t"])
    assert torch.isfinite(found).all()
    assert len(torch.unique(found, dim=0)) == 3


def test_an_encoder_is_made_of_the_settings_of_a_tokenizer():
    encoder, source, recipe = some()
    again = build_encoder(recipe, source.tokenizer.config()).eval()
    again.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(again(["red oak sea"]), encoder(["red oak sea"]))


def test_the_order_of_pieces_matters():
    encoder, _, _ = some("mean")
    with torch.no_grad():
        one, other = encoder(["red oak sea", "sea oak red"])
    assert not torch.allclose(one, other, atol=1e-4)
