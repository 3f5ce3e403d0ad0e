"""Distillation of a teacher's scores beside a contrastive loss.

T is the softmax of the teacher's scores of a query's own documents, without a gradient; s are the
student's own scores (already divided by the contrastive temperature).

Sources: kl_div and m3_kd are the two forms of M3-Embedding's trainers (Chen et al. 2024,
https://arxiv.org/abs/2402.03216); list_mle is Xia et al. 2008; margin-MSE is Hofstätter et al.
2020, https://arxiv.org/abs/2010.02666.

Legend: B queries, D documents of the longest list (positive first).
"""

from __future__ import annotations

import torch
from torch import Tensor

from raydist.losses.contrastive import ScopeScores
from raydist.losses.gather import SumCount, logits_dtype


def teacher_shares(teacher_BD: Tensor, mask_BD: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Returns T, the softmax over each list's teacher scores (0 where padded), detached."""
    scores = teacher_BD.detach().to(logits_dtype(teacher_BD)) / temperature
    # A row of nothing but padding would be 0/0; its shares are masked to 0 in any case.
    masked = scores.masked_fill(~mask_BD & mask_BD.any(1, keepdim=True), -torch.inf)
    return masked.softmax(1).masked_fill(~mask_BD, 0.0)


def kl_div(
    scores_BD: Tensor,
    teacher_BD: Tensor,
    mask_BD: Tensor,
    *,
    temperature: float = 1.0,
    rows_B: Tensor | None = None,
) -> SumCount:
    """Returns −Σ_i Σ_g T_ig log softmax(s_i)_g, the cross-entropy form, and the number of queries.

    Its hard counterpart, the cross-entropy over the scope, is the contrastive loss beside it.

    Args:
        scores_BD: student scores.
        teacher_BD: teacher scores.
        mask_BD: true where there is a document.
        temperature: of the teacher's softmax.
        rows_B: queries that count; by default those with a document.
    """
    rows_B = _rows(mask_BD, rows_B)
    shares_BD = teacher_shares(teacher_BD, mask_BD, temperature=temperature).to(scores_BD.dtype)
    logs_BD = _log_softmax(scores_BD, mask_BD)
    losses_B = -(shares_BD * logs_BD).sum(1)
    return losses_B.masked_fill(~rows_B, 0.0).sum(), rows_B.sum().to(losses_B.dtype)


def true_kl(
    scores_BD: Tensor,
    teacher_BD: Tensor,
    mask_BD: Tensor,
    *,
    temperature: float = 1.0,
    rows_B: Tensor | None = None,
) -> SumCount:
    """Returns Σ_i KL(T_i ‖ softmax(s_i)): `kl_div` minus the teacher's entropy, same gradients."""
    rows_B = _rows(mask_BD, rows_B)
    total, count = kl_div(scores_BD, teacher_BD, mask_BD, temperature=temperature, rows_B=rows_B)
    shares_BD = teacher_shares(teacher_BD, mask_BD, temperature=temperature).to(total.dtype)
    entropy_B = -torch.special.xlogy(shares_BD, shares_BD).sum(1)
    return total - entropy_B.masked_fill(~rows_B, 0.0).sum(), count


def m3_kd(
    scores: ScopeScores,
    teacher_BD: Tensor,
    *,
    temperature: float = 1.0,
    rows_B: Tensor | None = None,
) -> SumCount:
    """Returns Σ_i Σ_g T_ig (lse over all columns but the first g own ones − s_ig), and B.

    Args:
        scores: own scores and the log-sum-exp of the scope's foreign columns.
        teacher_BD: teacher scores of the own documents.
        temperature: of the teacher's softmax.
        rows_B: queries that count; by default those with a document.
    """
    shares_BD = teacher_shares(teacher_BD, scores.mask_BD, temperature=temperature)
    return _successive(scores, shares_BD.to(scores.own_BD.dtype), rows_B)


def list_mle(scores: ScopeScores, *, mean: bool = True, rows_B: Tensor | None = None) -> SumCount:
    """Returns `m3_kd` with equal weights 1/G: the target is the order of the documents.

    Args:
        scores: own scores and the log-sum-exp of the scope's foreign columns.
        mean: weights 1/G; false weights every document 1 (the likelihood of the permutation).
        rows_B: queries that count; by default those with a document.
    """
    weights_BD = scores.mask_BD.to(scores.own_BD.dtype)
    if mean:
        weights_BD = weights_BD / weights_BD.sum(1, keepdim=True).clamp(min=1.0)
    return _successive(scores, weights_BD, rows_B)


def _successive(scores: ScopeScores, weights_BD: Tensor, rows_B: Tensor | None) -> SumCount:
    """Sums weights · (lse over the own documents from here on and the foreign columns − own)."""
    rows_B = _rows(scores.mask_BD, rows_B)
    # −inf would make the cumulative sum's gradient NaN; e^−(10^4) vanishes beside any score.
    floor = scores.own_BD.detach().amin(1, keepdim=True) - 1e4 if scores.own_BD.numel() else 0.0
    own_BD = torch.where(scores.mask_BD, scores.own_BD, floor)
    remaining_BD = own_BD.flip(1).logcumsumexp(1).flip(1)
    losses_BD = torch.logaddexp(remaining_BD, scores.foreign_B[:, None]) - own_BD
    losses_B = (weights_BD * losses_BD).sum(1)
    return losses_B.masked_fill(~rows_B, 0.0).sum(), rows_B.sum().to(losses_B.dtype)


def _rows(mask_BD: Tensor, rows_B: Tensor | None) -> Tensor:
    present_B = mask_BD.any(1)
    return present_B if rows_B is None else rows_B & present_B


def _log_softmax(scores_BD: Tensor, mask_BD: Tensor) -> Tensor:
    """Log-softmax over the documents of each list; 0 where padded."""
    masked = scores_BD.masked_fill(~mask_BD & mask_BD.any(1, keepdim=True), -torch.inf)
    return masked.log_softmax(1).masked_fill(~mask_BD, 0.0)
