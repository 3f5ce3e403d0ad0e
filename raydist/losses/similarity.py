"""How representations are compared: dot products of vectors, MaxSim of vectors of tokens.

MaxSim (Khattab and Zaharia 2020, https://arxiv.org/abs/2004.12832) adds up, for each vector of a
query, its largest dot product with a vector of the document. Rows of zeros are no vectors: they
add nothing to a query, and are left out of a document. A document without any scores 0.

Legend: B queries, C documents, D documents of a query, q vectors of a query, t of a document, d the
vectors' width.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from raydist.losses.gather import world_size


def all_pairs(queries: Tensor, documents: Tensor) -> Tensor:
    """Returns the scores [B, C] of vectors [B, d] and [C, d], or [B, q, d] and [C, t, d]."""
    if queries.dim() == 2:
        return queries @ documents.T
    similar_BqCt = torch.einsum("bqd,ctd->bqct", queries, documents)
    return _largest(similar_BqCt, _real(documents)).sum(1)


def own_pairs(queries: Tensor, lists: Tensor) -> Tensor:
    """Returns the scores [B, D] of queries and each one's own documents [B, D, ...]."""
    if queries.dim() == 2:
        return torch.einsum("bd,bgd->bg", queries, lists)
    similar_BqDt = torch.einsum("bqd,bgtd->bqgt", queries, lists)
    return _largest(similar_BqDt, _real(lists).unsqueeze(1)).sum(1)


def pairs_products(queries: Tensor, documents: Tensor) -> int:
    """Returns how many products a query's score of one document takes."""
    return 1 if queries.dim() == 2 else queries.shape[1] * documents.shape[1]


def pair_gradients(queries: Tensor, documents: Tensor, share_BC: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the gradients of both where that of the scores of all pairs is `share_BC`."""
    if queries.dim() == 2:
        return share_BC @ documents, share_BC.T @ queries
    with torch.enable_grad():
        leaves = queries.detach().requires_grad_(), documents.detach().requires_grad_()
        scores_BC = all_pairs(*leaves)
        of_queries, of_documents = torch.autograd.grad(scores_BC, leaves, share_BC)
    return of_queries, of_documents


def widened(rows: Tensor) -> Tensor:
    """Returns vectors of tokens [n, T, d] as wide as the widest of all ranks, zeros behind them.

    One collective for vectors of tokens; other rows are as they were.
    """
    if rows.dim() == 2 or world_size() == 1:
        return rows
    width = torch.tensor([rows.shape[1]], device=rows.device)
    dist.all_reduce(width, op=dist.ReduceOp.MAX)
    return torch.nn.functional.pad(rows, (0, 0, 0, int(width) - rows.shape[1]))


def _real(documents: Tensor) -> Tensor:
    """Returns which rows are vectors."""
    return (documents.detach() != 0).any(-1)


def _largest(similar: Tensor, real: Tensor) -> Tensor:
    """Returns the largest similarity [B, q, n] of each document's vectors, 0 without any."""
    least = torch.finfo(similar.dtype).min
    largest = similar.masked_fill(~real, least).amax(-1)
    return largest.masked_fill(~real.any(-1), 0.0)
