"""InfoNCE in three scopes, and the scores that every contrastive loss reads.

A query's columns are its own documents and the foreign ones, which the scope chooses: none
(`no_in_batch`), the other documents of this rank (`in_batch`), or those of all ranks
(`cross_device`). `scope_scores` returns the scores of the own documents, but only the log-sum-exp
of the foreign ones, computed block by block, so that a full row of logits never exists. All losses
in a scope are short formulas on these two.

InfoNCE: van den Oord et al. 2018, https://arxiv.org/abs/1807.03748.

Legend: B queries of this rank, P their documents (sample after sample, positive first), D the
longest list (G where all are equally long), C columns of the scope, K known positives of a query,
d the embedding's width. A multi-vector model's embeddings are [n, T, d] where others' are [n, d],
and what is said of dot products holds of MaxSim (`similarity.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raydist.losses.gather import SumCount, gather_rows, logits_dtype, row_layout
from raydist.losses.similarity import (
    all_pairs,
    own_pairs,
    pair_gradients,
    pairs_products,
    widened,
)
from raydist.losses.spec import Scope

BLOCK_LOGITS = 1 << 24
"""Logits held at a time if no block size is set (64 MiB in float32)."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The documents that queries are scored against, and which of them are a query's own.

    Attributes:
        documents_Cd: embeddings of the scope's columns, this rank's among them.
        starts_B: first own column of each query of this rank.
        sizes_B: number of own columns of each query.
        own_documents_Pd: this rank's documents.
        mask_BD: true where a query has a document.
        hashes_C: text hashes of the columns, or None.
        valid_C: false where a column is no document, or None.
        hashes_P: text hashes of this rank's documents, or None.
        known_BK: ascending text hashes of each query's positives; None without hashes.
        foreign: whether there are columns beyond the queries' own.
    """

    documents_Cd: Tensor
    starts_B: Tensor
    sizes_B: Tensor
    own_documents_Pd: Tensor
    mask_BD: Tensor
    hashes_C: Tensor | None
    valid_C: Tensor | None
    hashes_P: Tensor | None
    known_BK: Tensor | None
    foreign: bool


@dataclass(frozen=True, slots=True)
class ScopeScores:
    """What contrastive losses read of the queries' rows of logits.

    Attributes:
        own_BD: scores of the query's own documents, 0 where padded.
        mask_BD: true where a query has a document.
        foreign_B: log-sum-exp over the other columns of the scope, −inf where there are none.
    """

    own_BD: Tensor
    mask_BD: Tensor
    foreign_B: Tensor


def columns_of(
    documents_Pd: Tensor,
    sizes_B: Tensor,
    *,
    scope: Scope,
    hashes_P: Tensor | None = None,
    known_BK: Tensor | None = None,
    valid_P: Tensor | None = None,
    mask_BD: Tensor | None = None,
    of_ranks: tuple[int, ...] | None = None,
) -> Columns:
    """Returns the columns of a scope; `cross_device` gathers them (the same call on every rank).

    Args:
        documents_Pd: embeddings, sample after sample, positive first.
        sizes_B: documents of each query; their sum is P.
        scope: which documents are columns.
        hashes_P: int64 hashes of the documents' texts.
        known_BK: hashes of all known positives of each query; its first document's by default.
        valid_P: false for rows that stand for no document.
        mask_BD: true where a query has a document; follows from the sizes if None.
        of_ranks: documents of each rank; asked of them if None.
    """
    if sizes_B.device.type == "cpu":  # to look is to wait for an accelerator
        assert int(sizes_B.sum()) == documents_Pd.shape[0], (sizes_B, documents_Pd.shape)
    documents_Pd = documents_Pd.to(logits_dtype(documents_Pd))
    if mask_BD is None:
        longest = int(sizes_B.max()) if len(sizes_B) else 0
        mask_BD = torch.arange(longest, device=sizes_B.device) < sizes_B[:, None]
    starts_B = sizes_B.cumsum(0) - sizes_B
    documents_Cd, hashes_C, valid_C = documents_Pd, hashes_P, valid_P
    if scope == "cross_device":
        documents_Pd = widened(documents_Pd)
        layout = row_layout(documents_Pd.shape[0], documents_Pd.device, of_ranks)
        documents_Cd = gather_rows(documents_Pd, layout)
        hashes_C = None if hashes_P is None else gather_rows(hashes_P, layout)
        valid_C = None if valid_P is None else gather_rows(valid_P.to(torch.uint8), layout).bool()
        starts_B = starts_B + layout.start
    if known_BK is None and hashes_P is not None and len(sizes_B):
        known_BK = hashes_P[sizes_B.cumsum(0) - sizes_B][:, None]
    return Columns(
        documents_Cd=documents_Cd,
        starts_B=starts_B,
        sizes_B=sizes_B,
        own_documents_Pd=documents_Pd,
        mask_BD=mask_BD,
        hashes_C=hashes_C,
        valid_C=valid_C,
        hashes_P=hashes_P,
        known_BK=None if known_BK is None else known_BK.sort(1).values,
        foreign=scope != "no_in_batch",
    )


def scope_scores(
    queries_Bd: Tensor, columns: Columns, *, temperature: float, column_block: int = 0
) -> ScopeScores:
    """Returns own scores ⟨x, y⟩ / temperature and the log-sum-exp of the foreign ones.

    A foreign column whose text hash is that of a known positive of the query is left out.

    Args:
        queries_Bd: embeddings of this rank's queries.
        columns: the documents, from `columns_of`.
        temperature: divides every score.
        column_block: columns scored at a time; 0 chooses by memory.
    """
    queries_Bd = queries_Bd.to(columns.documents_Cd.dtype)
    with torch.autocast(queries_Bd.device.type, enabled=False):
        own_BD = _own_scores(queries_Bd, columns) / temperature
    if not columns.foreign:
        return ScopeScores(own_BD, columns.mask_BD, own_BD.new_full(own_BD.shape[:1], -torch.inf))
    each = queries_Bd.shape[0] * pairs_products(queries_Bd, columns.documents_Cd)
    block = column_block or max(1, BLOCK_LOGITS // max(1, each))
    foreign_B: Tensor = _ForeignLogSumExp.apply(  # type: ignore[no-untyped-call]
        queries_Bd, columns.documents_Cd, columns, 1.0 / temperature, block
    )
    return ScopeScores(own_BD, columns.mask_BD, foreign_B)


def allowed_own(
    mask_BD: Tensor,
    *,
    hashes_P: Tensor | None = None,
    known_BK: Tensor | None = None,
    teacher_BD: Tensor | None = None,
    margin: float | None = None,
) -> Tensor:
    """Returns which own documents take part in the softmax (bool [B, D]); the positive always does.

    Left out are negatives with a known positive's text and, given a margin, negatives that a
    teacher or guide scores above the positive's score − margin.

    Args:
        mask_BD: true where a query has a document.
        hashes_P: text hashes of the documents, one for each true entry of `mask_BD` (or for every
            entry).
        known_BK: hashes of all known positives; the first document's by default.
        teacher_BD: scores of a teacher or a guide.
        margin: how far below the positive a negative must lie.
    """
    allowed_BD = mask_BD.clone()
    if hashes_P is not None:
        if hashes_P.numel() == mask_BD.numel():
            hashes_BD = hashes_P.reshape(mask_BD.shape)
        else:
            hashes_BD = hashes_P.new_zeros(mask_BD.shape).masked_scatter(mask_BD, hashes_P)
        known_BK = hashes_BD[:, :1] if known_BK is None else known_BK.sort(1).values
        allowed_BD &= ~_among(hashes_BD, known_BK)
    if teacher_BD is not None and margin is not None:
        allowed_BD &= teacher_BD <= teacher_BD[:, :1] - margin
    allowed_BD[:, :1] = mask_BD[:, :1]
    return allowed_BD


def info_nce(
    scores: ScopeScores, *, allowed_BD: Tensor | None = None, rows_B: Tensor | None = None
) -> SumCount:
    """Returns Σ_i (lse(S_i) − S_i,positive) and the number of queries.

    Args:
        scores: from `scope_scores`; the first own document is the positive.
        allowed_BD: own documents in the softmax; all by default.
        rows_B: queries that count; all by default.
    """
    allowed_BD = scores.mask_BD if allowed_BD is None else allowed_BD
    rows_B = scores.mask_BD[:, 0] if rows_B is None else rows_B & scores.mask_BD[:, 0]
    # A row that does not count may allow nothing; a finite sum keeps its gradient zero.
    allowed_BD = allowed_BD | ~rows_B[:, None]
    own_B = scores.own_BD.masked_fill(~allowed_BD, -torch.inf).logsumexp(1)
    losses_B = torch.logaddexp(own_B, scores.foreign_B) - scores.own_BD[:, 0]
    return losses_B.masked_fill(~rows_B, 0.0).sum(), rows_B.sum().to(losses_B.dtype)


def _own_scores(queries_Bd: Tensor, columns: Columns) -> Tensor:
    """Returns ⟨x, y⟩ of the queries' own documents [B, D], 0 where padded."""
    lists_BDd = in_lists(columns.own_documents_Pd, columns.sizes_B, columns.mask_BD)
    own_BD = own_pairs(queries_Bd, lists_BDd)
    return own_BD.masked_fill(~columns.mask_BD, 0.0)


