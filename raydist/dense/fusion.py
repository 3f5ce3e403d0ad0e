"""Fusion of several runs into one: by reciprocal ranks, or by normalised scores.

Works on whole columns. Equal fused scores are ordered by document id (bytewise, ascending), so the
result depends on nothing but the runs. Queries come in the order in which the runs, one after the
other, first have them. L rows of all runs together, P (query, document) pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydist.dense.spec import Fusion, Rrf
from raydist.errors import ConfigError
from raydist.records import RUN, Run
from raydist.strings import codes

Normalization = Literal["minmax", "z", "none"]


def reciprocal_rank(
    runs: Sequence[Run],
    *,
    constant: float = 60.0,
    weights: Sequence[float] | None = None,
    k: int = 1000,
    tag: str = "rrf",
) -> Run:
    """Fuses by Σ weight / (constant + rank), ranks from 1 (Cormack, Clarke and Büttcher, 2009).

    Args:
        runs: at least one.
        constant: 60 in the paper; the larger, the less the first ranks count.
        weights: one per run, all 1 if None.
        k: results kept per query.
        tag: of the fused run.
    """
    if constant < 0:
        raise ConfigError(f"fusion.constant = {constant}: expected 0 or more")
    stacked = _stack(runs, weights)
    return _ranking(stacked, stacked.weights_L / (constant + stacked.rank_L + 1), k, tag)


def interpolate(
    runs: Sequence[Run],
    *,
    weights: Sequence[float] | None = None,
    normalize: Normalization = "minmax",
    k: int = 1000,
    tag: str = "interpolated",
) -> Run:
    """Fuses by the weighted sum of scores that are normalised per run and query.

    `minmax` maps a query's scores to [0, 1] (all equal: 1), `z` to mean 0 and standard deviation 1
    (all equal: 0), `none` leaves them. A document that a run does not have counts as that run's
    lowest for the query: 0 under minmax, the lowest z, the lowest score. A query that a run does
    not have at all gets nothing from it.

    Args:
        runs: at least one.
        weights: one per run, all 1 if None.
        normalize: what makes scores comparable.
        k: results kept per query.
        tag: of the fused run.
    """
    stacked = _stack(runs, weights)
    starts, group_L = stacked.groups()
    if not len(starts):
        return _ranking(stacked, stacked.scores_L, k, tag)
    scores_L = stacked.scores_L
    low_G = np.minimum.reduceat(scores_L, starts)
    floor_G = low_G
    if normalize == "minmax":
        width_G = np.maximum.reduceat(scores_L, starts) - low_G
        flat_G = width_G == 0
        scores_L = (scores_L - low_G[group_L]) / np.where(flat_G, 1.0, width_G)[group_L]
        scores_L[flat_G[group_L]] = 1.0
        floor_G = np.zeros(len(starts))
    elif normalize == "z":
        size_G = np.diff(np.append(starts, len(scores_L)))
        centred_L = scores_L - (np.add.reduceat(scores_L, starts) / size_G)[group_L]
        spread_G = np.sqrt(np.add.reduceat(centred_L**2, starts) / size_G)
        scale_G = np.abs(np.maximum.reduceat(scores_L, starts)) + np.abs(low_G)
        flat_G = spread_G <= 1e-12 * scale_G  # equal scores, up to rounding of their mean
        scores_L = centred_L / np.where(flat_G, 1.0, spread_G)[group_L]
        scores_L[flat_G[group_L]] = 0.0
        floor_G = np.minimum.reduceat(scores_L, starts)
    # What a document gets above its run's lowest, then the lowest of every run that has the query.
    weight_G = stacked.weights_L[starts]
    above_L = stacked.weights_L * (scores_L - floor_G[group_L])
    base_Q = np.bincount(stacked.query_L[starts], weight_G * floor_G, len(stacked.query_ids))
    return _ranking(stacked, above_L, k, tag, base_Q)


def fuse(runs: Sequence[Run], k: int = 1000, fusion: Fusion = Rrf()) -> Run:  # noqa: B008
    """Returns several runs as one, with `k` documents of each query."""
    weights = fusion.weights or None
    if fusion.kind == "rrf":
        return reciprocal_rank(runs, constant=fusion.constant, weights=weights, k=k)
    return interpolate(runs, weights=weights, normalize=fusion.normalize, k=k)


@dataclass(frozen=True, slots=True)
class _Stack:
    """All runs' rows one after the other, ids as numbers."""

    query_L: np.ndarray
    doc_L: np.ndarray
    rank_L: np.ndarray
    run_L: np.ndarray
    scores_L: np.ndarray
    weights_L: np.ndarray
    query_ids: pa.Array
    doc_ids: pa.Array

    def groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first row of each (run, query), and each row's number among them."""
        first_L = self.rank_L == 0
        return np.flatnonzero(first_L), np.cumsum(first_L) - 1


