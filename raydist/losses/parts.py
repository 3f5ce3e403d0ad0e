"""The parts that objectives are made of: contrastive with distillation, and losses on lists.

Legend: B queries, D documents of the longest list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from torch import Tensor
from torch.nn.functional import logsigmoid

from raydist.losses import distillation, pairwise
from raydist.losses.contrastive import Scope, ScopeScores, allowed_own, info_nce
from raydist.losses.gather import SumCount
from raydist.losses.inputs import Forward
from raydist.losses.objective import Part, Terms

DistillKind = Literal["kl_div", "true_kl", "m3_kd", "list_mle", "margin_mse", "pairwise_kl"]

WITHOUT_HARD = ("m3_kd", "list_mle")
"""Kinds that stand in the place of the contrastive loss where there is a teacher."""


class ListLoss(Protocol):
    """A loss on lists, its options already given."""

    def __call__(self, scores_BD: Tensor, targets_BD: Tensor, mask_BD: Tensor, /) -> SumCount:
        """Returns (sum, count)."""
        ...


@dataclass(frozen=True, slots=True)
class Distill:
    """Distillation beside a contrastive loss, on where the data has teacher scores.

    Attributes:
        kind: which loss.
        weight: of the distillation's term.
        temperature: of the teacher's softmax.
        student_temperature: divides the student's scores; the contrastive loss's own if None.
        hard: whether the contrastive loss stays beside it; by default it does, but with m3_kd and
            list_mle, which hold all of the scope's columns themselves.
    """

    kind: DistillKind = "kl_div"
    weight: float = 1.0
    temperature: float = 1.0
    student_temperature: float | None = None
    hard: bool | None = None

    @property
    def keeps_hard(self) -> bool:
        """Whether the contrastive loss stays where there is a teacher."""
        return self.kind not in WITHOUT_HARD if self.hard is None else self.hard


def contrastive(
    name: str = "infonce",
    *,
    temperature: float = 0.02,
    scope: Scope = "in_batch",
    weight: float = 1.0,
    distill: Distill | None = None,
    mask_duplicates: bool = True,
    teacher_margin: float | None = None,
    column_block: int = 0,
    distill_name: str | None = None,
) -> Part:
    """Returns InfoNCE over a scope, and its distillation where the data has a teacher.

    A cross-encoder's columns are the query's own list, whatever the scope.

    Args:
        name: of the contrastive term.
        temperature: τ, divides the scores.
        scope: which documents are negatives.
        weight: of the whole part.
        distill: distillation beside it.
        mask_duplicates: leave out columns with the text of any of the query's positives.
        teacher_margin: leave out own negatives that the teacher scores above positive − margin.
        column_block: columns whose logits exist at a time; 0 chooses by memory.
        distill_name: of the distillation's term; its kind if None.
    """
    weights = {name: weight}
    extra = None
    if distill is not None:
        extra = distill_name or distill.kind
        weights[extra] = weight * distill.weight
    compute = partial(
        _contrastive_terms,
        names=(name, extra),
        temperature=temperature,
        distill=distill,
        teacher_margin=teacher_margin,
        scores_of=partial(
            Forward.scores, scope=scope, mask_duplicates=mask_duplicates, column_block=column_block
        ),
        mask_duplicates=mask_duplicates,
    )
    return Part(weights, compute)


def _contrastive_terms(
    batch: Forward,
    *,
    names: tuple[str, str | None],
    temperature: float,
    distill: Distill | None,
    teacher_margin: float | None,
    scores_of: Callable[..., ScopeScores],
    mask_duplicates: bool,
) -> Terms:
    teacher_BD = batch.targets.targets_BD if names[1] else None
    scores = scores_of(batch, temperature=temperature)
    terms: Terms = {}
    if distill is None or teacher_BD is None or distill.keeps_hard:
        allowed_BD = allowed_own(
            scores.mask_BD,
            hashes_P=batch.targets.hashes_P if mask_duplicates else None,
            known_BK=batch.targets.known_BK,
            teacher_BD=batch.targets.scores_BD,
            margin=teacher_margin,
        )
        terms[names[0]] = info_nce(scores, allowed_BD=allowed_BD)
    if distill is not None and teacher_BD is not None and names[1] is not None:
        student = scores_of(batch, temperature=distill.student_temperature or temperature)
        terms[names[1]] = distilled(student, teacher_BD, distill)
    return terms


def distilled(
    scores: ScopeScores, teacher_BD: Tensor, distill: Distill, *, rows_B: Tensor | None = None
) -> SumCount:
    """Returns the distillation's own term (without the hard loss beside it)."""
    match distill.kind:
        case "m3_kd":
            return distillation.m3_kd(
                scores, teacher_BD, temperature=distill.temperature, rows_B=rows_B
            )
        case "list_mle":
            return distillation.list_mle(scores, rows_B=rows_B)
        case "margin_mse":
            return pairwise.margin_mse(scores.own_BD, teacher_BD, scores.mask_BD, rows_B=rows_B)
    losses = {
        "kl_div": distillation.kl_div,
        "true_kl": distillation.true_kl,
        "pairwise_kl": pairwise.pairwise_kl,
    }
    return losses[distill.kind](
        scores.own_BD, teacher_BD, scores.mask_BD, temperature=distill.temperature, rows_B=rows_B
    )


