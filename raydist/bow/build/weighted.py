"""Documents of weighted terms as arrays, inverted for a segment or a spill.

Legend: N documents, T terms, P entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.bow.build.spills import Postings, byte_order
from raydist.errors import DataError
from raydist.kernels.arrays import readonly
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]


class WeightedDocuments(NamedTuple):
    """Documents with the impacts of their terms, which are numbers of a table of strings.

    Attributes:
        names: ids, string or large_string [N].
        indptr_N1: where each document's entries begin in the two arrays, and the end, int64.
        terms_P: numbers of terms, each once in a document, uint32.
        impacts_P: whole numbers of units, uint32; 0 is no entry.
    """

    names: pa.Array
    indptr_N1: Array
    terms_P: Array
    impacts_P: Array

    def part(self, first: int, last: int) -> WeightedDocuments:
        """Returns the documents `first <= n < last`."""
        indptr_N1 = self.indptr_N1[first : last + 1]
        span = slice(int(indptr_N1[0]), int(indptr_N1[-1]))
        names = self.names.slice(first, last - first)
        return WeightedDocuments(
            names, indptr_N1 - span.start, self.terms_P[span], self.impacts_P[span]
        )


@kernel
def _measure(
    indptr_N1: Array, terms_P: Array, impacts_P: Array, df_T: Array, lengths_N: Array
) -> None:
    """Adds to the documents that have each term, and to the documents' sums of impacts."""
    for n in range(lengths_N.shape[0]):
        for p in range(indptr_N1[n], indptr_N1[n + 1]):
            if impacts_P[p]:
                df_T[terms_P[p]] += 1
                lengths_N[n] += np.uint64(impacts_P[p])


@kernel
def _place(
    indptr_N1: Array,
    terms_P: Array,
    impacts_P: Array,
    first: Any,
    ends_T: Array,
    docs_P: Array,
    tfs_P: Array,
) -> None:
    """Puts entries of consecutive documents, from number `first` on, to their terms."""
    for n in range(indptr_N1.shape[0] - 1):
        for p in range(indptr_N1[n], indptr_N1[n + 1]):
            if impacts_P[p]:
                to = ends_T[terms_P[p]]
                docs_P[to] = np.uint32(first + n)
                tfs_P[to] = impacts_P[p]
                ends_T[terms_P[p]] = to + 1


def inverted(parts: Sequence[WeightedDocuments], terms: pa.LargeBinaryArray) -> Postings:
    """Returns the postings of documents, part after part; what is in no document is left out.

    Raises DataError where a document's impacts add up to 2**32 or more.
    """
    df_T = np.zeros(len(terms), np.int64)
    lengths = [np.zeros(len(part.names), np.uint64) for part in parts]
    for part, lengths_N in zip(parts, lengths):
        _measure(part.indptr_N1, part.terms_P, part.impacts_P, df_T, lengths_N)
    lengths_N = np.concatenate([np.empty(0, np.uint64), *lengths])
    if len(lengths_N) and int(lengths_N.max()) >= 1 << 32:
        raise DataError("a document's weights add up to more than 2**32 - 1 units")
    order_T = byte_order(terms, distinct=True)[0]
    order_T = order_T[df_T[order_T] > 0]
    indptr_T1 = np.concatenate(([0], np.cumsum(df_T[order_T])))
    ends_T = np.zeros(len(terms), np.int64)
    ends_T[order_T] = indptr_T1[:-1]
    docs_P, tfs_P = np.empty((2, int(indptr_T1[-1])), np.uint32)
    first = 0
    for part in parts:
        _place(part.indptr_N1, part.terms_P, part.impacts_P, first, ends_T, docs_P, tfs_P)
        first += len(part.names)
    names = pa.chunked_array([part.names.cast(pa.large_string()) for part in parts])
    return Postings(
        terms.take(pa.array(order_T)),
        readonly(indptr_T1),
        docs_P,
        tfs_P,
        lengths_N.astype(np.uint32),
        names.combine_chunks() if len(parts) != 1 else names.chunk(0),
    )
