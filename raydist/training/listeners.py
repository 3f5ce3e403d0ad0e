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
from pathlib import Path
from typing import Any, Literal

from raydist.errors import ConfigError
from raydist.evaluation.mirror import Mirror
from raydist.training.checkpoint import Save
from raydist.training.decisions import State, aggregate, combine, observe
from raydist.training.listener_files import ListenerFiles
from raydist.training.listener_rules import listener_rules
from raydist.training.validation import Ranks
from raydist.training.validation_listener import ValidationListener


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
        self.rules = listener_rules(id, metrics, first.rules.interval, warmup, 0, min_delta)
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
