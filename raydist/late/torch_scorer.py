"""Scores of a multi-vector index's documents by torch: the index lies in a GPU's memory.

Which documents are candidates is looked up on the host; products, decoding and MaxSim are the
device's. Shapes and places come from the host, so that a call waits for the device once.

Shapes: Q queries, q vectors of each, D dimensions, K centroids, n documents, t their vectors, c
candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from raydist.late.format import Codec, Segment
from raydist.late.scorers import Floats
from raydist.log import size, warn

_VECTORS = 1 << 18
"""Vectors of documents that are decoded at a time."""
_SHARE = 0.8
"""Of a GPU's free memory: the rest is for scores, and for the model of queries."""


def max_sims(queries_QqD: Tensor, vectors_tD: Tensor, owners_t: Tensor, documents: int) -> Tensor:
    """Returns the MaxSim [Q, n] of queries and documents; -inf for a document without vectors.

    Args:
        queries_QqD: vectors of zeros add nothing.
        vectors_tD: of all documents.
        owners_t: the number of each vector's document.
        documents: n.
    """
    products_tx = vectors_tD @ queries_QqD.flatten(0, 1).T
    return _largest(products_tx, owners_t, documents).view(-1, *queries_QqD.shape[:2]).sum(2).T


def _largest(values_tx: Tensor, owners_t: Tensor, documents: int) -> Tensor:
    """Returns each column's largest value of each document's rows [n, x]."""
    largest_nx = values_tx.new_full((documents, values_tx.shape[1]), -torch.inf)
    return largest_nx.scatter_reduce_(0, owners_t[:, None].expand_as(values_tx), values_tx, "amax")


class TorchScorer:
    """Scores by torch, on any of its devices.

    Args:
        codec: of the index.
        segments: of the index, in order.
        device: where codes, residuals and centroids are copied to.
    """

    def __init__(self, codec: Codec, segments: Sequence[Segment], device: torch.device) -> None:
        self.device = device
        self._unit = codec.unit
        self._centroids_KD = torch.from_numpy(codec.centroids.vectors_KD).to(device)
        self._table = torch.from_numpy(codec.levels.table()).to(device)
        self._starts = [segment.starts for segment in segments]
        self._codes = [
            torch.from_numpy(each.codes.astype(np.int32)).to(device) for each in segments
        ]
        residuals = (np.array(segment.residuals) for segment in segments)
        self._residuals = [torch.from_numpy(residuals_tB).to(device) for residuals_tB in residuals]

    @classmethod
    def fitting(
        cls, codec: Codec, segments: Sequence[Segment], device: torch.device
    ) -> TorchScorer | None:
        """Returns the scorer of an index, None (and a warning) if a GPU has not the memory."""
        needed = sum(4 * len(each.codes) + each.residuals.nbytes for each in segments)
        free, _ = torch.cuda.mem_get_info(device)
        if needed > _SHARE * free:
            warn(
                f"a multi-vector index of {size(needed)} does not fit into the "
                f"{size(free)} that are free on {device}; it is searched on the CPU"
            )
            return None
        return cls(codec, segments, device)

    def query(self, query_qD: Floats) -> Tensor:
        """Returns a query as the other methods take it."""
        return torch.from_numpy(query_qD).to(self.device)

    def near(self, query: Tensor, probes: int) -> tuple[Tensor, NDArray[np.int64]]:
        """Returns products with all centroids, and the nearest of them."""
        products_Kq = self._centroids_KD @ query.T
        best = products_Kq.topk(min(probes, len(products_Kq)), dim=0, sorted=False).indices
        return products_Kq, np.unique(best.cpu().numpy())

    def approximate(self, place: int, rows_c: NDArray[np.int64], products: Tensor) -> Floats:
        """Returns MaxSim of centroids in place of vectors."""
        parts = [torch.zeros(0)]
        for part in self._parts(place, rows_c):
            vectors_t, owners_t = self._vectors(place, part)
            values_tq = products.index_select(0, self._codes[place][vectors_t])
            parts.append(_largest(values_tq, owners_t, len(part)).sum(1).cpu())
        return torch.cat(parts).numpy()

    def exact(self, place: int, rows_c: NDArray[np.int64], query: Tensor) -> Floats:
        """Returns MaxSim of decoded vectors."""
        parts = [self.scores(place, part, query).cpu() for part in self._parts(place, rows_c)]
        return torch.cat([torch.zeros(0), *parts]).numpy()

    def scores(self, place: int, rows_c: NDArray[np.int64], query: Tensor) -> Tensor:
        """Returns what `exact` does, on the device and of few documents: all are decoded."""
        vectors_t, owners_t = self._vectors(place, rows_c)
        centroids_tD = self._centroids_KD.index_select(0, self._codes[place][vectors_t])
        packed = self._residuals[place][vectors_t].int()
        decoded_tD = centroids_tD + self._table.index_select(0, packed.flatten()).view_as(
            centroids_tD
        )
        if self._unit:
            decoded_tD = F.normalize(decoded_tD, dim=1)
        return max_sims(query[None], decoded_tD, owners_t, len(rows_c))[0]

    def _parts(self, place: int, rows_c: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Yields documents that have so many vectors together, or one that has more."""
        starts = self._starts[place]
        ends = np.cumsum(starts[rows_c + 1] - starts[rows_c])
        first = 0
        while first < len(rows_c):
            before = ends[first - 1] if first else 0
            stop = max(first + 1, int(np.searchsorted(ends, before + _VECTORS, "right")))
            yield rows_c[first:stop]
            first = stop

    def _vectors(self, place: int, rows_c: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Returns the places [t] of documents' vectors, and which document's each is."""
        starts = self._starts[place]
        lengths_c = starts[rows_c + 1] - starts[rows_c]
        before_c = np.cumsum(lengths_c) - lengths_c
        total = int(lengths_c.sum())
        sizes, shifts = torch.from_numpy(np.stack([lengths_c, starts[rows_c] - before_c])).to(
            self.device
        )
        numbers = torch.arange(len(rows_c), device=self.device)
        owners_t = torch.repeat_interleave(numbers, sizes, output_size=total)
        return torch.arange(total, device=self.device) + shifts[owners_t], owners_t
