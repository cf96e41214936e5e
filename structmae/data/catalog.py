"""The catalog: one card a data set (`datasets/NAME.toml`), and where the files of a set lie. No torch import here."""

import difflib
import importlib.util
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import platformdirs

import structmae
from structmae.errors import StructmaeError, UsageError

#: Names of the TU collection in its own spelling, so that a name is known without a network.
_TU_TEXT = """
AIDS alchemy_full aspirin benzene BZR BZR_MD COIL-DEL COIL-RAG COLLAB COLORS-3 COX2 COX2_MD Cuneiform dblp_ct1
dblp_ct2 DBLP_v1 DD deezer_ego_nets DHFR DHFR_MD ENZYMES ER_MD ethanol facebook_ct1 facebook_ct2 Fingerprint
FIRSTMM_DB FRANKENSTEIN github_stargazers highschool_ct1 highschool_ct2 IMDB-BINARY IMDB-MULTI infectious_ct1
infectious_ct2 KKI Letter-high Letter-low Letter-med malonaldehyde MCF-7 MCF-7H mit_ct1 mit_ct2 MOLT-4 MOLT-4H
MSRC_21 MSRC_21C MSRC_9 MUTAG Mutagenicity naphthalene NCI-H23 NCI-H23H NCI1 NCI109 OHSU OVCAR-8 OVCAR-8H P388
P388H PC-3 PC-3H Peking_1 PROTEINS PROTEINS_full PTC_FM PTC_FR PTC_MM PTC_MR QM9 REDDIT-BINARY REDDIT-MULTI-12K
REDDIT-MULTI-5K reddit_threads salicylic_acid SF-295 SF-295H SN12C SN12CH SW-620 SW-620H SYNTHETIC SYNTHETICnew
Synthie toluene Tox21_AHR Tox21_AR Tox21_AR-LBD Tox21_ARE Tox21_aromatase Tox21_ATAD5 Tox21_ER Tox21_ER_LBD
Tox21_HSE Tox21_MMP Tox21_p53 Tox21_PPAR-gamma TRIANGLES tumblr_ct1 tumblr_ct2 twitch_egos
TWITTER-Real-Graph-Partial UACC257 UACC257H uracil Yeast YeastH ZINC_full ZINC_test ZINC_train ZINC_val
"""
TU_NAMES = tuple(_TU_TEXT.split())
SUFFIXES = (".csv", ".csv.gz", ".parquet", ".pt", ".npy", ".ts", ".txt")
NO_DOWNLOAD = ("citations", "sbm", "digits", "karate", "lorenz96", "digits-images", "digits-maps", "pydoc-topics")


@dataclass(frozen=True)
class Card:
    """What `datasets/NAME.toml` says. `files` maps a file name to its `sha256` and `bytes`, and perhaps its `url`.

    `series` has what the files of a series do not say: `period` and `horizons`, `borders` of the parts where they are
    fixed, `channels` of a table without a line of names.
    """

    name: str
    title: str
    kind: Literal["graph", "series", "image", "text"]
    level: Literal["node", "graph", "panel", "sample", "image", "text"]
    loader: Literal["planetoid", "tu", "simulated", "bundled", "series", "uea"]
    download: bool
    folder: str
    source: str
    licence: str
    split: str
    citation: str
    statistics: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    series: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """The name in the spelling of the files: "Cora" of planetoid/Cora/raw."""
        return Path(self.folder).parent.name


@cache
def cards() -> dict[str, Card]:
    """All cards by name, in alphabetical order.

    Raises:
        StructmaeError: a card cannot be read (a broken installation).
    """
    package = Path(structmae.__file__).resolve().parent
    # In a wheel the cards lie inside the package, in a checkout beside it.
    folder = next((place for place in (package / "_cards", package.parent / "datasets") if place.is_dir()), None)
    if folder is None:
        raise StructmaeError(f"no data set cards beside {package}: the installation is incomplete. Install it again.")
    found: dict[str, Card] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            found[path.stem] = Card(**tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, TypeError) as error:
            raise StructmaeError(f"{path}: not a data set card: {error}") from None
    return found


