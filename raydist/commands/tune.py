"""Searches for the best configuration of a training run, by Ray Tune.

    raydist tune jobs/quickstart/train.yaml 'space.optim.lr=log(1e-6, 1e-4)' trials=4 out=DIR

The keys are those of `raydist train`, or with `verb=distill` those of `raydist distill`, and
`space.KEY=` gives one of them a distribution: `log(a, b)`, `uniform(a, b)`, `int(a, b)`,
`choice(x, y, ...)`. Trials train side by side; a listener compares them at each of its validations,
and the worse ones are stopped (`scheduler=none` lets all of them end). The same seed draws the same
configurations, all different. DIR/trials has a training run per trial, DIR/best.yaml is what the
verb takes, `model=DIR` is the best trial's best model, and --resume continues a search that was
interrupted, or with more trials.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from raydist import log, storage
from raydist.artefact import Artefact, Output
from raydist.commands.training.launch import DRY_ROWS, Observer, check, launch
from raydist.commands.training.plan import Recipe
from raydist.commands.training.prepare import prepare_shared
from raydist.commands.training.temperature import decided
from raydist.config.base import Flags, short
from raydist.config.inputs import inputs
from raydist.config.record import record_configuration, run_name
from raydist.config.training import DistillConfig, TrainConfig
from raydist.config.tune import Tune, TuneConfig, trial_config
from raydist.disk import atomic, disk_errors
from raydist.errors import ArtifactError, JobError
from raydist.sameness import Extension
from raydist.training.spec import Aggregate, Listener
from raydist.tuning.objective import Objective, choose_objective
from raydist.tuning.record import TRIALS, Record, Trial
from raydist.tuning.spec import draws

if TYPE_CHECKING:
    from raydist.evaluation.tracking import Tracker

Config = TuneConfig
FLAGS = ("--dry-run", "--resume")

ARTEFACT = Artefact("tuning", progress=TRIALS, unit="record", evidence="trials/*")
BEST = "best.yaml"


def run(config: Tune, flags: Flags) -> None:
    """Searches, or says what would be tried.

    Raises:
        ArtifactError: the folder holds another search, or an interrupted one without --resume.
        ConfigError, DataError, JobError: a mistake in the configuration or the data, or a failure.
    """
    search = config.search
    drawn = draws(search.space, search.trials, config.seed)
    objective = choose_objective(config.validation, search.metric)
    trials = log.count(search.trials, "trial")
    with ARTEFACT.open(
        config.out,
        config,
        inputs=lambda: inputs(config),
        plan=f"train {trials} into {config.out}, compared by {objective} "
        f"(a look at the first {DRY_ROWS} samples)",
        dry_run=flags.dry_run,
        extension=Extension(("trials",)) if flags.resume else Extension(),
    ) as output:
        if output.state == "planned":
            _say_draws(drawn)
        if output.done and output.state != "planned":
            return
        first = decided(trial_config(config, drawn[0]))
        check(first, _recipe(first), say=output.done)
        if output.done:
            return
        record = Record(output.folder, drawn)
        if any(trial.reports or trial.end for trial in record.trials) and not flags.resume:
            raise ArtifactError(
                f"out = {config.out}: holds an interrupted search of this configuration: "
                "--resume continues it; or choose another out="
            )
        best, value = _search(config, output, record, objective)
        _keep(config, output.folder, objective, best, value, len(drawn))
        output.finish(
            objective=str(objective),
            best={"trial": best.index, "values": best.values, "value": value[0], "step": value[1]},
            ends={trial.name: trial.end for trial in record.trials},
            trained=_recipe(first).model.family,
        )
    _say_result(config, record, objective, output.folder)


def _search(
    config: Tune, output: Output, record: Record, objective: Objective
) -> tuple[Trial, tuple[float, int]]:
    """Runs the trials that have not ended; returns the best one, its best value and its step."""
    from raydist.tuning.trials import run_trials

    folder = output.folder.absolute()
    configs = [trial_config(config, trial.values) for trial in record.trials]
    steps = [each.steps for each in configs]
    longest = max(steps) if None not in steps else None  # type: ignore[type-var]
    grace = config.search.grace or _interval(config, objective)
    if config.search.scheduler == "asha" and longest is not None and grace >= longest:
        log.warn(
            f"no trial is stopped early: the first that could be is validated after {grace} steps, "
            f"and trials have {longest}; validation.{objective.listener}.interval= or grace= "
            "change that"
        )
    shared = prepare_shared(configs, [_recipe(each) for each in configs], folder)
    parent = _start_tracking(config, output)
    status = "FAILED"
    watch = _Watch(config, folder, objective, parent, record)
    try:
        with watch.progress:
            run_trials(
                partial(_train, config, [trial.values for trial in record.trials], folder, shared),
                record,
                watch,
                folder=folder,
                objective=objective,
                search=config.search,
                resources=config.resources,
                grace=grace,
            )
        best, value = _best(record, objective, folder)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        watch.close(status)
    return best, value


def _train(
    config: Tune,
    draws: Sequence[Mapping[str, str]],
    folder: Path,
    shared: Sequence[Path],
    trial: int,
    hooks: Callable[[int], Any],
    callbacks: Sequence[Any],
) -> None:
    """Trains a trial as its verb does, in the trial's own process."""
    out = Trial(trial, draws[trial]).folder(folder)
    of_trial = decided(trial_config(config, draws[trial], out=str(out), tracking={"uri": "none"}))
    with storage.writing(str(out), config.lock_wait) as place, disk_errors(place):
        launch(of_trial, Flags(resume=True), _recipe(of_trial), Observer(hooks, callbacks, shared))


