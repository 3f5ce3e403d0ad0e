"""The losses of `train` and `distill`: one `loss`, with `distill` beside it, or several `losses`.

loss.kind=infonce loss.temperature=0.02 loss.scope=cross_device distill.kind=kl_div
losses.ranks.kind=adr_mse losses.pairs.kind=distill_ranknet losses.pairs.weight=0.5
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt

from raydist.spec import ADDED, EXECUTION, FromText, Undecided

COSINES = 0.02
"""Temperature of a contrastive loss where scores are cosines."""

Positive = Annotated[float, Gt(0)]
LambdaScheme = Literal["none", "ndcg_loss1", "ndcg_loss2", "lambda_rank", "ndcg_loss2pp"]
Scope = Literal["in_batch", "cross_device", "no_in_batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Keeps weights of terms sparse, beside a loss of a sparse model."""

    primary: ClassVar[str] = "document"

    document: Annotated[float, Ge(0)] = 0.0
    """Weight of the documents' measure; 0 leaves it out."""
    query: Annotated[float, Ge(0)] = 0.0
    """Weight of the queries' measure."""
    kind: Literal["flops", "idf_flops", "l1"] = "flops"
    """flops: squares of the terms' mean weights; idf_flops: of the means divided by the terms'
    idf, the weights of the model's table of queries; l1: sums of weights."""
    ramp: Annotated[int, Ge(0)] | None = None
    """Steps over which the weights rise from 0, quadratically; a third of the run if not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weighted:
    primary: ClassVar[str] = "kind"

    weight: Positive = 1.0
    """Multiplies the loss."""
    flops: Annotated[Flops, ADDED] = Flops()
    """sparse models: what keeps their weights of terms sparse; a number is the documents'
    weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contrastive(_Weighted):
    temperature: Annotated[Positive | None, Undecided(COSINES)] = None
    """Divides the scores; if not given, 0.02 for vectors of length 1 (and for biir), and 1 for
    scores of any size: other vectors, weights of terms, vectors of tokens, a reranker's."""
    scope: Scope = "in_batch"
    """Negatives: the documents of the same worker, of all workers, or of the query alone."""
    mask_duplicates: bool = True
    """Leave out documents whose text equals that of one of the query's positives."""
    teacher_margin: float | None = None
    """Leave out own negatives whose teacher score exceeds the positive's minus this margin."""
    column_block: Annotated[int, Ge(0), EXECUTION] = 0
    """Documents scored at a time; 0 chooses by memory."""

    @property
    def divisor(self) -> float:
        """The temperature, that of cosines if nobody has decided it."""
        return self.temperature or COSINES


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoNCE(_Contrastive):
    """Softmax cross-entropy of the positive against negatives."""

    kind: Literal["infonce"] = "infonce"


