"""Trials on a Ray cluster, the worse ones stopped early; the only file that imports `ray.tune`.

Ray Tune starts the trials and decides which continue (asynchronous successive halving, Li et al.,
2020). Each trains in a process of its own, as `raydist train` does, or on Ray Train's workers, and
reports each validation. Ray's own record is not needed: a search continues from ours.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from raydist import cluster, log
from raydist.errors import JobError, RaydistError
from raydist.evaluation.measures import Evaluation
from raydist.training.spec import Resources
from raydist.training.validation.build import Hooks
from raydist.tuning.objective import Objective
from raydist.tuning.record import Record, Trial
from raydist.tuning.spec import Search

_RAY = ".ray"
_NO_LIMIT = 1 << 40  # steps: a run's own end is what ends it
_DRIVER = {"CPU": 0, "memory": 1 << 20}
"""What a trial takes whose training runs on workers: they take the rest."""


class Train(Protocol):
    """Trains a trial's configuration; picklable.

    Args:
        trial: its number.
        hooks: of its last step, to be called around the validations of listeners.
        callbacks: Ray Train's, where the training runs on workers.
    """

    def __call__(
        self, trial: int, hooks: Callable[[int], Hooks], callbacks: Sequence[Any], /
    ) -> None:
        """Trains."""


class Watcher(Protocol):
    """Told of what happens, in the driver's process."""

    def reported(self, trial: Trial) -> None:
        """After a trial's newest report."""

    def ended(self, trial: Trial) -> None:
        """After a trial's end."""


@dataclass(frozen=True, slots=True)
class Report:
    """The hook of a listener that reports its value; picklable.

    The last step is no `step` to the scheduler: it must not stop a run that ends anyway.
    """

    measure: str
    send: Callable[[dict[str, float]], None]
    last: int

    def __call__(self, step: int, model: Any, results: Evaluation | None) -> None:
        """Reports a validation; does not return where Ray Tune stops the trial."""
        assert results is not None
        key = "last" if step == self.last else "step"
        self.send({key: step, "value": float(results.means[self.measure])})


def run_trials(
    train: Train,
    record: Record,
    watcher: Watcher,
    *,
    folder: Path,
    objective: Objective,
    search: Search,
    resources: Resources,
    grace: int,
) -> None:
    """Runs the trials that have not ended.

    Args:
        train: trains one of them.
        record: of all trials; takes their values and ends.
        watcher: is told of them.
        folder: of the search.
        objective: what they report.
        search: how many run at a time, and which are stopped.
        resources: of one trial.
        grace: steps before which none is stopped.

    Raises:
        JobError: the cluster is too small, or lost a trial again and again.
    """
    each, most = _resources(resources)
    # The log is ours, Ctrl-C ends the command, and paths mean what they mean to the user.
    os.environ |= {
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    }
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)  # it would miss its own logs
    from ray import tune
    from ray.tune.schedulers import FIFOScheduler

    waiting = [trial for trial in record.trials if trial.end is None]
    earlier = {trial.index: list(trial.reports) for trial in waiting}
    run = partial(_run, train, objective, earlier, resources.workers > 0, os.getcwd())
    asha = search.scheduler == "asha"
    side_by_side = min(search.concurrent or most, most)
    log.say(
        f"{log.count(len(waiting), 'trial')}, {min(side_by_side, len(waiting))} at a time, "
        f"in {folder / 'trials'}"
    )
    tuner = tune.Tuner(
        tune.with_resources(run, each),
        param_space={"trial": tune.grid_search([trial.index for trial in waiting])},
        tune_config=tune.TuneConfig(
            scheduler=_asha(record, search, grace) if asha else FIFOScheduler(),
            max_concurrent_trials=side_by_side,
            trial_dirname_creator=lambda trial: f"trial-{trial.config['trial']:03}",
        ),
        run_config=tune.RunConfig(
            name=f"tune-{uuid.uuid4().hex[:12]}",
            storage_path=str((folder / _RAY).absolute()),
            failure_config=tune.FailureConfig(max_failures=resources.max_failures),
            callbacks=[_callback(record, watcher)],
            verbose=0,
        ),
    )
    tuner.fit()
    shutil.rmtree(folder / _RAY, ignore_errors=True)
    lost = [trial for trial in record.trials if trial.end is None]
    if lost:
        raise JobError(
            f"{lost[0].name} was not run to its end, and {len(lost) - 1} others; run the same "
            "command with --resume"
        )


