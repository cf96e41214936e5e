"""Token sets, and the tokenizers that make them of data."""

from structmae.tokens.sets import Relation, Source, TokenSet

__all__ = ["Relation", "Source", "TokenSet"]
