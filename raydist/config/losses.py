"""Losses of `train` and `distill`: one `loss` with `distill` beside it, or several `losses`.

loss.kind=infonce loss.temperature=0.02 loss.scope=cross_device distill.kind=kl_div
losses.ranks.kind=adr_mse losses.pairs.kind=distill_ranknet losses.pairs.weight=0.5
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from raydist.config.base import Block, FromScalar, execution

Scope = Literal["in_batch", "cross_device", "no_in_batch"]


class _Weighted(Block):
    primary: ClassVar[str | None] = "kind"

    weight: float = Field(1.0, gt=0)
    """Multiplies the loss."""


class _Contrastive(_Weighted):
    temperature: float = Field(0.02, gt=0)
    """Divides the scores."""
    scope: Scope = "in_batch"
    """Negatives: a worker's documents, all workers' documents, or a query's own alone."""
    mask_duplicates: bool = True
    """Leave out documents with the text of any of the query's positives."""
    teacher_margin: float | None = None
    """Leave out own negatives that the teacher scores above the positive's score less this."""
    column_block: int = execution(0, ge=0)
    """Documents whose scores exist at a time; 0 goes by memory."""


class InfoNCE(_Contrastive):
    """Softmax cross-entropy of the positive against negatives."""

    kind: Literal["infonce"] = "infonce"
    """Contrastive."""


class BiIR(_Contrastive):
    """Reinforced-IR: queries, answers and passages."""

    kind: Literal["biir"] = "biir"
    """Queries, answers that a language model wrote, and passages."""
    training_type: Literal["retrieval", "retrieval_answer", "retrieval_answer_passage"] = (
        "retrieval_answer"
    )
    """Queries to passages alone; also queries to answers; also answers to passages."""
    answer_temperature: float | None = Field(None, gt=0)
    """Divides the scores of answers; 0.05 if not given."""
    normalize_answer: bool = True
    """Draw the answers' norms to 1 by a soft penalty."""


class DistillationLoss(_Weighted):
    """A teacher's scores of a query's documents, as a loss of its own."""

    kind: Literal["kl_div", "true_kl", "m3_kd", "list_mle", "margin_mse", "pairwise_kl"]
    """Which distance to the teacher; list_mle takes the documents' order as the teacher."""
    temperature: float = Field(1.0, gt=0)
    """Divides the student's scores."""
    teacher_temperature: float = Field(1.0, gt=0)
    """Divides the teacher's scores."""
    scope: Scope = "no_in_batch"
    """Further columns of m3_kd and list_mle."""


class _OnLists(_Weighted):
    temperature: float = Field(1.0, gt=0)
    """Divides the student's scores."""


class ListwiseSoftmaxCE(_OnLists):
    """Softmax cross-entropy with graded targets in [0, 1]."""

    kind: Literal["listwise_softmax_ce"] = "listwise_softmax_ce"
    """Softmax cross-entropy."""
    gains: bool = False
    """Targets multiply the probabilities, whatever their size."""


class RankNet(_OnLists):
    """Every pair that the teacher orders, by the logistic loss."""

    kind: Literal["distill_ranknet"] = "distill_ranknet"
    """Pairs."""
    per_query: bool = False
    """Average within each query first."""
    log_base_2: bool = False
    """Divide by ln 2."""


class AdrMse(_OnLists):
    """Squared differences of approximate and true ranks, discounted."""

    kind: Literal["adr_mse"] = "adr_mse"
    """Ranks."""
    rank_temperature: float = Field(1.0, gt=0)
    """Of the approximate ranks."""
    ties: Literal["average", "ordinal"] = "average"
    """Tied documents share their mean rank, or rank as given."""


class ListNet(_OnLists):
    """Cross-entropy between the softmaxes of teacher and student."""

    kind: Literal["listnet"] = "listnet"
    """Distributions."""
    teacher_temperature: float = Field(1.0, gt=0)
    """Divides the teacher's scores."""


class LambdaLoss(_OnLists):
    """Pairs weighted by what exchanging them does to nDCG."""

    kind: Literal["lambda_loss"] = "lambda_loss"
    """Pairs weighted by nDCG."""
    scheme: Literal["none", "ndcg_loss1", "ndcg_loss2", "lambda_rank", "ndcg_loss2pp"] = (
        "ndcg_loss2pp"
    )
    """How pairs are weighted."""
    k: int = Field(0, ge=0)
    """Keep pairs with a document among the first k; 0 = all."""
    sigma: float = Field(1.0, gt=0)
    """Steepness."""
    mu: float = Field(10.0, ge=0)
    """Weight of ndcg_loss2 within ndcg_loss2pp."""
    log_base_2: bool = True
    """Logarithm to base 2."""


