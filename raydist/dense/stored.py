"""Search on the stored form, int8 or binary, and exact scores of the best from a finer form.

int8 vectors are multiplied with queries of int8 in whole numbers; binary ones are compared by the
bits that differ. Both are exact in themselves, whatever the blocks, so that the candidates depend
on the vectors alone. The best `depth` times k are scored by the finer form beside.

Shapes: Q queries, D dimensions, n rows of a block, k results, c candidates.
"""

from __future__ import annotations

import numpy as np
import torch

from raydist.dense.exact import BLOCK, QUERIES, BestRows, exact_search
from raydist.dense.forms import encode
from raydist.dense.vectors import VectorShards


def rescored_search(
    shards: VectorShards,
    queries_QD: np.ndarray,
    k: int,
    depth: int,
    *,
    block: int = BLOCK,
    batch: int = QUERIES,
    allowed_N: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores [Q, k] and rows [Q, k]: the best candidates by their finer form; ties by row.

    Args:
        shards: with a finer form.
        queries_QD: float32.
        k: results per query.
        depth: candidates per result.
        block: rows multiplied at a time.
        batch: queries multiplied at a time.
        allowed_N: rows that may be found, None = all.
    """
    assert shards.fine is not None
    queries_QD = np.ascontiguousarray(queries_QD, np.float32)
    rows_Qc = stored_search(
        shards, queries_QD, depth * k, block=block, batch=batch, allowed_N=allowed_N
    )
    k = min(k, rows_Qc.shape[1])
    scores_Qk = np.empty((len(queries_QD), k), np.float32)
    rows_Qk = np.empty((len(queries_QD), k), np.int64)
    for number, rows in enumerate(np.sort(rows_Qc, axis=1)):
        scores = shards.fine.take(rows) @ queries_QD[number]
        order = np.argsort(-scores, kind="stable")[:k]
        scores_Qk[number], rows_Qk[number] = scores[order], rows[order]
    return scores_Qk, rows_Qk


def stored_search(
    shards: VectorShards,
    queries_QD: np.ndarray,
    k: int,
    *,
    block: int = BLOCK,
    batch: int = QUERIES,
    allowed_N: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the rows [Q, k] that are best by the stored form; arguments as `rescored_search`."""
    if shards.precision not in ("int8", "binary"):
        return exact_search(
            shards, queries_QD, k, block=block, batch=batch, device="cpu", allowed_N=allowed_N
        )[1]
    chosen = None if allowed_N is None else np.flatnonzero(allowed_N)
    count = len(shards) if chosen is None else len(chosen)
    k = min(k, count)
    queries_QW = encode(queries_QD, shards.precision)[0]  # a query's own scale changes no order
    batches = [queries_QW[at : at + batch] for at in range(0, len(queries_QW), batch)]
    best = [BestRows(len(each), k, torch.device("cpu")) for each in batches]
    for start in range(0, count, block) if k else ():
        if chosen is None:
            stored_nW, scale_n = shards.read_stored(start, start + block)
        else:
            stored_nW, scale_n = shards.take_stored(chosen[start : start + block])
        stored_nW = np.require(stored_nW, requirements="W")  # torch takes no others
        for queries, own in zip(batches, best):
            own.add(_products(queries, stored_nW, scale_n, shards.dimension), start)
    rows = np.concatenate([np.empty((0, k), np.int64), *(each.rows_Qk.numpy() for each in best)])
    return rows if chosen is None else chosen[rows]


def _products(
    queries_QW: np.ndarray, stored_nW: np.ndarray, scale_n: np.ndarray | None, dimension: int
) -> torch.Tensor:
    """Returns the inner products [Q, n] of stored forms, but for the scale of each query."""
    if scale_n is not None:
        whole_Qn = torch._int_mm(torch.from_numpy(queries_QW), torch.from_numpy(stored_nW).T)
        return whole_Qn * torch.from_numpy(np.require(scale_n, requirements="W"))
    words_nW, other_QW = _words(stored_nW), _words(queries_QW)
    differing_Qn = np.empty((len(other_QW), len(words_nW)), np.float32)
    for number, query in enumerate(other_QW):
        np.sum(np.bitwise_count(words_nW ^ query), axis=1, out=differing_Qn[number])
    return torch.from_numpy(dimension - 2 * differing_Qn)


def _words(bytes_nB: np.ndarray) -> np.ndarray:
    """Returns rows of bytes as rows of 64-bit words, the last one filled up with zeros."""
    rows, width = bytes_nB.shape
    padded = np.zeros((rows, -(-width // 8) * 8), np.uint8)
    padded[:, :width] = bytes_nB
    return padded.view(np.uint64)