def _stack(runs: Sequence[Run], weights: Sequence[float] | None) -> _Stack:
    if not runs:
        raise ConfigError("fusion: no run to fuse")
    weights_R = list(weights) if weights is not None else [1.0] * len(runs)
    if len(weights_R) != len(runs):
        raise ConfigError(f"fusion.weights: {len(weights_R)} weights for {len(runs)} runs")
    if not all(np.isfinite(weights_R)) or not any(weights_R):
        raise ConfigError(f"fusion.weights = {weights_R}: expected finite numbers, not all 0")
    table = pa.concat_tables([run.table for run in runs])
    query_L, queries = codes(table["query_id"])
    doc_L, docs = codes(table["doc_id"])
    sizes = [len(run) for run in runs]
    run_L = np.repeat(np.arange(len(runs)), sizes)
    changed_L = np.ones(len(run_L), bool)
    changed_L[1:] = (query_L[1:] != query_L[:-1]) | (run_L[1:] != run_L[:-1])
    starts = np.flatnonzero(changed_L)
    rank_L = np.arange(len(run_L)) - np.repeat(starts, np.diff(np.append(starts, len(run_L))))
    return _Stack(
        query_L,
        doc_L,
        rank_L,
        run_L,
        table["score"].to_numpy().astype(np.float64),
        np.asarray(weights_R, np.float64)[run_L],
        queries,
        docs,
    )


def _ranking(
    stacked: _Stack, gain_L: np.ndarray, k: int, tag: str, base_Q: np.ndarray | None = None
) -> Run:
    """Sums the gains of each (query, document) and keeps each query's best k.

    Sums run over the runs in their order, and the order is decided on the float32 that is written.
    """
    if not len(gain_L):
        return Run(pa.table([[], [], []], schema=RUN), tag)
    documents = len(stacked.doc_ids)
    key_P, pair_L = np.unique(stacked.query_L * documents + stacked.doc_L, return_inverse=True)
    total_P = np.bincount(pair_L, gain_L, len(key_P))
    query_P, doc_P = np.divmod(key_P, documents)
    if base_Q is not None:
        total_P = total_P + base_Q[query_P]
    score_P = total_P.astype(np.float32)
    place_D = np.empty(documents, np.int64)
    place_D[pc.array_sort_indices(stacked.doc_ids).to_numpy()] = np.arange(documents)
    order = np.lexsort((place_D[doc_P], -score_P, query_P))
    query_P, doc_P, score_P = query_P[order], doc_P[order], score_P[order]
    starts = np.flatnonzero(np.diff(query_P, prepend=-1))
    rank_P = np.arange(len(query_P)) - np.repeat(starts, np.diff(np.append(starts, len(query_P))))
    top_P = rank_P < k
    columns = [
        stacked.query_ids.take(pa.array(query_P[top_P])),
        stacked.doc_ids.take(pa.array(doc_P[top_P])),
        pa.array(score_P[top_P]),
    ]
    return Run(pa.table(columns, names=RUN.names), tag)
