"""Configuration of `raydist distill`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag, model_validator

from raydist.config.base import FromScalar
from raydist.config.losses import AdrMse, Distillation, Loss, Target, check_losses
from raydist.config.model import ModelConfig, RerankerModelConfig, check_precision
from raydist.config.training import TrainingConfig
from raydist.training.samplers import DistillationListwiseSampler, DistillationNegativesSampler

Output = Literal["real", "log_prob", "prob"]


class CrossEncoderStudent(RerankerModelConfig):
    """A cross-encoder; it gets a fresh head where its folder has none."""

    kind: Literal["crossencoder"] = "crossencoder"
    """Reads query and document together."""
    output: Output = "real"
    """What it emits: real numbers, or (for listwise_softmax_ce) their sigmoids as probabilities;
    log_prob is the same in logarithms. The saved model then gives probabilities."""


class BiEncoderStudent(ModelConfig):
    """A bi-encoder, scoring by the dot product."""

    kind: Literal["biencoder"] = "biencoder"
    """Reads query and document apart."""
    output: Output = "real"
    """What it emits in training: real numbers, or (for listwise_softmax_ce) their sigmoids as
    probabilities; log_prob is the same in logarithms."""


def _student(value: Any) -> str:
    given = value.get("kind", "crossencoder") if isinstance(value, dict) else value.kind
    return str(given)


def _path(text: str) -> dict[str, Any]:
    return {"path": text}


class DistillConfig(TrainingConfig):
    """A reranker or bi-encoder trained from a teacher's rankings."""

    model: Annotated[
        Annotated[CrossEncoderStudent, Tag("crossencoder")]
        | Annotated[BiEncoderStudent, Tag("biencoder")],
        Discriminator(_student),
        FromScalar(_path),
    ]
    """The student to start from: a path or name; `model.kind=biencoder` for a bi-encoder."""
    sampler: DistillationListwiseSampler | DistillationNegativesSampler = (
        DistillationListwiseSampler()
    )
    """Which documents of a list a step reads."""
    loss: Loss | None = AdrMse()
    """What is optimised."""
    target: Target | None = None
    """How teacher scores become targets; as they are if not given, or scaled to [0, 1] where
    listwise_softmax_ce needs that."""

    @model_validator(mode="after")
    def _losses_agree(self) -> DistillConfig:
        several = self.losses and self.distill == Distillation()
        pairs = self.model.kind == "crossencoder"
        problems = check_losses(
            self.loss, None if several else self.distill, self.losses, pairs=pairs
        )
        problems += check_precision(self.model, self.deepspeed.zero)
        judged = all(data.qrels or self.qrels for data in self.sets().values())
        if self.sampler.kind == "negatives" and not judged:
            problems.append("sampler.kind = negatives: needs qrels=PATH to tell positives")
        if self.sampler.kind == "listwise" and judged and self.target is not None:
            problems.append(
                f"target = {self.target.kind}: is of a teacher's scores, and with qrels the grades "
                "are the targets of sampler.kind=listwise; leave one of them out"
            )
        unbounded = [
            loss.kind for loss in self.objectives().values() if loss.kind != "listwise_softmax_ce"
        ]
        if self.model.output != "real" and unbounded:
            problems.append(
                f"model.output = {self.model.output}: only listwise_softmax_ce reads "
                f"probabilities, {unbounded[0]} needs model.output=real"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self
