"""What trials are compared by: one measure of one listener."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raydist.training.spec import Aggregate, Listener


@dataclass(frozen=True, slots=True)
class Objective:
    """The best value of a trial decides, and its checkpoint is the trial's model.

    Attributes:
        listener: the listener's id.
        measure: a kept one, whose larger values are better.
    """

    listener: str
    measure: str

    def __str__(self) -> str:
        return f"{self.listener}/{self.measure}"

    def best(self, trial: Path) -> tuple[float, int] | None:
        """Returns a trial's best value and its step, None where no best was recorded."""
        try:
            text = (trial / "listeners" / self.listener / "info.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        best = json.loads(text).get(self.measure)
        return None if best is None else (float(best["value"]), int(best["step"]))

    def model(self, trial: Path) -> Path:
        """Returns the folder of a trial's best model."""
        return trial / "listeners" / self.listener / "best" / self.measure


def choose_objective(
    validation: Mapping[str, Listener | Aggregate], metric: str | None = None
) -> Objective:
    """Returns the objective of a run with these listeners.

    Args:
        validation: the listeners by id.
        metric: `ID` or `ID/MEASURE`; None leaves it to the only listener that is not averaged by
            another, and its first kept measure.

    Raises:
        ValueError: nothing decides, or more than one could.
    """
    if not validation:
        raise ValueError(
            "validation: trials are compared by a listener, and there is none; add "
            "validation.dev.corpus=CORPUS validation.dev.queries=QUERIES "
            "validation.dev.qrels=QRELS validation.dev.interval=STEPS"
        )
    id, _, measure = (metric or "").partition("/")
    if not id:
        averaged = {
            each
            for spec in validation.values()
            if isinstance(spec, Aggregate)
            for each in spec.listeners
        }
        heads = [each for each in validation if each not in averaged]
        if len(heads) != 1:
            raise ValueError(
                f"metric: required, there are several listeners; metric={' or metric='.join(heads)}"
            )
        id = heads[0]
    if id not in validation:
        raise ValueError(
            f"metric = {metric!r}: no such listener; there are {', '.join(validation)}"
        )
    metrics = _metrics(validation, id)
    kept = [name for name, keep in metrics.items() if keep]
    if measure and measure not in metrics:
        raise ValueError(
            f"metric = {metric!r}: {id} does not measure {measure}; it has {', '.join(metrics)}"
        )
    if not kept or (measure and measure not in kept):
        name = measure or next(iter(metrics))
        raise ValueError(
            f"validation.{id}.metrics: the checkpoint of the best {name} is not kept, so a trial "
            f"would have no model; validation.{id}.metrics='{{{name}: true}}' keeps it"
        )
    return Objective(id, measure or kept[0])


def _metrics(validation: Mapping[str, Listener | Aggregate], id: str) -> Mapping[str, bool]:
    spec = validation[id]
    if isinstance(spec, Aggregate) and spec.metrics is None:
        members = [validation[each] for each in spec.listeners if each in validation]
        return next((each.metrics for each in members if isinstance(each, Listener)), {"map": True})
    return spec.metrics or {}
