"""The order of equal scores: input order, external id as a string, or Anserini's rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]

TIES = ("docid", "external", "anserini")
"""`docid`: input order; `external`: id as a string; `anserini`: that, and its scores."""


def best(
    docs: Array, scores: Array, k: int, ties: str, pick_ids: Callable[[Array], pa.StringArray]
) -> tuple[Array, Array]:
    """Returns the best k documents in order, from candidates that include all ties at the k-th.

    Args:
        docs: positions, int64.
        scores: float32.
        k: number of documents to return.
        ties: one of TIES.
        pick_ids: external ids of positions.
    """
    if len(docs) > k:
        enough = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
        docs, scores = docs[enough], scores[enough]
    order = np.lexsort((docs, -scores))
    docs, scores = docs[order], scores[order]
    if ties != "docid":
        docs = _by_id(docs, scores, pick_ids)
    docs, scores = docs[:k], scores[:k]
    return docs, anserini_scores(scores) if ties == "anserini" else scores


def _by_id(docs: Array, scores: Array, pick_ids: Callable[[Array], pa.StringArray]) -> Array:
    """Sorts documents of equal score by id, compared as Java does: by UTF-16 units."""
    same = scores[1:] == scores[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    if not len(tied):
        return docs
    ids = pick_ids(docs[tied]).to_pylist()
    group = np.cumsum(np.append(True, ~same))[tied].tolist()
    keys = [(number, name.encode("utf-16-be", "surrogatepass")) for number, name in zip(group, ids)]
    order = sorted(range(len(tied)), key=keys.__getitem__)
    docs = docs.copy()
    docs[tied] = docs[tied[order]]
    return docs


def anserini_scores(scores: Array) -> Array:
    """Returns a ranking's scores as Anserini writes them, so that few are equal.

    Each is rounded to 1e-4, in double; one that is not more than 1e-4 below its predecessor loses
    1e-6 for each such step in a row, in float32. They are written with six decimals, which makes
    some above 8 equal again: measures of Anserini's files have these ties.
    """
    step = np.float32(1e-6)
    rounded = (np.floor(scores.astype(np.float64) * 1e4 + 0.5) / 1e4).astype(np.float32)
    out = np.empty(len(scores), np.float32)
    close = 0
    for i, score in enumerate(rounded):
        if i == 0 or out[i - 1] - score > np.float32(1e-4):
            close = 0
        else:
            close += 1
            score -= step * np.float32(close)
        out[i] = score
    return np.round(out.astype(np.float64), 6).astype(np.float32)
