"""From a configuration and the data's facts to a run, decided. Pure: nothing is read or written."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from raydist.config.training import TrainingConfig
from raydist.errors import DataError
from raydist.losses.spec import DistillationLoss, Loss
from raydist.models.spec import BiEncoderSettings, CrossEncoderSettings
from raydist.training.spec import TrainingData

if TYPE_CHECKING:
    from raydist.data.samples.sample_set import SampleFacts
    from raydist.data.spec import SampleSource
    from raydist.losses.objective import Objective
    from raydist.training.plan import Job, SetPlan
    from raydist.training.source import ToTargets


_MOST_THREADS = 8
"""That prepare batches: beyond it they wait for Python's lock."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a verb adds to a run.

    Attributes:
        model: what is trained.
        require: (data set's configuration, its source) -> the source, with what samples must have.
        plan_set: (facts, folder, data set's configuration) -> how it is trained on.
        objective: facts of all data sets -> loss, what turns scores into targets, notes.
    """

    model: BiEncoderSettings | CrossEncoderSettings
    require: Callable[[TrainingData, SampleSource], SampleSource]
    plan_set: Callable[[SampleFacts, Path, TrainingData], SetPlan]
    objective: Callable[[Sequence[SampleFacts]], tuple[Objective, ToTargets | None, Sequence[str]]]


def data_folder(folder: Path, name: str) -> Path:
    """Returns the folder of a data set's prepared samples below a run's."""
    return folder / "data" / name


def plan(
    config: TrainingConfig,
    recipe: Recipe,
    facts: Sequence[SampleFacts],
    folder: Path,
) -> tuple[Job, list[str]]:
    """Returns the run and what the user should know of it.

    Raises:
        ConfigError, DataError: the data lacks what the configuration needs.
    """
    from raydist.training.plan import Job, Plan, Schedule

    sets = [
        recipe.plan_set(of_set, data_folder(folder, name), data)
        for of_set, (name, data) in zip(facts, config.sets().items(), strict=True)
    ]
    if config.batch_tokens:
        sets = _of_tokens(config, recipe, sets)
    objective, to_targets, notes = recipe.objective(facts)
    notes = [*(f"{f.name}: {note}" for f in facts for note in f.notes), *notes]
    notes += [f"{each.name}: {note}" for each in sets for note in each.notes]
    for each in sets:
        _check_shares(config, each)
    if recipe.model.family == "biencoder":
        notes += _notes_on_negatives(config)
    steps_per_epoch = sum(each.batches for each in sets)
    steps = config.steps or max(1, round(config.epochs * steps_per_epoch))
    optim, model = config.optim, recipe.model
    if model.path is None:
        model = replace(model, path=str(folder / "scratch"), scratch=None)
    job = Job(
        folder=folder,
        model=model,
        sets=tuple(sets),
        objective=objective,
        plan=Plan(
            steps=steps,
            schedule=Schedule(optim.lr, steps, optim.warmup, optim.schedule, optim.floor),
            seed=config.seed,
            log_every=config.log_every,
            checkpoint_every=config.checkpoint.every or min(500, max(1, math.ceil(steps / 10))),
            prefetch=config.prefetch,
            threads=threads(config),
            progress=config.resources.workers == 0,
            folder=folder / "nonfinite",
        ),
        seed=config.seed,
        accumulation=config.accumulation,
        chunk_size=config.cache.chunk_size,
        to_targets=to_targets,
        repair_positive=config.distill.repair_positive,
        optim=optim,
        deepspeed=config.deepspeed,
        keep=config.checkpoint.keep,
        validation=config.validation,
        system_every=config.tracking.system,
    )
    return job, notes


def _of_tokens(config: TrainingConfig, recipe: Recipe, sets: Sequence[SetPlan]) -> list[SetPlan]:
    """Returns the plans with steps of a number of tokens."""
    from raydist.training.lengths import budgeted, counter_of

    counter = counter_of(recipe.model)
    return [budgeted(each, counter, config.batch_tokens, config.processes) for each in sets]


def threads(config: TrainingConfig) -> int:
    """Returns how many steps are prepared at a time: one CPU of a worker is left to training.

    Where training itself runs on the CPUs, more than one thread would only be in its way.
    """
    on = config.resources
    if not on.workers:
        import torch

        spare = len(os.sched_getaffinity(0)) - 1 if torch.cuda.is_available() else 1
    else:
        spare = int(on.cpus_per_worker) - 1 if on.gpus_per_worker else 1
    return min(max(1, spare), _MOST_THREADS)


def check_teacher(losses: Iterable[Loss], facts: Sequence[SampleFacts]) -> None:
    """Raises DataError where a loss needs a teacher that a data set does not have."""
    for loss in losses:
        margin = getattr(loss, "teacher_margin", None)
        if margin is not None and not any(f.scores or f.answer_scores for f in facts):
            raise DataError(
                f"loss.teacher_margin = {margin:g}: no data set has the teacher scores that it "
                "compares (pos_scores and neg_scores); leave it out"
            )
        if not isinstance(loss, DistillationLoss) or loss.kind == "list_mle":
            continue
        for of_set in facts:
            if not of_set.scores:
                raise DataError(f"{of_set.name}: has no teacher scores, which {loss.kind} needs")


def _check_shares(config: TrainingConfig, plan: SetPlan) -> None:
    """Raises DataError where a data set's own lines ask for too small a batch."""
    workers = config.resources.workers
    smallest = plan.batch_sizes[0]
    if smallest < config.processes:
        field = "data" if config.data is not None else f"datasets.{plan.name}"
        raise DataError(
            f"{plan.name}: its lines say batch_size = {smallest}: expected at least "
            f"one sample for each of {workers} workers and {config.accumulation} "
            f"accumulation parts; {field}.batch_size={config.processes} overrides the lines"
        )


def _notes_on_negatives(config: TrainingConfig) -> list[str]:
    """Returns notes on losses whose negatives depend on how a step is cut."""
    notes, workers = [], config.resources.workers
    for name, loss in config.objectives().items():
        scope = getattr(loss, "scope", None)
        parts = config.accumulation * (max(1, workers) if scope == "in_batch" else 1)
        if scope in ("in_batch", "cross_device") and parts > 1:
            cut = "workers and accumulation parts" if scope == "in_batch" else "accumulation parts"
            wider = "loss.scope=cross_device takes all workers'; " * (scope == "in_batch")
            notes.append(
                f"loss.scope = {scope} ({name}): negatives are those of 1/{parts} of a step, so "
                f"another number of {cut} is another training; {wider}cache=16 needs no parts"
            )
    return notes