def in_lists(rows_P: Tensor, sizes_B: Tensor, mask_BD: Tensor) -> Tensor:
    """Returns rows [P, ...], list after list, as lists [B, D, ...]; any row where padded."""
    if rows_P.shape[0] == mask_BD.numel():
        return rows_P.reshape(*mask_BD.shape, *rows_P.shape[1:])
    starts_B1 = (sizes_B.cumsum(0) - sizes_B)[:, None]
    index_BD = starts_B1 + torch.arange(mask_BD.shape[1], device=mask_BD.device)
    # A mask would have to be counted, for which the program waits for the device.
    return rows_P[index_BD.clamp(max=rows_P.shape[0] - 1)]


class _ForeignLogSumExp(torch.autograd.Function):
    """Log-sum-exp over foreign columns, block by block; backward recomputes the logits."""

    @staticmethod
    def forward(
        ctx: Any,
        queries_Bd: Tensor,
        documents_Cd: Tensor,
        columns: Columns,
        scale: float,
        block: int,
    ) -> Tensor:
        lse_B = queries_Bd.new_full(queries_Bd.shape[:1], -torch.inf)
        with torch.autocast(queries_Bd.device.type, enabled=False):
            for start in range(0, documents_Cd.shape[0], block):
                part = slice(start, start + block)
                logits = _foreign_logits(queries_Bd, documents_Cd, columns, scale, part)
                lse_B = torch.logaddexp(lse_B, logits.logsumexp(1))
        ctx.save_for_backward(queries_Bd, documents_Cd, lse_B)
        ctx.arguments = (columns, scale, block)
        return lse_B

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        queries_Bd, documents_Cd, lse_B = ctx.saved_tensors
        columns, scale, block = ctx.arguments
        # A row without columns would be −inf − (−inf); any finite number will do, its weight is 0.
        finite_B = lse_B.masked_fill(lse_B == -torch.inf, 0.0)
        weight_B = gradients[0] * scale
        queries_gradient = torch.zeros_like(queries_Bd)
        documents_gradient = torch.zeros_like(documents_Cd)
        with torch.autocast(queries_Bd.device.type, enabled=False):
            for start in range(0, documents_Cd.shape[0], block):
                part = slice(start, start + block)
                logits = _foreign_logits(queries_Bd, documents_Cd, columns, scale, part)
                share = logits.sub_(finite_B[:, None]).exp_().mul_(weight_B[:, None])
                of_queries, of_documents = pair_gradients(queries_Bd, documents_Cd[part], share)
                queries_gradient += of_queries
                documents_gradient[part] = of_documents
        return queries_gradient, documents_gradient, None, None, None