@dataclass(frozen=True, slots=True, kw_only=True)
class BiIR(_Contrastive):
    """Reinforced-IR: queries, answers that a language model wrote, and passages."""

    kind: Literal["biir"] = "biir"
    training_type: Literal["retrieval", "retrieval_answer", "retrieval_answer_passage"] = (
        "retrieval_answer"
    )
    """Match queries with passages alone; with answers as well; and answers with passages too."""
    answer_temperature: Positive | None = None
    """Divides the scores of answers; if not given, 0.05 for one vector a text, else 1."""
    normalize_answer: bool = True
    """Penalise embeddings of answers whose norm is not 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationLoss(_Weighted):
    """Distillation of a teacher's scores, as a loss of its own."""

    kind: Literal["kl_div", "true_kl", "m3_kd", "list_mle", "margin_mse", "pairwise_kl"]
    """The distance to the teacher; for list_mle the order of the documents is the teacher."""
    temperature: Positive = 1.0
    """Divides the student's scores."""
    teacher_temperature: Positive = 1.0
    """Divides the teacher's scores."""
    minmax: Annotated[bool, ADDED] = False
    """Scale the student's scores to [0, 1] in each list, whatever their temperature, as PyLate
    does; not for m3_kd and list_mle."""
    scope: Scope = "no_in_batch"
    """Further documents that m3_kd and list_mle compare with."""

    def __post_init__(self) -> None:
        _check_minmax(self.minmax, self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnLists(_Weighted):
    temperature: Positive = 1.0
    """Divides the student's scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseSoftmaxCE(_OnLists):
    """Softmax cross-entropy with graded targets in [0, 1]."""

    kind: Literal["listwise_softmax_ce"] = "listwise_softmax_ce"
    gains: bool = False
    """Multiply the probabilities by the targets, which may then be of any size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankNet(_OnLists):
    """Logistic loss on every pair that the teacher orders."""

    kind: Literal["distill_ranknet"] = "distill_ranknet"
    per_query: bool = False
    """Average within each query first."""
    log_base_2: bool = False
    """Divide by ln 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdrMse(_OnLists):
    """Squared differences between approximate and true ranks, discounted by rank."""

    kind: Literal["adr_mse"] = "adr_mse"
    rank_temperature: Positive = 1.0
    """Temperature of the approximate ranks."""
    ties: Literal["average", "ordinal"] = "average"
    """Tied documents share their mean rank, or rank in the order given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListNet(_OnLists):
    """Cross-entropy between the softmaxes of teacher and student."""

    kind: Literal["listnet"] = "listnet"
    teacher_temperature: Positive = 1.0
    """Divides the teacher's scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LambdaLoss(_OnLists):
    """Pairs weighted by the change of nDCG that swapping them makes."""

    kind: Literal["lambda_loss"] = "lambda_loss"
    scheme: LambdaScheme = "ndcg_loss2pp"
    """How pairs are weighted."""
    k: Annotated[int, Ge(0)] = 0
    """Use only pairs with a document among the first k; 0 uses all."""
    sigma: Positive = 1.0
    """Steepness of the sigmoid."""
    mu: Annotated[float, Ge(0)] = 10.0
    """Weight of ndcg_loss2 within ndcg_loss2pp."""
    log_base_2: bool = True
    """Use logarithms to base 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListInfoNCE(_OnLists):
    """Softmax cross-entropy of the judged positive, or else the teacher's best, in its list."""

    kind: Literal["infonce_list"] = "infonce_list"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginMsePairs(_OnLists):
    """Squared differences of score margins on every pair that the teacher orders."""

    kind: Literal["margin_mse_pairs"] = "margin_mse_pairs"


ListLoss = (
    ListwiseSoftmaxCE | RankNet | AdrMse | ListNet | LambdaLoss | ListInfoNCE | MarginMsePairs
)
"""A loss on the list of each query."""

Loss = InfoNCE | BiIR | DistillationLoss | ListLoss
"""A loss of any kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """Distillation beside a contrastive loss, where the data has teacher scores."""

    primary: ClassVar[str] = "kind"

    kind: Literal["kl_div", "true_kl", "m3_kd", "list_mle", "margin_mse", "pairwise_kl", "none"] = (
        "kl_div"
    )
    """The distance to the teacher; none ignores its scores."""
    weight: Positive = 1.0
    """Multiplies the distillation."""
    temperature: Positive = 1.0
    """Divides the teacher's scores."""
    student_temperature: Positive | None = None
    """Divides the student's scores; the loss's own if not given."""
    minmax: Annotated[bool, ADDED] = False
    """Scale the student's scores to [0, 1] in each list, whatever their temperature, as PyLate
    does; not for m3_kd and list_mle."""
    hard: bool | None = None
    """Keep the contrastive loss; by default, all kinds but m3_kd and list_mle do."""
    repair_positive: bool = False
    """Raise a positive that is not the teacher's best to 0.8 of its score + 0.2 of the best."""

    def __post_init__(self) -> None:
        _check_minmax(self.minmax, self.kind)

    @property
    def keeps_hard(self) -> bool:
        """Whether the contrastive loss stays where there is a teacher."""
        return self.kind not in ("m3_kd", "list_mle") if self.hard is None else self.hard


def _check_minmax(minmax: bool, kind: str) -> None:
    if minmax and kind in ("m3_kd", "list_mle"):
        raise ValueError(f"minmax: {kind} compares with documents of other lists, too")


def _target_from_scalar(text: str) -> dict[str, Any]:
    """Reads `minmax` or `binary(0.5)`."""
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(\s*([^()]+?)\s*\))?\s*", text)
    if match is None:
        return {"kind": text}
    kind, threshold = match.groups()
    return {"kind": kind} if threshold is None else {"kind": kind, "threshold": threshold}


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """How a teacher's scores become targets."""

    kind: Literal["score", "rank", "minmax", "binary"] = "score"
    """The scores themselves; list length − rank + 1; scores scaled to [0, 1] in each list; 1 for
    scores from the threshold on, 0 for others."""
    threshold: float | None = None
    """Lowest score of a positive, for binary: `target=binary(0.5)`."""

    def __post_init__(self) -> None:
        if (self.kind == "binary") != (self.threshold is not None):
            raise ValueError(
                "binary needs a threshold, as in target=binary(0.5)"
                if self.kind == "binary"
                else f"threshold: only binary takes one, not {self.kind}"
            )


Target = Annotated[TargetSpec, FromText(_target_from_scalar)]
"""How a teacher's scores become targets: `score`, `rank`, `minmax` or `binary(0.5)`."""


def check_losses(
    loss: Loss | None, distill: Distillation | None, losses: Mapping[str, Loss], *, pairs: bool
) -> list[str]:
    """Returns a line for each contradiction.

    Args:
        loss: the one loss, None if not given.
        distill: the distillation beside it, None if not given.
        losses: losses by name.
        pairs: whether a cross-encoder is trained.
    """
    problems = []
    if losses and loss is not None:
        problems.append("loss and losses: give only one of them")
    if losses and distill is not None and distill.kind != "none":
        problems.append("distill goes with loss; with losses, name the distillation as one of them")
    for key, item in [("loss", loss), *((f"losses.{n}", x) for n, x in losses.items())]:
        if pairs and isinstance(item, BiIR):
            problems.append(f"{key}.kind = biir: needs a bi-encoder")
        if pairs and getattr(item, "scope", "no_in_batch") == "cross_device":
            problems.append(
                f"{key}.scope = cross_device: a cross-encoder scores each list on its own"
            )
    return problems
