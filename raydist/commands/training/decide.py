"""From a configuration and the data's facts to a run, decided."""

from __future__ import annotations

import importlib
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raydist import log
from raydist.config.base import Flags
from raydist.config.load import load
from raydist.config.losses import DistillationLoss, Loss
from raydist.config.model import ScratchConfig
from raydist.config.training import DataConfig, TrainingConfig
from raydist.disk import write_json
from raydist.errors import DataError
from raydist.fingerprints import value_fingerprint

if TYPE_CHECKING:
    from raydist.data.samples.sample_set import SampleFacts
    from raydist.losses.objective import Objective
    from raydist.training.job import Job
    from raydist.training.sets import SetPlan
    from raydist.training.targets import Retarget


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a verb adds to a run.

    Attributes:
        kind: what is trained.
        model: the folder or name to start from; None starts from nothing.
        scratch: sizes of a model from nothing.
        model_options: keyword arguments of the model's `load`.
        prepare: data set's configuration -> further keyword arguments of `prepare`.
        plan: (facts, folder, data set's configuration) -> how it is trained on.
        objective: facts of all data sets -> loss, what turns scores into targets, notes.
    """

    kind: Literal["biencoder", "crossencoder"]
    model: str | None
    scratch: ScratchConfig | None
    model_options: Mapping[str, Any]
    prepare: Callable[[DataConfig], Mapping[str, Any]]
    plan: Callable[[SampleFacts, Path, DataConfig], SetPlan]
    objective: Callable[[Sequence[SampleFacts]], tuple[Objective, Retarget | None, Sequence[str]]]


def decide(config: TrainingConfig, recipe: Recipe, folder: Path, rows: int = 0) -> Job:
    """Prepares the data and returns the run, decided."""
    from raydist.data.samples.prepare import prepare
    from raydist.training.job import Job
    from raydist.training.listening import check_listeners
    from raydist.training.loop import Plan
    from raydist.training.schedule import Schedule

    validation = {name: spec.arguments() for name, spec in config.validation.items()}
    check_listeners(validation, recipe.kind)
    facts, plans = [], []
    for name, data in config.sets().items():
        place = folder / "data" / name
        options = {**config.inputs(data), **recipe.prepare(data)}
        if data.bm25_negatives and not rows:
            options["run"] = _bm25_run(config, data, folder / "data")
        if rows:
            options["max_rows"] = min(rows, options["max_rows"] or rows)
        guessed = rows and data.bm25_negatives  # a dry run builds no index
        if guessed:
            options["need_negatives"] = False
        found = prepare(data.path, place, name=name, **options)
        if guessed:
            negatives = {data.bm25_negatives: found.rows}
            found = replace(found, negatives=negatives, without_negatives="")
        facts.append(found)
        plans.append(recipe.plan(found, place, data))
    objective, targets, notes = recipe.objective(facts)
    for note in [*(f"{f.name}: {n}" for f in facts for n in f.notes), *notes]:
        log.warn(note)
    for plan in plans:
        for note in plan.notes:
            log.warn(f"{plan.name}: {note}")
        _check_shares(config, plan)
    if recipe.kind == "biencoder":
        for note in _negatives(config):
            log.warn(note)
    steps = config.steps or _steps(config, plans)
    optim = config.optim
    job = Job(
        kind=recipe.kind,
        folder=folder,
        model=recipe.model or str(folder / "scratch"),
        sets=tuple(plans),
        objective=objective,
        plan=Plan(
            steps=steps,
            schedule=Schedule(optim.lr, steps, optim.warmup, optim.schedule, optim.floor),
            seed=config.seed,
            log_every=config.log_every,
            checkpoint_every=config.checkpoint.every or min(500, max(1, math.ceil(steps / 10))),
            prefetch=config.prefetch,
            progress=config.workers == 0,
            folder=folder / "nonfinite",
        ),
        seed=config.seed,
        accumulation=config.accumulation,
        chunk_size=config.cache.chunk_size,
        targets=targets,
        repair_positive=config.distill.repair_positive,
        model_options={**recipe.model_options, "seed": config.seed},
        optimizer={
            "lr": optim.lr,
            "weight_decay": optim.weight_decay,
            "betas": (optim.beta1, optim.beta2),
            "eps": optim.eps,
            "max_grad_norm": optim.clip,
        },
        zero=config.deepspeed.zero,
        zero_options={
            "offload_optimizer": config.deepspeed.offload_optimizer,
            "offload_parameters": config.deepspeed.offload_parameters,
        },
        keep=config.checkpoint.keep,
        validation=validation,
    )
    if recipe.scratch is not None and not rows:
        _create(recipe.scratch, job, config.seed)
    return job


def _check_shares(config: TrainingConfig, plan: SetPlan) -> None:
    """Raises DataError where a data set's own lines ask for too small a batch."""
    processes = max(1, config.workers) * config.accumulation
    if plan.stream.batch_size < processes:
        field = "data" if config.data is not None else f"datasets.{plan.name}"
        raise DataError(
            f"{plan.name}: its lines say batch_size = {plan.stream.batch_size}: expected at least "
            f"one sample for each of {config.workers} workers and {config.accumulation} "
            f"accumulation parts; {field}.batch_size={processes} goes before the lines"
        )


def _negatives(config: TrainingConfig) -> list[str]:
    """Returns notes on losses whose negatives depend on how a step is cut."""
    notes = []
    for name, loss in config.objectives().items():
        scope = getattr(loss, "scope", None)
        parts = config.accumulation * (max(1, config.workers) if scope == "in_batch" else 1)
        if scope in ("in_batch", "cross_device") and parts > 1:
            cut = "workers and accumulation parts" if scope == "in_batch" else "accumulation parts"
            wider = "loss.scope=cross_device takes all workers'; " * (scope == "in_batch")
            notes.append(
                f"loss.scope = {scope} ({name}): negatives are those of 1/{parts} of a step, so "
                f"another number of {cut} is another training; {wider}cache=16 needs no parts"
            )
    return notes


def _steps(config: TrainingConfig, plans: Sequence[SetPlan]) -> int:
    return max(1, round(config.epochs * sum(plan.stream.batches for plan in plans)))


def _bm25_run(config: TrainingConfig, data: DataConfig, folder: Path) -> Path:
    """Returns BM25's ranking of a data set's queries, made by the verbs that make such things."""
    corpus, queries = data.corpus or config.corpus, data.queries or config.queries
    assert corpus is not None and queries is not None
    name = value_fingerprint([corpus.resolved(), queries.resolved(), data.bm25_negatives])
    index, ranking = folder / f"bm25-{name}", folder / f"bm25-{name}.txt"
    if not ranking.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _verb("index", {"corpus": corpus.resolved(), "out": str(index)}, index)
        search = {"index": str(index), "queries": queries.resolved(), "k": data.bm25_negatives}
        _verb("search", {**search, "out": str(ranking)}, ranking)
    return ranking


def _verb(verb: str, config: Mapping[str, Any], beside: Path) -> None:
    module = importlib.import_module(f"raydist.commands.{verb}")
    file = beside.with_name(f".{beside.name}.{verb}.json")
    write_json(file, config)
    module.run(load(module.Config, [str(file)]), Flags())
    file.unlink()


def _create(scratch: ScratchConfig, job: Job, seed: int) -> None:
    """Makes a model from nothing, its vocabulary trained on the data's texts."""
    from raydist.data.samples.sample_set import SampleSet
    from raydist.models.scratch import create

    target = Path(job.model)
    if (target / "config.json").exists():
        return

    def texts() -> Iterator[str]:
        for plan in job.sets:
            samples = SampleSet(plan.folder)
            for row in range(len(samples)):
                sample = samples[row]
                yield sample.query
                yield from sample.documents

    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".scratch-") as partial_folder:
        place = Path(partial_folder) / "model"
        create(texts(), place, **scratch.model_dump(), seed=seed)
        os.replace(place, target)


def check_teacher(losses: Iterable[Loss], facts: Sequence[SampleFacts]) -> None:
    """Raises DataError where a loss needs a teacher that a data set has not."""
    for loss in losses:
        margin = getattr(loss, "teacher_margin", None)
        if margin is not None and not any(found.scores or found.answer_scores for found in facts):
            raise DataError(
                f"loss.teacher_margin = {margin:g}: no data set has the teacher scores that it "
                "compares (pos_scores and neg_scores); leave it out"
            )
        if not isinstance(loss, DistillationLoss) or loss.kind == "list_mle":
            continue
        for found in facts:
            if not found.scores:
                raise DataError(f"{found.name}: has no teacher scores, which {loss.kind} needs")
