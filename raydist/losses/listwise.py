"""Losses on whole lists: s student scores, t targets, larger is better, lists may be ragged.

Padding never enters a loss. Sources: ListNet, Cao et al. 2007; RankNet, Burges et al. 2005;
LambdaLoss, Wang et al. 2018 (doi 10.1145/3269206.3271784); ADR-MSE and the distillation of
rankings, Schlatt et al. 2025 (doi 10.1007/978-3-031-88714-7_31).

Legend: B queries, D documents of the longest list.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from raydist.errors import DataError
from raydist.losses.gather import SumCount
from raydist.losses.pairwise import ordered_pairs
from raydist.losses.spec import LambdaScheme
from raydist.losses.targets import ranks

Output = Literal["real", "log_prob", "prob"]
"""What the student's scores are: any real numbers, log-probabilities, or probabilities."""


def listwise_softmax_ce(
    scores_BD: Tensor,
    targets_BD: Tensor,
    mask_BD: Tensor,
    *,
    output: Output = "real",
    gains: bool = False,
) -> SumCount:
    """Returns −Σ_i lse_d(log softmax(s_i)_d + 1 − 1/t_id) over t > 0, and the queries' number.

    A one-hot target gives the ordinary cross-entropy; several ones give −log of their summed
    probability. A query without a positive target is left out of the sum and of the count.

    Args:
        scores_BD: student scores.
        targets_BD: in [0, 1].
        mask_BD: true where there is a document.
        output: what `scores_BD` are.
        gains: the targets are gains of any size, which multiply the probabilities.

    Raises:
        DataError: a target lies outside [0, 1] (below 0, with `gains`).
    """
    targets_BD = targets_BD.to(scores_BD.dtype).masked_fill(~mask_BD, 0.0)
    # Looked at where that costs no wait: a step counts its targets on the CPU before all else.
    on_cpu = targets_BD.device.type == "cpu"
    if on_cpu and (bool((targets_BD < 0).any()) or (not gains and bool((targets_BD > 1).any()))):
        low, high = float(targets_BD.min()), float(targets_BD.max())
        raise DataError(
            f"listwise_softmax_ce: targets between {low:g} and {high:g}, expected 0 to 1; "
            "target=minmax scales a teacher's, loss.gains=true takes grades of any size"
        )
    positive_BD = targets_BD > 0
    rows_B = positive_BD.any(1)
    if output == "real":
        logs_BD = _fill(scores_BD, mask_BD).log_softmax(1)
    else:
        logs_BD = scores_BD.masked_fill(~mask_BD, 1.0).log() if output == "prob" else scores_BD
    safe_BD = targets_BD.masked_fill(~positive_BD, 1.0)
    logs_BD = logs_BD + (safe_BD.log() if gains else 1.0 - 1.0 / safe_BD)
    positive_logs_BD = torch.where(positive_BD | ~rows_B[:, None], logs_BD, -torch.inf)
    losses_B = -_fill(positive_logs_BD, mask_BD | positive_BD).logsumexp(1)
    return losses_B.masked_fill(~rows_B, 0.0).sum(), rows_B.sum().to(scores_BD.dtype)


def distill_rank_net(
    scores_BD: Tensor,
    targets_BD: Tensor,
    mask_BD: Tensor,
    *,
    per_query: bool = False,
    log_base_2: bool = False,
) -> SumCount:
    """Returns Σ softplus(−(s_i − s_j)) over all pairs with t_i > t_j, and the number of pairs.

    Args:
        scores_BD: student scores.
        targets_BD: teacher scores, or negated ranks.
        mask_BD: true where there is a document.
        per_query: average within each query first, so that none dominates; the count is then the
            number of queries with a pair.
        log_base_2: divide by ln 2, as some libraries do.
    """
    pairs = ordered_pairs(targets_BD, mask_BD)
    losses = softplus(scores_BD[:, None, :] - scores_BD[:, :, None]).masked_fill(~pairs, 0.0)
    if log_base_2:
        losses = losses / math.log(2)
    if not per_query:
        return losses.sum(), pairs.sum().to(scores_BD.dtype)
    pairs_B = pairs.sum((1, 2))
    losses_B = losses.sum((1, 2)) / pairs_B.clamp(min=1)
    return losses_B.sum(), (pairs_B > 0).sum().to(scores_BD.dtype)


