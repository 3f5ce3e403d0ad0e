"""Weights of terms of many texts, of which most are 0, as rows of a sparse matrix.

Shapes: n texts, m weights of all of them, V terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SparseRow = tuple[np.ndarray, np.ndarray]
"""The terms of a text, ascending, and their weights."""


def dot(first: SparseRow, second: SparseRow) -> float:
    """Returns the dot product of two texts' weights, in double."""
    terms = np.intersect1d(first[0], second[0], assume_unique=True, return_indices=True)
    return float(first[1][terms[1]].astype(np.float64) @ second[1][terms[2]])


@dataclass(frozen=True, slots=True)
class SparseRows:
    """The positive weights of terms of n texts, text after text.

    Attributes:
        offsets: int64 [n + 1], where each text's weights begin and end.
        terms: int32 [m], numbers of terms, ascending within a text.
        weights: float32 [m].
        dimension: V, the number of terms.
    """

    offsets: np.ndarray
    terms: np.ndarray
    weights: np.ndarray
    dimension: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> SparseRow:
        """Returns the terms and the weights of a text."""
        part = slice(self.offsets[row], self.offsets[row + 1])
        return self.terms[part], self.weights[part]

    @classmethod
    def of_dense(cls, weights_nV: Tensor) -> SparseRows:
        """Returns the rows of a matrix, on any device."""
        row_m, term_m = weights_nV.nonzero(as_tuple=True)
        counts_n = torch.bincount(row_m, minlength=len(weights_nV)).cpu().numpy()
        return cls(
            np.concatenate([[0], counts_n.cumsum()]).astype(np.int64),
            term_m.to(torch.int32).cpu().numpy(),
            weights_nV[row_m, term_m].float().cpu().numpy(),
            weights_nV.shape[1],
        )

    @classmethod
    def joined(cls, parts: Sequence[SparseRows], dimension: int) -> SparseRows:
        """Returns the rows of all parts, one after the other."""
        counts = [np.zeros(1, np.int64), *(np.diff(part.offsets) for part in parts)]
        return cls(
            np.concatenate(counts).cumsum(),
            np.concatenate([np.zeros(0, np.int32), *(part.terms for part in parts)]),
            np.concatenate([np.zeros(0, np.float32), *(part.weights for part in parts)]),
            dimension,
        )

    def take(self, rows: np.ndarray) -> SparseRows:
        """Returns some rows, in this order."""
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate([np.zeros(1, np.int64), counts.cumsum()])
        index = np.repeat(self.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        return SparseRows(offsets, self.terms[index], self.weights[index], self.dimension)

    def dense(self) -> np.ndarray:
        """Returns all weights, float32 [n, V]."""
        weights_nV = np.zeros((len(self), self.dimension), np.float32)
        weights_nV[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.terms] = (
            self.weights
        )
        return weights_nV
