"""One story for every verb that trains: prepare, plan, run, report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist import cluster, log, storage
from raydist.artefact import Artefact, Output
from raydist.commands.training.plan import Recipe, plan
from raydist.commands.training.prepare import (
    create_model,
    find_model,
    prepare,
)
from raydist.config.base import Flags
from raydist.config.inputs import inputs
from raydist.config.record import record_configuration, run_name
from raydist.config.training import TrainConfig, TrainingConfig
from raydist.errors import ArtifactError, ConfigError
from raydist.sameness import Extension

if TYPE_CHECKING:
    from raydist.training.plan import Job, SetPlan
    from raydist.training.validation.build import Hooks

ARTEFACT = Artefact(
    "training-run",
    progress="checkpoints/*",
    unit="checkpoint",
    evidence="tracking.jsonl",
)
DRY_ROWS = 100  # samples of each data set that a dry run looks at


@dataclass(frozen=True, slots=True)
class Observer:
    """Who follows a run from outside, and ends its record: a search of which it is a trial.

    Attributes:
        hooks: last step -> what is called around the validations of listeners.
        callbacks: Ray Train's, where the run is on workers.
        shared: folders with what was prepared for all runs of a search.
    """

    hooks: Callable[[int], Hooks]
    callbacks: Sequence[Any] = ()
    shared: Sequence[Path] = ()


def launch(
    config: TrainingConfig, flags: Flags, recipe: Recipe, observer: Observer | None = None
) -> None:
    """Prepares the data, plans the run, trains, and writes the manifest.

    Args:
        config: of the run.
        flags: of the command.
        recipe: of the verb.
        observer: who follows the run, if anybody does.

    Raises:
        ArtifactError: the folder holds another run, or an interrupted one without --resume.
        ConfigError, DataError, JobError: a mistake in the configuration or the data, or a failure.
    """
    if storage.leaves(config.out):
        _recover(Path(config.out).absolute())
    with ARTEFACT.open(
        config.out,
        config,
        inputs=lambda: inputs(config),
        plan=f"write {config.out} (a look at the first {DRY_ROWS} samples)",
        dry_run=flags.dry_run,
        extension=_extension(config) if flags.resume else Extension(),
    ) as output:
        if output.state == "planned":
            check(config, recipe)
        if output.done:
            return
        from raydist.training.nodes import area_of
        from raydist.training.nodes import reached as reached_in

        folder = output.folder.absolute()
        area = area_of(folder)
        reached = max(_reached(folder), 0 if area is None else reached_in(area, folder))
        if reached and not flags.resume:
            raise ArtifactError(
                f"out = {config.out}: holds an interrupted run of this configuration at step "
                f"{reached}: --resume continues it; or choose another out="
            )
        beside = sum(each.gpus for each in config.validation.values() if each.kind == "listener")
        on = config.resources
        if on.workers or beside:  # before the data is prepared, which may take long
            cluster.require(on.workers, on.cpus_per_worker, on.gpus_per_worker, beside)
        for shared in observer.shared if observer else ():
            link = folder / shared.name
            if not link.is_symlink():
                link.symlink_to(os.path.relpath(shared, folder))
        job, notes = _prepare_and_plan(config, recipe, folder)
        _say_plan(config, job, notes)
        if observer is not None:
            job = replace(job, hooks=observer.hooks(job.plan.steps))
        job = replace(job, area=area)
        if recipe.model.scratch is not None:
            samples = [each.folder for each in job.sets]
            create_model(recipe.model.scratch, Path(job.model.path or ""), samples, config.seed)
        result = _train(config, job, output, reached, observer)
        output.finish(
            outcome=result,
            samples={each.name: each.rows for each in job.sets},
            steps_per_epoch=job.order.steps_per_epoch,
            trained=job.model.family,
        )
    _say_result(config, result)


def _recover(folder: Path) -> None:
    """Fetches the checkpoints of an interrupted run that lie on the object store.

    They are progress: another configuration must not discard them, more steps go on from them.
    """
    if _reached(folder):
        return
    from raydist.training.nodes import RunFolder, area_of, reached

    area = area_of(folder)
    if area is not None and reached(area, folder):
        RunFolder(area, folder).fetch_result()


def check(config: TrainingConfig, recipe: Recipe, say: bool = True) -> None:
    """Looks at the model and the first samples, and may say what would be trained.

    Raises:
        ConfigError, DataError: a mistake in the configuration or the data.
    """
    with tempfile.TemporaryDirectory() as scratch:
        find_model(recipe)
        job, notes = _prepare_and_plan(config, recipe, Path(scratch), DRY_ROWS)
        if say:
            _say_plan(config, job, notes)


def _extension(config: TrainingConfig) -> Extension:
    """Returns whether a run can go on to more steps: only if those done had the same rates.

    Raises:
        ConfigError: the run is further already.
    """
    reached = _reached(Path(config.out))
    if config.steps is None or not reached:
        return Extension()
    if config.steps < reached:
        raise ConfigError(
            f"steps = {config.steps}: {config.out} is at step {reached} already; expected more"
        )
    optim = config.optim
    refusal = ""
    if optim.schedule != "constant":
        refusal = f"optim.schedule = {optim.schedule} follows from the number of steps"
    elif 0 < optim.warmup < 1:
        refusal = f"optim.warmup = {optim.warmup:g} is a share of the steps"
    if refusal:
        refusal += (
            ", so the steps done had other rates. Start a run of its own from this one's weights "
            f"(model={config.out} and another out=), or all steps anew (another out=); "
            "optim.schedule=constant with optim.warmup in whole steps can be extended later"
        )
    return Extension(("steps",), refusal)


def _prepare_and_plan(
    config: TrainingConfig, recipe: Recipe, folder: Path, rows: int = 0
) -> tuple[Job, list[str]]:
    from raydist.training.precision import check_attention

    check_attention(recipe.model, config.resources)
    facts = prepare(config, recipe, folder, rows)
    return plan(config, recipe, facts, folder)


def _train(
    config: TrainingConfig, job: Job, output: Output, reached: int, observer: Observer | None
) -> dict[str, Any]:
    """Runs the job, with its record and progress."""
    from raydist.evaluation.mirror import Mirror
    from raydist.evaluation.tracking import Tracker, resolve_uri
    from raydist.training.nodes import RunFolder
    from raydist.training.progress import followed
    from raydist.training.run import run
    from raydist.training.worker import fit

    folder = output.folder.absolute()
    run_folder = None if job.area is None else RunFolder(job.area, folder)
    if run_folder is not None and reached:
        run_folder.fetch_record()
    mirror = Mirror(folder, resume_step=reached)
    verb = "train" if isinstance(config, TrainConfig) else "distill"
    record_configuration(mirror, verb, config, output.job["inputs"])
    uri = resolve_uri(config.tracking.uri, folder.parent)
    tracker = None
    if uri is not None:
        name = config.tracking.name or run_name(verb, "", config)
        tracking = replace(config.tracking, uri=uri, name=name)
        tracker = Tracker.start(folder, tracking, resume=reached > 0)
    status = "FAILED"
    try:
        if run_folder is not None:
            run_folder.offer()
        on_workers = config.resources.workers > 0
        with followed(folder, job.plan.steps, reached) if on_workers else nullcontext():
            callbacks = observer.callbacks if observer else ()
            result = fit(
                partial(run, job), folder, config.resources, area=job.area, callbacks=callbacks
            )
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if tracker is not None:
            tracker.close(status)
        elif observer is None:
            Mirror(folder, repair=False).end(status)
    return result


def _reached(folder: Path) -> int:
    """Returns the step of the newest checkpoint, 0 if there is none."""
    from raydist.training.checkpoint import CHECKPOINTS, Checkpoints, read_state

    latest = Checkpoints(folder / CHECKPOINTS).latest()
    return int(read_state(latest)["step"]) if latest else 0


def _say_plan(config: TrainingConfig, job: Job, notes: Sequence[str]) -> None:
    """Says what is trained on, for how long, and how precisely."""
    from raydist.training.precision import words

    for note in notes:
        log.warn(note)
    order = job.order
    rows = []
    for each in job.sets:
        fewest, most = each.batch_sizes
        size = fewest if fewest == most else f"{fewest}-{most}"
        rows.append([each.name, each.rows, size, each.batches, _drawn(each)])
    log.table("training data", ["data set", "samples", "batch", "steps/epoch", "drawn"], rows)
    epochs = job.plan.steps / order.steps_per_epoch
    workers = config.resources.workers
    where = log.count(workers, "Ray worker") if workers else "this process"
    zero = job.deepspeed.zero
    stage = f", ZeRO {zero}" if zero else ""
    precision = "".join(f", {word}" for word in words(job.model, config.resources))
    steps = log.count(job.plan.steps, "step")
    kind = getattr(job.model, "kind", None) or job.model.family
    log.say(f"{kind}: {steps}, {epochs:.2f} epochs, on {where}{stage}{precision}")


def _drawn(plan: SetPlan) -> str:
    words = [str(plan.sampler).replace("Sampler", "")]
    words += ["teacher"] if plan.teacher else []
    words += ["no_in_batch"] if plan.no_in_batch else []
    words += ["symmetric"] if plan.symmetric else []
    return ", ".join(words)


def _say_result(config: TrainingConfig, result: Mapping[str, Any]) -> None:
    """Reports the outcome of the run."""
    rate = result["samples"] / result["seconds"] if result["seconds"] else 0.0
    loss = result["loss"]
    rows: list[list[object]] = [
        ["steps", result["step"]],
        ["last loss", "-" if loss is None else float(loss)],
        ["samples/s", rate],
        ["padding", f"{result['padding_waste']:.1%}"],
    ]
    if result["stopped"]:
        rows.append(["stopped early by", ", ".join(config.validation)])
    log.table(f"trained {config.out}", ["what", "value"], rows)
    log.say(f"model: {config.out}/checkpoint-final (model={config.out} takes it)")
