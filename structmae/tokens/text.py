"""Text as tokens: pieces of a byte-pair encoding, in windows of a document."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from structmae.data.texts import Texts
from structmae.errors import StructmaeError
from structmae.recipe import Recipe
from structmae.tokens.sets import RowSource, TokenSet

FEWEST = 8  # pieces of a window: with fewer there is little to hide


class TextTokenizer(nn.Module):
    """Text to tokens by a byte-pair encoding over bytes, so that any text has pieces, and pieces give it back.

    `vocabulary` is how many pieces there are, `context` how many a window has. It is all in `config()`, as the JSON of
    the package tokenizers, and has no buffers.
    """

    def __init__(self, *, pieces: str, context: int, shrunk_from: int | None = None):
        super().__init__()
        self.pieces, self.context, self.shrunk_from = pieces, context, shrunk_from
        self.normalize = "none"
        self._encoding = _package().Tokenizer.from_str(pieces)
        self.vocabulary: int = self._encoding.get_vocab_size()

    @classmethod
    def fit(cls, texts: Texts, recipe: Recipe) -> "TextTokenizer":
        """The encoding of the training documents. Windows shrink to the longest of these. Raises StructmaeError where
        all are too short."""
        training = [texts.documents[number] for number in texts.split["train"].tolist()]
        made = cls(pieces=_learn(training, recipe.tokens.vocabulary), context=recipe.tokens.context)
        longest = max(map(len, made.encode_all(training)))
        if longest < FEWEST:
            raise StructmaeError(
                f"{texts.name}: the longest training document has {longest} pieces, and {FEWEST} are needed: give more "
                "text"
            )
        if longest < made.context:
            made.context, made.shrunk_from = longest, recipe.tokens.context
        return made

    def config(self) -> dict[str, Any]:
        """What `from_config` needs to build it again, JSON-able."""
        return {"pieces": self.pieces, "context": self.context, "shrunk_from": self.shrunk_from}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "TextTokenizer":
        """The tokenizer whose `config()` this is."""
        return cls(**config)

    def encode(self, text: str) -> list[int]:
        """The pieces of a text."""
        ids: list[int] = self._encoding.encode(text).ids
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The pieces of each text."""
        return [encoded.ids for encoded in self._encoding.encode_batch(list(texts))]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of pieces. A character of which bytes are lacking is the replacement character."""
        text: str = self._encoding.decode([int(piece) for piece in ids], skip_special_tokens=False)
        return text

    def piece(self, piece: int) -> str:
        """The text of one piece."""
        return self.decode([piece])

    def tokens(self, pieces: Sequence[Sequence[int]], ids: Int[Tensor, "B"]) -> dict[str, TokenSet]:
        """Pieces of texts as one set "piece", each text an item, whose names are `ids`. Raises StructmaeError for a
        text of none, or of more than the context."""
        lengths = [len(some) for some in pieces]
        if not all(0 < length <= self.context for length in lengths):
            odd = next(length for length in lengths if not 0 < length <= self.context)
            raise StructmaeError(f"a text of {odd} pieces: this encoder reads 1 to {self.context}")
        flat = torch.tensor([piece for some in pieces for piece in some], dtype=torch.int64)
        return {"piece": _set(flat, torch.tensor(lengths, dtype=torch.int64), ids)}


class TextSource(RowSource):
    """Windows of `context` pieces side by side; the last of a document is shorter. An epoch goes through those of the
    training documents.

    Windows are numbered over all documents in order; `document` (windows,) says whose each is. Of a document of
    several, one under 8 pieces is left out. `parts` has the numbers of the windows of 8 pieces or more by train,
    validation and test, and `rows` those of train.
    """

    def __init__(self, texts: Texts, tokenizer: TextTokenizer, device: torch.device | None = None):
        self.texts, self.tokenizer, self.device = texts, tokenizer, device or torch.device("cpu")
        encoded = tokenizer.encode_all(texts.documents)
        self.flat = torch.tensor([piece for document in encoded for piece in document], dtype=torch.int64)
        few = min(FEWEST, tokenizer.context)
        windows: list[tuple[int, int, int]] = []  # document, first piece, pieces
        first = 0
        for number, document in enumerate(encoded):
            for begin in range(0, len(document), tokenizer.context):
                size = min(tokenizer.context, len(document) - begin)
                if size >= few or begin == 0:
                    windows.append((number, first + begin, size))
            first += len(document)
        self.document, self.starts, self.lengths = torch.tensor(windows, dtype=torch.int64).T
        self.parts = {
            key: (torch.isin(self.document, chosen) & (self.lengths >= few)).nonzero()[:, 0]
            for key, chosen in texts.split.items()
        }
        self.rows = self.parts["train"]

    def at(self, windows: Int[Tensor, "B"]) -> dict[str, TokenSet]:
        """Windows by number, which is a window's name."""
        lengths = self.lengths[windows]
        first = self.starts[windows] - (lengths.cumsum(0) - lengths)
        places = torch.arange(int(lengths.sum())) + first.repeat_interleave(lengths)
        return {"piece": _set(self.flat[places], lengths, windows).to(self.device)}

    def sweep(self, at_once: int = 256) -> Iterator[dict[str, TokenSet]]:
        """The windows of all documents in order."""
        for windows in torch.split(torch.arange(len(self.document)), at_once):
            yield self.at(windows)


def _set(flat: Int[Tensor, "tokens"], lengths: Int[Tensor, "B"], ids: Int[Tensor, "B"]) -> TokenSet:
    ptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    position = torch.arange(len(flat)) - ptr[:-1].repeat_interleave(lengths)
    return TokenSet(torch.zeros(len(flat), 0), ptr, ids.cpu(), {}, position=position, ids=flat)


def _learn(documents: Sequence[str], vocabulary: int) -> str:
    """The encoding of documents as JSON: the 256 bytes, and then the commonest pairs, as long as one comes twice."""
    package = _package()
    encoding = package.Tokenizer(package.models.BPE())
    encoding.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoding.decoder = package.decoders.ByteLevel()
    trainer = package.trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        initial_alphabet=package.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    encoding.train_from_iterator(documents, trainer)
    pieces: str = encoding.to_str()
    return pieces


def _package() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise StructmaeError(
            'text needs the package tokenizers, which is missing: pip install "structmae[text]"'
        ) from None
    return tokenizers
