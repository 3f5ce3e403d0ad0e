"""The vectors of tokens of many texts, text after text.

Shapes: n texts, t vectors of all of them, B texts of a batch, T tokens, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The vectors of n texts.

    Attributes:
        lengths: int64 [n], vectors of each text.
        vectors: float32 [t, D].
    """

    lengths: np.ndarray
    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def split(self) -> list[np.ndarray]:
        """Returns the vectors of each text."""
        return np.split(self.vectors, np.cumsum(self.lengths)[:-1]) if len(self) else []

    @classmethod
    def of_padded(cls, vectors_BTD: Tensor) -> TokenRows:
        """Returns the rows of a batch, in which rows of zeros are none."""
        real_BT = (vectors_BTD != 0).any(-1)
        lengths = real_BT.sum(1).cpu().numpy()
        return cls(lengths, vectors_BTD[real_BT].float().cpu().numpy())

    @classmethod
    def joined(cls, parts: Sequence[TokenRows], dimension: int) -> TokenRows:
        """Returns the rows of all parts, one after the other."""
        return cls(
            np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)]),
            np.concatenate([np.zeros((0, dimension), np.float32), *(p.vectors for p in parts)]),
        )

    def take(self, rows: np.ndarray) -> TokenRows:
        """Returns some texts, in this order."""
        lengths = self.lengths[rows]
        starts = (np.cumsum(self.lengths) - self.lengths)[rows]
        ends = np.cumsum(lengths)
        index = np.repeat(starts - (ends - lengths), lengths) + np.arange(int(lengths.sum()))
        return TokenRows(lengths, self.vectors[index])
