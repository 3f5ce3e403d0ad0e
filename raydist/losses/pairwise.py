"""Losses on pairs of documents of one query.

Margin-MSE: Hofstätter et al. 2020, https://arxiv.org/abs/2010.02666.

Legend: B queries, D documents of the longest list.
"""

from __future__ import annotations

import torch
from torch import Tensor

from raydist.losses.gather import SumCount


def ordered_pairs(targets_BD: Tensor, mask_BD: Tensor) -> Tensor:
    """Returns where target i is strictly above target j of the same list (bool [B, D, D])."""
    above = targets_BD[:, :, None] > targets_BD[:, None, :]
    return above & mask_BD[:, :, None] & mask_BD[:, None, :]


def margin_mse(
    scores_BD: Tensor, targets_BD: Tensor, mask_BD: Tensor, *, rows_B: Tensor | None = None
) -> SumCount:
    """Returns Σ ((s_first − s_other) − (t_first − t_other))² and the number of such pairs.

    Args:
        scores_BD: student scores, the positive first.
        targets_BD: teacher scores.
        mask_BD: true where there is a document.
        rows_B: queries that count; all by default.
    """
    pairs = _with_first(mask_BD, rows_B)
    targets_BD = targets_BD.to(scores_BD.dtype)
    margins = scores_BD[:, :1] - scores_BD[:, 1:]
    target_margins = targets_BD[:, :1] - targets_BD[:, 1:]
    squares = (margins - target_margins).square().masked_fill(~pairs, 0.0)
    return squares.sum(), pairs.sum().to(scores_BD.dtype)


def margin_mse_pairs(scores_BD: Tensor, targets_BD: Tensor, mask_BD: Tensor) -> SumCount:
    """Returns Σ ((s_i − s_j) − (t_i − t_j))² over all pairs with t_i > t_j, and their number."""
    pairs = ordered_pairs(targets_BD, mask_BD)
    targets_BD = targets_BD.to(scores_BD.dtype)
    margins = scores_BD[:, :, None] - scores_BD[:, None, :]
    target_margins = targets_BD[:, :, None] - targets_BD[:, None, :]
    squares = (margins - target_margins).square().masked_fill(~pairs, 0.0)
    return squares.sum(), pairs.sum().to(scores_BD.dtype)


def pairwise_kl(
    scores_BD: Tensor,
    targets_BD: Tensor,
    mask_BD: Tensor,
    *,
    temperature: float = 1.0,
    rows_B: Tensor | None = None,
) -> SumCount:
    """Returns Σ KL(softmax t ‖ softmax s) over (first, other) pairs, and the number of pairs.

    Args:
        scores_BD: student scores, the positive first.
        targets_BD: teacher scores.
        mask_BD: true where there is a document.
        temperature: of the teacher's softmax.
        rows_B: queries that count; all by default.
    """
    pairs = _with_first(mask_BD, rows_B)
    targets_BD = targets_BD.to(scores_BD.dtype) / temperature
    # The softmax of two is a sigmoid of their margin, which avoids cancellation.
    target_margins = targets_BD[:, :1] - targets_BD[:, 1:]
    margins = scores_BD[:, :1] - scores_BD[:, 1:]
    log_first, log_other = _log_sigmoids(target_margins)
    log_s_first, log_s_other = _log_sigmoids(margins)
    divergence = log_first.exp() * (log_first - log_s_first)
    divergence = divergence + log_other.exp() * (log_other - log_s_other)
    return divergence.masked_fill(~pairs, 0.0).sum(), pairs.sum().to(scores_BD.dtype)


def _with_first(mask_BD: Tensor, rows_B: Tensor | None) -> Tensor:
    """Returns which later documents form a pair with the first (bool [B, D−1])."""
    pairs = mask_BD[:, :1] & mask_BD[:, 1:]
    return pairs if rows_B is None else pairs & rows_B[:, None]


def _log_sigmoids(margins: Tensor) -> tuple[Tensor, Tensor]:
    return torch.nn.functional.logsigmoid(margins), torch.nn.functional.logsigmoid(-margins)
