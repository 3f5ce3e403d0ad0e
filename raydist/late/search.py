"""Search of a multi-vector index: candidates by their centroids, exact scores of the best.

For each vector of a query the nearest centroids name candidates (Santhanam et al. 2022,
https://arxiv.org/abs/2205.09707). A candidate's first score takes its vectors as their centroids;
the best get MaxSim of their decoded vectors. Equal scores are in the order of the corpus.

Shapes: q vectors of a query, D dimensions, K centroids, N documents, c candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from raydist.late.documents import Documents
from raydist.late.format import Codec, Segment, open_segments
from raydist.late.kernels import approximate, decode, listed, max_sim
from raydist.late.spec import LateSearchSpec

Floats = NDArray[np.float32]
_FEWEST, _TIMES = 256, 4
_LANES = 16
_BLOCK = 1 << 16
"""Documents that are scored together where all are."""

Part: TypeAlias = tuple[int, NDArray[np.int64]]
"""The number of a segment, and documents in it, ascending."""


@dataclass
class LateIndex:
    """A multi-vector index, mapped; `LateIndex.open` opens one.

    Attributes:
        codec: centroids and levels.
        segments: in the order of the corpus.
        documents: of all segments, by their ids.
        firsts: the number of each segment's first document, and of all documents at the end.
    """

    codec: Codec
    segments: Sequence[Segment]
    documents: Documents = field(init=False)
    firsts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.documents = Documents(self.segments)
        self.firsts = self.documents.firsts
        self._table = self.codec.levels.table()

    @classmethod
    def open(cls, folder: Path, manifest: Any) -> LateIndex:
        """Maps the files that a manifest names.

        Raises:
            ArtifactError: one is missing or damaged.
        """
        return cls(Codec.open(folder), open_segments(folder, manifest))

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def search(
        self,
        queries: Sequence[Floats],
        k: int,
        spec: LateSearchSpec = LateSearchSpec(),  # noqa: B008  frozen
        *,
        barred_N: NDArray[np.uint8] | None = None,
        threads: int = 1,
    ) -> list[tuple[Floats, NDArray[np.int64]]]:
        """Returns scores and numbers of the best `k` documents of each query.

        Args:
            queries: float32 [q, D] of each.
            k: documents per query; fewer where fewer are candidates.
            spec: how far to look.
            barred_N: 1 for documents that may not be found, None = none.
            threads: queries that are searched beside each other.
        """
        barred = [self._barred(i, barred_N) for i in range(len(self.segments))]

        def one(query_qD: Floats) -> tuple[Floats, NDArray[np.int64]]:
            return self._search(np.ascontiguousarray(query_qD, np.float32), k, spec, barred)

        if threads == 1 or len(queries) == 1:
            return [one(query) for query in queries]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, queries))

    def _barred(self, number: int, barred_N: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        segment = self.segments[number]
        flags = np.zeros(len(segment), np.uint8)
        if barred_N is not None:
            flags |= barred_N[self.firsts[number] : self.firsts[number + 1]]
        if segment.live is not None:
            flags |= ~segment.flags
        return flags

    def _search(
        self, query_qD: Floats, k: int, spec: LateSearchSpec, barred: Sequence[NDArray[np.uint8]]
    ) -> tuple[Floats, NDArray[np.int64]]:
        # Widths of whole vector registers; a vector of zeros adds nothing to a score.
        padding = -len(query_qD) % _LANES
        query_Dq = np.ascontiguousarray(np.pad(query_qD, ((0, padding), (0, 0))).T)
        most = spec.candidates or max(_FEWEST, _TIMES * k)
        products_Kq: Floats = np.zeros((0, 0), np.float32)
        near = np.zeros(0, np.int64)
        if not spec.exact:
            products_Kq = self.codec.centroids.vectors_KD @ query_Dq
            near = _nearest(products_Kq[:, : len(query_qD)], spec.probes)
        if spec.exact:
            parts = self._all(barred)
        else:
            parts = self._candidates(barred, near, products_Kq, most)
        scores, numbers = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
        for place, rows in parts:
            scores_c = self._exact(self.segments[place], rows, query_Dq)
            best = _best(scores_c, rows, k)
            scores.append(scores_c[best])
            numbers.append(rows[best] + self.firsts[place])
        together, own = np.concatenate(scores), np.concatenate(numbers)
        best = _best(together, own, k)
        best = best[np.isfinite(together[best])]
        return together[best], own[best]

    def _all(self, barred: Sequence[NDArray[np.uint8]]) -> Iterator[Part]:
        """Yields all documents, some at a time."""
        for place, flags in enumerate(barred):
            for start in range(0, len(flags), _BLOCK):
                yield place, np.flatnonzero(flags[start : start + _BLOCK] == 0) + start

    def _candidates(
        self,
        barred: Sequence[NDArray[np.uint8]],
        near: NDArray[np.int64],
        products_Kq: Floats,
        most: int,
    ) -> Iterator[Part]:
        """Yields the documents that are worth an exact score: the best of all segments."""
        parts = []
        for segment, flags in zip(self.segments, barred):
            starts, documents = segment.lists
            size = min(len(segment), int((starts[near + 1] - starts[near]).sum()))
            out = np.empty(size, np.int64)
            # The kernel marks what it has listed, so each call has flags of its own.
            parts.append(out[: listed(near, starts, documents, flags.copy(), out)])
        places = np.repeat(np.arange(len(parts)), [len(rows) for rows in parts])
        rows = np.concatenate([np.zeros(0, np.int64), *parts])
        if len(rows) > most:
            scores = [np.zeros(0, np.float32)]
            for segment, own in zip(self.segments, parts):
                scores_c = np.empty(len(own), np.float32)
                approximate(own, segment.starts, segment.codes, products_Kq, scores_c)
                scores.append(scores_c)
            best = _best(np.concatenate(scores), rows + self.firsts[places], most)
            places, rows = places[best], rows[best]
        for place in range(len(parts)):
            yield place, np.sort(rows[places == place])

    def _exact(self, segment: Segment, candidates: NDArray[np.int64], query_Dq: Floats) -> Floats:
        scores_c = np.empty(len(candidates), np.float32)
        max_sim(
            candidates,
            segment.starts,
            segment.codes,
            segment.residuals,
            self.codec.centroids.vectors_KD,
            self._table,
            self.codec.unit,
            query_Dq,
            scores_c,
        )
        return scores_c

    def vectors(self, number: int) -> Floats:
        """Returns the decoded vectors [t, D] of a document."""
        place = int(np.searchsorted(self.firsts, number, "right")) - 1
        segment = self.segments[place]
        row = number - int(self.firsts[place])
        first, stop = int(segment.starts[row]), int(segment.starts[row + 1])
        out = np.empty((stop - first, self.codec.dimension), np.float32)
        decode(
            first,
            segment.codes,
            segment.residuals,
            self.codec.centroids.vectors_KD,
            self._table,
            self.codec.unit,
            out,
        )
        return out


def _nearest(products_Kq: Floats, probes: int) -> NDArray[np.int64]:
    """Returns the nearest centroids of any vector of a query, each once."""
    probes = min(probes, len(products_Kq))
    rows = np.argpartition(products_Kq, -probes, axis=0)[-probes:]
    return np.unique(rows).astype(np.int64)


def _best(scores_c: Floats, numbers_c: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Returns where the best `k` are, the best first, equal scores by number."""
    if len(scores_c) > k:
        border = np.partition(scores_c, -k)[-k]
        above = np.flatnonzero(scores_c > border)
        equal = np.flatnonzero(scores_c == border)
        equal = equal[np.argsort(numbers_c[equal], kind="stable")][: k - len(above)]
        chosen = np.concatenate([above, equal])
    else:
        chosen = np.arange(len(scores_c))
    return chosen[np.lexsort((numbers_c[chosen], -scores_c[chosen]))]
