"""Learning rates: pure functions of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rates of a run.

    Attributes:
        lr: the highest rate.
        steps: optimizer steps of the run.
        warmup: steps of the linear rise; below 1 it is a share of `steps`.
        kind: what follows: `linear` to zero, `cosine` to zero, or `constant`.
        floor: the lowest share of `lr` after the warm-up.
    """

    lr: float
    steps: int
    warmup: float = 0.0
    kind: Kind = "linear"
    floor: float = 0.0

    @property
    def warmup_steps(self) -> int:
        """Steps of the rise."""
        return math.ceil(self.warmup * self.steps) if self.warmup < 1 else int(self.warmup)

    def at(self, step: int) -> float:
        """Returns the rate of a step counted from 0; the first step of a rise is not zero."""
        rise = self.warmup_steps
        if step < rise:
            return self.lr * (step + 1) / rise
        left = max(0.0, (self.steps - step) / max(1, self.steps - rise))
        if self.kind == "linear":
            factor = left
        elif self.kind == "cosine":
            factor = 0.5 * (1.0 + math.cos(math.pi * (1.0 - left)))
        else:
            factor = 1.0
        return self.lr * max(self.floor, factor)
