"""Recall of a search against the exact one, with some of the documents as queries.

Queries lie farther from the documents than these from each other, and mostly find less; so what is
stated says of which queries it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from raydist.dense.exact import exact_search
from raydist.dense.vectors import VectorShards

SAMPLE = 200

Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Returns scores and rows [Q, k] for query vectors; row -1 where results run out."""


def sample(rows: int) -> np.ndarray:
    """Returns the rows of the documents that are queries, the same for as many rows."""
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(rows, min(SAMPLE, rows), replace=False))


def recall(
    search: Search,
    shards: VectorShards,
    queries_QD: np.ndarray,
    k: int = 10,
    own_Q: np.ndarray | None = None,
) -> float:
    """Returns the share of the exact best k that a search finds, over the queries.

    Args:
        search: what is measured.
        shards: the vectors, in their finest form.
        queries_QD: float32.
        k: results that count.
        own_Q: where queries are documents, their rows, which are no results of theirs.
    """
    own = [-1] * len(queries_QD) if own_Q is None else own_Q.tolist()
    depth = k if own_Q is None else k + 1
    truth = _without(exact_search(shards, queries_QD, depth)[1], own, k)
    nearest = _without(search(queries_QD, depth)[1], own, k)
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(truth, nearest))
    total = sum(map(len, truth))
    return hits / total if total else 1.0


def _without(rows_Qk: np.ndarray, own: Any, k: int) -> list[np.ndarray]:
    """Returns the first k results of each query, without its own row."""
    return [rows[(rows >= 0) & (rows != each)][:k] for rows, each in zip(rows_Qk, own)]