def describe(name: str) -> dict[str, Any]:
    """The card of a set as plain values, with `where`: where its files are (see the function).

    Raises:
        UsageError: no set of that name.
    """
    card = resolve(name)
    return {**asdict(card), "where": where(name)}


def resolve(name: str) -> Card:
    """The card of a set, without regard to case; a card made up for the sets of the TU collection that have none.

    Raises:
        UsageError: no set of that name; the message has near misses.
    """
    base = name.partition(":")[0] if name.lower().startswith("sbm:") else name
    known = cards()
    if base.lower() in known:
        return known[base.lower()]
    spelling = {official.lower(): official for official in TU_NAMES}
    if base.lower() in spelling:
        return _tu_card(spelling[base.lower()])
    near = difflib.get_close_matches(base.lower(), [*known, *spelling], n=3, cutoff=0.65)
    hint = f" Did you mean {' or '.join(spelling.get(n, n) if n not in known else n for n in near)}?" if near else ""
    raise UsageError(
        f"unknown data set '{name}'.{hint} `structmae data` lists them; a file needs .csv, .parquet, .npy, .ts, .txt "
        "or .pt."
    )


def is_known(name: str) -> bool:
    """Whether the catalog has the name, a TU set without a card included."""
    base = (name.partition(":")[0] if name.lower().startswith("sbm:") else name).lower()
    return base in cards() or any(base == official.lower() for official in TU_NAMES)


def looks_like_a_path(text: str) -> bool:
    """Whether what a person wrote is a path rather than a misspelt name: by a separator, a suffix, or a file there."""
    separators = [os.sep] if os.altsep is None else [os.sep, os.altsep]
    return any(s in text for s in separators) or text.lower().endswith(SUFFIXES) or Path(text).expanduser().exists()


def _tu_card(official: str) -> Card:
    return Card(
        name=official.lower(),
        title=f"{official} (TU collection)",
        kind="graph",
        level="graph",
        loader="tu",
        download=True,
        folder=f"tu/{official}/raw",
        source="the TUDataset collection (chrsmrrs.com/graphkerneldatasets)",
        licence="see the source",
        split="none fixed: 10-fold stratified cross-validation",
        citation="C. Morris et al. TUDataset: a collection of benchmark datasets for learning with graphs. 2020.",
    )


def cache_root() -> Path:
    """$STRUCTMAE_CACHE, or the platform's cache folder. It may not exist yet."""
    given = os.environ.get("STRUCTMAE_CACHE")
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("structmae"))


def data_root() -> Path | None:
    """$STRUCTMAE_DATA, which is only ever read; None where it is not set."""
    given = os.environ.get("STRUCTMAE_DATA")
    return Path(given).expanduser() if given else None


def needed_files(card: Card) -> tuple[str, ...]:
    """Files without which the set cannot be read, by name within its folder."""
    if card.files:
        return tuple(card.files)
    return (f"{card.prefix}_A.txt", f"{card.prefix}_graph_indicator.txt")


def find(card: Card) -> Path | None:
    """The folder that has all files of the set: under $STRUCTMAE_DATA, else in the cache, else None.

    Sets of the UEA archive that the package sktime brings along are found there too, where it is installed.
    """
    folders = [root / card.folder for root in (data_root(), cache_root()) if root is not None]
    if card.loader == "uea" and (package := importlib.util.find_spec("sktime")) is not None:
        places = package.submodule_search_locations or ()
        folders += [Path(place) / "datasets" / "data" / Path(card.folder).name for place in places]
    return next((folder for folder in folders if all((folder / file).is_file() for file in needed_files(card))), None)


def where(name: str) -> str | None:
    """Where a set was found: "$STRUCTMAE_DATA/...", a folder of the cache, "simulated", "bundled" (with a dependency),
    or None.

    Raises:
        UsageError: no set of that name.
    """
    card = resolve(name)
    if card.loader in ("simulated", "bundled"):
        return card.loader
    folder = find(card)
    if folder is None:
        return None
    root = data_root()
    if root is not None and folder.is_relative_to(root):
        return str(Path("$STRUCTMAE_DATA") / card.folder)
    return str(folder)
