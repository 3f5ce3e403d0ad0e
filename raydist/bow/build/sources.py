"""What a merge reads: spills of a build, and segments of an index, less their deleted documents.

A source holds consecutive documents. Those that remain are numbered from 0, and its postings come
by ranges of terms, so that a merge takes a bounded amount of memory.

Legend: N documents, T terms, P postings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.build.spills import Spill
from raydist.bow.format import dictionary
from raydist.bow.format.segment import Segment
from raydist.kernels.arrays import readonly
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64

_GONE = (1 << 32) - 1  # number of a deleted document
_IDS = 1 << 20  # decoded at once


class TermRange(NamedTuple):
    """Terms in ascending byte order with their postings.

    Attributes:
        terms: large_binary [T].
        indptr_T1: where each term's postings begin in the two arrays, int64.
        docs_P: documents, ascending within a term, uint32.
        tfs_P: term frequencies.
        positions_W: of each posting as many positions as its frequency; None where none are stored.
    """

    terms: pa.LargeBinaryArray
    indptr_T1: Array
    docs_P: Array
    tfs_P: Array
    positions_W: Array | None = None


class Source(Protocol):
    """Consecutive documents whose postings are read by ranges of terms."""

    @property
    def documents(self) -> int:
        """How many remain."""

    @property
    def postings(self) -> int:
        """How many there are, those of deleted documents included."""

    def lengths(self) -> Array:
        """Returns the tokens of each document, uint32 [N]."""

    def ids(self, first: int, last: int) -> Iterator[pa.Array]:
        """Yields the external ids of the documents `first <= d < last`, large_binary."""

    def columns(self) -> pa.Table | None:
        """Returns the metadata of the documents, None where there is none."""

    def marks(self, step: int) -> list[bytes]:
        """Returns the terms that have about every `step`-th posting."""

    def read(self, first: bytes | None, last: bytes | None) -> TermRange | None:
        """Returns the terms `first <= t < last`; None is the end of the dictionary, or nothing."""

    def release(self) -> None:
        """Drops the pages that were read; the next use reads them again."""


Sources = Callable[[], Sequence[Source]]
"""Opens the sources of a merge; picklable, since workers call it too."""


class SpillSource:
    """A spill: nothing of it is deleted."""

    def __init__(self, folder: Path) -> None:
        self._spill = Spill(folder)
        self.documents: int = self._spill.about["documents"]
        self.postings: int = self._spill.about["postings"]

    def lengths(self) -> Array:
        """Returns the tokens of each document."""
        return self._spill.lengths_N

    def ids(self, first: int, last: int) -> Iterator[pa.Array]:
        """Yields external ids, mapped."""
        yield self._spill.doc_ids.slice(first, last - first).cast(pa.large_binary())

    def columns(self) -> pa.Table | None:
        """Returns the metadata, mapped."""
        return self._spill.columns

    def marks(self, step: int) -> list[bytes]:
        """Returns the terms of every `step`-th posting."""
        indptr_T1 = self._spill.indptr_T1
        places = np.arange(step, int(indptr_T1[-1]), step)
        rows = np.searchsorted(indptr_T1, places, side="right") - 1
        return self._spill.terms.take(pa.array(rows)).to_pylist()  # type: ignore[no-any-return]

    def read(self, first: bytes | None, last: bytes | None) -> TermRange | None:
        """Returns a range of terms; the postings are views."""
        spill = self._spill
        a = 0 if first is None else spill.below(first)
        b = len(spill.terms) if last is None else spill.below(last)
        if a >= b:
            return None
        indptr_T1 = spill.indptr_T1[a : b + 1]
        span = slice(int(indptr_T1[0]), int(indptr_T1[-1]))
        terms = spill.terms.slice(a, b - a)
        docs_P, tfs_P, positions_W = spill.docs_P[span], spill.tfs_P[span], spill.positions_W
        if positions_W is not None:
            before = int(self._occurrences_before[a])
            positions_W = positions_W[before : int(self._occurrences_before[b])]
        return TermRange(terms, indptr_T1 - span.start, docs_P, tfs_P, positions_W)

    @cached_property
    def _occurrences_before(self) -> Array:
        """How many positions precede those of each term, int64 [T + 1]."""
        spill = self._spill
        sums_T1 = np.zeros(len(spill.indptr_T1), np.int64)
        if len(spill.tfs_P):
            sums_T = np.add.reduceat(spill.tfs_P, spill.indptr_T1[:-1], dtype=np.int64)
            np.cumsum(sums_T, out=sums_T1[1:])
        return sums_T1

    def release(self) -> None:
        """Drops the pages that were read."""
        self._spill.release()


@kernel
def _remove(indptr_T1: Array, docs_P: Array, tfs_P: Array, numbers_N: Array, indptr: Array) -> None:
    """Moves the remaining postings together, documents renumbered; `indptr` receives their ends."""
    to = U(0)
    indptr[0] = 0
    for t in range(indptr_T1.shape[0] - 1):
        for p in range(indptr_T1[t], indptr_T1[t + 1]):
            number = numbers_N[docs_P[p]]
            if number != np.uint32(_GONE):
                docs_P[to] = number
                tfs_P[to] = tfs_P[p]
                to += U(1)
        indptr[t + 1] = np.int64(to)


@kernel
def _keep(docs_P: Array, tfs_P: Array, numbers_N: Array, positions_W: Array) -> Any:
    """Moves the positions of remaining postings together; returns how many there are."""
    to = U(0)
    w = U(0)
    for p in range(docs_P.shape[0]):
        kept = numbers_N[docs_P[p]] != np.uint32(_GONE)
        for _ in range(U(tfs_P[p])):
            if kept:
                positions_W[to] = positions_W[w]
                to += U(1)
            w += U(1)
    return np.int64(to)


class SegmentSource:
    """A segment without its deleted documents."""

    def __init__(self, segment: Segment) -> None:
        """Wraps an opened segment."""
        keep_N = None if segment.deletions is None else segment.live_N
        self._segment = segment
        self._keep_N = keep_N
        self._numbers_N: Array | None = None
        if keep_N is not None:
            numbers_N = np.cumsum(keep_N, dtype=np.int64) - 1
            numbers_N[~keep_N] = _GONE
            self._numbers_N = readonly(numbers_N, np.uint32)
        self.documents = segment.live_documents
        self.postings = segment.postings_total

    def lengths(self) -> Array:
        """Returns the tokens of each document."""
        lengths_N = self._segment.lengths_N
        return lengths_N if self._keep_N is None else lengths_N[self._keep_N]

    def ids(self, first: int, last: int) -> Iterator[pa.Array]:
        """Yields external ids in batches."""
        passed = 0
        for start in range(0, self._segment.documents, _IDS):
            stop = min(start + _IDS, self._segment.documents)
            keep_N = None if self._keep_N is None else self._keep_N[start:stop]
            count = stop - start if keep_N is None else int(np.count_nonzero(keep_N))
            a, z = max(first - passed, 0), min(last - passed, count)
            if a < z:
                ids = self._segment.read_ids(start, stop)
                left = ids if keep_N is None else ids.filter(pa.array(keep_N))
                yield left.slice(a, z - a)
            passed += count

    def columns(self) -> pa.Table | None:
        """Returns the metadata."""
        columns = self._segment.columns
        if columns is None or self._keep_N is None:
            return columns
        return columns.filter(pa.array(self._keep_N))

    def marks(self, step: int) -> list[bytes]:
        """Returns the terms at the heads of the groups that hold every `step`-th posting."""
        before_G = self._segment.dictionary[1][:, 1]
        places = np.arange(step, self.postings, step, dtype=np.uint64)
        groups = np.searchsorted(before_G, places, side="right") - 1
        distinct, counts = np.unique(groups, return_counts=True)
        heads = (distinct * dictionary.GROUP).tolist()
        terms = [self._segment.read_terms(at, at + 1)[0][0].as_py() for at in heads]
        return [term for term, count in zip(terms, counts.tolist()) for _ in range(count)]

    def read(self, first: bytes | None, last: bytes | None) -> TermRange | None:
        """Returns a range of terms; those that no remaining document has are left out."""
        segment = self._segment
        a = 0 if first is None else segment.lower_bound(first)
        b = segment.size if last is None else segment.lower_bound(last)
        if a >= b:
            return None
        terms, indptr_T1, docs_P, tfs_P, positions_W = segment.read(a, b)
        if self._numbers_N is None:
            return TermRange(terms, indptr_T1, docs_P, tfs_P, positions_W)
        if not docs_P.flags.writeable:  # mapped
            docs_P, tfs_P = docs_P.copy(), tfs_P.copy()
        if positions_W is not None:
            positions_W = positions_W[: _keep(docs_P, tfs_P, self._numbers_N, positions_W)]
        indptr = np.empty(len(indptr_T1), np.int64)
        _remove(readonly(indptr_T1), docs_P, tfs_P, self._numbers_N, indptr)
        left_T = np.diff(indptr) > 0
        if not left_T.any():
            return None
        indptr = np.concatenate((indptr[:-1][left_T], indptr[-1:]))
        total = int(indptr[-1])
        left = terms.filter(pa.array(left_T))
        return TermRange(left, indptr, docs_P[:total], tfs_P[:total], positions_W)

    def release(self) -> None:
        """Drops the pages that were read."""
        self._segment.files.release()