def _resources(resources: Resources) -> tuple[dict[str, float], int]:
    """Returns what a trial takes, and how many of them the cluster holds."""
    workers, cpus, gpus = resources.workers, resources.cpus_per_worker, resources.gpus_per_worker
    cpus = cpus if workers else float(resources.threads or cpus)
    cluster.require(workers or 1, cpus, gpus)
    have = cluster.available()
    if not workers and have["GPU"]:
        gpus = gpus or 1.0
    counts = [int(have["CPU"] / (cpus * (workers or 1)) + 1e-6)]
    if gpus:
        counts.append(int(have["GPU"] / (gpus * (workers or 1)) + 1e-6))
    growing = os.environ.get("RAYDIST_AUTOSCALING") == "1"
    most = max(1, min(counts)) if not growing else 1 << 20
    return ({"CPU": cpus, "GPU": gpus} if not workers else dict(_DRIVER)), most


def _asha(record: Record, search: Search, grace: int) -> Any:
    """Returns the scheduler, which knows what ended trials reported."""
    from ray.tune.schedulers import ASHAScheduler

    scheduler = ASHAScheduler(
        time_attr="step",
        metric="value",
        mode="max",
        max_t=_NO_LIMIT,
        grace_period=grace,
        reduction_factor=search.reduction,
    )
    for trial in record.trials:
        if trial.end is not None:
            ended = SimpleNamespace(trial_id=trial.name)
            scheduler.on_trial_add(None, ended)
            for step, value in trial.reports:
                scheduler.on_trial_result(None, ended, {"step": step, "value": value})
    return scheduler


def _run(
    train: Train,
    objective: Objective,
    earlier: Mapping[int, Sequence[tuple[int, float]]],
    on_workers: bool,
    cwd: str,
    config: Mapping[str, Any],
) -> None:
    """Runs in each trial's process."""
    from ray import tune

    cluster.enter(cwd)  # a Ray that was there before may have begun elsewhere
    trial = config["trial"]
    for step, value in earlier[trial]:
        tune.report({"step": step, "value": value})
    callbacks, send = [], tune.report
    if on_workers:
        from ray.tune.integration.ray_train import TuneReportCallback

        from raydist.training.worker import report

        callbacks, send = [TuneReportCallback()], report

    def hooks(last: int) -> Hooks:
        return {objective.listener: [(None, Report(objective.measure, send, last))]}

    failed = ""
    try:
        train(trial, hooks, callbacks)
    except RaydistError as error:
        failed = str(error)
    # Without a step, so that nothing is decided on it.
    tune.report({"value": math.nan, "end": "failed" if failed else "finished", "reason": failed})


def _callback(record: Record, watcher: Watcher) -> Any:
    """Returns what writes the record, called by Ray Tune in the driver's process."""
    from ray.tune import Callback

    class Recorder(Callback):  # type: ignore[misc]
        def __reduce__(self) -> Any:
            return dict, ()  # what Ray Tune saves of a search, to restore it, is not used

        def __copy__(self) -> Recorder:
            return self

        def __deepcopy__(self, memo: Any) -> Recorder:
            return self

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
        ) -> None:
            index = trial.config["trial"]
            if "end" in result:
                self._end(index, result["end"], result["reason"])
            elif (step := result.get("step", result.get("last"))) is not None:
                record.report(index, step, result["value"])
                watcher.reported(record.trials[index])

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self._end(trial.config["trial"], "stopped")

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            error = trial.get_error()
            lines = str(error).strip().splitlines() or ["its process died"]
            self._end(trial.config["trial"], "failed", lines[-1])

        def _end(self, index: int, end: Any, reason: str = "") -> None:
            if record.trials[index].end is None:
                record.ended(index, end, reason)
                watcher.ended(record.trials[index])

    return Recorder()
