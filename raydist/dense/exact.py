"""Exact search: blocked inner products over mapped vectors.

Blocks are cut from the sequence of rows and filled up to one size, so that sharded vectors give
exactly what the same vectors in one shard give, to the bit. Equal scores are in input order.

Shapes: Q queries, D dimensions, n rows of a block, k results.
"""

from __future__ import annotations

import numpy as np
import torch

from raydist.dense.vectors import VectorShards

BLOCK = 8192


def exact_search(
    shards: VectorShards,
    queries_QD: np.ndarray,
    k: int,
    *,
    block: int = BLOCK,
    device: str | torch.device | None = None,
    allowed_N: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores [Q, k] and row numbers [Q, k] of the best rows by inner product.

    `k` is at most the number of (allowed) rows: with fewer, the results are narrower.

    Args:
        shards: what to search.
        queries_QD: float32; with some hundred, the scores of a block stay in the cache.
        k: results per query.
        block: rows multiplied at a time.
        device: None = an accelerator if the machine has one.
        allowed_N: rows that may be found, None = all.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    count = len(shards) if allowed_N is None else int(np.count_nonzero(allowed_N))
    k = min(k, count)
    queries = torch.from_numpy(np.ascontiguousarray(queries_QD, np.float32)).to(device)
    scores = torch.empty((len(queries_QD), 0), dtype=torch.float32, device=device)
    rows = torch.empty((len(queries_QD), 0), dtype=torch.int64, device=device)
    if k == 0:
        return scores.cpu().numpy(), rows.cpu().numpy()
    host_nD = torch.zeros((block, shards.dimension), dtype=torch.float32)
    if queries.is_cuda:
        host_nD = host_nD.pin_memory()
    for start, vectors_nD in shards.blocks(block):
        size = len(vectors_nD)
        host_nD.numpy()[:size] = vectors_nD
        products_Qn = (queries @ host_nD.to(device).T)[:, :size]
        if allowed_N is not None:
            barred = torch.from_numpy(~allowed_N[start : start + size]).to(device)
            products_Qn = products_Qn.masked_fill(barred, -torch.inf)
        needed = k
        if scores.shape[1] == k:  # only what beats the present k-th can still enter
            needed = int((products_Qn > scores[:, -1:]).sum(dim=1).max())
            if needed == 0:
                continue
        best, positions = top_of_block(products_Qn, min(k, needed))
        scores, rows = merge_top(scores, rows, best, positions + start, k)
    return scores.cpu().numpy(), rows.cpu().numpy()


def top_of_block(scores_Qn: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns each row's best k scores and their positions; equal scores by position, ascending."""
    k = min(k, scores_Qn.shape[1])
    best, positions = scores_Qn.topk(k, dim=1)
    # Which of the equal scores at the border topk takes, and in which order, is undefined.
    border = (scores_Qn >= best[:, -1:]).sum(dim=1) > k
    if border.any():
        fixed = scores_Qn[border].sort(dim=1, descending=True, stable=True)
        best[border], positions[border] = fixed.values[:, :k], fixed.indices[:, :k]
    return _ordered(best, positions)


def merge_top(
    scores_Qa: torch.Tensor,
    rows_Qa: torch.Tensor,
    scores_Qb: torch.Tensor,
    rows_Qb: torch.Tensor,
    k: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the best k of two results of which `a` has the lower rows; ties by row."""
    scores = torch.cat((scores_Qa, scores_Qb), dim=1)
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    rows = torch.cat((rows_Qa, rows_Qb), dim=1)
    return scores.gather(1, order), rows.gather(1, order)


def _ordered(scores: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    by_position = positions.sort(dim=1)
    scores = scores.gather(1, by_position.indices)
    order = scores.sort(dim=1, descending=True, stable=True)
    return order.values, by_position.values.gather(1, order.indices)
