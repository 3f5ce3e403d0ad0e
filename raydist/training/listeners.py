"""Validation listeners: they steer training by real retrieval measures.

`ValidationListener` (`validation_listener.py`) evaluates every `interval` steps, keeps the best
checkpoint of each measure and votes for stopping; `AggregatorValidationListener` does so for the
mean of several; `Listeners` joins them for the loop.

    FOLDER/ID/info.json        best value and step per measure
    FOLDER/ID/history.jsonl    a line per evaluation
    FOLDER/ID/per_query/       a Parquet table per evaluation
    FOLDER/ID/best/MEASURE/    the checkpoint that was best, with settings.json
    FOLDER/ID/runs/, figures/  how start, best and end compare
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raydist.errors import ConfigError
from raydist.evaluation.mirror import Mirror
from raydist.training.checkpoint import Save
from raydist.training.decisions import State, aggregate, combine, observe
from raydist.training.listener_files import ListenerFiles
from raydist.training.spec import Aggregate
from raydist.training.validation import Ranks
from raydist.training.validation_listener import ValidationListener


class AggregatorValidationListener:
    """Watches the mean of several listeners' values; they must run at the same steps.

    Args:
        id: names its folder and its metrics.
        spec: measures, what is averaged, when to record and to stop.
        listeners: whose values are averaged; they cast no votes of their own any more.
        folder: where the listeners' folders are.
        save, mirror, ranks, facts: as for `ValidationListener`.

    Raises:
        ConfigError: the listeners differ in interval or measures.
    """

    def __init__(
        self,
        id: str,
        spec: Aggregate,
        listeners: Sequence[ValidationListener],
        *,
        folder: Path,
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
            if other._submit is not None:
                raise ConfigError(f"{where}: {other.id} is async; its values come too late to join")
        metrics = first.spec.metrics if spec.metrics is None else spec.metrics
        unknown = set(metrics) - set(first.spec.metrics)
        if unknown:
            raise ConfigError(
                f"validation.{id}.metrics: {', '.join(sorted(unknown))} is not measured by the "
                f"listeners, which have {', '.join(first.spec.metrics)}"
            )
        self.id = id
        self.listeners = list(listeners)
        self.spec = replace(spec, metrics=metrics)
        self.metrics = metrics
        self.state = State()
        self._files = ListenerFiles(folder / id, id, save, mirror, ranks, facts or {})

    def after_step(self, step: int, model: Any) -> bool:
        """Averages what its listeners measured at this step; they are called before it."""
        if step % self.listeners[0].spec.interval == 0 and step > self.state.step:
            if self.state.step < 0:
                self._files.cut(self.state)
            states = [listener.state for listener in self.listeners]
            assert all(state.step == step for state in states), [state.step for state in states]
            values = aggregate(states, self.metrics, self.spec.of)
            self.state, seen = observe(self.spec, self.state, step, values)
            self._files.line(step, values, {}, seen.improved, self.vote())
            self._files.info(self.state)
            self._files.log(step, values, self.state)
            self._files.keep(step, model, seen.kept, self.state, None)
        return self.vote() is True

    def finish(self, model: Any) -> None:
        """Warns if the mean ends below its start."""
        self._files.warn_below(self.state)

    def vote(self) -> bool | None:
        """Returns whether its listeners, all or any, want to stop; None if none has a vote."""
        return combine((listener.vote() for listener in self.listeners), self.spec.agree)

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
