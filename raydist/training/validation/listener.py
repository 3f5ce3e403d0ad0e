"""`ValidationListener` watches one task, `AggregatorValidationListener` the mean of several.

`Listeners` joins them for the training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from raydist.errors import ConfigError
from raydist.evaluation.measures import Evaluation
from raydist.training.spec import Aggregate, Listener
from raydist.training.validation.decisions import State, aggregate, combine, observe, vote
from raydist.training.validation.files import ListenerFiles
from raydist.training.validation.retrieval import Retrieval, Task, validate

_SIGN_OF_LIFE_S = 60.0
"""Seconds after which the waiting rank wakes the others: their collectives must not time out."""


class Hook(Protocol):
    """Called with (step, model, results) around an evaluation; results is None before it."""

    def __call__(self, step: int, model: Any, results: Evaluation | None, /) -> None:
        """Called around an evaluation."""
        ...


class Pending(Protocol):
    """An evaluation that runs beside training."""

    def result(self, timeout_s: float) -> Evaluation | None:
        """Returns the evaluation, None if it takes longer than this time."""
        ...


class ValidationListener:
    """Evaluates a model at every `interval`-th step, step 0 included, and at the run's last.

    Args:
        files: its folder and record; its id names both.
        spec: measures, interval, when to record and to stop.
        task: queries and judgements.
        retriever: turns model and queries into a run.
        hooks: pairs of callables (before, after) with (step, model, results); None for neither.
        submit: starts the evaluation of a saved checkpoint beside training; one runs at a time, so
            decisions lag by an interval.
    """

    def __init__(
        self,
        files: ListenerFiles,
        spec: Listener,
        task: Task,
        retriever: Retrieval,
        *,
        hooks: Sequence[tuple[Hook | None, Hook | None]] = (),
        submit: Callable[[Path, int], Pending] | None = None,
    ) -> None:
        self.id = files.id
        self.spec = spec
        self.state = State()
        self.asynchronous = submit is not None
        self._files = files
        self._task = task
        self._retriever = retriever
        self._hooks = hooks
        self._submit = submit
        self._pending: dict[int, Pending] = {}

    def after_step(self, step: int, model: Any, *, last: bool = False) -> bool:
        """Evaluates at the interval's steps and the last; returns whether it wants to stop."""
        due = last or step % self.spec.interval == 0
        if due and step > max([self.state.step, *self._pending]):
            self._collect(model)
            self._before(step, model)
            if self._submit is None:
                results = validate(
                    model, self._task, self._retriever, list(self.spec.metrics), self._files.ranks
                )
                self._observe(step, model, results, None)
            else:
                place = self._files.save_pending(step, model)
                self._pending[step] = self._submit(place, step)
        return self.vote() is True

    def finish(self, model: Any) -> None:
        """Waits for running evaluations, and warns if the run ends below its start.

        The comparison of start, best and end goes into the record.
        """
        self._collect(model)
        self._files.warn_below(self.state)
        self._files.dashboard(self.spec.metrics, self.state, self._task.qrels)

    def vote(self) -> bool | None:
        """Returns whether it wants to stop, None if it has no vote."""
        return vote(self.spec, self.state)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of all later decisions, as JSON values."""
        return {"state": self.state.to_dict(), "pending": sorted(self._pending)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes from `state_dict`: later lines of the files are cut, to be written again."""
        self.state = State.from_dict(state["state"])
        recorded = self._files.cut(self.state)
        for step in state.get("pending", ()):
            place = self._files.pending(step)
            if place.is_dir() and self._submit is not None:
                self._pending[step] = self._submit(place, step)
            elif step in recorded:  # decided after the checkpoint that is resumed from
                results = recorded[step]
                self.state, change = observe(self.spec, self.state, step, results)
                self._files.line(step, results, {}, change.improved, self.vote())
                self._files.info(self.state)

    def _before(self, step: int, model: Any) -> None:
        if self.state.step < 0 and not self._pending:
            self._files.cut(self.state)  # from an earlier attempt
        for before, _ in self._hooks:
            if before is not None:
                before(step, model, None)

    def _collect(self, model: Any) -> None:
        """Waits for running evaluations."""
        for step in sorted(self._pending):
            results = None
            while results is None:
                first = self._files.ranks.rank == 0
                result = self._pending[step].result(_SIGN_OF_LIFE_S) if first else None
                results = self._files.ranks.broadcast(result)
            del self._pending[step]
            self._observe(step, model, results, self._files.pending(step))

    def _observe(self, step: int, model: Any, results: Evaluation, place: Path | None) -> None:
        values = {name: results.means[name] for name in self.spec.metrics}
        self.state, change = observe(self.spec, self.state, step, values)
        self._files.record(
            step,
            results,
            self.spec.metrics,
            self.state,
            change.improved,
            self.vote(),
            {query.query_id: query.text for query in self._task.queries},
        )
        self._files.keep(step, model, change.kept, self.state, place)
        for name in change.not_a_number:
            self._files.warn(f"validation {self.id}, step {step}: {name} is not a number")
        for _, after in self._hooks:
            if after is not None:
                after(step, model, results)


