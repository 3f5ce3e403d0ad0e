"""One training step: forward and backward of the model under an objective.

A step may come in several accumulation parts. The loss's sums are divided by the counts of all
parts on all ranks, which are known before the first backward pass: they follow from the
supervision, or for a few losses from the order of the student's scores, too.
So each part's gradient is final, and the result does not depend on how the step was cut. The caller
steps the optimizer.

Nothing here waits for an accelerator: what a step computes stays there until it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raydist.losses.gather import add_over_ranks, world_size
from raydist.losses.inputs import Embeddings, LossBatch, Scores, Supervision
from raydist.losses.objective import Objective
from raydist.training.collate import Batch, Inputs
from raydist.training.engine import Engine
from raydist.training.gradient_cache import (
    Representations,
    cells,
    passes,
    represent,
    surrogates,
)

StepTerms = dict[str, tuple[float, float]]
"""Each term's (sum, count) over all ranks and accumulation parts."""
_DISAGREE = "ranks disagree on the parts of a step"


@dataclass(frozen=True, slots=True)
class UnreadTerms:
    """A step's terms, still on the device.

    Attributes:
        names: of the terms.
        values: their sums, their counts, and what all ranks must agree on; float64.
        alike: what the last of the values are if they do.
    """

    names: tuple[str, ...]
    values: Tensor
    alike: tuple[float, ...]

    def of(self, values: Sequence[float]) -> StepTerms:
        """Returns the terms of the values, which were read."""
        n = len(self.names)
        sums, counts, alike = values[:n], values[n : 2 * n], tuple(values[2 * n :])
        # Ranks that disagree would sooner or later wait for each other in different collectives.
        assert alike == self.alike, _DISAGREE
        return {
            name: (value, count) for name, value, count in zip(self.names, sums, counts) if count
        }


def start_step(
    engine: Engine, batch: Batch | Sequence[Batch], objective: Objective, *, chunk_size: int = 0
) -> UnreadTerms:
    """Runs forward and backward of a step; `engine.step()` is left to the caller.

    Args:
        engine: the model; called as (inputs, role) with texts and as (inputs) with pairs.
        batch: this rank's batch, or its accumulation parts (as many on every rank).
        objective: the loss.
        chunk_size: rows that are encoded at a time (gradient caching); 0 encodes all at once.
    """
    parts = [batch] if isinstance(batch, Batch) else list(batch)
    device = engine.device
    counts = _counts(engine, parts, objective, chunk_size)
    totals = _totals(engine, parts, objective, chunk_size)
    sums = torch.zeros(len(objective.names), dtype=torch.float64, device=device)
    one_backward = len(parts) == 1 and not chunk_size
    with engine.one_reduction(1 if one_backward else 0):
        for number, part in enumerate(parts, 1):
            represented, output = _forward(engine, part, objective, chunk_size)
            with torch.enable_grad():
                supervision = _moved(part.supervision, device)
                terms = objective.forward(LossBatch(output, supervision, totals))
                if counts is None:
                    counts = _summed(engine, parts, objective.counts_of(terms))
                loss = objective.loss(terms, counts[: len(objective.names)])
                loss.backward()  # type: ignore[no-untyped-call]
            sums += objective.sums_of(terms)
            left = passes(represented)
            for surrogate in surrogates(represented, device):
                left -= 1
                engine.backward(surrogate, last=number == len(parts) and not left)
    assert counts is not None, "a step without parts"
    values = torch.cat([add_over_ranks(sums), counts.to(device, non_blocking=True)])
    alike = _alike(parts) * engine.world_size
    return UnreadTerms(objective.names, values, tuple(alike.tolist()))


def packs(module: torch.nn.Module) -> bool:
    """Returns whether a model takes texts laid end to end."""
    return bool(getattr(module, "packs", False))


def cells_of(
    batch: Batch, device: torch.device, *, chunk_size: int = 0, packed: bool = False
) -> int:
    """Returns the number of tokens, padding included, that a step computes of a batch."""
    if packed:
        return batch.tokens
    parts = (batch.queries, batch.passages, batch.answers, batch.pairs)
    return sum(
        cells(part, device=device, chunk_size=chunk_size) for part in parts if part is not None
    )


