"""The order of equal scores: input order, external id as a string, or Anserini's rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist.kernels.jit import kernel
from raydist.strings import text_of

Array = npt.NDArray[Any]
PickIds = Callable[[Array], pa.LargeStringArray]

TIES = ("docid", "external", "anserini")
"""`docid`: input order; `external`: id as a string; `anserini`: that, and its scores."""

_BEYOND_16_BITS = 0xF0  # first bytes of code points whose order differs in UTF-8 and UTF-16
_KEYS = [("group", "ascending"), ("id", "ascending")]


def best(docs: Array, scores: Array, k: int, ties: str, pick_ids: PickIds) -> tuple[Array, Array]:
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
    sizes = np.array([len(docs)])
    docs, scores, _ = settled(docs[order], scores[order], sizes, k, ties, pick_ids)
    return docs, scores


def settled(
    docs_R: Array, scores_R: Array, sizes_Q: Array, k: int, ties: str, pick_ids: PickIds
) -> tuple[Array, Array, Array]:
    """Returns the best k of the rankings of queries, one after another, and their sizes.

    Args:
        docs_R: positions of each query's candidates, best first, by position where scores are
            equal, int64; all ties at the k-th are among them.
        scores_R: float32.
        sizes_Q: how many candidates each query has, int64.
        k: number of documents to return.
        ties: one of TIES.
        pick_ids: external ids of positions.
    """
    if ties == "docid" and len(docs_R) <= k:
        return docs_R, scores_R, sizes_Q
    if ties != "docid" and len(docs_R):
        docs_R = _by_id(docs_R, scores_R, sizes_Q, pick_ids)
    if len(sizes_Q) and sizes_Q.max() > k:
        starts = np.cumsum(sizes_Q) - sizes_Q
        chosen = np.arange(len(docs_R)) - np.repeat(starts, sizes_Q) < k
        docs_R, scores_R, sizes_Q = docs_R[chosen], scores_R[chosen], np.minimum(sizes_Q, k)
    if ties == "anserini":
        scores_R = anserini_scores(scores_R, sizes_Q)
    return docs_R, scores_R, sizes_Q


def _by_id(docs_R: Array, scores_R: Array, sizes_Q: Array, pick_ids: PickIds) -> Array:
    """Sorts documents of equal score by id, compared as Java does: by UTF-16 units."""
    same = scores_R[1:] == scores_R[:-1]
    starts = np.cumsum(sizes_Q[:-1])
    same[starts[(starts > 0) & (starts < len(docs_R))] - 1] = False
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    if not len(tied):
        return docs_R
    ids = pick_ids(docs_R[tied])
    group = np.cumsum(np.append(True, ~same))[tied]
    if (np.frombuffer(text_of(ids), np.uint8) < _BEYOND_16_BITS).all():
        order = pc.sort_indices(pa.table({"group": group, "id": ids}), sort_keys=_KEYS).to_numpy()
    else:
        names = [name.encode("utf-16-be", "surrogatepass") for name in ids.to_pylist()]
        order = np.array(sorted(range(len(tied)), key=list(zip(group.tolist(), names)).__getitem__))
    docs_R = docs_R.copy()
    docs_R[tied] = docs_R[tied[order]]
    return docs_R


def anserini_scores(scores_R: Array, sizes_Q: Array | None = None) -> Array:
    """Returns rankings' scores as Anserini writes them, so that few are equal.

    Each is rounded to 1e-4, in double; one that is not more than 1e-4 below its predecessor loses
    1e-6 for each such step in a row, in float32. They are written with six decimals, which makes
    some above 8 equal again: measures of Anserini's files have these ties.

    Args:
        scores_R: float32, descending within a ranking.
        sizes_Q: rows of each ranking, int64; one ranking by default.
    """
    rounded = (np.floor(scores_R.astype(np.float64) * 1e4 + 0.5) / 1e4).astype(np.float32)
    sizes = np.array([len(scores_R)]) if sizes_Q is None else sizes_Q
    _spread(rounded, sizes)
    return np.round(rounded.astype(np.float64), 6).astype(np.float32)


@kernel
def _spread(scores_R: Array, sizes_Q: Array) -> None:
    """Takes the steps of 1e-6 from rounded scores, in place."""
    i = 0
    for q in range(sizes_Q.shape[0]):
        before = np.float32(np.inf)
        close = 0
        for _ in range(sizes_Q[q]):
            close += 1
            if before - scores_R[i] > np.float32(1e-4):
                close = 0
            before = np.float32(scores_R[i] - np.float32(1e-6) * np.float32(close))
            scores_R[i] = before
            i += 1
