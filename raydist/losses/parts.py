"""The parts of objectives: a contrastive loss with distillation, and losses on lists.

Legend: B queries, D documents of the longest list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor
from torch.nn.functional import logsigmoid

from raydist.losses import distillation, pairwise
from raydist.losses import listwise as lists
from raydist.losses.contrastive import ScopeScores, allowed_own, info_nce
from raydist.losses.gather import SumCount
from raydist.losses.inputs import LossBatch
from raydist.losses.listwise import Output
from raydist.losses.spec import (
    AdrMse,
    BiIR,
    Distillation,
    DistillationLoss,
    InfoNCE,
    LambdaLoss,
    ListInfoNCE,
    ListLoss,
    ListNet,
    ListwiseSoftmaxCE,
    RankNet,
)
from raydist.losses.targets import scaled

LossTerms = dict[str, SumCount]
"""Terms by name."""


@dataclass(frozen=True, slots=True)
class LossPart:
    """Terms that are computed together.

    Attributes:
        weights: the terms' weights, by name.
        compute: returns the terms of a batch.
        answers: whether the terms read answers, which must then be encoded.
        ordered: whether the terms' counts depend on the order of the student's scores.
        whole: terms about whole vectors, which have no part on their prefixes.
        totals: returns sums over a batch's rows, by name, that the terms need of a whole step;
            what it returns is added over ranks and accumulation parts.
        rise: returns the factor of the weights at a step, of so many.
        measures: terms that are logged and not learned, under their own name.
        sparse: whether the terms are about weights of terms.
    """

    weights: Mapping[str, float]
    compute: Callable[[LossBatch], LossTerms]
    answers: bool = False
    ordered: bool = False
    whole: frozenset[str] = frozenset()
    totals: Callable[[LossBatch], dict[str, Tensor]] | None = None
    rise: Callable[[int, int], float] | None = None
    measures: frozenset[str] = frozenset()
    sparse: bool = False


def contrastive(
    loss: InfoNCE | BiIR,
    name: str,
    distill: Distillation | None = None,
    distill_name: str | None = None,
) -> LossPart:
    """Returns InfoNCE in a scope, with distillation where the data has a teacher.

    A cross-encoder's columns are the query's own list, whatever the scope.
    """
    weights = {name: loss.weight}
    beside = None
    if distill is not None:
        beside = distill_name or distill.kind
        weights[beside] = loss.weight * distill.weight
    compute = partial(_contrastive_terms, loss=loss, distill=distill, names=(name, beside))
    return LossPart(weights, compute)


def _contrastive_terms(
    batch: LossBatch,
    *,
    loss: InfoNCE | BiIR,
    distill: Distillation | None,
    names: tuple[str, str | None],
) -> LossTerms:
    scores_at = partial(
        batch.scores,
        scope=loss.scope,
        mask_duplicates=loss.mask_duplicates,
        column_block=loss.column_block,
    )
    teacher_BD = batch.supervision.targets_BD if names[1] else None
    scores = scores_at(temperature=loss.divisor)
    terms: LossTerms = {}
    if distill is None or teacher_BD is None or distill.keeps_hard:
        allowed_BD = allowed_own(
            scores.mask_BD,
            hashes_P=batch.supervision.hashes_P if loss.mask_duplicates else None,
            known_BK=batch.supervision.known_BK,
            teacher_BD=batch.supervision.scores_BD,
            margin=loss.teacher_margin,
        )
        terms[names[0]] = info_nce(scores, allowed_BD=allowed_BD)
    if distill is not None and teacher_BD is not None and names[1] is not None:
        student = scores_at(temperature=distill.student_temperature or loss.divisor)
        terms[names[1]] = distilled(
            student,
            teacher_BD,
            distill.kind,
            temperature=distill.temperature,
            minmax=distill.minmax,
        )
    return terms


def distilled(
    scores: ScopeScores,
    teacher_BD: Tensor,
    kind: str,
    *,
    temperature: float,
    minmax: bool = False,
    rows_B: Tensor | None = None,
) -> SumCount:
    """Returns the term of a distillation alone, without the hard loss beside it."""
    own_BD = scaled(scores.own_BD, scores.mask_BD) if minmax else scores.own_BD
    match kind:
        case "m3_kd":
            return distillation.m3_kd(scores, teacher_BD, temperature=temperature, rows_B=rows_B)
        case "list_mle":
            return distillation.list_mle(scores, rows_B=rows_B)
        case "margin_mse":
            return pairwise.margin_mse(own_BD, teacher_BD, scores.mask_BD, rows_B=rows_B)
    losses = {
        "kl_div": distillation.kl_div,
        "true_kl": distillation.true_kl,
        "pairwise_kl": pairwise.pairwise_kl,
    }
    return losses[kind](own_BD, teacher_BD, scores.mask_BD, temperature=temperature, rows_B=rows_B)


def distilling(loss: DistillationLoss, name: str) -> LossPart:
    """Returns a distillation as a loss of its own."""
    return LossPart({name: loss.weight}, partial(_distilling_terms, loss=loss, name=name))


def _distilling_terms(batch: LossBatch, *, loss: DistillationLoss, name: str) -> LossTerms:
    scores = batch.scores(temperature=loss.temperature, scope=loss.scope)
    teacher_BD = scores.own_BD if loss.kind == "list_mle" else batch.teacher(name)
    term = distilled(
        scores, teacher_BD, loss.kind, temperature=loss.teacher_temperature, minmax=loss.minmax
    )
    return {name: term}


def listwise(loss: ListLoss, name: str, output: Output = "real") -> LossPart:
    """Returns a loss on the list of each query, for cross-encoders and bi-encoders alike."""
    compute = partial(_list_terms, loss=loss, name=name, output=output)
    ordered = isinstance(loss, LambdaLoss) and loss.k > 0
    return LossPart({name: loss.weight}, compute, ordered=ordered)


def _list_terms(batch: LossBatch, *, loss: ListLoss, name: str, output: Output) -> LossTerms:
    scores = batch.scores(temperature=loss.temperature)
    supervision, mask_BD = batch.supervision, scores.mask_BD
    if loss.kind == "infonce_list" and supervision.labels_BD is not None:
        # A contrastive loss is about the positive, which need not be the teacher's best; the
        # query's other positives are not its negatives.
        targets_BD = supervision.labels_BD
        mask_BD = allowed_own(mask_BD, hashes_P=supervision.hashes_P, known_BK=supervision.known_BK)
    else:
        targets_BD = batch.grades(name)
    # The logarithms directly: in float32 a sigmoid may be 0.
    outputs_BD = scores.own_BD if output == "real" else logsigmoid(scores.own_BD)
    return {name: _formula(loss, output)(outputs_BD, targets_BD, mask_BD)}


def _formula(loss: ListLoss, output: Output) -> Callable[[Tensor, Tensor, Tensor], SumCount]:
    match loss:
        case ListwiseSoftmaxCE():
            kind: Output = "real" if output == "real" else "log_prob"
            return partial(lists.listwise_softmax_ce, output=kind, gains=loss.gains)
        case RankNet():
            return partial(
                lists.distill_rank_net, per_query=loss.per_query, log_base_2=loss.log_base_2
            )
        case AdrMse():
            return partial(lists.adr_mse, temperature=loss.rank_temperature, ties=loss.ties)
        case ListNet():
            return partial(lists.list_net, temperature=loss.teacher_temperature)
        case LambdaLoss():
            return partial(
                lists.lambda_loss,
                scheme=loss.scheme,
                k=loss.k,
                sigma=loss.sigma,
                mu=loss.mu,
                log_base_2=loss.log_base_2,
            )
        case ListInfoNCE():
            return lists.info_nce_list
    return pairwise.margin_mse_pairs
