"""Turns documents into postings, in memory that it can tell.

The terms of all documents are kept as they come; then a counting sort brings them into the order of
terms. A term's occurrences arrive by document, so those of one document meet where they are put.

Legend: N documents, W terms of all documents, T distinct terms, P postings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.build.runs import Postings
from raydist.bow.build.sorting import byte_order
from raydist.kernels.arrays import readonly
from raydist.kernels.intrinsics import prefetch
from raydist.kernels.jit import kernel
from raydist.text.analyzer import Analyzer

Array = npt.NDArray[Any]
U = np.uint64

_AHEAD = 12  # occurrences between fetching a place and using it
_BYTES_PER_TERM = 4 + 8 + 8  # kept, sorted, and written apart


@kernel
def _count(terms_W: Array, counts_T: Array) -> None:
    for w in range(terms_W.shape[0]):
        counts_T[terms_W[w]] += U(1)


@kernel
def _scatter(terms_W: Array, lengths_N: Array, cursor_T: Array, found: Array) -> None:
    """Puts each occurrence behind the last one of its term, as `document << 32 | tf`.

    `cursor` points at each term's last posting; the first is a guard that equals no document.
    """
    w = U(0)
    last = U(terms_W.shape[0])
    for doc in range(lengths_N.shape[0]):
        for _ in range(lengths_N[doc]):
            if w + U(_AHEAD) < last:
                prefetch(found, cursor_T[terms_W[w + U(_AHEAD)]])
            term = terms_W[w]
            w += U(1)
            place = cursor_T[term]
            if found[place] >> U(32) == U(doc):
                found[place] += U(1)
            else:
                cursor_T[term] = place + U(1)
                found[place + U(1)] = U(doc) << U(32) | U(1)


@kernel
def _gather(
    order_T: Array, starts_T: Array, cursor_T: Array, found: Array, docs_P: Array, tfs_P: Array
) -> None:
    """Writes the postings in the given order of terms."""
    p = U(0)
    for i in range(order_T.shape[0]):
        term = order_T[i]
        for place in range(starts_T[term] + U(1), cursor_T[term] + U(1)):
            docs_P[p] = found[place] >> U(32)
            tfs_P[p] = found[place] & U(0xFFFFFFFF)
            p += U(1)


class Inverter:
    """Collects documents and inverts them.

    Attributes:
        documents: how many are collected.
    """

    def __init__(self, analyzer: Analyzer) -> None:
        self._lexicon = analyzer.lexicon()
        self._terms: list[Array] = []
        self._lengths: list[Array] = []
        self._ids: list[pa.Array] = []
        self._occurrences = 0
        self._ids_bytes = 0
        self.documents = 0

    @property
    def nbytes(self) -> int:
        """Bytes that inverting what is collected takes at its peak."""
        return (
            self._occurrences * _BYTES_PER_TERM
            + 2 * self._lexicon.nbytes
            + 2 * self._ids_bytes
            + 8 * self.documents
        )

    def add(self, doc_ids: pa.Array | pa.ChunkedArray, texts: pa.Array | pa.ChunkedArray) -> None:
        """Collects documents: external ids and what is to be indexed of each."""
        terms, lengths = self._lexicon(texts)
        self._terms.append(terms.copy())
        self._lengths.append(lengths)
        chunks = doc_ids.chunks if isinstance(doc_ids, pa.ChunkedArray) else [doc_ids]
        self._ids += [chunk.cast(pa.large_string()) for chunk in chunks]
        self._occurrences += len(terms)
        self._ids_bytes += int(doc_ids.nbytes)
        self.documents += len(lengths)

    def postings(self) -> Postings:
        """Returns the collected documents inverted, numbered from 0 as they came."""
        lexicon = self._lexicon
        terms = lexicon.terms.strings()
        counts = np.zeros(len(terms), np.uint64)
        for part in self._terms:
            _count(part, counts)
        # One place more per term, for the guard.
        starts = np.zeros(len(terms), np.uint64)
        np.cumsum(counts[:-1] + U(1), out=starts[1:])
        found = np.empty(self._occurrences + len(terms), np.uint64)
        found[starts] = U(0xFFFFFFFFFFFFFFFF)
        cursor = starts.copy()
        every = np.concatenate(self._terms) if self._terms else np.empty(0, np.uint32)
        self._terms = []
        lengths = np.concatenate(self._lengths) if self._lengths else np.empty(0, np.uint32)
        _scatter(every, lengths, cursor, found)
        del every
        order, _ = byte_order(terms, distinct=True)
        indptr = np.zeros(len(terms) + 1, np.int64)
        np.cumsum((cursor - starts)[order], out=indptr[1:])
        docs = np.empty(int(indptr[-1]), np.uint32)
        tfs = np.empty(int(indptr[-1]), np.uint32)
        _gather(order, starts, cursor, found, docs, tfs)
        ids = pa.concat_arrays(self._ids) if self._ids else pa.array([], pa.large_string())
        return Postings(
            terms.take(pa.array(order)),
            readonly(indptr),
            readonly(docs),
            readonly(tfs),
            readonly(lengths),
            ids,
        )
