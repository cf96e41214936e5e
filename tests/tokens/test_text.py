import hashlib
import json
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structmae import text as modality
from structmae.data.text_loading import load_texts
from structmae.errors import StructmaeError
from structmae.options import DataOptions, TokenOptions
from structmae.recipe import Recipe
from structmae.tokens import Source
from structmae.tokens.text import TextSource, TextTokenizer

pytest.importorskip("tokenizers")
FIT = """
import hashlib, json, sys
from structmae.tokens.text import _learn
print(hashlib.sha256(_learn(json.load(sys.stdin), 600).encode()).hexdigest())
"""


def recipe(**options):
    return Recipe(modality="text", tokens=TokenOptions(**options))


@pytest.fixture(scope="module")
def texts():
    return load_texts("pydoc-topics")


@pytest.fixture(scope="module")
def made(texts):
    return TextTokenizer.fit(texts, recipe(context=64, vocabulary=600))


def words(*lengths):
    """Documents of so many pieces: no pair of letters comes twice, so none is joined."""
    return load_texts(["".join(chr(65 + place) for place in range(length)) for length in lengths])


@given(text=st.text(max_size=60))
def test_any_text_has_pieces_and_they_give_it_back(made, text):
    ids = made.encode(text)
    assert made.decode(ids) == text
    assert all(0 <= piece < made.vocabulary for piece in ids)
    assert made.encode_all([text, ""]) == [ids, []]


def test_the_encoding_is_learnt_of_the_training_documents(texts, made):
    assert made.vocabulary == 600
    assert [made.piece(piece) for piece in made.encode(" statement")] == [" statement"]
    training = [texts.documents[number] for number in texts.split["train"]]
    pieces = sum(map(len, made.encode_all(training)))
    assert pieces < 0.5 * sum(map(len, training))
    unseen = ["qqqqqq qqqqqq qqqqqq" * 20 for _ in texts.split["test"]]
    documents = list(texts.documents)
    for number, document in zip(texts.split["test"].tolist(), unseen, strict=True):
        documents[number] = document
    changed = replace(texts, documents=tuple(documents))
    assert TextTokenizer.fit(changed, recipe(context=64, vocabulary=600)).pieces == made.pieces


def test_the_encoding_is_the_same_in_another_process(texts, made):
    training = json.dumps([texts.documents[number] for number in texts.split["train"]])
    shown = subprocess.run([sys.executable, "-c", FIT], input=training, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == hashlib.sha256(made.pieces.encode()).hexdigest()


def test_pairs_that_come_once_are_not_joined():
    """Twice comes "he", and then "the"."""
    made = TextTokenizer.fit(load_texts(["the quick brown fax jumps; theory"]), recipe(vocabulary=5000))
    assert made.vocabulary == 258
    assert [made.piece(piece) for piece in made.encode("the he fax")] == ["the", " ", "he", " ", "f", "a", "x"]


def test_config_is_all_there_is(made):
    again = TextTokenizer.from_config(json.loads(json.dumps(made.config())))
    assert again.encode("the import statement") == made.encode("the import statement")
    assert (again.vocabulary, again.context) == (made.vocabulary, made.context)
    assert not made.state_dict()
    assert deepcopy(made).encode("lambda") == made.encode("lambda")


def test_tokens_of_texts(made):
    part = made.tokens([[5, 6, 7], [8]], torch.tensor([4, 9]))["piece"]
    assert part.values.shape == (4, 0)
    assert part.ids.tolist() == [5, 6, 7, 8]
    assert part.ptr.tolist() == [0, 3, 4]
    assert part.position.tolist() == [0, 1, 2, 0]
    assert part.item_id.tolist() == [4, 9]
    assert part.grid is None
    for wrong in ([[1], []], [[1] * 65]):
        with pytest.raises(StructmaeError, match="this encoder reads 1 to 64"):
            made.tokens(wrong, torch.arange(len(wrong)))


@pytest.mark.parametrize(("asked", "context", "shrunk"), [(512, 20, 512), (20, 20, None), (12, 12, None)])
def test_windows_shrink_to_the_longest_training_document(asked, context, shrunk):
    made = TextTokenizer.fit(words(20), recipe(context=asked))
    assert (made.context, made.shrunk_from, made.vocabulary) == (context, shrunk, 256)


def test_documents_that_are_too_short():
    with pytest.raises(StructmaeError, match="the longest training document has 3 pieces, and 8 are needed"):
        TextTokenizer.fit(words(3, 3, 3), recipe())


def test_windows_lie_side_by_side(texts, made):
    """Against a loop: each document's pieces in order, but for a rest under 8 pieces."""
    source = TextSource(texts, made)
    assert isinstance(source, Source)
    number = 0
    swept = [part["piece"] for part in source.sweep(at_once=100)]
    ids = torch.cat([part.ids for part in swept])
    names = torch.cat([part.item_id for part in swept])
    lengths = torch.cat([part.ptr.diff() for part in swept])
    assert names.tolist() == list(range(len(source.document)))
    windows, kinds = torch.split(ids, lengths.tolist()), {}
    for index, document in enumerate(texts.documents):
        pieces = made.encode(document)
        parts = [pieces[first : first + 64] for first in range(0, len(pieces), 64)]
        for place, part in enumerate(parts):
            if len(part) >= 8 or place == 0:
                assert windows[number].tolist() == part
                assert source.document[number] == index
                kinds[number] = len(part) >= 8
                number += 1
    assert number == len(windows)
    for key, documents in texts.split.items():
        expected = [at for at in range(number) if kinds[at] and source.document[at] in documents]
        assert source.parts[key].tolist() == expected
    assert torch.equal(source.rows, source.parts["train"])
    assert source.num_items == len(source.rows)
    batch = source.batch(torch.tensor([5, 2]))["piece"]
    assert torch.equal(batch.item_id, source.rows[[5, 2]])
    assert torch.equal(batch.ids, torch.cat([windows[at] for at in source.rows[[5, 2]]]))
    assert torch.equal(batch.position, torch.cat([torch.arange(len(windows[at])) for at in source.rows[[5, 2]]]))
    assert source.target(torch.arange(2)) is None


def test_a_short_document_has_its_window_and_no_training():
    """A rest of 3 pieces is left out, a document of 3 is not."""
    documents = words(19, 3, 19)
    made = TextTokenizer.fit(words(19), recipe(context=16))
    source = TextSource(documents, made)
    assert source.document.tolist() == [0, 1, 2]
    assert source.lengths.tolist() == [16, 3, 16]
    assert sorted(torch.cat(list(source.parts.values())).tolist()) == [0, 2]


def test_without_the_package(monkeypatch, made):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(StructmaeError, match=r'pip install "structmae\[text\]"'):
        TextTokenizer.from_config(made.config())


def test_the_modality(texts, made):
    assert modality.tasks(texts) == ("reconstruction",)
    assert modality.describe(texts, made) == (
        f"pydoc-topics: {texts.num_items} documents, {texts.num_characters} characters; windows of 64 pieces, 600 "
        "different ones"
    )
    short = words(20)
    assert "windows of 20 pieces, shrunk from tokens.context=512" in modality.describe(
        short, modality.fit(short, recipe())
    )
    with pytest.raises(StructmaeError, match="--nodes goes with an edge table; this recipe reads text"):
        modality.load("pydoc-topics", DataOptions(), nodes="nodes.csv")