def listwise(
    name: str,
    loss: ListLoss,
    *,
    weight: float = 1.0,
    temperature: float = 1.0,
    by_labels: bool = False,
    probabilities: bool = False,
) -> Part:
    """Returns a loss on each query's own list, for cross-encoders and bi-encoders alike.

    Args:
        name: of the term.
        loss: takes (scores, targets, mask), its options already given.
        weight: of the term.
        temperature: divides the scores.
        by_labels: the labels are its targets even where there is a teacher: what it looks for is
            the positive, which a teacher need not like best.
        probabilities: the student emits sigmoids of its scores; the loss gets their logarithms,
            taken at once, for a sigmoid in float32 may be 0.
    """
    compute = partial(
        _list_terms,
        name=name,
        loss=loss,
        temperature=temperature,
        by_labels=by_labels,
        probabilities=probabilities,
    )
    return Part({name: weight}, compute)


def _list_terms(
    batch: Forward,
    *,
    name: str,
    loss: ListLoss,
    temperature: float,
    by_labels: bool,
    probabilities: bool,
) -> Terms:
    scores = batch.scores(temperature=temperature)
    labels_BD = batch.targets.labels_BD if by_labels else None
    wanted_BD = batch.grades(name) if labels_BD is None else labels_BD
    emitted_BD = logsigmoid(scores.own_BD) if probabilities else scores.own_BD
    return {name: loss(emitted_BD, wanted_BD, scores.mask_BD)}


def distilling(
    name: str,
    distill: Distill,
    *,
    temperature: float = 1.0,
    scope: Scope = "no_in_batch",
    weight: float = 1.0,
) -> Part:
    """Returns a distillation as a loss of its own, with nothing beside it.

    Args:
        name: of the term.
        distill: which one; its own weight multiplies.
        temperature: τ, divides the student's scores.
        scope: further columns of m3_kd and list_mle.
        weight: of the term.
    """
    compute = partial(
        _distilling_terms, name=name, distill=distill, temperature=temperature, scope=scope
    )
    return Part({name: weight * distill.weight}, compute)


def _distilling_terms(
    batch: Forward, *, name: str, distill: Distill, temperature: float, scope: Scope
) -> Terms:
    scores = batch.scores(temperature=temperature, scope=scope)
    teacher_BD = scores.own_BD if distill.kind == "list_mle" else batch.teacher(name)
    return {name: distilled(scores, teacher_BD, distill)}
