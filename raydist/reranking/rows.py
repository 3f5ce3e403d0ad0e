"""What scorers and the engine exchange: options, rows of token ids, encoded documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from raydist.errors import DataError
from raydist.reranking.spec import Truncation


class TooLong(DataError):
    """A text does not fit and truncation is "error"; `field` says which text.

    Attributes:
        request: the number of the request in its batch.
    """

    request = 0

    def __init__(self, field: str, tokens: int, room: int) -> None:
        super().__init__(
            f"{field} has {tokens} tokens and there is room for {room}; shorten it, or use "
            "truncation=truncate (cut the end) or truncation=chunk_max (score a document's pieces)"
        )
        self.field, self.tokens, self.room = field, tokens, room

    def renumbered(self, positions: Sequence[int]) -> TooLong:
        """Returns the error of a request that has the document `index` at `positions[index]`."""
        if self.document is None:
            return self
        return self.named(f"documents[{positions[self.document]}]")

    def named(self, field: str) -> TooLong:
        """Returns the error with another name of the text."""
        return TooLong(field, self.tokens, self.room)

    @property
    def document(self) -> int | None:
        """The document's position, None if it is the query that does not fit."""
        _, opening, index = self.field.removesuffix("]").partition("documents[")
        return int(index) if opening else None


@dataclass(frozen=True, slots=True)
class Options:
    """How one request is scored.

    Attributes:
        truncation: a document that does not fit is cut (`truncate`), cut into pieces of which the
            best counts (`chunk_max`), or refused (`error`, a query that does not fit as well).
        max_tokens_per_document: documents are cut to this many tokens first; 0 means no such cap.
        instruction: the task of a reranker that follows instructions; its own if None.
        raw: scores are logits, without the sigmoid.
    """

    truncation: Truncation = "truncate"
    max_tokens_per_document: int = 0
    instruction: str | None = None
    raw: bool = False

    def tokens_read(self, room: int) -> int:
        """Returns how many first tokens of a document are read where a row holds `room`; 0: all."""
        cap = self.max_tokens_per_document
        if self.truncation != "truncate":
            return cap
        return min(cap or room, room)


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence to score.

    Attributes:
        tokens: token ids without padding; those after `prefix` if there is one.
        segment: where the second segment (token type 1) begins in `tokens`.
        prefix: token ids that come first and are shared by rows of a query.
    """

    tokens: Sequence[int]
    segment: int = 0
    prefix: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class EncodedDocuments:
    """The rows of some documents.

    Attributes:
        rows: for each document its rows: one, or more where it was chunked.
        truncated: for each document whether a part of it or of its query is in no row.
        tokens: prompt tokens of all rows, a shared prefix counted once per row.
    """

    rows: list[list[Row]]
    truncated: list[bool]
    tokens: int = 0


class Scorer(Protocol):
    """A model behind the engine: texts to rows, rows to logits."""

    name: str
    sigmoid: bool
    """Whether a score is the sigmoid of the logit."""
    packed: bool
    """Whether a batch costs the sum of its rows (True), or its longest row and its longest prefix
    times their number."""
    max_length: int
    """Tokens of a row, its prefix included, at most."""

    def encode(self, query: str, documents: Sequence[str], options: Options) -> EncodedDocuments:
        """Tokenises `documents` for `query`; called from several threads."""
        ...

    def forward(self, rows: Sequence[Row]) -> np.ndarray:
        """Returns the rows' logits, float32 [n]; called from one thread at a time."""
        ...


@runtime_checkable
class CollatingScorer(Protocol):
    """A scorer that prepares the next rows while it computes others; `forward` does both."""

    def collate(self, rows: Sequence[Row]) -> Any:
        """Returns rows as the model takes them, on its device; called from another thread."""
        ...

    def compute(self, batch: Any) -> np.ndarray:
        """Returns the logits of collated rows, float32 [n]."""
        ...


def fit(
    tokens: Sequence[int], room: int, index: int, options: Options
) -> tuple[list[Sequence[int]], bool]:
    """Returns the pieces of a document of which each has at most `room` tokens.

    Args:
        tokens: the document's token ids.
        room: how many of them a row can hold.
        index: the document's position, for the error.
        options: the request's options; `max_tokens_per_document` cuts first.

    Returns:
        The pieces (one, but for `chunk_max`), and whether tokens were lost.

    Raises:
        TooLong: the document does not fit and `options.truncation` is "error".
    """
    cap = options.max_tokens_per_document
    lost = 0 < cap < len(tokens)
    capped = tokens[:cap] if lost else tokens
    if len(capped) <= room:
        return [capped], lost
    if options.truncation == "error":
        raise TooLong(f"documents[{index}]", len(capped), room)
    if options.truncation == "chunk_max":
        return [capped[a : a + room] for a in range(0, len(capped), room)], lost
    return [capped[:room]], True


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-x)) in float64, without overflow."""
    x = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + small), small / (1.0 + small))
