"""Trains a bi-encoder from samples with negatives, a teacher's scores, or answers.

    raydist train data=train.jsonl model=PATH_OR_NAME out=DIR steps=100 batch_size=32

The data is checked before anything starts. DIR/metrics.jsonl has a line per logged step,
DIR/checkpoint-final is what embed, search and export take as `model=` (so does DIR itself), and
--resume goes on with a run that was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist.commands.training.decide import Recipe, check_teacher
from raydist.commands.training.launch import launch
from raydist.config.base import Flags
from raydist.config.train import TrainConfig
from raydist.config.training import DataConfig
from raydist.errors import DataError

if TYPE_CHECKING:
    from raydist.data.samples import SampleFacts
    from raydist.losses.objective import Objective
    from raydist.training.collating import Retarget
    from raydist.training.sets import SetPlan

__all__ = ["Config", "run"]

Config = TrainConfig


def run(config: TrainConfig, flags: Flags) -> None:
    """Trains, or says what would be trained."""
    launch(config, flags, _contrastive(config))


def _contrastive(config: TrainConfig) -> Recipe:
    from raydist.training.sets import plan_groups

    answers = any(
        loss.kind == "biir" and loss.training_type != "retrieval"
        for loss in config.objectives().values()
    )

    def prepare(data: DataConfig) -> dict[str, Any]:
        asked = data.train_group_size or config.train_group_size
        return {"need_negatives": asked is not None and asked > 1}

    def plan(facts: SampleFacts, folder: Path, data: DataConfig) -> SetPlan:
        return plan_groups(
            facts,
            folder,
            batch_size=config.batch_size,
            group=data.train_group_size or config.train_group_size,
            teacher=config.distill.kind != "none" or bool(config.losses),
            answers=answers,
            set_batch_size=data.batch_size,
            weight=data.weight,
            prompt=data.prompt,
            no_in_batch=data.no_in_batch,
        )

    def objective(
        facts: Sequence[SampleFacts],
    ) -> tuple[Objective, Retarget | None, Sequence[str]]:
        from raydist.build import build_objective, build_target
        from raydist.training.collating import repaired

        if answers and not any(found.answers for found in facts):
            raise DataError(
                "loss.kind = biir: the data has no answers (the field `answer`); "
                "loss.training_type=retrieval trains without"
            )
        check_teacher(config.objectives().values(), facts)
        targets: Retarget = build_target(config.target)
        if config.distill.repair_positive:
            targets = partial(repaired, targets)
        contrast = {"infonce", "biir"} & {loss.kind for loss in config.objectives().values()}
        scored = [found.name for found in facts if found.scores]
        notes = []
        unasked = "distill" not in config.model_fields_set and not config.losses
        if scored and contrast and unasked:
            notes.append(
                f"{', '.join(scored)}: has teacher scores, so distill.kind="
                f"{config.distill.kind} is on (distill=none leaves them unused)"
            )
        built = build_objective(config.loss, config.distill, config.losses)
        return built, targets, notes

    return Recipe(
        "biencoder",
        config.model.path,
        config.model.scratch,
        config.model.arguments(),
        prepare,
        plan,
        objective,
    )
