"""What the order of equals follows from in Anserini: Java's strings, HashMap and Random.

Anserini breaks some ties between terms by the order in which Java's HashMap lists them, and draws
documents by java.util.Random. Expanded queries are equal only if both are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

_MASK = (1 << 48) - 1
_FACTOR = 0x5DEECE66D


def units(text: str) -> bytes:
    """Returns a key that compares as Java compares strings: by UTF-16 units."""
    return text.encode("utf-16-be", "surrogatepass")


def length(text: str) -> int:
    """Returns how many UTF-16 units a string has."""
    return len(text) if text.isascii() else len(units(text)) // 2


@lru_cache(maxsize=1 << 16)
def _spread(text: str) -> int:
    """Returns the hash by which a HashMap chooses the bin of a string."""
    data = units(text)
    code = 0
    for high, low in zip(data[::2], data[1::2]):
        code = (31 * code + (high << 8 | low)) & 0xFFFFFFFF
    return code ^ code >> 16


def hash_order(texts: Iterable[str]) -> list[str]:
    """Returns distinct strings in the order in which a HashMap that they were put into lists them.

    Those of a bin stay as they came.
    """
    distinct = list(dict.fromkeys(texts))
    bins = 16
    while len(distinct) > bins * 3 // 4:
        bins *= 2
    return sorted(distinct, key=lambda text: _spread(text) & bins - 1)


def draws(seed: int, bound: int) -> Iterator[int]:
    """Yields what `new Random(seed).nextInt(bound)` returns, without end."""
    state = (seed ^ _FACTOR) & _MASK
    while True:
        state = (state * _FACTOR + 0xB) & _MASK
        bits = state >> 17
        if bound & bound - 1 == 0:
            yield bound * bits >> 31
        elif bits - bits % bound + bound - 1 < 1 << 31:  # else it would favour small numbers
            yield bits % bound
