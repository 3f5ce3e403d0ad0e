"""The arithmetic of validation listeners: what is a new best, what is kept, when to stop.

Pure functions of rules, state and values; files, models and ranks are in `listeners.py`. Steps are
optimizer steps: one unit for warm-up, interval and early stopping.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Best:
    """The best value of a measure so far and the step that reached it."""

    value: float
    step: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What a listener was asked for.

    Attributes:
        metrics: measure name -> whether its best checkpoint is kept.
        interval: evaluate at the multiples of this many steps, 0 included.
        warmup: record bests from this step on; -1 = from the start.
        early_stop: stop when the newest best of the kept metrics is this many steps old; 0 = never.
        min_delta: a value must be better than the best by more than this.
        directions: -1 for measures whose smaller values are better; 1 where absent.
    """

    metrics: Mapping[str, bool]
    interval: int = 128
    warmup: int = -1
    early_stop: int = 0
    min_delta: float = 0.0
    directions: Mapping[str, int] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """Returns what contradicts itself: one sentence each, none if all is well."""
        found = []
        if not self.metrics:
            found.append("metrics = {}: name at least one measure, for example {map: true}")
        if self.interval < 1:
            found.append(f"interval = {self.interval}: expected at least 1 step")
        if self.early_stop < 0 or (self.interval > 0 and self.early_stop % self.interval):
            found.append(
                f"early_stop = {self.early_stop}: expected 0 (never) or a multiple of "
                f"interval = {self.interval}"
            )
        if self.early_stop > 0 and self.metrics and not any(self.metrics.values()):
            found.append(
                f"early_stop = {self.early_stop}: no metric is kept, so nothing could decide; "
                f"set one of {', '.join(self.metrics)} to true, or early_stop to 0"
            )
        if self.min_delta < 0:
            found.append(f"min_delta = {self.min_delta}: expected 0 or more")
        return found


@dataclass(frozen=True, slots=True)
class State:
    """What a listener knows; decisions depend on nothing else.

    Attributes:
        step: the newest evaluated step, -1 before the first.
        best: per metric, once one is recorded.
        current: the newest values.
        baseline: the values of step 0, if it was evaluated.
        failures: values that were NaN so far.
    """

    step: int = -1
    best: Mapping[str, Best] = field(default_factory=dict)
    current: Mapping[str, float] = field(default_factory=dict)
    baseline: Mapping[str, float] = field(default_factory=dict)
    failures: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the state as JSON values; a NaN is None."""
        return {
            "step": self.step,
            "best": {k: {"value": b.value, "step": b.step} for k, b in self.best.items()},
            "current": {k: None if math.isnan(v) else v for k, v in self.current.items()},
            "baseline": {k: None if math.isnan(v) else v for k, v in self.baseline.items()},
            "failures": self.failures,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> State:
        """Returns the state that `to_dict` gave."""
        return cls(
            step=int(data["step"]),
            best={k: Best(float(b["value"]), int(b["step"])) for k, b in data["best"].items()},
            current={k: math.nan if v is None else float(v) for k, v in data["current"].items()},
            baseline={k: math.nan if v is None else float(v) for k, v in data["baseline"].items()},
            failures=int(data["failures"]),
        )

    def below_baseline(self, rules: Rules) -> dict[str, tuple[float, float]]:
        """Returns metric -> (baseline, current) where the current value is worse."""
        if self.step <= 0:
            return {}
        return {
            name: (self.baseline[name], value)
            for name, value in self.current.items()
            if name in self.baseline
            and rules.directions.get(name, 1) * (value - self.baseline[name]) < 0
        }


@dataclass(frozen=True, slots=True)
class Observation:
    """What an evaluation changed: new bests, those whose checkpoint is kept, and NaNs."""

    improved: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    not_a_number: tuple[str, ...] = ()


def observe(
    rules: Rules, state: State, step: int, values: Mapping[str, float]
) -> tuple[State, Observation]:
    """Returns the state after an evaluation and what it changed.

    From `warmup` on a value that is better than the best by more than `min_delta` (in the measure's
    direction; strictly, if that is 0) becomes the best; the first number does so in any case. A
    NaN never does.
    """
    assert step > state.step and set(values) == set(rules.metrics), (step, state.step, values)
    best = dict(state.best)
    improved = []
    for name, value in values.items():
        if math.isnan(value) or step < rules.warmup:
            continue
        sign = rules.directions.get(name, 1)
        old = best.get(name)
        if old is None or sign * (value - old.value) > rules.min_delta:
            best[name] = Best(value, step)
            improved.append(name)
    bad = tuple(name for name, value in values.items() if math.isnan(value))
    after = replace(
        state,
        step=step,
        best=best,
        current=dict(values),
        baseline=dict(values) if step == 0 else state.baseline,
        failures=state.failures + len(bad),
    )
    kept = tuple(name for name in improved if rules.metrics[name])
    return after, Observation(tuple(improved), kept, bad)


def vote(rules: Rules, state: State) -> bool | None:
    """Returns whether the listener wants to stop; None if it has no vote (early_stop = 0).

    It wants to when the newest best of the *kept* metrics is `early_stop` steps old or older.
    Before a first best it does not.
    """
    if rules.early_stop == 0:
        return None
    newest = [b.step for name, b in state.best.items() if rules.metrics[name]]
    return bool(newest) and state.step - max(newest) >= rules.early_stop


def combine(votes: Iterable[bool | None], agree: Literal["all", "any"] = "all") -> bool | None:
    """Returns the joint vote: listeners without a vote are not asked; None if none has one."""
    cast = [v for v in votes if v is not None]
    if not cast:
        return None
    return all(cast) if agree == "all" else any(cast)


def aggregate(
    states: Sequence[State], names: Iterable[str], of: Literal["current", "best"] = "current"
) -> dict[str, float]:
    """Returns the mean over listeners of each metric's current (or best) value.

    A listener that has no value (or a NaN) makes the mean NaN.
    """
    means = {}
    for name in names:
        if of == "current":
            values = [state.current.get(name, math.nan) for state in states]
        else:
            values = [
                state.best[name].value if name in state.best else math.nan for state in states
            ]
        means[name] = sum(values) / len(values)
    return means
