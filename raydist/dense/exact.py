"""Exact search: blocked inner products over mapped vectors.

Blocks are cut from the sequence of rows and filled up to one size, so that sharded vectors give
exactly what the same vectors in one shard give, to the bit. Equal scores are in input order. Each
block is read, and decoded, once for all queries; these are multiplied batch by batch, so that the
scores of a block stay in the cache. Where fewer than half of a block may be found, only those are
read; they are multiplied at their places, because a product's last bits depend on them.

Shapes: Q queries, D dimensions, n rows of a block, k results.
"""

from __future__ import annotations

import numpy as np
import torch

from raydist.dense.vectors import VectorShards

BLOCK = 8192
QUERIES = 256


def exact_search(
    shards: VectorShards,
    queries_QD: np.ndarray,
    k: int,
    *,
    block: int = BLOCK,
    batch: int = QUERIES,
    device: str | torch.device | None = None,
    allowed_N: np.ndarray | None = None,
    rows: range | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores [Q, k] and row numbers [Q, k] of the best rows by inner product.

    `k` is at most the number of (allowed) rows: with fewer, the results are narrower.

    Args:
        shards: what to search.
        queries_QD: float32.
        k: results per query.
        block: rows multiplied at a time.
        batch: queries multiplied at a time.
        device: None = an accelerator if the machine has one.
        allowed_N: rows that may be found, None = all; a flag for each that is searched.
        rows: those to search, None = all; they are whole blocks.
    """
    rows = range(len(shards)) if rows is None else rows
    assert len(rows) % block == 0 or rows.stop == len(shards)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = None if allowed_N is None else rows.start + np.flatnonzero(allowed_N)
    count = len(rows) if chosen is None else len(chosen)
    k = min(k, count)
    queries_QD = np.ascontiguousarray(queries_QD, np.float32)
    queries = torch.from_numpy(queries_QD).to(device)
    batches = [queries[at : at + batch] for at in range(0, len(queries), batch)]
    best = [BestRows(len(each), k, each.device) for each in batches]
    host_nD = torch.zeros((block, shards.dimension), dtype=torch.float32)
    if torch.device(device).type == "cuda":
        host_nD = host_nD.pin_memory()
    size = 0  # of the last block that was read whole
    done = 0  # rows that were scored, or the number of those that may be found
    for start in range(rows.start, rows.stop, block) if k and best else ():
        own: np.ndarray | None = None
        if allowed_N is not None:
            first = start - rows.start
            own = np.flatnonzero(allowed_N[first : first + block])
            if not len(own):
                continue
        if own is not None and 2 * len(own) < block:
            host_nD.numpy()[own] = shards.take(start + own)  # where they would be among all
        else:
            vectors_nD = shards.read(start, start + block)
            size = len(vectors_nD)
            host_nD.numpy()[:size] = vectors_nD
        block_Dn = host_nD.to(device).T
        columns = slice(0, size) if own is None else torch.from_numpy(own).to(device)
        for some, best_rows in zip(batches, best):
            best_rows.add((some @ block_Dn)[:, columns], done)
        done += size if own is None else len(own)
    scores = [np.empty((0, k), np.float32), *(each.scores_Qk.cpu().numpy() for each in best)]
    places = [np.empty((0, k), np.int64), *(each.rows_Qk.cpu().numpy() for each in best)]
    places_Qk = np.concatenate(places)
    return np.concatenate(scores), places_Qk + rows.start if chosen is None else chosen[places_Qk]


class BestRows:
    """The best k rows of each query so far, of blocks that come in ascending order.

    Attributes:
        scores_Qk: descending; fewer than k columns until there are k rows.
        rows_Qk: their rows; those of equal scores ascend.
    """

    def __init__(self, queries: int, k: int, device: torch.device) -> None:
        self.k = k
        self.scores_Qk = torch.empty((queries, 0), dtype=torch.float32, device=device)
        self.rows_Qk = torch.empty((queries, 0), dtype=torch.int64, device=device)

    def add(self, scores_Qn: torch.Tensor, start: int) -> None:
        """Takes a block's scores, of the rows from `start` on; none of them is NaN."""
        needed = self.k
        if self.scores_Qk.shape[1] == self.k:  # only what beats the present k-th can still enter
            needed = int((scores_Qn > self.scores_Qk[:, -1:]).sum(dim=1).max())
            if needed == 0:
                return
        best, positions = top_of_block(scores_Qn, min(self.k, needed))
        self.scores_Qk, self.rows_Qk = merge_top(
            self.scores_Qk, self.rows_Qk, best, positions + start, self.k
        )


def top_of_block(scores_Qn: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns each row's best k scores and their positions; equal scores by position, ascending."""
    k = min(k, scores_Qn.shape[1])
    best, positions = scores_Qn.topk(k, dim=1, sorted=False)
    # Which of the equal scores at the border topk takes is undefined.
    border = (scores_Qn >= best.amin(dim=1, keepdim=True)).sum(dim=1) > k
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
    """Returns the best k of two results of which `a` has the lower rows; ties by row.

    Scores of each are descending, so no sort is needed.
    """
    below_Qa, below_Qb = -scores_Qa, -scores_Qb  # ascending, as searchsorted takes them
    a, b = (torch.arange(s.shape[1], device=s.device) for s in (scores_Qa, scores_Qb))
    places_Qa = a + torch.searchsorted(below_Qb, below_Qa)
    places_Qb = b + torch.searchsorted(below_Qa, below_Qb, right=True)
    shape = (len(scores_Qa), len(a) + len(b))
    scores = scores_Qa.new_zeros(shape).scatter_(1, places_Qa, scores_Qa)
    rows = rows_Qa.new_zeros(shape).scatter_(1, places_Qa, rows_Qa)
    scores.scatter_(1, places_Qb, scores_Qb)
    rows.scatter_(1, places_Qb, rows_Qb)
    return scores[:, :k], rows[:, :k]


def _ordered(scores: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    by_position = positions.sort(dim=1)
    scores = scores.gather(1, by_position.indices)
    order = scores.sort(dim=1, descending=True, stable=True)
    return order.values, by_position.values.gather(1, order.indices)
