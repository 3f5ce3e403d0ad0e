"""Threads that rank the queries of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_ROWS = 1 << 20  # of results at a time
_SHARES = 4  # of a batch per thread: none waits long for the last one


class Pool:
    """Threads that are started once, with the working memory that each has."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads) if threads > 1 else None

    def split(self, texts: Sequence[str], k: int) -> list[Sequence[str]]:
        """Returns stretches of a batch, each for one call of a kernel."""
        size = max(1, _ROWS // k)
        if self._executor is not None:
            size = min(size, -(-len(texts) // (_SHARES * self._threads)))
        return [texts[first : first + size] for first in range(0, len(texts), max(1, size))]

    def map(self, rank: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
        """Returns what `rank` returns of each part."""
        if self._executor is None or len(parts) < 2:
            return [rank(part) for part in parts]
        return list(self._executor.map(rank, parts))