def _recipe(config: TrainConfig | DistillConfig) -> Recipe:
    from raydist.commands import distill, train

    return train.recipe(config) if isinstance(config, TrainConfig) else distill.recipe(config)


class _Watch:
    """Shows what the trials do, and tracks each as a child of the search's run in MLflow."""

    def __init__(
        self,
        config: Tune,
        folder: Path,
        objective: Objective,
        parent: Tracker | None,
        record: Record,
    ) -> None:
        done = sum(trial.end is not None for trial in record.trials)
        self.progress = log.Progress("tune", len(record.trials), "trial", done=done)
        self._config = config
        self._folder = folder
        self._objective = objective
        self._parent = parent
        self._children: dict[int, Tracker] = {}
        self._trials = record.trials
        self._shown = [len(trial.reports) for trial in record.trials]

    def reported(self, trial: Trial) -> None:
        for step, value in trial.reports[self._shown[trial.index] :]:
            log.say(f"{trial.name}, step {step:,}: {self._objective} {value:.4f} ({trial})")
        self._shown[trial.index] = len(trial.reports)
        if self._parent is None or trial.index in self._children:
            return
        try:
            self._children[trial.index] = self._parent.child(
                trial.folder(self._folder),
                f"{trial.name} {trial}",
                resume=True,
            )
        except JobError as error:  # the search goes on, and the record can be sent later
            log.warn(f"{trial.name}: {error}")

    def ended(self, trial: Trial) -> None:
        value = self._objective.best(trial.folder(self._folder))
        note = "" if value is None else f", {self._objective} {value[0]:.4f} at step {value[1]:,}"
        reason = f": {trial.reason.splitlines()[0]}" if trial.reason else ""
        log.say(f"{trial.name} {trial.end}{note}{reason}")
        self.progress.advance(1)
        self._end(trial, "FAILED" if trial.end == "failed" else "FINISHED")
        if self._parent is None:
            return
        mirror = self._mirror()
        if value is not None:
            mirror.metrics(trial.index, {f"trials/{self._objective}": value[0]})
        columns, rows = comparison(self._trials, self._objective, self._folder)
        mirror.table(dict(zip(columns, map(list, zip(*rows)))), "trials.json")
        mirror.tags({"mlflow.note.content": log.markdown(columns, rows)})

    def close(self, status: str) -> None:
        """Ends what is tracked."""
        for index in list(self._children):
            self._end(self._trials[index], "KILLED")
        if self._parent is not None:
            self._parent.close(status)

    def _end(self, trial: Trial, status: str) -> None:
        child = self._children.pop(trial.index, None)
        if child is not None:
            child.close(status)

    def _mirror(self) -> Any:
        from raydist.evaluation.mirror import Mirror

        return Mirror(self._folder, repair=False)


