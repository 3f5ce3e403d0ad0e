"""A step whose terms are waited for, which training itself does not do."""

from __future__ import annotations

from collections.abc import Sequence

from raydist.losses.objective import Objective
from raydist.training.collate import Batch
from raydist.training.engine import Engine
from raydist.training.step import StepTerms, start_step


def forward_backward(
    engine: Engine, batch: Batch | Sequence[Batch], objective: Objective, *, chunk_size: int = 0
) -> StepTerms:
    """Runs forward and backward of a step; returns its terms, of which `total` makes the loss."""
    unread = start_step(engine, batch, objective, chunk_size=chunk_size)
    return unread.of(unread.values.tolist())
