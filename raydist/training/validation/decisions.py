"""The arithmetic of validation listeners: new bests, kept checkpoints, early stopping.

Pure functions of spec, state and values; files, models and ranks are in `listener.py`. Steps are
optimizer steps: one unit for warm-up, interval and early stopping.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from raydist.evaluation.measures import direction
from raydist.training.spec import Aggregate, Listener


@dataclass(frozen=True, slots=True)
class Best:
    """The best value of a measure so far and the step that reached it."""

    value: float
    step: int


@dataclass(frozen=True, slots=True)
class State:
    """A listener's state; decisions depend on nothing else.

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
        """Returns the state that `to_dict` returned."""
        return cls(
            step=int(data["step"]),
            best={k: Best(float(b["value"]), int(b["step"])) for k, b in data["best"].items()},
            current={k: math.nan if v is None else float(v) for k, v in data["current"].items()},
            baseline={k: math.nan if v is None else float(v) for k, v in data["baseline"].items()},
            failures=int(data["failures"]),
        )

    def below_baseline(self) -> dict[str, tuple[float, float]]:
        """Returns metric -> (baseline, current) where the current value is worse."""
        if self.step <= 0:
            return {}
        return {
            name: (self.baseline[name], value)
            for name, value in self.current.items()
            if name in self.baseline and direction(name) * (value - self.baseline[name]) < 0
        }


@dataclass(frozen=True, slots=True)
class Observation:
    """The changes of an evaluation: new bests, those whose checkpoint is kept, and NaNs."""

    improved: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    not_a_number: tuple[str, ...] = ()


def observe(
    spec: Listener | Aggregate, state: State, step: int, values: Mapping[str, float]
) -> tuple[State, Observation]:
    """Returns the state after an evaluation, and its changes.

    From `warmup` on a value that is better than the best by more than `min_delta` (strictly, if
    that is 0) becomes the best, and so does the first number. A NaN never does; a count, which is
    neither good nor bad, only as the first.
    """
    metrics = spec.metrics or {}
    assert step > state.step and set(values) == set(metrics), (step, state.step, values)
    best = dict(state.best)
    improved = []
    for name, value in values.items():
        if math.isnan(value) or step < spec.warmup:
            continue
        old = best.get(name)
        if old is None or direction(name) * (value - old.value) > spec.min_delta:
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
    kept = tuple(name for name in improved if metrics[name])
    return after, Observation(tuple(improved), kept, bad)


def vote(spec: Listener | Aggregate, state: State) -> bool | None:
    """Returns whether the listener wants to stop; None if it has no vote (early_stop = 0).

    It wants to when the newest best of the *kept* metrics is `early_stop` steps old or older.
    Before a first best it does not.
    """
    if spec.early_stop == 0:
        return None
    metrics = spec.metrics or {}
    newest = [b.step for name, b in state.best.items() if metrics[name]]
    return bool(newest) and state.step - max(newest) >= spec.early_stop


def combine(votes: Iterable[bool | None], agree: Literal["all", "any"] = "all") -> bool | None:
    """Returns the joint vote of those that have one; None if none has."""
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
