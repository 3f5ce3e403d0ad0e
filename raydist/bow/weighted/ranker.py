"""Ranks queries of weighted terms in all segments of an index.

Legend: q terms of the query, S segments, M documents found.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.format.weights import has_weights
from raydist.bow.index import BowIndex, encode_term
from raydist.bow.weighted.lists import CRAMPED, CROWDED, MANY, POSTINGS, RANKED, TOPS
from raydist.bow.weighted.rank import rank_weighted
from raydist.bow.weighted.sums import sum_weighted
from raydist.bow.weighted.workspace import PerThread, Workspace, arrays_of
from raydist.kernels.addresses import addresses
from raydist.kernels.bits import Bits

Array = npt.NDArray[Any]

_MOST_TERMS = 1024  # of a query: a bound has 16 bits
_REMEMBERED = 1 << 18  # terms
_SMALLEST, _LARGEST = 1e-30, 1e30  # weights of a query


class WeightedRanker:
    """Ranks queries by the files of format/weights.py."""

    def __init__(self, index: BowIndex, allowed: Sequence[Bits | None], effort: float) -> None:
        """Takes an index whose segments all have these files.

        Args:
            index: the index.
            allowed: of each segment the documents to search, None for all.
            effort: 1 is exact; less is faster and misses documents.
        """
        self._index = index
        self._effort = effort
        self._arrays = [arrays_of(*pair) for pair in zip(index.segments, allowed)]
        self._segments = addresses(array for each in self._arrays for array in each)
        self._terms = _Terms(index)
        self._thread = PerThread()

    @staticmethod
    def fits(index: BowIndex) -> bool:
        """Returns whether all segments of an index have the files."""
        return bool(index.unit) and all(has_weights(each) for each in index.segments)

    def rank(self, query: Mapping[str, float], k: int) -> tuple[Array, Array] | None:
        """Returns positions (int64) and scores of the best k and all ties at the k-th, unordered.

        None for what has to be scored exhaustively: very many terms or ties, and weights that are
        not positive.
        """
        smallest, largest = min(query.values(), default=1), max(query.values(), default=1)
        if len(query) > _MOST_TERMS or not _SMALLEST < smallest <= largest < _LARGEST:
            return None
        if len(self._terms) > _REMEMBERED:
            self._terms = _Terms(self._index)
        rows_Sq = self._terms.rows(query)
        factors = np.fromiter(query.values(), np.float64, len(query)) * self._index.unit
        if self._thread.workspace.is_large:
            self._thread.workspace = Workspace()
        workspace = self._thread.workspace
        workspace.work.state[0] = 0
        docs, scores = [], []
        for number, (segment, base) in enumerate(zip(self._index.segments, self._index.bases)):
            count = self._rank(workspace, number, rows_Sq[number], factors, k)
            if count is None:
                return None
            work = workspace.work
            docs.append(segment.documents_at(work.found[:count]).astype(np.int64) + base)
            scores.append(work.scores[:count].copy())
        if len(docs) == 1:
            return docs[0], scores[0]
        return np.concatenate(docs), np.concatenate(scores)

    def _rank(
        self, workspace: Workspace, number: int, rows: Array, factors: Array, k: int
    ) -> int | None:
        """Ranks in one segment; returns the number of candidates."""
        count = len(factors)
        heap = workspace.work.heap[: int(workspace.work.state[0])].copy()
        files = self._index.segments[number].files
        workspace.fit(count, self._arrays[number], k)
        everything = False
        while True:
            work = workspace.work
            work.rows[:count] = rows
            work.factors[:count] = factors
            work.heap[: len(heap)] = heap
            work.state[0] = len(heap)
            arguments = (self._segments, number, workspace.table, count, k)
            if everything:
                outcome, value, end = sum_weighted(*arguments)
            else:
                outcome, value, end = rank_weighted(*arguments, self._effort)
            if outcome == RANKED:
                return int(value)
            if outcome == CRAMPED:
                workspace.postings(value)
            elif outcome == MANY:
                everything = True
                workspace.documents(self._index.segments[number].documents)
            elif outcome == CROWDED:
                if not workspace.crowd():
                    return None
            else:
                name = {POSTINGS: "postings", TOPS: "tops"}.get(outcome, "weights")
                files.check(name, value, end)


class _Terms:
    """Terms in the segments' dictionaries, those of earlier queries remembered."""

    def __init__(self, index: BowIndex) -> None:
        self._index = index
        self._numbers: dict[str, int] = {}
        self._rows = np.zeros((len(index.segments), 64, 6), np.uint64)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._numbers)

    def rows(self, query: Mapping[str, float]) -> Array:
        """Returns the rows of a query's terms in each segment, uint64 [S, q, 6]."""
        numbers = self._numbers
        try:
            wanted = [numbers[term] for term in query]
        except KeyError:
            with self._lock:
                self._add([term for term in query if term not in numbers])
            wanted = [numbers[term] for term in query]
        return self._rows[:, wanted]

    def _add(self, unknown: Sequence[str]) -> None:
        """Looks terms up; what other threads read is not changed."""
        first, count = len(self._numbers), len(unknown)
        names = [encode_term(term) for term in unknown]
        fresh = [segment.lookup(names) for segment in self._index.segments]
        if first + count > self._rows.shape[1]:
            larger = np.zeros((len(fresh), 2 * (first + count), 6), np.uint64)
            larger[:, :first] = self._rows[:, :first]
            self._rows = larger
        self._rows[:, first : first + count] = fresh
        self._numbers.update(zip(unknown, range(first, first + count)))