def _foreign_logits(
    queries_Bd: Tensor,
    documents_Cd: Tensor,
    columns: Columns,
    scale: float,
    part: slice,
) -> Tensor:
    """Returns logits [B, block] with −inf where a column is own, a positive or no document."""
    logits = all_pairs(queries_Bd, documents_Cd[part]).mul_(scale)
    index = torch.arange(part.start, part.start + logits.shape[1], device=logits.device)
    starts_B = columns.starts_B[:, None]
    excluded = (index >= starts_B) & (index < starts_B + columns.sizes_B[:, None])
    if columns.known_BK is not None and columns.hashes_C is not None:
        excluded |= _among(columns.hashes_C[part].expand(len(excluded), -1), columns.known_BK)
    if columns.valid_C is not None:
        excluded |= ~columns.valid_C[part]
    return logits.masked_fill_(excluded, -torch.inf)


def _among(hashes_Bn: Tensor, known_BK: Tensor) -> Tensor:
    """Returns which hashes [B, n] are among their row's known ones (in ascending order)."""
    if known_BK.shape[1] == 1:
        return hashes_Bn == known_BK
    index_Bn = torch.searchsorted(known_BK, hashes_Bn.contiguous())
    return known_BK.gather(1, index_Bn.clamp_(max=known_BK.shape[1] - 1)) == hashes_Bn
