"""Sets of numbers below a bound, a bit for each: which documents are live, or may be searched.

Legend: N numbers that may be in the set, Q numbers that are asked for.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.kernels.arrays import readonly

Array = npt.NDArray[Any]

_WORD = 64


class Bits:
    """A set of numbers from 0 to N - 1.

    Attributes:
        data: uint8, eight numbers each, the lowest in the lowest bit; padded to whole 64-bit words.
        size: N.
    """

    def __init__(self, data: Array, size: int) -> None:
        assert len(data) == bytes_of(size), (len(data), size)
        self.data = readonly(data, np.uint8)
        self.size = size

    @classmethod
    def of(cls, flags_N: Array) -> Bits:
        """Returns the numbers whose flag is true."""
        data = np.zeros(bytes_of(len(flags_N)), np.uint8)
        packed = np.packbits(flags_N, bitorder="little")
        data[: len(packed)] = packed
        return cls(data, len(flags_N))

    @classmethod
    def full(cls, size: int) -> Bits:
        """Returns all numbers below `size`."""
        return cls.of(np.ones(size, np.bool_))

    @property
    def flags(self) -> Array:
        """Whether each number is in the set, bool [N]."""
        return np.unpackbits(self.data, count=self.size, bitorder="little").view(np.bool_)

    @cached_property
    def count(self) -> int:
        """How many numbers are in the set."""
        return int(np.bitwise_count(self.data).sum(dtype=np.int64))

    def has(self, numbers_Q: Array) -> Array:
        """Returns whether each number is in the set, bool [Q]."""
        shifts = (numbers_Q & 7).astype(np.uint8)
        return np.asarray(self.data[numbers_Q >> 3] >> shifts & 1, np.bool_)

    def without(self, numbers_Q: Array) -> Bits:
        """Returns the set without some numbers."""
        data = self.data.copy()
        masks = ~np.left_shift(1, numbers_Q & 7).astype(np.uint8)
        np.bitwise_and.at(data, numbers_Q >> 3, masks)
        return Bits(data, self.size)

    def rank(self, numbers_Q: Array) -> Array:
        """Returns how many smaller numbers the set has, int64 [Q]."""
        words = self._words[np.minimum(numbers_Q // _WORD, len(self._words) - 1)]
        below = words & ((np.uint64(1) << (numbers_Q % _WORD).astype(np.uint64)) - np.uint64(1))
        return np.asarray(self._before[numbers_Q // _WORD] + np.bitwise_count(below), np.int64)

    def select(self, ranks_Q: Array) -> Array:
        """Returns the numbers that have so many smaller ones in the set, int64 [Q]."""
        word = np.searchsorted(self._before, ranks_Q, side="right") - 1
        bits = np.unpackbits(
            self._words[word].view(np.uint8).reshape(-1, 8), axis=1, bitorder="little"
        )
        wanted = (ranks_Q - self._before[word] + 1)[:, None]
        place = (np.cumsum(bits, axis=1) == wanted).argmax(axis=1)
        return np.asarray(word * _WORD + place, np.int64)

    @property
    def _words(self) -> Array:
        return self.data.view(np.uint64)

    @cached_property
    def _before(self) -> Array:
        """How many numbers are in the words before each, and in all."""
        counts = np.bitwise_count(self._words).astype(np.int64)
        return np.concatenate(([0], np.cumsum(counts)))


def bytes_of(size: int) -> int:
    """Returns how many bytes a set of numbers below `size` takes."""
    return -(-size // _WORD) * (_WORD // 8)
