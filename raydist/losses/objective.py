"""One objective: a loss with distillation beside it, or several named weighted losses.

An `Objective` is a tuple of `Part`s. A part computes one or more terms, each a (sum, count) with a
name of its own, under which it is logged. The total is Σ weight · sum / count over the terms, with
sums and counts added over ranks and accumulation parts first: the one division of the scale rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from raydist.errors import ConfigError
from raydist.losses.gather import SumCount
from raydist.losses.inputs import Forward

Terms = dict[str, SumCount]
"""Terms by name."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some terms that are computed together.

    Attributes:
        weights: of the terms, by name.
        compute: the terms of a batch.
        answers: whether answers are read, and must be encoded.
    """

    weights: Mapping[str, float]
    compute: Callable[[Forward], Terms]
    answers: bool = False


@dataclass(frozen=True)
class Objective:
    """Named weighted terms; `forward` and `counts` give theirs, `total` adds them up."""

    parts: tuple[Part, ...]
    weights: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        weights: dict[str, float] = {}
        for part in self.parts:
            for name, weight in part.weights.items():
                if name in weights:
                    raise ConfigError(f"two losses are called {name!r}; give them other names")
                weights[name] = weight
        object.__setattr__(self, "weights", weights)

    @property
    def names(self) -> tuple[str, ...]:
        """The terms' names, in a fixed order."""
        return tuple(self.weights)

    @property
    def answers(self) -> bool:
        """Whether answers are read, and must be encoded."""
        return any(part.answers for part in self.parts)

    def forward(self, batch: Forward) -> Terms:
        """Returns the terms that this batch has, each as (sum, count) of this rank."""
        terms: Terms = {}
        for part in self.parts:
            terms |= part.compute(batch)
        return terms

    def counts(self, batch: Forward) -> Tensor:
        """Returns this rank's counts of all terms (float64 [terms]), without the model's output."""
        terms = self.forward(batch.without_output())
        values = [float(terms[name][1]) if name in terms else 0.0 for name in self.names]
        return torch.tensor(values, dtype=torch.float64)

    def loss(self, terms: Terms, counts: Sequence[float]) -> Tensor:
        """Returns this rank's share of the total, to back-propagate and to sum over ranks.

        Args:
            terms: from `forward`.
            counts: of each term over all ranks and accumulation parts, in the order of `names`.
        """
        shares = [
            terms[name][0] * (self.weights[name] / count)
            for name, count in zip(self.names, counts)
            if name in terms and count
        ]
        # A term without any item still holds the gathers that other ranks wait for.
        idle = [
            terms[name][0] * 0.0
            for name, count in zip(self.names, counts)
            if name in terms and not count
        ]
        return torch.stack([*shares, *idle]).sum()

    def total(self, terms: Mapping[str, tuple[float, float]]) -> float:
        """Returns Σ weight · sum / count of terms summed over ranks and accumulation parts."""
        return sum(
            self.weights[name] * value / count for name, (value, count) in terms.items() if count
        )
