"""Batches under a token budget, of texts of about equal length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def length_batches(
    lengths: np.ndarray, max_tokens: int, max_rows: int = 1 << 30
) -> Iterator[np.ndarray]:
    """Yields row numbers, longest rows first, such that rows x longest row <= `max_tokens`.

    A row longer than the budget comes alone. Ties keep their order, so the cut depends on the
    lengths alone. The longest batch comes first: a memory shortage shows at once.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        size = min(max(1, max_tokens // longest), max_rows)
        yield order[start : start + size]
        start += size


def padding_waste(tokens: int, padded: int) -> float:
    """Returns the share of computed token places that held padding."""
    return 1.0 - tokens / padded if padded else 0.0