def approximate_ranks(scores_BD: Tensor, mask_BD: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Returns π̂_i = 1 + Σ_{j≠i} σ((s_j − s_i) / temperature), 1 where padded; sum D(D+1)/2."""
    above = torch.sigmoid((scores_BD[:, None, :] - scores_BD[:, :, None]) / temperature)
    others = mask_BD[:, None, :] & mask_BD[:, :, None]
    others = others & ~torch.eye(scores_BD.shape[1], dtype=torch.bool, device=scores_BD.device)
    return 1.0 + above.masked_fill(~others, 0.0).sum(2)


def adr_mse(
    scores_BD: Tensor,
    targets_BD: Tensor,
    mask_BD: Tensor,
    *,
    temperature: float = 1.0,
    ties: Literal["average", "ordinal"] = "average",
) -> SumCount:
    """Returns Σ (π̂ − π)² / log2(1 + π) over all documents, and the number of documents.

    Args:
        scores_BD: student scores; π̂ are their `approximate_ranks`.
        targets_BD: teacher scores; π are their ranks.
        mask_BD: true where there is a document.
        temperature: of the approximate ranks.
        ties: equal targets share the mean of their ranks, or rank in the order given.
    """
    true_BD = ranks(targets_BD.to(scores_BD.dtype), mask_BD, ties=ties)
    errors_BD = approximate_ranks(scores_BD, mask_BD, temperature=temperature) - true_BD
    losses_BD = (errors_BD.square() / torch.log2(1.0 + true_BD)).masked_fill(~mask_BD, 0.0)
    return losses_BD.sum(), mask_BD.sum().to(scores_BD.dtype)


def list_net(
    scores_BD: Tensor, targets_BD: Tensor, mask_BD: Tensor, *, temperature: float = 1.0
) -> SumCount:
    """Returns −Σ_i Σ_d softmax(t_i / temperature)_d log softmax(s_i)_d, and the queries' number."""
    rows_B = mask_BD.any(1)
    shares_BD = _fill(targets_BD.to(scores_BD.dtype) / temperature, mask_BD).softmax(1)
    logs_BD = _fill(scores_BD, mask_BD).log_softmax(1).masked_fill(~mask_BD, 0.0)
    losses_B = -(shares_BD * logs_BD).sum(1)
    return losses_B.masked_fill(~rows_B, 0.0).sum(), rows_B.sum().to(scores_BD.dtype)


def info_nce_list(
    scores_BD: Tensor, targets_BD: Tensor, mask_BD: Tensor, *, temperature: float = 1.0
) -> SumCount:
    """Returns −Σ_i log softmax(s_i / temperature) at the largest target, and the number of queries.

    The first of several largest targets counts.
    """
    rows_B = mask_BD.any(1)
    logs_BD = _fill(scores_BD / temperature, mask_BD).log_softmax(1)
    best_B1 = targets_BD.masked_fill(~mask_BD, -torch.inf).argmax(1, keepdim=True)
    losses_B = -logs_BD.gather(1, best_B1)[:, 0]
    return losses_B.masked_fill(~rows_B, 0.0).sum(), rows_B.sum().to(scores_BD.dtype)


def lambda_loss(
    scores_BD: Tensor,
    targets_BD: Tensor,
    mask_BD: Tensor,
    *,
    scheme: LambdaScheme = "ndcg_loss2pp",
    k: int = 0,
    sigma: float = 1.0,
    mu: float = 10.0,
    log_base_2: bool = True,
) -> SumCount:
    """Returns −Σ w_ij log σ(sigma (s_i − s_j)) over pairs with t_i > t_j, and the number of pairs.

    Args:
        scores_BD: student scores; their order gives the documents' current ranks.
        targets_BD: relevance grades, whose gains are 2^t − 1 (0 for negative grades).
        mask_BD: true where there is a document.
        scheme: how pairs are weighted; `ndcg_loss1` takes all pairs, ordered or not.
        k: use only pairs with a document among the first k; 0 uses all.
        sigma: steepness of the sigmoid.
        mu: weight of `ndcg_loss2` within `ndcg_loss2pp`.
        log_base_2: use logarithms to base 2 instead of natural ones.
    """
    depth = scores_BD.shape[1]
    order_BD = _fill(scores_BD.detach(), mask_BD).argsort(dim=1, descending=True, stable=True)
    scores_BD = scores_BD.gather(1, order_BD)
    mask_BD = mask_BD.gather(1, order_BD)
    grades_BD = targets_BD.to(scores_BD.dtype).gather(1, order_BD)
    if scheme == "ndcg_loss1":
        pairs = mask_BD[:, :, None] & mask_BD[:, None, :]
    else:
        pairs = ordered_pairs(grades_BD, mask_BD)
    positions = torch.arange(1, depth + 1, device=scores_BD.device)
    if k:
        first = positions <= k
        pairs = pairs & (first[:, None] | first[None, :])
    weights = _lambda_weights(scheme, grades_BD.masked_fill(~mask_BD, 0.0), k or depth, mu)
    margins = scores_BD[:, :, None] - scores_BD[:, None, :]
    losses = -(weights * logsigmoid(sigma * margins)).masked_fill(~pairs, 0.0)
    if log_base_2:
        losses = losses / math.log(2)
    return losses.sum(), pairs.sum().to(scores_BD.dtype)


def _lambda_weights(scheme: LambdaScheme, grades_BD: Tensor, k: int, mu: float) -> Tensor:
    """Returns pair weights [B, D, D] of lists sorted by student score (LambdaLoss, section 4)."""
    if scheme == "none":
        return grades_BD.new_ones(())
    depth = grades_BD.shape[1]
    positions = torch.arange(1, depth + 1, device=grades_BD.device)
    discounts = torch.log2(1.0 + positions.to(grades_BD.dtype))
    raw_BD = torch.exp2(grades_BD.clamp(min=0.0)) - 1.0
    ideal_B = (raw_BD.sort(1, descending=True).values / discounts)[:, :k].sum(1)
    gains_BD = raw_BD / ideal_B.clamp(min=1e-10)[:, None]
    if scheme == "ndcg_loss1":
        return (gains_BD / discounts)[:, :, None]
    gain_gaps = (gains_BD[:, :, None] - gains_BD[:, None, :]).abs()
    inverse = 1.0 / discounts
    rank_weights = (inverse[:, None] - inverse[None, :]).abs() * gain_gaps
    if scheme == "lambda_rank":
        return rank_weights
    distance = (positions[:, None] - positions[None, :]).abs()
    beyond = torch.log2(1.0 + torch.arange(1, depth + 2, device=grades_BD.device))
    steps = (1.0 / beyond[:-1] - 1.0 / beyond[1:]).to(grades_BD.dtype)
    delta = torch.where(distance > 0, steps[(distance - 1).clamp(min=0)], 0.0)
    return delta * gain_gaps if scheme == "ndcg_loss2" else mu * delta * gain_gaps + rank_weights


def _fill(values_BD: Tensor, mask_BD: Tensor) -> Tensor:
    """Returns values with −inf where padded, except in rows of nothing but padding (else NaN)."""
    return values_BD.masked_fill(~mask_BD & mask_BD.any(1, keepdim=True), -torch.inf)
