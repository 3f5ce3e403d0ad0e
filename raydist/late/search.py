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
from raydist.late.kernels import decode, listed
from raydist.late.scorers import Floats, KernelScorer, Scorer
from raydist.late.spec import LateSearchSpec

_FEWEST, _TIMES = 256, 4
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
        scorer: computes scores; machine code for the CPU, unless `on` chose a GPU.
    """

    codec: Codec
    segments: Sequence[Segment]
    documents: Documents = field(init=False)
    firsts: NDArray[np.int64] = field(init=False)
    scorer: Scorer = field(init=False)

    def __post_init__(self) -> None:
        self.documents = Documents(self.segments)
        self.firsts = self.documents.firsts
        self.scorer = KernelScorer(self.codec, self.segments)

    @classmethod
    def open(cls, folder: Path, manifest: Any) -> LateIndex:
        """Maps the files that a manifest names.

        Raises:
            ArtifactError: one is missing or damaged.
        """
        return cls(Codec.open(folder), open_segments(folder, manifest))

    def on(self, device: Any) -> None:
        """Lets a GPU compute the scores, if the index fits into its memory; else nothing changes.

        Args:
            device: a torch device.
        """
        if device.type == "cuda":
            from raydist.late.torch_scorer import TorchScorer

            self.scorer = TorchScorer.fitting(self.codec, self.segments, device) or self.scorer

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
        query = self.scorer.query(query_qD)
        most = spec.candidates or max(_FEWEST, _TIMES * k)
        parts = self._all(barred) if spec.exact else self._candidates(barred, query, spec, most)
        scores, numbers = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
        for place, rows in parts:
            scores_c = self.scorer.exact(place, rows, query)
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
        query: Any,
        spec: LateSearchSpec,
        most: int,
    ) -> Iterator[Part]:
        """Yields the documents that are worth an exact score: the best of all segments."""
        products_Kq, near = self.scorer.near(query, spec.probes)
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
            scores += [self.scorer.approximate(i, own, products_Kq) for i, own in enumerate(parts)]
            best = _best(np.concatenate(scores), rows + self.firsts[places], most)
            places, rows = places[best], rows[best]
        for place in range(len(parts)):
            yield place, np.sort(rows[places == place])

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
            self.codec.levels.table(),
            self.codec.unit,
            out,
        )
        return out


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