class ListInfoNCE(_OnLists):
    """The judged positive, or else the teacher's best, against the others of its list."""

    kind: Literal["infonce_list"] = "infonce_list"
    """Contrastive within the list."""


class MarginMsePairs(_OnLists):
    """Squared differences of margins over every pair that the teacher orders."""

    kind: Literal["margin_mse_pairs"] = "margin_mse_pairs"
    """Margins."""


Loss = Annotated[
    InfoNCE
    | BiIR
    | DistillationLoss
    | ListwiseSoftmaxCE
    | RankNet
    | AdrMse
    | ListNet
    | LambdaLoss
    | ListInfoNCE
    | MarginMsePairs,
    Field(discriminator="kind"),
]
"""A loss of any kind."""


class Distillation(Block):
    """Distillation beside a contrastive loss, on where the data has teacher scores."""

    primary: ClassVar[str | None] = "kind"

    kind: Literal["kl_div", "true_kl", "m3_kd", "list_mle", "margin_mse", "pairwise_kl", "none"] = (
        "kl_div"
    )
    """Which distance to the teacher; none leaves its scores unused."""
    weight: float = Field(1.0, gt=0)
    """Multiplies the distillation."""
    temperature: float = Field(1.0, gt=0)
    """Divides the teacher's scores."""
    student_temperature: float | None = Field(None, gt=0)
    """Divides the student's scores; the loss's own if not given."""
    hard: bool | None = None
    """Keep the contrastive loss beside it; by default all but m3_kd and list_mle do."""
    repair_positive: bool = False
    """Pull a positive that is not the teacher's best up to 0.8 of its score + 0.2 of the best."""


def _target_from_scalar(text: str) -> dict[str, Any]:
    """Reads `minmax` or `binary(0.5)`."""
    found = re.fullmatch(r"\s*(\w+)\s*(?:\(\s*([^()]+?)\s*\))?\s*", text)
    if found is None:
        return {"kind": text}
    kind, threshold = found.groups()
    return {"kind": kind} if threshold is None else {"kind": kind, "threshold": threshold}


class TargetConfig(Block):
    """How a teacher's scores become targets."""

    kind: Literal["score", "rank", "minmax", "binary"] = "score"
    """As they are; the list's length − rank + 1; scaled to [0, 1] in each list; 1 from the
    threshold on."""
    threshold: float | None = None
    """Lowest score of a positive, for binary: `target=binary(0.5)`."""

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, data: Any) -> Any:
        return _target_from_scalar(data) if isinstance(data, str) else data

    @model_validator(mode="after")
    def _threshold_is_for_binary(self) -> TargetConfig:
        if (self.kind == "binary") != (self.threshold is not None):
            raise ValueError(
                "binary needs a threshold, as in target=binary(0.5)"
                if self.kind == "binary"
                else f"threshold: only binary has one, not {self.kind}"
            )
        return self


Target = Annotated[TargetConfig, FromScalar(_target_from_scalar)]
"""How a teacher's scores become targets: `score`, `rank`, `minmax` or `binary(0.5)`."""


def check_losses(
    loss: Any, distill: Distillation | None, losses: dict[str, Any], *, pairs: bool
) -> list[str]:
    """Returns what contradicts what, one line each; for validators of the verbs.

    Args:
        loss: the one loss, None if not given.
        distill: what stands beside it, None if not given.
        losses: several by name.
        pairs: whether a cross-encoder is trained.
    """
    problems = []
    if losses and loss is not None:
        problems.append("loss and losses: expected one of them")
    if losses and distill is not None and distill.kind != "none":
        problems.append("distill stands beside loss; with losses, give a distillation a name too")
    for key, item in [("loss", loss), *((f"losses.{n}", x) for n, x in losses.items())]:
        if pairs and isinstance(item, BiIR):
            problems.append(f"{key}.kind = biir: needs a bi-encoder")
        if pairs and getattr(item, "scope", "no_in_batch") == "cross_device":
            problems.append(
                f"{key}.scope = cross_device: a cross-encoder scores each list on its own"
            )
    return problems