class AggregatorValidationListener:
    """Watches the mean of several listeners' values; they must run at the same steps.

    Args:
        files: its folder and record; its id names both.
        spec: measures, current or best values, when to record and to stop.
        listeners: whose values are averaged; they no longer vote for themselves.
        hooks: pairs of callables (before, after) with (step, model, results); the results are the
            means, without values per query.

    Raises:
        ConfigError: the listeners differ in interval or measures, or the spec contradicts theirs.
    """

    def __init__(
        self,
        files: ListenerFiles,
        spec: Aggregate,
        listeners: Sequence[ValidationListener],
        *,
        hooks: Sequence[tuple[Hook | None, Hook | None]] = (),
    ) -> None:
        id = files.id
        where = f"validation.{id}.listeners"
        if not listeners:
            raise ConfigError(f"{where} = []: name the listeners whose values are averaged")
        first = listeners[0]
        for other in listeners:
            if other.spec.interval != first.spec.interval:
                raise ConfigError(
                    f"{where}: {first.id} has interval {first.spec.interval}, {other.id} has "
                    f"{other.spec.interval}; they must be equal"
                )
            if set(other.spec.metrics) != set(first.spec.metrics):
                raise ConfigError(
                    f"{where}: {first.id} measures {', '.join(first.spec.metrics)}, {other.id} "
                    f"{', '.join(other.spec.metrics)}; they must be the same"
                )
            if other.asynchronous:
                raise ConfigError(f"{where}: {other.id} is async; its values come too late to join")
        metrics = first.spec.metrics if spec.metrics is None else spec.metrics
        unknown = set(metrics) - set(first.spec.metrics)
        if unknown:
            raise ConfigError(
                f"validation.{id}.metrics: {', '.join(sorted(unknown))} is not measured by the "
                f"listeners, which have {', '.join(first.spec.metrics)}"
            )
        interval = first.spec.interval if spec.interval is None else spec.interval
        if interval % first.spec.interval:
            raise ConfigError(
                f"validation.{id}.interval = {interval}: expected a multiple of the listeners' "
                f"interval, {first.spec.interval}"
            )
        self.id = id
        self.listeners = list(listeners)
        try:
            self.spec = replace(spec, metrics=metrics, interval=interval)
        except ValueError as error:
            raise ConfigError(f"validation.{id}: {error}") from None
        self.metrics = metrics
        self.state = State()
        self._interval = interval
        self._files = files
        self._hooks = hooks

    def after_step(self, step: int, model: Any, *, last: bool = False) -> bool:
        """Averages its listeners' values at this step; they are called before it."""
        if (last or step % self._interval == 0) and step > self.state.step:
            if self.state.step < 0:
                self._files.cut(self.state)
            for before, _ in self._hooks:
                if before is not None:
                    before(step, model, None)
            states = [listener.state for listener in self.listeners]
            assert all(state.step == step for state in states), [state.step for state in states]
            values = aggregate(states, self.metrics, self.spec.of)
            self.state, change = observe(self.spec, self.state, step, values)
            self._files.line(step, values, {}, change.improved, self.vote())
            self._files.info(self.state)
            self._files.log(step, values, self.state)
            self._files.keep(step, model, change.kept, self.state, None)
            for _, after in self._hooks:
                if after is not None:
                    after(step, model, _means(values))
        return self.vote() is True

    def finish(self, model: Any) -> None:
        """Warns if the mean ends below its start."""
        self._files.warn_below(self.state)

    def vote(self) -> bool | None:
        """Returns whether it wants to stop, None if it has no vote.

        Its own bests decide if it has an `early_stop`, else its listeners, all or any.
        """
        if self.spec.early_stop:
            return vote(self.spec, self.state)
        return combine((listener.vote() for listener in self.listeners), self.spec.agree)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of all later decisions, as JSON values."""
        return {"state": self.state.to_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes from `state_dict`."""
        self.state = State.from_dict(state["state"])
        self._files.cut(self.state)


def _means(values: Mapping[str, float]) -> Evaluation:
    nothing = np.empty((len(values), 0))
    return Evaluation(tuple(values), (), nothing, dict(values))


class Listeners:
    """All listeners of a run as one, for the loop.

    Args:
        listeners: in any order; aggregators are called after the others.
        steps: the run's last step, which is evaluated, and after which `after_step` calls `finish`.
    """

    def __init__(
        self,
        listeners: Iterable[ValidationListener | AggregatorValidationListener],
        steps: int | None = None,
    ) -> None:
        self.listeners = sorted(
            listeners, key=lambda listener: isinstance(listener, AggregatorValidationListener)
        )
        averaged = {
            member.id
            for listener in self.listeners
            if isinstance(listener, AggregatorValidationListener)
            for member in listener.listeners
        }
        self._voters = [listener for listener in self.listeners if listener.id not in averaged]
        self._steps = steps

    @property
    def asynchronous(self) -> bool:
        """Whether all evaluations run beside training."""
        return all(isinstance(e, ValidationListener) and e.asynchronous for e in self.listeners)

    def due(self, step: int) -> bool:
        """Returns whether `after_step` may have something to do."""
        intervals = [
            each.spec.interval for each in self.listeners if isinstance(each, ValidationListener)
        ]
        return step == self._steps or any(step % interval == 0 for interval in intervals)

    def after_step(self, step: int, model: Any) -> bool:
        """Calls every listener; True when all of those that have a vote want to stop."""
        last = step == self._steps
        for listener in self.listeners:
            listener.after_step(step, model, last=last)
        stop = combine(listener.vote() for listener in self._voters) is True
        if stop or last:
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
