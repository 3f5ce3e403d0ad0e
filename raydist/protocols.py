"""The behaviours that rooms expect of each other; nobody inherits from them.

Shapes: n texts, d dimensions of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from raydist.records import Document, Query, Run


@runtime_checkable
class Retriever(Protocol):
    """Turns queries into a ranking."""

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """Returns the best `k` documents of each query; row order is the ranking."""
        ...


class Selective(Retriever, Protocol):
    """A retriever that can also search among some documents alone."""

    @property
    def doc_ids(self) -> pa.Array | pa.ChunkedArray:
        """The ids of all documents."""
        ...

    def only(self, doc_ids: Sequence[str] | pa.Array, /) -> Retriever:
        """Returns the same search among these documents; unknown ids are ignored."""
        ...

    def without(self, doc_ids: Sequence[str] | pa.Array, /) -> Retriever:
        """Returns the same search among all other documents; unknown ids are ignored."""
        ...


@runtime_checkable
class Filtered(Retriever, Protocol):
    """A retriever of documents with columns."""

    def where(self, filter: str, /) -> Selective:
        """Returns the same search among the documents that pass a filter.

        Raises ConfigError for what is no filter of its columns.
        """
        ...


@runtime_checkable
class Scanning(Protocol):
    """A retriever that reads its whole index once for many queries.

    It has no properties: `isinstance` would read them, of any retriever.
    """

    def queries_per_pass(self, k: int, /) -> int:
        """Returns for how many queries that is."""
        ...


class Group(Protocol):
    """Objects of one kind that are asked together, wherever they are."""

    def ask(self, method: str, arguments: Sequence[Sequence[Any] | None], /) -> list[Any]:
        """Returns what a method of each object returns, in order.

        Args:
            method: its name.
            arguments: for each object; None for one that is not asked, and answers None.
        """
        ...


class TextStore(Protocol):
    """Texts by id."""

    def get(self, doc_ids: Sequence[str], /) -> Sequence[Document | None]:
        """Returns a document for each id, None where there is none."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors."""

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 embeddings [n, d]."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 embeddings [n, d]."""
        ...


@runtime_checkable
class Reranker(Protocol):
    """Scores documents for queries: the only primitive of reranking."""

    def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Returns one score per document, larger is better; lists may be ragged or empty."""
        ...


@runtime_checkable
class Listener(Protocol):
    """Watches a training run: search + measure, called from inside the loop."""

    def after_step(self, step: int, model: Any) -> bool:
        """Returns whether this listener wants training to stop."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Returns a JSON-serialisable state."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        ...


class Processor(Protocol):
    """Rewrites texts; same length and order, which the caller checks."""

    def __call__(self, texts: Sequence[str]) -> Sequence[str]:
        """Returns one text for each of `texts`."""
        ...