def _forward(
    engine: Engine, batch: Batch, objective: Objective, chunk_size: int
) -> tuple[list[Representations], Embeddings | Scores]:
    """Returns the model's output on a batch, and the way back from it to the parameters."""

    def run(inputs: Inputs, of_ranks: tuple[int, ...] | None, *role: str) -> Representations:
        return represent(
            lambda rows: engine(rows, *role),
            inputs,
            device=engine.device,
            chunk_size=chunk_size,
            chunks=_chunks(engine, inputs, chunk_size, of_ranks),
            packed=packs(engine.module),
        )

    supervision = batch.supervision
    if batch.pairs is not None:
        scored = run(batch.pairs, supervision.documents)
        return [scored], Scores(scored.rows)
    assert batch.queries is not None and batch.passages is not None
    # The longest texts first: the shorter ones reuse their memory.
    represented = [
        run(batch.passages, supervision.documents, "query" if batch.symmetric else "document"),
        run(batch.queries, supervision.ranks, "query"),
    ]
    if batch.answers is not None and objective.answers:
        assert supervision.answer_mask_BA is not None
        each = supervision.answer_mask_BA.shape[1]
        represented.append(run(batch.answers, supervision.rows_of_ranks(each), "query"))
    passages, queries = (item.rows for item in represented[:2])
    answers = represented[2].rows if len(represented) > 2 else None
    table = getattr(engine.module, "table", None)
    table_V = None if table is None else table.weight.detach()
    return represented, Embeddings(queries, passages, answers, table_V)


def _moved(supervision: Supervision, device: torch.device) -> Supervision:
    moved: dict[str, Any] = {}
    for field in fields(supervision):
        value = getattr(supervision, field.name)
        if isinstance(value, Tensor):
            moved[field.name] = value.to(device, non_blocking=True)
    return replace(supervision, **moved)


def _counts(
    engine: Engine, parts: Sequence[Batch], objective: Objective, chunk_size: int
) -> Tensor | None:
    """Returns each term's count over all parts and ranks, of the supervision where it says it.

    Counts that depend on the student's order need its output: of a single part they are taken when
    it is there (None), of several parts by a pass ahead with the same dropout.
    """
    counts = torch.zeros(len(objective.names), dtype=torch.float64)
    nothing = torch.zeros(0)
    for part in parts:
        output = Scores(nothing) if part.pairs is not None else Embeddings(nothing, nothing)
        # While the supervision is on the CPU, losses look at it, too.
        batch = LossBatch(output, part.supervision).without_output()
        counts += objective.counts_of(objective.forward(batch))
    if not objective.ordered:
        return _summed(engine, parts, counts)
    if len(parts) == 1:
        return None
    counts = torch.zeros_like(counts, device=engine.device)
    devices = [engine.device] if engine.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        for part in parts:
            output = _forward(engine, part, objective, chunk_size)[1]
            counts += objective.counts(LossBatch(output, _moved(part.supervision, engine.device)))
    return _summed(engine, parts, counts)


def _totals(
    engine: Engine, parts: Sequence[Batch], objective: Objective, chunk_size: int
) -> dict[str, Tensor]:
    """Returns sums over the rows of all parts and ranks, by a pass ahead with the same dropout.

    A single part sums its own rows when they are there: nothing is returned.
    """
    if len(parts) == 1 or not objective.needs_totals:
        return {}
    totals: dict[str, Tensor] = {}
    devices = [engine.device] if engine.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        for part in parts:
            output = _forward(engine, part, objective, chunk_size)[1]
            batch = LossBatch(output, _moved(part.supervision, engine.device))
            for name, value in objective.totals_of(batch).items():
                totals[name] = totals[name] + value if name in totals else value
    return {name: add_over_ranks(value) for name, value in totals.items()}


def _summed(engine: Engine, parts: Sequence[Batch], counts: Tensor) -> Tensor:
    """Returns counts added over ranks, and behind them what ranks must agree on.

    Of one rank they stay where they are: on the CPU, or with the student's output.
    """
    alike = _alike(parts)
    together = torch.cat([counts, alike.to(counts.device, non_blocking=True)])
    if engine.world_size == 1:
        return together
    together = add_over_ranks(together.to(engine.device, non_blocking=True))
    if engine.device.type == "cpu":
        expected = alike * engine.world_size
        assert torch.equal(together[-len(alike) :], expected), _DISAGREE
    return together


def _alike(parts: Sequence[Batch]) -> Tensor:
    """Returns what must be the same on all ranks."""
    alone = sum(part.supervision.no_in_batch for part in parts)
    return torch.tensor([len(parts), alone], dtype=torch.float64)


def _chunks(
    engine: Engine, inputs: Inputs, chunk_size: int, of_ranks: tuple[int, ...] | None
) -> int:
    """Returns the number of chunks that all ranks make, 0 where each makes its own.

    One collective, whose answer the program waits for, unless the rows `of_ranks` are known.
    """
    if not (chunk_size and engine.agrees_on_chunks and world_size() > 1):
        return 0
    if of_ranks is not None:
        return -(-max(of_ranks) // chunk_size)
    count = torch.tensor([-(-inputs["input_ids"].shape[0] // chunk_size)], device=engine.device)
    dist.all_reduce(count, op=dist.ReduceOp.MAX)
    return int(count)
