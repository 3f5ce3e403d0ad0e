"""Trains a bi-encoder from samples with negatives, a teacher's scores, or answers.

    raydist train data=train.jsonl model=PATH_OR_NAME out=DIR steps=100 batch_size=32

The data is checked before anything starts. DIR/metrics.jsonl has a line per logged step,
DIR/checkpoint-final is what embed, search and export take as `model=` (so does DIR itself), and
--resume continues a run that was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from raydist.commands.training.launch import launch
from raydist.commands.training.plan import Recipe, check_teacher
from raydist.commands.training.temperature import decided, scores_of
from raydist.config.base import Flags
from raydist.config.training import TrainConfig
from raydist.data.spec import SampleSource
from raydist.errors import DataError
from raydist.losses.spec import BiIR, InfoNCE
from raydist.training.spec import TrainingData

if TYPE_CHECKING:
    from raydist.data.samples.sample_set import SampleFacts
    from raydist.losses.objective import Objective
    from raydist.training.plan import SetPlan
    from raydist.training.source import ToTargets

Config = TrainConfig
FLAGS = ("--dry-run", "--resume")

_FOR_UNIT_VECTORS = 0.2
"""Lower temperatures are meant for cosines: 0.01 to 0.1 in the literature."""


def run(config: TrainConfig, flags: Flags) -> None:
    """Trains, or says what would be trained."""
    config = decided(config)
    launch(config, flags, recipe(config))


def recipe(config: TrainConfig) -> Recipe:
    """Returns how a bi-encoder is trained by contrast."""
    from raydist.training.plan import plan_groups

    answers = any(
        loss.kind == "biir" and loss.training_type != "retrieval"
        for loss in config.objectives().values()
    )

    margins = any(
        getattr(loss, "teacher_margin", None) is not None for loss in config.objectives().values()
    )
    teacher = config.distill.kind != "none" or bool(config.losses) or margins

    def require(data: TrainingData, source: SampleSource) -> SampleSource:
        group = data.train_group_size or config.train_group_size
        return replace(source, need_negatives=group is not None and group > 1)

    def plan_set(facts: SampleFacts, folder: Path, data: TrainingData) -> SetPlan:
        return plan_groups(
            facts,
            folder,
            data,
            batch_size=1 if config.batch_tokens else config.batch_size,
            group=config.train_group_size,
            teacher=teacher,
            answers=answers,
        )

    def objective(
        facts: Sequence[SampleFacts],
    ) -> tuple[Objective, ToTargets | None, Sequence[str]]:
        from raydist.losses.objective import make_objective
        from raydist.losses.targets import make_targets

        if answers and not any(of_set.answers for of_set in facts):
            raise DataError(
                "loss.kind = biir: the data has no answers (the field `answer`); "
                "loss.training_type=retrieval trains without"
            )
        check_teacher(config.objectives().values(), facts)
        contrast = {"infonce", "biir"} & {loss.kind for loss in config.objectives().values()}
        scored = [of_set.name for of_set in facts if of_set.scores]
        notes: list[str] = []
        default = "distill" not in config.model_fields_set and not config.losses
        if scored and contrast and default:
            notes.append(
                f"{', '.join(scored)}: has teacher scores, so distill.kind="
                f"{config.distill.kind} is on (distill=none leaves them unused)"
            )
        explicit = "distill" in config.model_fields_set and config.distill.kind != "none"
        if explicit and contrast and not scored and not config.losses:
            notes.append(
                f"distill.kind = {config.distill.kind}: no data set has teacher scores "
                "(pos_scores and neg_scores), so nothing is distilled"
            )
        notes += _sharp_scores(config)
        built = make_objective(config.loss, config.distill, config.losses)
        return built, partial(make_targets, target=config.target), notes

    return Recipe(config.model, require, plan_set, objective)


def _sharp_scores(config: TrainConfig) -> list[str]:
    """Returns a note where a temperature for unit vectors meets scores of any size."""
    sharp = {
        name: loss.temperature
        for name, loss in config.objectives().items()
        if isinstance(loss, InfoNCE | BiIR) and loss.divisor < _FOR_UNIT_VECTORS
    }
    if not sharp or scores_of(config.model)[1]:
        return []
    temperatures = ", ".join(f"{name} {temperature:g}" for name, temperature in sharp.items())
    vectors, _ = scores_of(config.model)
    remedy = "model.normalize=true, or loss.temperature=1" if vectors else "loss.temperature=1"
    what = "model.normalize is false" if vectors else "weights of terms and MaxSim are not"
    return [
        f"loss.temperature ({temperatures}) is one for vectors of length 1, and "
        f"{what}: scores, losses and gradients are large; {remedy}"
    ]
