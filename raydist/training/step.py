"""One training step: forward and backward of the model under an objective.

A step may come in several accumulation parts. The loss's sums are divided by the counts of all
parts on all ranks, which are known before the first backward pass: they follow from the targets, or
for a few losses from the order of the student's scores, too.
So each part's gradient is final, and the result does not depend on how the step was cut. The caller
steps the optimizer, after it has checked the terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raydist.losses.gather import add_over_ranks, world_size
from raydist.losses.inputs import Embeddings, LossBatch, Scores, Targets
from raydist.losses.objective import Objective
from raydist.training.collate import Batch, Inputs
from raydist.training.engine import Engine
from raydist.training.gradient_cache import Representations, cells, represent, surrogates

StepTerms = dict[str, tuple[float, float]]
"""Each term's (sum, count) over all ranks and accumulation parts."""


def forward_backward(
    engine: Engine, batch: Batch | Sequence[Batch], objective: Objective, *, chunk_size: int = 0
) -> StepTerms:
    """Runs forward and backward of a step; `engine.step()` is left to the caller.

    Args:
        engine: the model; called as (inputs, role) with texts and as (inputs) with pairs.
        batch: this rank's batch, or its accumulation parts (as many on every rank).
        objective: the loss.
        chunk_size: rows that are encoded at a time (gradient caching); 0 encodes all at once.

    Returns:
        The terms; `objective.total` makes the loss of them.
    """
    parts = [batch] if isinstance(batch, Batch) else list(batch)
    counts = _counts(engine, parts, objective, chunk_size)
    sums = torch.zeros(len(objective.names), dtype=torch.float64)
    one_backward = len(parts) == 1 and not chunk_size
    with engine.one_reduction(1 if one_backward else 0):
        for part in parts:
            represented, output = _forward(engine, part, objective, chunk_size)
            with torch.enable_grad():
                terms = objective.forward(LossBatch(output, _moved(part.targets, engine.device)))
                if counts is None:
                    counts = _summed(engine, parts, objective.counts_of(terms))
                objective.loss(terms, counts).backward()  # type: ignore[no-untyped-call]
            for i, name in enumerate(objective.names):
                if name in terms:
                    sums[i] += terms[name][0].detach().double().cpu()
            for surrogate in surrogates(represented, engine.device):
                engine.backward(surrogate)
    assert counts is not None, "a step without parts"
    summed = add_over_ranks(sums.to(engine.device)).tolist()
    return {
        name: (value, count) for name, value, count in zip(objective.names, summed, counts) if count
    }


def cells_of(batch: Batch, device: torch.device, *, chunk_size: int = 0) -> int:
    """Returns the number of tokens, padding included, that a step computes of a batch."""
    parts = (batch.queries, batch.passages, batch.answers, batch.pairs)
    return sum(
        cells(part, device=device, chunk_size=chunk_size) for part in parts if part is not None
    )


def _forward(
    engine: Engine, batch: Batch, objective: Objective, chunk_size: int
) -> tuple[list[Representations], Embeddings | Scores]:
    """Returns the model's output on a batch, and the way back from it to the parameters."""

    def run(inputs: Inputs, *role: str) -> Representations:
        return represent(
            lambda rows: engine(rows, *role),
            inputs,
            device=engine.device,
            chunk_size=chunk_size,
            chunks=_chunks(engine, inputs, chunk_size),
        )

    if batch.pairs is not None:
        scored = run(batch.pairs)
        return [scored], Scores(scored.rows)
    assert batch.queries is not None and batch.passages is not None
    # The longest texts first: the shorter ones reuse their memory.
    represented = [
        run(batch.passages, "query" if batch.symmetric else "document"),
        run(batch.queries, "query"),
    ]
    if batch.answers is not None and objective.answers:
        represented.append(run(batch.answers, "query"))
    passages, queries, *answers = (item.rows for item in represented)
    return represented, Embeddings(queries, passages, *answers)


def _moved(targets: Targets, device: torch.device) -> Targets:
    moved: dict[str, Any] = {}
    for field in fields(targets):
        value = getattr(targets, field.name)
        if isinstance(value, Tensor):
            moved[field.name] = value.to(device, non_blocking=True)
    return replace(targets, **moved)


def _counts(
    engine: Engine, parts: Sequence[Batch], objective: Objective, chunk_size: int
) -> list[float] | None:
    """Returns each term's count over all parts and ranks, from the targets alone where they say it.

    Counts that depend on the student's order need its output: of a single part they are taken when
    it is there (None), of several parts by a pass ahead with the same dropout.
    """
    if objective.ordered and len(parts) == 1:
        return None
    counts = torch.zeros(len(objective.names), dtype=torch.float64)
    devices = [engine.device] if engine.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        for part in parts:
            targets, nothing = part.targets, torch.zeros(0)
            output: Embeddings | Scores
            if objective.ordered:
                output = _forward(engine, part, objective, chunk_size)[1]
                targets = _moved(targets, engine.device)
            elif part.pairs is not None:
                output = Scores(nothing)
            else:
                output = Embeddings(nothing, nothing)
            counts += objective.counts(LossBatch(output, targets))
    return _summed(engine, parts, counts)


def _summed(engine: Engine, parts: Sequence[Batch], counts: Tensor) -> list[float]:
    """Returns counts added over ranks."""
    # Ranks that disagree on these would wait for each other in different collectives.
    alone = sum(part.targets.no_in_batch for part in parts)
    alike = torch.tensor([len(parts), alone], dtype=counts.dtype)
    summed = add_over_ranks(torch.cat([counts, alike]).to(engine.device)).cpu()
    assert torch.equal(summed[-2:], alike * engine.world_size), (
        "ranks disagree on the parts of a step"
    )
    return list(summed[:-2].tolist())


def _chunks(engine: Engine, inputs: Inputs, chunk_size: int) -> int:
    """Returns the number of chunks that all ranks make, 0 where each makes its own."""
    if not (chunk_size and engine.agrees_on_chunks and world_size() > 1):
        return 0
    rows = inputs["input_ids"].shape[0]
    count = torch.tensor([-(-rows // chunk_size)], device=engine.device)
    dist.all_reduce(count, op=dist.ReduceOp.MAX)
    return int(count)
