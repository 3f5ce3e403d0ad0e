"""The documents of vectors of passages, which are added, deleted and replaced as a whole.

Passages `DOCUMENT#0`, `DOCUMENT#1`, … are rows behind one another, whatever was added, deleted or
merged.

Shapes: N live documents.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.data.store.repeats import Rows, repeats_of, repeats_within
from raydist.dense.vectors import VectorShards

_FIRST = "#0"


class Passages:
    """The documents of vectors, by their numbers among the live ones: a position is a number."""

    def __init__(self, shards: VectorShards) -> None:
        """Finds the first passage of each document."""
        flags = [pc.ends_with(part, _FIRST).to_numpy(False) for part in shards.id_parts()]
        self._shards = shards
        self._first_N = np.flatnonzero(np.concatenate([np.zeros(0, bool), *flags]))

    def __len__(self) -> int:
        return len(self._first_N)

    @property
    def end(self) -> int:
        """The number of documents."""
        return len(self)

    def id_parts(self) -> Iterator[pa.Array]:
        """Yields the documents' ids in order."""
        for part in self._shards.id_parts():
            yield _document_ids(part.filter(pc.ends_with(part, _FIRST)))

    def numbers(self, positions: np.ndarray) -> np.ndarray:
        """Returns the same."""
        return positions

    def at_numbers(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the same."""
        return numbers

    def find(self, doc_ids: pa.Array) -> np.ndarray:
        """Returns the number of each document, -1 where there is none."""
        suffix, empty = (pa.scalar(each, doc_ids.type) for each in (_FIRST, ""))
        rows = self._shards.rows_of(pc.binary_join_element_wise(doc_ids, suffix, empty))
        return np.where(rows >= 0, np.searchsorted(self._first_N, rows), -1)

    def pick_ids(self, positions: np.ndarray) -> pa.Array:
        """Returns the ids of documents."""
        return _document_ids(self._shards.ids_at(self._first_N[positions]))

    def vectors(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the positions of the vectors of documents."""
        return self._shards.at_numbers(self.rows(numbers))

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the rows of the passages of documents."""
        ends_N = np.append(self._first_N[1:], len(self._shards))
        spans = zip(self._first_N[numbers], ends_N[numbers])
        return np.concatenate([np.zeros(0, np.int64), *(np.arange(a, z) for a, z in spans)])


def documents_of(rows: Rows) -> Rows:
    """Returns the documents of rows: these themselves, or those of passages."""
    if isinstance(rows, VectorShards) and "chunk" in rows.manifest:
        return Passages(rows)
    return rows


def vectors_of(documents: Rows, positions: np.ndarray) -> np.ndarray:
    """Returns the positions of rows by those of documents."""
    return documents.vectors(positions) if isinstance(documents, Passages) else positions


def rows_of(documents: Rows, shards: VectorShards, doc_ids: pa.Array) -> np.ndarray:
    """Returns the rows of documents, or of single passages where no document has the id."""
    rows = shards.rows_of(doc_ids)
    if not isinstance(documents, Passages):
        return rows[rows >= 0]
    numbers = documents.find(doc_ids)
    known = numbers >= 0
    return np.concatenate([documents.rows(numbers[known]), rows[~known & (rows >= 0)]])


def superfluous(rows: Rows, duplicates: str, added: Rows | None = None) -> np.ndarray:
    """Returns the positions of rows of documents that repeat an id, and do not stay.

    Args:
        rows: what is looked at.
        duplicates: which of them stay, as `Repeats.superfluous` takes it.
        added: what is appended to it, None if its own documents are compared.

    Raises:
        DataError: there are any, and `duplicates` is `error`.
    """
    documents = documents_of(rows)
    if added is None:
        return vectors_of(documents, repeats_within(documents).superfluous(duplicates))
    more = documents_of(added)
    gone = repeats_of(documents, more).superfluous(duplicates)
    old, new = gone[gone < documents.end], gone[gone >= documents.end] - documents.end
    return np.concatenate([vectors_of(documents, old), vectors_of(more, new) + rows.end])


def _document_ids(first_ids: pa.Array) -> pa.Array:
    return pc.utf8_slice_codeunits(first_ids, 0, -len(_FIRST))