def _start_tracking(config: Tune, output: Output) -> Tracker | None:
    """Starts the run that is the parent of the trials' runs, if the search is tracked."""
    from raydist.evaluation.mirror import Mirror
    from raydist.evaluation.tracking import Tracker, resolve_uri

    folder = output.folder.absolute()
    uri = resolve_uri(config.tracking.uri, folder.parent)
    if uri is None:
        return None
    record_configuration(Mirror(folder), "tune", config, output.job["inputs"])
    name = config.tracking.name or run_name("tune", "", config)
    return Tracker.start(folder, replace(config.tracking, uri=uri, name=name), resume=True)


def _interval(config: Tune, objective: Objective) -> int:
    spec = config.validation[objective.listener]
    if isinstance(spec, Aggregate):
        members = [config.validation[each] for each in spec.listeners]
        own = [each.interval for each in members if isinstance(each, Listener)]
        return spec.interval or own[0]
    return spec.interval


def _best(record: Record, objective: Objective, folder: Path) -> tuple[Trial, tuple[float, int]]:
    """Returns the trial of the best value, the value and its step; the first of equals.

    Raises:
        JobError: no trial has one.
    """
    best: tuple[Trial, tuple[float, int]] | None = None
    for trial in record.trials:
        value = objective.best(trial.folder(folder)) if trial.end != "failed" else None
        if value is not None and (best is None or value[0] > best[1][0]):
            best = trial, value
    if best is None:
        reasons = [trial.reason for trial in record.trials if trial.reason]
        raise JobError(
            f"no trial has a value of {objective}"
            + (f"; the first failed: {reasons[0]}" if reasons else "")
        )
    return best


def _keep(
    config: Tune,
    folder: Path,
    objective: Objective,
    best: Trial,
    value: tuple[float, int],
    trials: int,
) -> None:
    """Writes the best configuration and model into the search's folder."""
    from raydist.training.checkpoint import FINAL

    chosen = trial_config(config, best.values, out=f"{log.spoken(config.out)}-best")
    text = yaml.safe_dump(_short(chosen), sort_keys=False, allow_unicode=True)
    head = (
        f"# The best of {log.count(trials, 'trial')}: {objective} {value[0]:.4f} at step "
        f"{value[1]} with {best}\n"
    )
    with atomic(folder / BEST) as partial:
        partial.write_text(head + text, encoding="utf-8")
    with atomic(folder / FINAL) as partial:
        shutil.copytree(objective.model(best.folder(folder)), partial)


def _short(config: TrainConfig | DistillConfig) -> dict[str, Any]:
    """Returns what was set of a configuration, as a file holds it."""
    fields = type(config).model_fields.items()
    names = {field.alias or name: name for name, field in fields if name in config.model_fields_set}
    values = {key: short(getattr(config, name)) for key, name in names.items()}
    values.get("tracking", {}).pop("parent", None)  # of the pipeline that this search is part of
    return values


def _say_draws(draws: Sequence[Mapping[str, str]]) -> None:
    keys = list(draws[0])
    rows = [[index, *(values[key] for key in keys)] for index, values in enumerate(draws)]
    log.table("trials", ["trial", *keys], rows)


def comparison(
    trials: Sequence[Trial], objective: Objective, folder: Path
) -> tuple[list[str], list[list[Any]]]:
    """Returns the columns and rows of a table of the trials, the best first."""
    keys = list(trials[0].values)
    values = {trial.index: objective.best(trial.folder(folder)) for trial in trials}
    rows = []
    for trial in sorted(trials, key=lambda each: -(values[each.index] or (-math.inf, 0))[0]):
        value = values[trial.index]
        shown = ["-", "-"] if value is None else [f"{value[0]:.4f}", value[1]]
        drawn = [trial.values[key] for key in keys]
        last = max((step for step, _ in trial.reports), default=0)
        rows.append([trial.index, *drawn, *shown, last, trial.end or "running"])
    return ["trial", *keys, str(objective), "at step", "steps", "end"], rows


def _say_result(config: Tune, record: Record, objective: Objective, folder: Path) -> None:
    """Reports the trials, the best first."""
    log.table(f"tuned {config.out}", *comparison(record.trials, objective, folder))
    log.say(f"best configuration: {config.out}/{BEST} (raydist {config.verb} {config.out}/{BEST})")
    log.say(f"best model: {config.out} (model={config.out} takes it)")
