"""One objective: a loss with distillation beside it, or several named weighted losses.

An `Objective` is a tuple of `LossPart`s. A part computes one or more terms, each a (sum, count)
with a name of its own, under which it is logged. The total is Σ weight · sum / count over the
terms, with sums and counts first added over ranks and accumulation parts: the one division of the
scale rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from raydist.errors import ConfigError
from raydist.losses.inputs import LossBatch
from raydist.losses.listwise import Output
from raydist.losses.parts import LossPart, LossTerms, contrastive, distilling, listwise
from raydist.losses.reinforced import biir
from raydist.losses.sparsity import regulariser
from raydist.losses.spec import BiIR, Distillation, DistillationLoss, InfoNCE, Loss


@dataclass(frozen=True)
class Objective:
    """Named weighted terms."""

    parts: tuple[LossPart, ...]
    weights: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        weights: dict[str, float] = {}
        for part in self.parts:
            for name, weight in part.weights.items():
                if name in weights:
                    raise ConfigError(f"two losses are called {name!r}; rename one of them")
                weights[name] = weight
        object.__setattr__(self, "weights", weights)

    @property
    def names(self) -> tuple[str, ...]:
        """The terms' names, in a fixed order."""
        return tuple(self.weights)

    @property
    def answers(self) -> bool:
        """Whether the terms read answers, which must then be encoded."""
        return any(part.answers for part in self.parts)

    @property
    def ordered(self) -> bool:
        """Whether counts depend on the student's order: `counts` then needs its output."""
        return any(part.ordered for part in self.parts)

    @property
    def measures(self) -> frozenset[str]:
        """The names of terms that are logged and not learned."""
        return frozenset(name for part in self.parts for name in part.measures)

    @property
    def needs_totals(self) -> bool:
        """Whether terms need sums over the rows of a whole step."""
        return any(part.totals is not None for part in self.parts)

    def totals_of(self, batch: LossBatch) -> dict[str, Tensor]:
        """Returns a batch's share of the sums that terms need of the whole step."""
        totals: dict[str, Tensor] = {}
        for part in self.parts:
            totals |= part.totals(batch) if part.totals is not None else {}
        return totals

    def at(self, step: int, steps: int) -> Objective:
        """Returns the objective with the weights that it has at a step, counted from 0."""
        if all(part.rise is None for part in self.parts):
            return self
        risen = []
        for part in self.parts:
            factor = 1.0 if part.rise is None else part.rise(step, steps)
            weights = {name: weight * factor for name, weight in part.weights.items()}
            risen.append(replace(part, weights=weights))
        return Objective(tuple(risen))

    def forward(self, batch: LossBatch) -> LossTerms:
        """Returns the terms of this batch, each as (sum, count) of this rank."""
        terms: LossTerms = {}
        for part in self.parts:
            terms |= part.compute(batch)
        return terms

    def counts(self, batch: LossBatch) -> Tensor:
        """Returns this rank's counts of all terms (float64 [terms]).

        They follow from the supervision, without the model's output, unless they are `ordered`.
        """
        return self.counts_of(self.forward(batch if self.ordered else batch.without_output()))

    def counts_of(self, terms: LossTerms) -> Tensor:
        """Returns the counts of a batch's terms (float64 [terms]), where they were computed."""
        return self._column(terms, 1)

    def sums_of(self, terms: LossTerms) -> Tensor:
        """Returns the sums of a batch's terms, without a gradient (float64 [terms])."""
        return self._column(terms, 0)

    def _column(self, terms: LossTerms, which: int) -> Tensor:
        values = {name: term[which].detach().double() for name, term in terms.items()}
        zero = next(iter(values.values()), torch.zeros((), dtype=torch.float64)).new_zeros(())
        return torch.stack([values.get(name, zero) for name in self.names])

    def loss(self, terms: LossTerms, counts: Tensor) -> Tensor:
        """Returns this rank's share of the total, to back-propagate; gradients add up over ranks.

        Args:
            terms: from `forward`.
            counts: of each term over all ranks and accumulation parts (float64 [terms]).
        """
        device = next(iter(terms.values()))[0].device
        weights = torch.tensor(list(self.weights.values()), dtype=torch.float64)
        weights = weights.to(counts.device, non_blocking=True)
        # A term without items still holds the collectives that other ranks wait for.
        factors = torch.where(counts > 0, weights / counts, 0.0).to(device, non_blocking=True)
        shares = [
            terms[name][0] * factor.to(terms[name][0].dtype)
            for name, factor in zip(self.names, factors.unbind())
            if name in terms
        ]
        return torch.stack(shares).sum()

    def total(self, terms: Mapping[str, tuple[float, float]]) -> float:
        """Returns Σ weight · sum / count of terms summed over ranks and accumulation parts."""
        return sum(
            self.weights[name] * value / count for name, (value, count) in terms.items() if count
        )


def make_objective(
    loss: Loss | None,
    distill: Distillation | None = None,
    losses: Mapping[str, Loss] | None = None,
    *,
    output: Output = "real",
) -> Objective:
    """Returns the objective of one loss with distillation beside it, or of several named ones.

    Args:
        loss: the one loss; its kind names its terms.
        distill: beside it, where it is contrastive and the data has a teacher.
        losses: several by name, instead of `loss`; distillation is then one of them.
        output: what the student's scores are, or become by a sigmoid.
    """
    if loss is None:
        named = (losses or {}).items()
        parts = [make_part(each, name, None, output) for name, each in named]
        return Objective((*parts, *_regularisers(list((losses or {}).values()))))
    beside = None if distill is None or distill.kind == "none" else distill
    return Objective((make_part(loss, "", beside, output), *_regularisers([loss])))


def _regularisers(losses: Sequence[Loss]) -> list[LossPart]:
    parts = [regulariser(loss.flops) for loss in losses]
    return [part for part in parts if part is not None]


def make_part(
    loss: Loss, name: str = "", distill: Distillation | None = None, output: Output = "real"
) -> LossPart:
    """Returns the part of one loss; without a name, its kind names its terms."""
    match loss:
        case BiIR():
            return biir(loss, name, distill)
        case InfoNCE():
            return contrastive(loss, name or loss.kind, distill)
        case DistillationLoss():
            return distilling(loss, name or loss.kind)
    return listwise(loss, name or loss.kind, output)
