"""Scores of a multi-vector index's documents: what a search asks for, and the CPU's answer.

Shapes: q vectors of a query, D dimensions, K centroids, c candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from raydist.late.format import Codec, Segment
from raydist.late.kernels import approximate, max_sim

Floats = NDArray[np.float32]
_LANES = 16


class Scorer(Protocol):
    """Scores documents of an index; what it makes of a query is its own."""

    def query(self, query_qD: Floats) -> Any:
        """Returns a query as the other methods take it."""
        ...

    def near(self, query: Any, probes: int) -> tuple[Any, NDArray[np.int64]]:
        """Returns products with all centroids, and which are nearest to any vector, each once."""
        ...

    def approximate(self, place: int, rows_c: NDArray[np.int64], products: Any) -> Floats:
        """Returns the MaxSim [c] of a segment's documents if their vectors were centroids."""
        ...

    def exact(self, place: int, rows_c: NDArray[np.int64], query: Any) -> Floats:
        """Returns the MaxSim [c] of decoded vectors; -inf for a document without any."""
        ...


class _Query(NamedTuple):
    vectors_Dq: Floats
    width: int


class KernelScorer:
    """Scores by machine code.

    Args:
        codec: of the index.
        segments: of the index, in order.
    """

    def __init__(self, codec: Codec, segments: Sequence[Segment]) -> None:
        self._codec = codec
        self._segments = segments
        self._table = codec.levels.table()

    def query(self, query_qD: Floats) -> _Query:
        """Returns a query as the other methods take it."""
        # Widths of whole vector registers; a vector of zeros adds nothing to a score.
        padding = -len(query_qD) % _LANES
        padded_qD = np.pad(query_qD, ((0, padding), (0, 0)))
        return _Query(np.ascontiguousarray(padded_qD.T), len(query_qD))

    def near(self, query: _Query, probes: int) -> tuple[Floats, NDArray[np.int64]]:
        """Returns products with all centroids, and the nearest of them."""
        products_Kq: Floats = self._codec.centroids.vectors_KD @ query.vectors_Dq
        probes = min(probes, len(products_Kq))
        rows = np.argpartition(products_Kq[:, : query.width], -probes, axis=0)[-probes:]
        return products_Kq, np.unique(rows).astype(np.int64)

    def approximate(self, place: int, rows_c: NDArray[np.int64], products: Floats) -> Floats:
        """Returns MaxSim of centroids in place of vectors."""
        segment = self._segments[place]
        scores_c = np.empty(len(rows_c), np.float32)
        approximate(rows_c, segment.starts, segment.codes, products, scores_c)
        return scores_c

    def exact(self, place: int, rows_c: NDArray[np.int64], query: _Query) -> Floats:
        """Returns MaxSim of decoded vectors."""
        segment = self._segments[place]
        scores_c = np.empty(len(rows_c), np.float32)
        max_sim(
            rows_c,
            segment.starts,
            segment.codes,
            segment.residuals,
            self._codec.centroids.vectors_KD,
            self._table,
            self._codec.unit,
            query.vectors_Dq,
            scores_c,
        )
        return scores_c
