"""Configuration of `raydist distill`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import model_validator

from raydist.config.base import FromScalar
from raydist.config.training import TrainingConfig
from raydist.losses.spec import AdrMse, Distillation, Loss, Target, check_losses
from raydist.models.spec import BiEncoderStudent, CrossEncoderStudent, check_precision
from raydist.spec import Kind
from raydist.training.samplers import DistillationListwiseSampler, DistillationNegativesSampler


def _path(text: str) -> dict[str, Any]:
    return {"path": text}


class DistillConfig(TrainingConfig):
    """A reranker or bi-encoder trained from a teacher's rankings."""

    model: Annotated[
        CrossEncoderStudent | BiEncoderStudent, Kind("crossencoder"), FromScalar(_path)
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
