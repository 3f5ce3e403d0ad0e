"""One story for every verb that trains: check the data, decide, train, write the manifest."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist import cluster, log
from raydist.commands.training.decide import Recipe, decide
from raydist.commands.training.say import say_plan, say_result
from raydist.config.base import Flags
from raydist.config.training import TrainingConfig
from raydist.errors import ArtifactError, RaydistError
from raydist.manifest import Output

if TYPE_CHECKING:
    from raydist.training.job import Job

KIND = "training-run"
_DRY_ROWS = 100  # samples of each data set that a dry run looks at


def launch(config: TrainingConfig, flags: Flags, recipe: Recipe) -> None:
    """Checks the data, decides the run, trains, and writes the manifest.

    Raises:
        ArtifactError: the folder holds another run, or an interrupted one without --resume.
        ConfigError, DataError, JobError: see what they say.
    """
    if flags.dry_run:
        with tempfile.TemporaryDirectory() as scrap:
            _check_model(recipe)
            job = decide(config, recipe, Path(scrap), _DRY_ROWS)
            say_plan(config, job)
            log.say(f"would write {config.out} (a look at the first {_DRY_ROWS} samples)")
        return
    output = Output.open(
        config.out,
        kind=KIND,
        config=config.identity(),
        inputs=_fingerprints(config, recipe),
        resolved=config.resolved(),
    )
    if output.complete:
        log.say(f"{config.out}: already trained with the same configuration")
        return
    folder = output.folder.absolute()
    reached = _reached(folder)
    if reached and not flags.resume:
        raise ArtifactError(
            f"out = {config.out}: holds an interrupted run of this configuration at step "
            f"{reached}: --resume goes on with it; or choose another out="
        )
    try:
        beside = sum(each.gpus for each in config.validation.values() if each.kind == "listener")
        if config.workers or beside:  # before the data is prepared, which may take long
            cluster.require(config.workers, config.cpus_per_worker, config.gpus_per_worker, beside)
        job = decide(config, recipe, folder)
    except RaydistError:
        if not output.resumed:
            output.discard()
        raise
    say_plan(config, job)
    result = _train(config, job, folder, reached)
    output.finish(
        outcome=result,
        samples={plan.name: plan.stream.rows for plan in job.sets},
        steps_per_epoch=job.order.steps_per_epoch,
        trained=job.kind,
    )
    say_result(config, job, result)


def _train(config: TrainingConfig, job: Job, folder: Path, reached: int) -> dict[str, Any]:
    """Runs the job, tracked and shown."""
    from raydist.evaluation.mirror import Mirror
    from raydist.evaluation.tracking import Tracker, resolve_uri
    from raydist.training.job import run_job
    from raydist.training.progress import followed
    from raydist.training.worker import fit

    mirror = Mirror(folder, resume_step=reached)
    tracking = config.tracking
    uri = resolve_uri(tracking.uri, folder.parent)
    tracker = None
    if uri is not None:
        tracker = Tracker.start(
            folder,
            uri=uri,
            experiment=tracking.experiment,
            name=tracking.name,
            tags=tracking.tags,
            parent=tracking.parent,
            artifacts=tracking.artifacts,
            resume=reached > 0,
        )
    mirror.params(config.resolved())
    mirror.params({"inputs": _inputs_of(folder)})
    mirror.artifact(folder / "config.json")
    status = "FAILED"
    try:
        work = partial(run_job, job)
        resources: dict[str, Any] = {
            "workers": config.workers,
            "cpus_per_worker": config.cpus_per_worker,
            "gpus_per_worker": config.gpus_per_worker,
            "max_failures": config.max_failures,
            "threads": config.threads,
        }
        if config.workers:
            with followed(folder, job.plan.steps, reached):
                result = fit(work, folder, **resources)
        else:
            result = fit(work, folder, **resources)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if tracker is not None:
            tracker.close(status)
        else:
            Mirror(folder, repair=False).end(status)
    return result


def _reached(folder: Path) -> int:
    """Returns the step of the newest checkpoint, 0 if there is none."""
    from raydist.training.checkpoint import LocalCheckpoints, read_state
    from raydist.training.job import CHECKPOINTS

    latest = LocalCheckpoints(folder / CHECKPOINTS).latest()
    return int(read_state(latest)["step"]) if latest else 0


def _fingerprints(config: TrainingConfig, recipe: Recipe) -> dict[str, str]:
    """Returns what tells this run's inputs from others by content."""
    from raydist.data.samples.sources import input_key

    found = {}
    for name, data in config.sets().items():
        found[f"{name}.path"] = input_key({"path": data.path})
        for what in ("corpus", "queries", "qrels", "run"):
            source = config.inputs(data)[what]
            if source is not None:
                found[f"{name}.{what}"] = input_key(source)
    for name, listener in config.validation.items():
        spec = listener.arguments()
        spec["retriever.run"] = spec.get("retriever", {}).get("run")
        for what in ("corpus", "queries", "qrels", "retriever.run"):
            if source := spec.get(what):
                found[f"validation.{name}.{what}"] = input_key(source)
    model = _check_model(recipe)
    if model is not None:
        from raydist.fingerprints import model_fingerprint

        found["model"] = model_fingerprint(model)
    return found


def _check_model(recipe: Recipe) -> Path | None:
    """Returns the folder to start from; raises DataError where there is no model."""
    if recipe.model is None:
        return None
    from raydist.models.backbone import resolve_folder

    return resolve_folder(recipe.model)


def _inputs_of(folder: Path) -> dict[str, Any]:
    """Returns the fingerprints that `Output` wrote down for this run."""
    job = json.loads((folder / ".job.json").read_text(encoding="utf-8"))
    return dict(job["inputs"])
