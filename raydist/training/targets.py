"""What a student is to learn of a teacher's list: targets, made before a draw takes some of it.

So a document's target says where it stands in the whole list, whatever else a step reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from raydist.losses.targets import repair_positive
from raydist.records import Sample
from raydist.training.samplers import Visit

Retarget = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(teacher scores [B, D], mask [B, D]) -> targets [B, D]."""


@dataclass(frozen=True, slots=True)
class Taught:
    """A sampler whose samples come with targets.

    Attributes:
        sampler: draws documents, by the teacher's own scores where they count.
        targets: makes targets of a list's scores.
        repair: pull the target of a drawn positive up to the drawn best (`repair_positive`).
    """

    sampler: Callable[[Sample, Visit], Sample | None]
    targets: Retarget
    repair: bool = False

    def __call__(self, sample: Sample, visit: Visit) -> Sample | None:
        """Returns the drawn sample with its targets; None skips the query."""
        assert sample.scores is not None, sample
        drawn = self.sampler(replace(sample, targets=_of(self.targets, sample.scores)), visit)
        if drawn is None or not self.repair:
            return drawn
        assert drawn.targets is not None
        return replace(drawn, targets=_of(repair_positive, drawn.targets))


def _of(make: Retarget, scores: Sequence[float]) -> tuple[float, ...]:
    scores_1D = torch.tensor([scores], dtype=torch.float32)
    return tuple(make(scores_1D, torch.ones_like(scores_1D, dtype=torch.bool))[0].tolist())
