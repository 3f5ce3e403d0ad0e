"""Trains a reranker (or a bi-encoder) from a teacher's rankings.

    raydist distill data=distill.jsonl corpus=DOCS queries=QUERIES model=PATH out=DIR

The teacher comes as lists of candidates with scores, as a TREC run, or as pairs with two scores;
`raydist score` makes such lists. Everything else is as in `raydist train`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist.commands.training.launch import launch
from raydist.commands.training.plan import Recipe, check_teacher
from raydist.commands.training.temperature import decided
from raydist.config.base import Flags, short
from raydist.config.load import load
from raydist.config.training import DistillConfig, kind_at
from raydist.data.spec import SampleSource
from raydist.errors import ConfigError
from raydist.losses.spec import ListwiseSoftmaxCE, TargetSpec
from raydist.training.spec import TrainingData

if TYPE_CHECKING:
    from raydist.data.samples.sample_set import SampleFacts
    from raydist.losses.objective import Objective
    from raydist.training.plan import SetPlan
    from raydist.training.source import ToTargets

Config = DistillConfig
FLAGS = ("--dry-run", "--resume")


def run(config: DistillConfig, flags: Flags) -> None:
    """Trains, or says what would be trained."""
    config = decided(_known(config))
    launch(config, flags, recipe(config))


def _known(config: DistillConfig) -> DistillConfig:
    """Returns the configuration by what the model's folder is now: a stage may have written it."""
    model = config.model
    if model.path is None or kind_at(model.path) in (None, model.kind):
        return config
    return load(DistillConfig, [{**short(config), "model": _unkind(short(model))}])


def _unkind(model: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key != "kind"}


def recipe(config: DistillConfig) -> Recipe:
    """Returns how a student is trained from a teacher."""
    from raydist.training.plan import plan_lists

    student = config.model

    def judged(data: TrainingData) -> bool:
        return (data.qrels or config.qrels) is not None

    def require(data: TrainingData, source: SampleSource) -> SampleSource:
        if judged(data):
            return replace(source, positives="retrieved", need_negatives=True)
        return replace(source, need_scores=True)

    def used(facts: SampleFacts, data: TrainingData) -> SampleFacts:
        """Returns the facts, without the teacher's scores where grades are the targets."""
        by_grade = config.sampler.kind == "listwise" and judged(data)
        return replace(facts, scores=False) if by_grade else facts

    def plan_set(facts: SampleFacts, folder: Path, data: TrainingData) -> SetPlan:
        return plan_lists(
            used(facts, data),
            folder,
            data,
            batch_size=config.batch_size,
            sampler=config.sampler,
        )

    def objective(
        facts: Sequence[SampleFacts],
    ) -> tuple[Objective, ToTargets | None, Sequence[str]]:
        from raydist.losses.objective import make_objective
        from raydist.losses.targets import make_targets

        sets = config.sets()
        facts = [used(of_set, sets[of_set.name]) for of_set in facts]
        check_teacher(config.objectives().values(), facts)
        target, notes = _target(config, facts)
        built = make_objective(config.loss, config.distill, config.losses, output=student.output)
        return built, partial(make_targets, target=target), notes

    return Recipe(student, require, plan_set, objective)


def _target(
    config: DistillConfig, facts: Sequence[SampleFacts]
) -> tuple[TargetSpec, tuple[str, ...]]:
    """Returns the configured target, or one that the losses can read."""
    bounded = any(
        isinstance(loss, ListwiseSoftmaxCE) and not loss.gains
        for loss in config.objectives().values()
    )
    outside = [f.name for f in facts if f.scores and (f.lowest_score < 0 or f.highest_score > 1)]
    target = config.target
    if not bounded or not outside:
        return target or TargetSpec(), ()
    if target is None:
        note = "target=minmax: the scores exceed [0, 1], the range that listwise_softmax_ce reads"
        return TargetSpec(kind="minmax"), (note,)
    if target.kind in ("score", "rank"):
        worst = next(f for f in facts if f.name == outside[0])
        raise ConfigError(
            f"target = {target.kind}: listwise_softmax_ce reads targets in [0, 1], {worst.name} "
            f"has scores from {worst.lowest_score:g} to {worst.highest_score:g}; use "
            "target=minmax, target=binary(T) or loss.gains=true"
        )
    return target, ()
