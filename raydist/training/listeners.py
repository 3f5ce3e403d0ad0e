"""Validation listeners: they steer training by real retrieval measures.

`ValidationListener` evaluates every `interval` steps, keeps the best checkpoint of each measure and
votes for stopping; `AggregatorValidationListener` does so for the mean of several; `Listeners`
joins them for the loop. The arithmetic is in `decisions.py`, retrieval in `validation.py`.

    FOLDER/ID/info.json        best value and step per measure
    FOLDER/ID/history.jsonl    a line per evaluation
    FOLDER/ID/per_query/       a Parquet table per evaluation
    FOLDER/ID/best/MEASURE/    the checkpoint that was best, with settings.json
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from raydist.errors import ConfigError
from raydist.evaluation.measures import Evaluation, direction, parse
from raydist.evaluation.mirror import Mirror
from raydist.training.decisions import Rules, State, aggregate, combine, observe, vote
from raydist.training.listener_files import ListenerFiles, Save, ValidationSettings, save_model
from raydist.training.validation import Ranks, Retrieval, Task, validate

__all__ = [
    "AggregatorValidationListener",
    "Hook",
    "Listeners",
    "Pending",
    "Save",
    "ValidationListener",
    "ValidationSettings",
    "save_model",
]


class Hook(Protocol):
    """Called with (step, model, results) around an evaluation; results is None before it."""

    def __call__(self, step: int, model: Any, results: Evaluation | None, /) -> None:
        """Is told of an evaluation."""
        ...


class Pending(Protocol):
    """An evaluation that runs beside training."""

    def result(self, wait: bool) -> Evaluation | None:
        """Returns the evaluation, None if it is not there yet; waits for it if told to."""
        ...


class ValidationListener:
    """Evaluates a model at every `interval`-th step, step 0 included.

    Args:
        id: names its folder and its metrics.
        metrics: measure -> whether the checkpoint of its best value is kept.
        dataset: queries and judgements.
        retriever: turns model and queries into a run.
        folder: where the listeners' folders are.
        warmup: record bests from this step on; -1 = from the start.
        interval: steps between evaluations.
        early_stop: steps without a new best of a kept measure after which it wants to stop;
            0 = it has no vote.
        min_delta: what a new best must be better by.
        hooks: pairs of callables (before, after) with (step, model, results); None for neither.
        save: writes a checkpoint; `save_model` on rank 0 by default.
        mirror: takes values and kept checkpoints (rank 0).
        ranks: the processes that validate together.
        submit: starts the evaluation of a saved checkpoint beside training; decisions then lag.
        facts: fingerprints and the like, kept beside the settings of a checkpoint.

    Raises:
        ConfigError: the settings contradict each other.
    """

    def __init__(
        self,
        id: str,
        metrics: Mapping[str, bool],
        dataset: Task,
        retriever: Retrieval,
        *,
        folder: Path,
        warmup: int = -1,
        interval: int = 128,
        early_stop: int = 0,
        min_delta: float = 0.0,
        hooks: Sequence[tuple[Hook | None, Hook | None]] = (),
        save: Save | None = None,
        mirror: Mirror | None = None,
        ranks: Ranks = Ranks(),  # noqa: B008  frozen
        submit: Callable[[Path, int], Pending] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.id = id
        self.rules = _rules(id, metrics, interval, warmup, early_stop, min_delta)
        self.state = State()
        self._dataset = dataset
        self._retriever = retriever
        self._hooks = hooks
        self._ranks = ranks
        self._submit = submit
        self._pending: dict[int, Pending] = {}
        self._files = ListenerFiles(folder / id, id, save, mirror, ranks, facts or {})

    def after_step(self, step: int, model: Any) -> bool:
        """Evaluates if the step is one of the interval's; returns whether it wants to stop."""
        if self._submit is None:
            if step % self.rules.interval == 0 and step > self.state.step:
                self._before(step, model)
                results = validate(
                    model, self._dataset, self._retriever, list(self.rules.metrics), self._ranks
                )
                self._observe(step, model, results, None)
        elif step % self.rules.interval == 0:
            if step > max([self.state.step, *self._pending]):
                self._before(step, model)
                place = self._files.save_pending(step, model)
                self._pending[step] = self._submit(place, step)
            self._collect(model, wait=False)
        return self.vote() is True

    def finish(self, model: Any) -> None:
        """Waits for evaluations that are under way; warns if the run ends below its start."""
        self._collect(model, wait=True)
        self._files.warn_below(self.rules, self.state)

    def vote(self) -> bool | None:
        """Returns whether it wants to stop, None if it has no vote."""
        return vote(self.rules, self.state)

    def state_dict(self) -> dict[str, Any]:
        """Returns what decides from here on, as JSON values."""
        return {"state": self.state.to_dict(), "pending": sorted(self._pending)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict`: later lines of the files are cut, as they will come again."""
        self.state = State.from_dict(state["state"])
        recorded = self._files.cut(self.state)
        for step in state.get("pending", ()):
            place = self._files.pending(step)
            if place.is_dir() and self._submit is not None:
                self._pending[step] = self._submit(place, step)
            elif step in recorded:  # it was decided after the checkpoint that we go on from
                results = recorded[step]
                self.state, seen = observe(self.rules, self.state, step, results)
                self._files.line(step, results, {}, seen.improved, self.vote())
                self._files.info(self.state)

    def _before(self, step: int, model: Any) -> None:
        if self.state.step < 0 and not self._pending:
            self._files.cut(self.state)  # what an earlier attempt left
        for before, _ in self._hooks:
            if before is not None:
                before(step, model, None)

    def _collect(self, model: Any, wait: bool) -> None:
        """Takes finished evaluations in the order of their steps."""
        for step in sorted(self._pending):
            mine = self._pending[step].result(wait) if self._ranks.rank == 0 else None
            results = self._ranks.gather(mine)[0]
            if results is None:
                return
            del self._pending[step]
            self._observe(step, model, results, self._files.pending(step))

    def _observe(self, step: int, model: Any, results: Evaluation, place: Path | None) -> None:
        values = {name: results.means[name] for name in self.rules.metrics}
        self.state, seen = observe(self.rules, self.state, step, values)
        self._files.record(step, results, self.rules, self.state, seen.improved, self.vote())
        self._files.keep(step, model, seen.kept, self.state, place)
        for name in seen.not_a_number:
            self._files.tell(f"validation {self.id}, step {step}: {name} is not a number", bad=True)
        for _, after in self._hooks:
            if after is not None:
                after(step, model, results)


class AggregatorValidationListener:
    """Watches the mean of several listeners' values; they must run at the same steps.

    Args:
        id: names its folder and its metrics.
        listeners: whose values are averaged; they cast no votes of their own any more.
        folder: where the listeners' folders are.
        metrics: measure -> whether its best checkpoint is kept; the listeners' own by default.
        of: `current` values, or each listener's `best` so far.
        agree: stop when `all` listeners that have a vote want to, or `any`.
        warmup: record bests from this step on; -1 = from the start.
        min_delta: what a new best must be better by.
        save, mirror, ranks, facts: as for `ValidationListener`.

    Raises:
        ConfigError: the listeners differ in interval or measures.
    """

    def __init__(
        self,
        id: str,
        listeners: Sequence[ValidationListener],
        *,
        folder: Path,
        metrics: Mapping[str, bool] | None = None,
        of: Literal["current", "best"] = "current",
        agree: Literal["all", "any"] = "all",
        warmup: int = -1,
        min_delta: float = 0.0,
        save: Save | None = None,
        mirror: Mirror | None = None,
        ranks: Ranks = Ranks(),  # noqa: B008  frozen
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        where = f"validation.{id}.listeners"
        if not listeners:
            raise ConfigError(f"{where} = []: name the listeners whose values are averaged")
        first = listeners[0]
        for other in listeners:
            if other.rules.interval != first.rules.interval:
                raise ConfigError(
                    f"{where}: {first.id} has interval {first.rules.interval}, {other.id} has "
                    f"{other.rules.interval}; they must be equal"
                )
            if set(other.rules.metrics) != set(first.rules.metrics):
                raise ConfigError(
                    f"{where}: {first.id} measures {', '.join(first.rules.metrics)}, {other.id} "
                    f"{', '.join(other.rules.metrics)}; they must be the same"
                )
            if other._submit is not None:
                raise ConfigError(f"{where}: {other.id} is async; its values come too late to join")
        metrics = dict(metrics if metrics is not None else first.rules.metrics)
        unknown = set(metrics) - set(first.rules.metrics)
        if unknown:
            raise ConfigError(
                f"validation.{id}.metrics: {', '.join(sorted(unknown))} is not measured by the "
                f"listeners, which have {', '.join(first.rules.metrics)}"
            )
        self.id = id
        self.listeners = list(listeners)
        self.rules = _rules(id, metrics, first.rules.interval, warmup, 0, min_delta)
        self.state = State()
        self._of = of
        self._agree = agree
        self._files = ListenerFiles(folder / id, id, save, mirror, ranks, facts or {})

    def after_step(self, step: int, model: Any) -> bool:
        """Averages what its listeners measured at this step; they are called before it."""
        if step % self.rules.interval == 0 and step > self.state.step:
            if self.state.step < 0:
                self._files.cut(self.state)
            states = [listener.state for listener in self.listeners]
            assert all(state.step == step for state in states), [state.step for state in states]
            values = aggregate(states, self.rules.metrics, self._of)
            self.state, seen = observe(self.rules, self.state, step, values)
            self._files.line(step, values, {}, seen.improved, self.vote())
            self._files.info(self.state)
            self._files.log(step, values, self.state)
            self._files.keep(step, model, seen.kept, self.state, None)
        return self.vote() is True

    def finish(self, model: Any) -> None:
        """Warns if the mean ends below its start."""
        self._files.warn_below(self.rules, self.state)

    def vote(self) -> bool | None:
        """Returns whether its listeners, all or any, want to stop; None if none has a vote."""
        return combine((listener.vote() for listener in self.listeners), self._agree)

    def state_dict(self) -> dict[str, Any]:
        """Returns what decides from here on, as JSON values."""
        return {"state": self.state.to_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self.state = State.from_dict(state["state"])
        self._files.cut(self.state)


class Listeners:
    """All listeners of a run, as one: what the loop calls.

    Args:
        listeners: in any order; aggregators are called after the others.
        steps: the run's last step, after which `finish` is called by itself.
    """

    def __init__(
        self,
        listeners: Iterable[ValidationListener | AggregatorValidationListener],
        steps: int | None = None,
    ) -> None:
        found = list(listeners)
        self.listeners = sorted(
            found, key=lambda listener: isinstance(listener, AggregatorValidationListener)
        )
        joined = {
            child.id
            for listener in found
            if isinstance(listener, AggregatorValidationListener)
            for child in listener.listeners
        }
        self._voters = [listener for listener in self.listeners if listener.id not in joined]
        self._steps = steps

    def after_step(self, step: int, model: Any) -> bool:
        """Calls every listener; True when all of those that have a vote want to stop."""
        for listener in self.listeners:
            listener.after_step(step, model)
        stop = combine(listener.vote() for listener in self._voters) is True
        if stop or step == self._steps:
            self.finish(model)
        return stop

    def finish(self, model: Any) -> None:
        """Ends every listener's work."""
        for listener in self.listeners:
            listener.finish(model)

    def state_dict(self) -> dict[str, Any]:
        """Returns every listener's state by its id."""
        return {listener.id: listener.state_dict() for listener in self.listeners}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores every listener that the state knows."""
        for listener in self.listeners:
            if listener.id in state:
                listener.load_state_dict(state[listener.id])


def _rules(
    id: str,
    metrics: Mapping[str, bool],
    interval: int,
    warmup: int,
    early_stop: int,
    min_delta: float,
) -> Rules:
    for name in metrics:
        found = list(parse([name]))
        if found != [name]:
            raise ConfigError(
                f"validation.{id}.metrics: {name!r} stands for several: name one of "
                f"{', '.join(found)}"
            )
    directions = {name: direction(name) for name in metrics}
    rules = Rules(dict(metrics), interval, warmup, early_stop, min_delta, directions)
    problems = [f"validation.{id}.{problem}" for problem in rules.problems()]
    problems += [
        f"validation.{id}.metrics: {name} counts something, its checkpoint cannot be the best"
        for name, keep in metrics.items()
        if keep and not directions[name]
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    return rules
