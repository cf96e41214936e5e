import hashlib
import io
import pickle
import urllib.request
import zipfile
from collections.abc import Callable
from email.message import Message
from pathlib import Path

import pytest

from structmae.data import catalog, fetch
from structmae.data.catalog import Card
from structmae.errors import StructmaeError

pytestmark = pytest.mark.usefixtures("no_data_root")


class Answer(io.BytesIO):
    def __init__(self, body: bytes, length: int | None = None) -> None:
        super().__init__(body)
        self.headers = Message()
        self.headers["Content-Length"] = str(len(body) if length is None else length)


def serve(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Answer]) -> list[str]:
    asked: list[str] = []

    def urlopen(request: urllib.request.Request, timeout: float) -> Answer:
        assert timeout > 0
        asked.append(request.full_url)
        return answer(request.full_url)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def left_in_cache() -> list[str]:
    root = catalog.cache_root()
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_download_lands_whole_in_the_cache(
    planetoid: Callable[..., tuple[Path, Card]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, card = planetoid(tmp_path / "server")
    asked = serve(monkeypatch, lambda url: Answer((source / url.rsplit("/", 1)[1]).read_bytes()))
    folder = fetch.fetch(card)
    assert folder == catalog.cache_root() / "planetoid/Cora/raw"
    assert left_in_cache() == sorted(f"planetoid/Cora/raw/{name}" for name in card.files)
    assert len(asked) == 8
    out, err = capsys.readouterr()
    assert out == ""
    assert "fetching" in err
    assert catalog.find(card) == folder


def test_a_changed_download_is_refused_and_nothing_stays(
    planetoid: Callable[..., tuple[Path, Card]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, card = planetoid(tmp_path / "server")
    serve(monkeypatch, lambda url: Answer((source / url.rsplit("/", 1)[1]).read_bytes() + b"x"))
    with pytest.raises(StructmaeError, match="truncated or changed"):
        fetch.fetch(card)
    assert left_in_cache() == []
    assert list(catalog.cache_root().glob(".fetch-*")) == []


def test_a_connection_that_ends_early_is_told(
    planetoid: Callable[..., tuple[Path, Card]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, card = planetoid(tmp_path / "server")
    serve(monkeypatch, lambda url: Answer(b"half", length=8))
    with pytest.raises(StructmaeError, match="ended after 4 of 8 bytes"):
        fetch.fetch(card)
    assert left_in_cache() == []


def test_no_network_says_what_to_put_where(planetoid: Callable[..., tuple[Path, Card]], tmp_path: Path) -> None:
    _, card = planetoid(tmp_path / "server")
    with pytest.raises(StructmaeError) as raised:
        fetch.fetch(card)
    message = str(raised.value)
    assert message.startswith("cora: cannot reach https://")
    assert "ind.cora.allx" in message
    assert "$STRUCTMAE_DATA/planetoid/Cora/raw/ (not set)" in message
    assert "No download is needed for citations, sbm, digits, karate, lorenz96, " in message
    assert len(message.splitlines()) <= 3
    assert list(catalog.cache_root().iterdir()) == []


def archive(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return out.getvalue()


def test_a_tu_archive_is_unpacked_flat_and_inside_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    body = archive(
        {
            "AIDS/AIDS_A.txt": "1, 2\n2, 1\n",
            "AIDS/AIDS_graph_indicator.txt": "1\n1\n",
            "../../AIDS_escape.txt": "1\n",
            "AIDS/README.txt": "about",
        }
    )
    serve(monkeypatch, lambda url: Answer(body))
    fetch.fetch(catalog.resolve("AIDS"))
    assert left_in_cache() == [f"tu/AIDS/raw/AIDS_{part}.txt" for part in ("A", "escape", "graph_indicator")]
    assert not list(tmp_path.glob("AIDS*"))


@pytest.mark.parametrize("body", [b"<html>not found</html>", archive({"AIDS/AIDS_A.txt": "1, 2\n"})])
def test_a_wrong_archive_is_refused(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, lambda url: Answer(body))
    with pytest.raises(StructmaeError, match=r"not a whole zip file|has no AIDS_graph_indicator"):
        fetch.fetch(catalog.resolve("AIDS"))
    assert left_in_cache() == []


def test_an_incomplete_folder_in_the_cache_is_replaced(
    planetoid: Callable[..., tuple[Path, Card]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, card = planetoid(tmp_path / "server")
    old = catalog.cache_root() / card.folder
    old.mkdir(parents=True)
    (old / "ind.cora.x").write_bytes(b"old")
    serve(monkeypatch, lambda url: Answer((source / url.rsplit("/", 1)[1]).read_bytes()))
    fetch.verify(fetch.fetch(card), card)


def test_a_cache_that_cannot_be_written_is_told(
    planetoid: Callable[..., tuple[Path, Card]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, card = planetoid(tmp_path / "server")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STRUCTMAE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StructmaeError, match=r"the cache cannot be written.*STRUCTMAE_CACHE"):
        fetch.fetch(card)


def test_verify_names_file_sizes_and_sums(planetoid: Callable[..., tuple[Path, Card]], tmp_path: Path) -> None:
    folder, card = planetoid(tmp_path)
    fetch.verify(folder, card)
    path = folder / "ind.cora.allx"
    cut = path.read_bytes()[:-7]
    path.write_bytes(cut)
    with pytest.raises(StructmaeError) as raised:
        fetch.verify(folder, card)
    message = str(raised.value)
    assert str(path) in message
    assert "truncated or changed" in message
    assert f"{len(cut)} bytes, sha256 {hashlib.sha256(cut).hexdigest()[:12]}" in message
    assert f"{len(cut) + 7} bytes, sha256 {card.files['ind.cora.allx']['sha256'][:12]}" in message


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("exploded", "w"))  # pragma: no cover - unpickled only if the check fails


def test_a_changed_pickle_is_never_opened(
    planetoid: Callable[..., tuple[Path, Card]], data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from structmae.data import load

    monkeypatch.chdir(tmp_path)
    folder, _ = planetoid(data_root)
    (folder / "ind.cora.graph").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(StructmaeError, match="truncated or changed"):
        load("cora")
    assert not (tmp_path / "exploded").exists()
