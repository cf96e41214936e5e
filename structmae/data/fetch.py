"""Files of public sets: checksums, and the download into the cache. A file is complete and checked, or not there."""

import hashlib
import http.client
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from structmae.data.catalog import NO_DOWNLOAD, Card, cache_root, data_root, needed_files
from structmae.errors import StructmaeError

TIMEOUT = 30.0
_CHUNK = 1 << 18


def verify(folder: Path, card: Card) -> None:
    """Check size and SHA-256 of every file that the card lists. Pickles must not be opened before this.

    Raises:
        StructmaeError: a file is missing, truncated or changed.
    """
    for name, expected in card.files.items():
        path = folder / name
        try:
            size, digest = path.stat().st_size, _sha256(path)
        except OSError as error:
            raise StructmaeError(f"{path}: cannot be read: {error.strerror}.") from None
        if (size, digest) != (expected["bytes"], expected["sha256"]):
            raise StructmaeError(
                f"{path}: truncated or changed: {size} bytes, sha256 {digest[:12]}; "
                f"expected {expected['bytes']} bytes, sha256 {expected['sha256'][:12]}.\n"
                "Remove the file and fetch the set again."
            )


def fetch(card: Card) -> Path:
    """Download a set into the cache and return its folder. Progress goes to stderr.

    Everything lands in a temporary folder of the cache, is checked against the card, and is moved in one step.

    Raises:
        StructmaeError: no network, a file other than the card's, or a cache that cannot be written.
    """
    root = cache_root()
    target = root / card.folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".fetch-", dir=root))
    except OSError as error:
        raise StructmaeError(
            f"{root}: the cache cannot be written: {error.strerror}. Set STRUCTMAE_CACHE to a folder of yours."
        ) from None
    try:
        raw = temporary / "raw"
        raw.mkdir()
        if card.loader in ("series", "uea"):
            _fetch_listed(card, raw)
        elif card.loader == "planetoid":
            _fetch_planetoid(card, raw)
        else:
            _fetch_tu(card, raw, temporary)
        verify(raw, card)
        if card.loader == "series":
            # Several sets share the folder: the files move one by one, each of them whole.
            target.mkdir(parents=True, exist_ok=True)
            for file in raw.iterdir():
                os.replace(file, target / file.name)
            return target
        if target.exists():
            # Another process may have been faster, or an older download was incomplete: either way ours is whole.
            os.replace(target, temporary / "old")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(raw, target)
    except OSError as error:
        raise StructmaeError(f"{target}: the download cannot be stored: {error.strerror}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _fetch_listed(card: Card, raw: Path) -> None:
    """Each file from the address that the card gives it."""
    for name, entry in card.files.items():
        if "url" not in entry:
            raise StructmaeError(f"{card.name}: {_missing(card)}, and it is not downloaded.\n{_by_hand(card)}")
        _download(entry["url"], raw / name, card)


def _fetch_planetoid(card: Card, raw: Path) -> None:
    from torch_geometric.datasets import Planetoid

    for name in card.files:
        _download(f"{Planetoid.url}/{name}", raw / name, card)


def _fetch_tu(card: Card, raw: Path, temporary: Path) -> None:
    from torch_geometric.datasets import TUDataset

    archive = temporary / "set.zip"
    url = f"{TUDataset.url}/{card.prefix}.zip"
    _download(url, archive, card)
    try:
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                # By the last part of its name only: an archive must not choose where a file lands.
                name = Path(entry.filename).name
                if name.startswith(f"{card.prefix}_") and name.endswith(".txt"):
                    with packed.open(entry) as source, (raw / name).open("wb") as out:
                        shutil.copyfileobj(source, out, _CHUNK)
    except (zipfile.BadZipFile, EOFError) as error:
        raise StructmaeError(f"{url}: not a whole zip file ({error}). Try again.") from None
    missing = [name for name in needed_files(card) if not (raw / name).is_file()]
    if missing:
        raise StructmaeError(f"{url}: the archive has no {missing[0]}. {_by_hand(card)}")


def _download(url: str, path: Path, card: Card) -> None:
    print(f"fetching {url}", file=sys.stderr, flush=True)
    request = urllib.request.Request(url, headers={"User-Agent": "structmae"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, path.open("wb") as out:
            expected = answer.headers.get("Content-Length")
            size = 0
            while block := answer.read(_CHUNK):
                out.write(block)
                size += len(block)
    except (urllib.error.URLError, TimeoutError, http.client.HTTPException, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise StructmaeError(
            f"{card.name}: cannot reach {url} ({reason}), and {_missing(card)}.\n{_by_hand(card)}"
        ) from None
    if expected is not None and size != int(expected):
        raise StructmaeError(f"{url}: the connection ended after {size} of {expected} bytes. Try again.")


def _missing(card: Card) -> str:
    """What is not here: all of the set, or the files that a folder lacks."""
    for root in (data_root(), cache_root()):
        folder = None if root is None else root / card.folder
        if folder is not None and folder.is_dir():
            return f"{folder} lacks {', '.join(name for name in needed_files(card) if not (folder / name).is_file())}"
    return "no file of it is here"


def _by_hand(card: Card) -> str:
    names = needed_files(card)
    listed = ", ".join(names) if len(names) <= 3 else f"{names[0]}, ... {names[-1]} ({len(names)} files)"
    root = data_root()
    state = " (not set)" if root is None else "" if root.is_dir() else " (no such folder)"
    return (
        f"Put {listed} into $STRUCTMAE_DATA/{card.folder}/{state}"
        + (", or install sktime, which has them" if card.loader == "uea" else "")
        + f". No download is needed for {', '.join(NO_DOWNLOAD)}."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
