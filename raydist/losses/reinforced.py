"""BiIR: the Reinforced-IR bi-encoder's objective on queries, LLM answers and passages.

Total = R + Lqp + Lqa + 0.25 Lap: queries against passages; queries against answers, with a
temperature and an optional teacher of their own; answers as queries against passages; and a soft
penalty R on answers whose norm is not 1. A record without an answer adds no answer term. Of a
group of answers (the answer first, then negative answers) Lap and R use only the first.
Reinforced-IR: Li et al. 2025, https://arxiv.org/abs/2502.11562.

Legend: B queries of this rank, A answers of each, d the embedding's width.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from raydist.losses.contrastive import (
    Columns,
    ScopeScores,
    allowed_own,
    columns_of,
    info_nce,
    scope_scores,
)
from raydist.losses.gather import SumCount, logits_dtype
from raydist.losses.inputs import LossBatch
from raydist.losses.parts import LossPart, LossTerms, contrastive, distilled
from raydist.losses.spec import BiIR, Distillation, Scope

ANSWER_PASSAGE_WEIGHT = 0.25


def answer_columns(
    answers_BAd: Tensor,
    answer_mask_BA: Tensor,
    *,
    scope: Scope,
    hashes: Tensor | None = None,
    of_ranks: tuple[int, ...] | None = None,
) -> Columns:
    """Returns the answers as columns; missing answers are not columns.

    Args:
        answers_BAd: embeddings, any finite rows where there is no answer.
        answer_mask_BA: true where there is an answer.
        scope: as of passages.
        hashes: int64 [B·A], hashes of the answers' texts.
        of_ranks: answers of each rank, missing ones included; asked of them if None.
    """
    count, width = answer_mask_BA.shape
    sizes_B = torch.full((count,), width, dtype=torch.int64, device=answer_mask_BA.device)
    return columns_of(
        answers_BAd.flatten(0, 1),
        sizes_B,
        scope=scope,
        hashes_P=hashes,
        valid_P=answer_mask_BA.flatten(),
        mask_BD=torch.ones_like(answer_mask_BA),
        of_ranks=of_ranks,
    )


def query_answer_scores(
    queries_Bd: Tensor,
    columns: Columns,
    answer_mask_BA: Tensor,
    *,
    temperature: float,
    column_block: int = 0,
) -> ScopeScores:
    """Returns the queries' scores against answers, for Lqa; the mask is the answers'."""
    scores = scope_scores(queries_Bd, columns, temperature=temperature, column_block=column_block)
    return ScopeScores(scores.own_BD, answer_mask_BA, scores.foreign_B)


def answer_passage(
    answers_BAd: Tensor,
    answer_mask_BA: Tensor,
    passages: Columns,
    *,
    temperature: float,
    allowed_BD: Tensor | None = None,
    column_block: int = 0,
) -> SumCount:
    """Returns Lap: the first answer of each group as a query against its record's passages.

    Args:
        answers_BAd: embeddings of the answers.
        answer_mask_BA: true where there is an answer.
        passages: the passages' columns.
        temperature: that of Lqp.
        allowed_BD: own passages in the softmax.
        column_block: columns scored at a time; 0 chooses by memory.
    """
    scores = scope_scores(
        answers_BAd[:, 0], passages, temperature=temperature, column_block=column_block
    )
    return info_nce(scores, allowed_BD=allowed_BD, rows_B=answer_mask_BA[:, 0])


def answer_norms(answers_BAd: Tensor, answer_mask_BA: Tensor) -> SumCount:
    """Returns Σ (‖a‖₂ − 1)² over the first answers, and their number."""
    first_Bd = answers_BAd[:, 0].to(logits_dtype(answers_BAd))
    answered_B = answer_mask_BA[:, 0]
    # The norm has no gradient at 0, which a missing answer may be.
    safe_Bd = first_Bd.masked_fill(~answered_B[:, None], 1.0)
    squares_B = (safe_Bd.norm(dim=1) - 1.0).square().masked_fill(~answered_B, 0.0)
    return squares_B.sum(), answered_B.sum().to(first_Bd.dtype)


def biir(loss: BiIR, name: str = "", distill: Distillation | None = None) -> LossPart:
    """Returns the Reinforced-IR objective: terms qp, qa, ap, answer_norm and distillation.

    Args:
        loss: its settings.
        name: prefix of the terms' names where there are several losses.
        distill: distillation of passages, and of answers where these have teacher scores.
    """
    prefix = f"{name}_" if name else ""
    distill_name = prefix + distill.kind if distill else None
    first = contrastive(loss, prefix + "qp", distill, distill_name)
    weights = dict(first.weights)
    if loss.training_type == "retrieval":
        return LossPart(weights, partial(_passage_terms, first=first))
    weights[prefix + "qa"] = loss.weight
    if distill is not None:
        weights[prefix + distill.kind + "_answers"] = loss.weight * distill.weight
    whole: frozenset[str] = frozenset()
    if loss.normalize_answer:
        weights[prefix + "answer_norm"] = loss.weight
        whole = frozenset([prefix + "answer_norm"])
    if loss.training_type == "retrieval_answer_passage":
        weights[prefix + "ap"] = loss.weight * ANSWER_PASSAGE_WEIGHT
    compute = partial(_answer_terms, loss=loss, distill=distill, first=first, prefix=prefix)
    return LossPart(weights, compute, answers=True, whole=whole)


def _passage_terms(batch: LossBatch, *, first: LossPart) -> LossTerms:
    batch.embeddings("biir")
    return first.compute(batch)


def _answer_terms(
    batch: LossBatch, *, loss: BiIR, distill: Distillation | None, first: LossPart, prefix: str
) -> LossTerms:
    output, supervision = batch.embeddings("biir"), batch.supervision
    terms = first.compute(batch)
    mask_BA, teacher_BA = supervision.answer_mask_BA, supervision.answer_targets_BA
    if mask_BA is None or output.answers is None:
        return terms
    answers_BAd = output.answers.reshape(*mask_BA.shape, output.answers.shape[-1])
    hashes = supervision.answer_hashes if loss.mask_duplicates else None
    columns = answer_columns(
        answers_BAd,
        mask_BA,
        scope=batch.scope(loss.scope),
        hashes=hashes,
        of_ranks=supervision.rows_of_ranks(mask_BA.shape[1]),
    )
    answered_B = mask_BA[:, 0]
    scores = query_answer_scores(
        output.queries_Bd,
        columns,
        mask_BA,
        temperature=loss.answer_temperature or 0.05,
        column_block=loss.column_block,
    )
    if distill is None or teacher_BA is None or distill.keeps_hard:
        allowed_BA = allowed_own(
            mask_BA, hashes_P=hashes, teacher_BD=teacher_BA, margin=loss.teacher_margin
        )
        terms[prefix + "qa"] = info_nce(scores, allowed_BD=allowed_BA, rows_B=answered_B)
    if distill is not None and teacher_BA is not None:
        name = prefix + distill.kind + "_answers"
        terms[name] = distilled(
            scores,
            teacher_BA,
            distill.kind,
            temperature=distill.temperature,
            minmax=distill.minmax,
            rows_B=answered_B,
        )
    if loss.normalize_answer:
        terms[prefix + "answer_norm"] = answer_norms(answers_BAd, mask_BA)
    if loss.training_type == "retrieval_answer_passage":
        passages = batch.columns(loss.scope, mask_duplicates=loss.mask_duplicates)
        terms[prefix + "ap"] = answer_passage(
            answers_BAd,
            mask_BA,
            passages,
            temperature=loss.divisor,
            allowed_BD=allowed_own(
                supervision.mask_BD, hashes_P=passages.hashes_P, known_BK=supervision.known_BK
            ),
            column_block=loss.column_block,
        )
    return terms
