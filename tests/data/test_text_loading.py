from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structmae.data import load, load_texts
from structmae.data.text_loading import LENGTH, _cut
from structmae.errors import StructmaeError, UsageError


def test_a_folder_is_a_document_a_file(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / ".hidden").mkdir()
    files = {
        "b.txt": "zwei", "a.TXT": "\ufeffein é\r\n", "inner/c.txt": "drei", "empty.txt": " \n", "inner/none.txt": "",
        "note.md": "no", ".secret.txt": "no", ".hidden/x.txt": "no",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode())
    texts = load(tmp_path)
    assert texts.titles == ("a.TXT", "b.txt", "inner/c.txt")
    assert texts.documents == ("ein é\n", "zwei", "drei")
    assert texts.notes == ("left out, since empty: empty.txt and 1 more",)
    assert (texts.name, texts.spec) == (tmp_path.name, {"data": str(tmp_path)})
    assert load(**texts.spec).fingerprint() == texts.fingerprint()
    assert load_texts(texts) is texts


def test_a_file_is_cut_at_blank_lines(tmp_path: Path) -> None:
    paragraph = "a line of text\n" * 30  # 450 characters
    (tmp_path / "book.txt").write_text("\n".join([paragraph] * 12) + "\n\n\n")
    texts = load(tmp_path / "book.txt")
    assert texts.titles == ("book:0", "book:1", "book:2")
    assert [document.count("a line") for document in texts.documents] == [150, 150, 60]
    assert not any(document[0] == "\n" or document[-1] == "\n" for document in texts.documents)


@given(
    paragraphs=st.lists(
        st.tuples(st.integers(1, 80), st.integers(1, 100), st.sampled_from(["\n", "\n\n", " \n"])), max_size=40
    )
)
def test_cutting_keeps_every_line_and_the_length(paragraphs: list[tuple[int, int, str]]) -> None:
    text = "".join(("x" * width + "\n") * lines + end for lines, width, end in paragraphs) + "end"
    documents = list(_cut(text, Path("t.txt")).values())
    assert "".join(documents).replace("\n", "").replace(" ", "") == text.replace("\n", "").replace(" ", "")
    assert all(len(document) < 2 * LENGTH + 101 for document in documents)
    if len(paragraphs) and all(lines * width < LENGTH for lines, width, _ in paragraphs):
        assert all(len(document) > LENGTH - 3 for document in documents[:-1])


def test_documents_in_memory() -> None:
    texts = load(("one", "two"))
    assert (texts.documents, texts.titles, texts.spec, texts.name) == (("one", "two"), ("0", "1"), {}, "texts")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "a list of no documents"),
        (["a", " \n"], "document 1 is empty: leave it out"),
        (["a", 3], "this list is no text: give a list of documents, each a str"),
        (4, "this int is no text"),
        ("missing.txt", "no such file"),
        (".", "no .txt file with text in this folder"),
        ("blank.txt", "this file is empty"),
        ("latin.txt", "byte 3 is not UTF-8"),
        ("data.csv", "text is read from .txt files"),
        ("deep", "latin.txt: byte 3 is not UTF-8"),
    ],
)
def test_what_is_no_text(data: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty" if data == "." else tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "blank.txt").write_text("\n \n")
    for name in ("latin.txt", "deep/latin.txt"):
        (tmp_path / name).write_bytes("caffé".encode("latin-1")[1:])
    (tmp_path / "data.csv").write_text("a\n1\n")
    with pytest.raises(StructmaeError, match=message) as raised:
        load_texts(data)
    assert raised.value.exit_code == 1


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="Did you mean pydoc-topics"):
        load_texts("pydoc-topic")
