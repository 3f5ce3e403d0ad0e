"""All terms of an index in order, with their postings over all segments, a slice at a time.

Legend: T terms, P postings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist.bow.index import BowIndex

Array = npt.NDArray[Any]
Slice = tuple[pa.LargeBinaryArray, Array, Array, Array]


class Vocabulary:
    """The distinct terms of an index.

    Attributes:
        terms: in ascending byte order.
        df_T: in how many documents each occurs.
    """

    def __init__(self, index: BowIndex) -> None:
        """Reads the segments' dictionaries."""
        self._index = index
        columns = [segment.read_terms(0, segment.size) for segment in index.segments]
        everything = pa.chunked_array([each[0] for each in columns], pa.large_binary())
        distinct = pc.unique(everything)
        self.terms = distinct.take(pc.sort_indices(distinct))
        self.df_T = np.zeros(len(self.terms), np.int64)
        for names, numbers_TK, _, _ in columns:
            places = pc.index_in(names, value_set=self.terms).to_numpy()
            self.df_T[places] += numbers_TK[:, 0].astype(np.int64)

    def __len__(self) -> int:
        return len(self.terms)

    def slices(self, postings: int) -> Iterator[Slice]:
        """Yields terms, indptr (int64 [T + 1]), documents and tfs, about so many at a time.

        Documents are positions in the index.
        """
        ends_T = np.cumsum(self.df_T)
        first = 0
        while first < len(self.terms):
            before = int(ends_T[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends_T, before + postings, side="right")))
            yield self._slice(first, last)
            first = last

    def _slice(self, first: int, last: int) -> Slice:
        names = self.terms.slice(first, last - first)
        owners, docs, tfs = [], [], []
        for segment, base in zip(self._index.segments, self._index.bases):
            a = segment.lower_bound(names[0].as_py())
            z = segment.lower_bound(names[len(names) - 1].as_py() + b"\x00")
            mine, numbers_TK, begin, before = segment.read_terms(a, z)
            indptr_T1, docs_P, tfs_P = segment.decode(numbers_TK, begin, before)
            places = pc.index_in(mine, value_set=names).to_numpy()
            owners.append(np.repeat(places, np.diff(indptr_T1)))
            docs.append(docs_P.astype(np.int64) + base)
            tfs.append(tfs_P)
        indptr_T1 = np.concatenate(([0], np.cumsum(self.df_T[first:last])))
        if len(docs) == 1:
            return names, indptr_T1, docs[0], tfs[0]
        order = np.argsort(np.concatenate(owners), kind="stable")
        return names, indptr_T1, np.concatenate(docs)[order], np.concatenate(tfs)[order]


def merged_terms(index: BowIndex) -> Vocabulary:
    """Returns all terms of an index."""
    return Vocabulary(index)
