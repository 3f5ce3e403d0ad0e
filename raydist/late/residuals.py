"""Residuals in few bits: what a vector differs from its centroid, a level for each component.

The levels are those of Lloyd and Max: of a sample of components, the least squared error. A byte
holds 8 / bits components, the first in its highest bits.

Shapes: t vectors, D dimensions, L levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_ROUNDS = 64


@dataclass(frozen=True)
class Levels:
    """The values that stand for components.

    Attributes:
        values_L: ascending, 2 to the bits of them.
    """

    values_L: Floats

    @property
    def bits(self) -> int:
        """Bits of a component."""
        return len(self.values_L).bit_length() - 1

    @classmethod
    def fit(cls, sample: Floats, bits: int) -> Levels:
        """Returns the levels for components like those of a sample."""
        exact = np.sort(sample.astype(np.float64))
        count = 1 << bits
        if not len(exact):
            return cls(np.zeros(count, np.float32))
        values = np.quantile(exact, (np.arange(count) + 0.5) / count)
        sums = np.concatenate(([0.0], np.cumsum(exact)))
        for _ in range(_ROUNDS):
            edges = np.searchsorted(exact, (values[1:] + values[:-1]) / 2)
            edges = np.concatenate(([0], edges, [len(exact)]))
            sizes = np.diff(edges)
            means = (sums[edges[1:]] - sums[edges[:-1]]) / np.maximum(sizes, 1)
            values = np.where(sizes > 0, means, values)
        return cls(np.sort(values).astype(np.float32))

    def encode(self, residuals_tD: Floats) -> NDArray[np.uint8]:
        """Returns the bytes [t, D * bits / 8] of the nearest levels."""
        edges = (self.values_L[1:] + self.values_L[:-1]) / 2
        numbers = np.searchsorted(edges, residuals_tD.ravel(), "right").astype(np.uint8)
        numbers = numbers.reshape(len(residuals_tD), -1, 8 // self.bits)
        packed = np.zeros(numbers.shape[:2], np.uint8)
        for place in range(8 // self.bits):
            packed |= numbers[:, :, place] << np.uint8(8 - self.bits * (place + 1))
        return packed

    def table(self) -> Floats:
        """Returns the components [256, 8 / bits] that each byte stands for."""
        shifts = 8 - self.bits * (np.arange(8 // self.bits) + 1)
        numbers = (np.arange(256)[:, None] >> shifts) & (len(self.values_L) - 1)
        return np.asarray(self.values_L[numbers], np.float32)
