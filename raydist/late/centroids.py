"""Centroids of token vectors, in two levels: cells, and the centroids of each cell.

Cells make training and assignment cost the root of what a flat k-means would: a vector is compared
with the cells, then with the centroids of the nearest ones. Each cell is trained by itself, so
cells are split among workers.

Shapes: K centroids, C cells, D dimensions, t vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydist.late.kernels import nearest_of_cells

Floats = NDArray[np.float32]
_ROUNDS = 8
_BLOCK = 1 << 22
"""Products that are in memory together."""
NEAR = 8
"""Cells whose centroids a vector is compared with."""


@dataclass(frozen=True)
class Centroids:
    """Centroids, cell by cell.

    Attributes:
        vectors_KD: float32.
        cells_CD: float32.
        starts_C1: where each cell's centroids begin, and their number at the end.
    """

    vectors_KD: Floats
    cells_CD: Floats
    starts_C1: NDArray[np.int64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_halves", half_squares(self.vectors_KD))

    def nearest(self, vectors_tD: Floats) -> NDArray[np.int64]:
        """Returns each vector's nearest centroid among those of its nearest cells."""
        near = min(NEAR, len(self.cells_CD))
        cells_tn = np.empty((len(vectors_tD), near), np.int64)
        halves_C = half_squares(self.cells_CD)
        for rows in _blocks(len(vectors_tD), len(self.cells_CD)):
            products = vectors_tD[rows] @ self.cells_CD.T - halves_C
            cells_tn[rows] = np.argpartition(-products, near - 1, axis=1)[:, :near]
        order = np.argsort(cells_tn, axis=None, kind="stable")
        bounds = np.searchsorted(cells_tn.ravel()[order], np.arange(len(self.cells_CD) + 1))
        best_t = np.full(len(vectors_tD), -np.inf, np.float32)
        nearest_t = np.zeros(len(vectors_tD), np.int64)
        halves_K: Floats = self._halves  # type: ignore[attr-defined]
        for cell, (start, stop) in enumerate(zip(self.starts_C1[:-1], self.starts_C1[1:])):
            own = order[bounds[cell] : bounds[cell + 1]] // near
            if start == stop:
                continue
            for rows in _blocks(len(own), int(stop - start)):
                products = vectors_tD[own[rows]] @ self.vectors_KD[start:stop].T
                nearest_of_cells(
                    products, halves_K[start:stop], own[rows], start, best_t, nearest_t
                )
        return nearest_t


def half_squares(vectors_KD: Floats) -> Floats:
    """Returns half of each vector's squared length: the nearest has the largest v·c less that."""
    return np.asarray(np.einsum("kd,kd->k", vectors_KD, vectors_KD) / 2, np.float32)


def k_means(vectors_tD: Floats, count: int, rounds: int = _ROUNDS) -> Floats:
    """Returns `count` means of clusters (Lloyd's algorithm), or all vectors if they are fewer.

    The start is every so manieth vector; a cluster that is left without vectors takes the one that
    is farthest from its own.
    """
    if len(vectors_tD) <= count:
        return vectors_tD.copy()
    means_KD = vectors_tD[np.arange(count) * len(vectors_tD) // count].copy()
    squares_t = 2 * half_squares(vectors_tD)
    for _ in range(rounds):
        nearest_t = np.empty(len(vectors_tD), np.int64)
        distance_t = np.empty(len(vectors_tD), np.float32)
        halves_K = half_squares(means_KD)
        for rows in _blocks(len(vectors_tD), count):
            products = vectors_tD[rows] @ means_KD.T - halves_K
            nearest_t[rows] = products.argmax(axis=1)
            distance_t[rows] = squares_t[rows] - 2 * products.max(axis=1)
        counts_K = np.bincount(nearest_t, minlength=count)
        order = np.argsort(nearest_t, kind="stable")
        filled = np.flatnonzero(counts_K)
        starts = np.concatenate(([0], np.cumsum(counts_K[filled])[:-1]))
        sums = np.add.reduceat(vectors_tD[order].astype(np.float64), starts, axis=0)
        means_KD[filled] = (sums / counts_K[filled, None]).astype(np.float32)
        if len(empty := np.flatnonzero(counts_K == 0)):
            far = np.argsort(-distance_t, kind="stable")[: len(empty)]
            means_KD[empty] = vectors_tD[far]
    return means_KD


def shares(counts_C: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Returns how many of `total` centroids each cell gets: by its vectors, and one at least."""
    exact = counts_C * (total / max(1, int(counts_C.sum())))
    own = np.minimum(np.maximum(np.floor(exact), counts_C > 0).astype(np.int64), counts_C)
    order = np.argsort(-(exact - own), kind="stable")
    for cell in order[: max(0, total - int(own.sum()))]:
        own[cell] += own[cell] < counts_C[cell]
    return np.asarray(own, np.int64)


def _blocks(rows: int, width: int) -> list[slice]:
    size = max(1, _BLOCK // max(1, width))
    return [slice(start, min(rows, start + size)) for start in range(0, rows, size)]
