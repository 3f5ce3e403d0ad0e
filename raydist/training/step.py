"""One training step: forward and backward of the model under an objective.

A step may come in several accumulation parts. What divides the loss's sums, the counts of all parts
on all ranks, follows from the targets alone and is known before the first forward pass; so each
part's gradient is final as it is, and the result does not depend on how the step was cut. The
optimizer's step is the caller's, after it has looked at the terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from raydist.losses.gather import add_over_ranks, world_size
from raydist.losses.inputs import Embeddings, Forward, Scores, Targets
from raydist.losses.objective import Objective
from raydist.training.collate import Batch, Inputs
from raydist.training.engine import Engine
from raydist.training.gradient_cache import Represented, cells, represent, surrogates

StepTerms = dict[str, tuple[float, float]]
"""Each term's (sum, count) over all ranks and accumulation parts."""


def biencoder_step(
    engine: Engine, batch: Batch | Sequence[Batch], objective: Objective, *, chunk_size: int = 0
) -> StepTerms:
    """Runs forward and backward of a bi-encoder; `engine.step()` is left to the caller.

    Args:
        engine: the model; its module is called as (inputs, role).
        batch: this rank's batch, or its accumulation parts (as many on every rank).
        objective: the loss.
        chunk_size: rows that are encoded at a time (gradient caching); 0 encodes all at once.

    Returns:
        The terms; `objective.total` makes the loss of them.
    """

    def read(part: Batch) -> tuple[list[Represented], Embeddings]:
        assert part.queries is not None and part.passages is not None, "no bi-encoder's batch"
        # The longest texts first: what they leave of memory serves the shorter ones.
        role = "query" if part.symmetric else "document"
        given = [(part.passages, role), (part.queries, "query")]
        if part.answers is not None and objective.answers:
            given.append((part.answers, "query"))
        made = [
            represent(
                lambda inputs, role=role: engine(inputs, role),  # type: ignore[misc]
                inputs,
                device=engine.device,
                chunk_size=chunk_size,
                chunks=_chunks(engine, inputs, chunk_size),
            )
            for inputs, role in given
        ]
        passages, queries, *answers = (item.rows for item in made)
        return made, Embeddings(queries, passages, *answers)

    return _step(engine, batch, objective, read, chunked=bool(chunk_size))


def crossencoder_step(
    engine: Engine, batch: Batch | Sequence[Batch], objective: Objective, *, chunk_size: int = 0
) -> StepTerms:
    """Runs forward and backward of a cross-encoder, as `biencoder_step` does.

    Args:
        engine: the model; its module is called as (inputs).
        batch: this rank's batch of pairs, or its accumulation parts.
        objective: the loss.
        chunk_size: pairs that are scored at a time (gradient caching); 0 scores all at once.
    """

    def read(part: Batch) -> tuple[list[Represented], Scores]:
        assert part.pairs is not None, "no cross-encoder's batch"
        made = represent(
            engine,
            part.pairs,
            device=engine.device,
            chunk_size=chunk_size,
            chunks=_chunks(engine, part.pairs, chunk_size),
        )
        return [made], Scores(made.rows)

    return _step(engine, batch, objective, read, chunked=bool(chunk_size))


def cells_of(batch: Batch, device: torch.device, *, chunk_size: int = 0) -> int:
    """Returns the number of tokens, padding included, that a step computes of a batch."""
    parts = (batch.queries, batch.passages, batch.answers, batch.pairs)
    return sum(
        cells(part, device=device, chunk_size=chunk_size) for part in parts if part is not None
    )


def targets_of(batch: Batch, device: torch.device | str = "cpu") -> Targets:
    """Returns what the losses read of a batch besides the model's output."""

    def there(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device, non_blocking=True)

    return Targets(
        sizes_B=batch.sizes_B.to(device),
        mask_BD=batch.mask_BD.to(device),
        targets_BD=there(batch.targets_BD),
        scores_BD=there(batch.scores_BD),
        labels_BD=there(batch.labels_BD),
        hashes_P=there(batch.passage_hashes_P),
        known_BK=there(batch.known_BK),
        answer_mask_BA=there(batch.answer_mask_BA),
        answer_hashes=there(batch.answer_hashes),
        answer_targets_BA=there(batch.answer_targets_BA),
        no_in_batch=batch.no_in_batch,
    )


def _step(
    engine: Engine,
    batch: Batch | Sequence[Batch],
    objective: Objective,
    read: Callable[[Batch], tuple[list[Represented], Embeddings | Scores]],
    *,
    chunked: bool,
) -> StepTerms:
    parts = [batch] if isinstance(batch, Batch) else list(batch)
    counts = _counts(engine, parts, objective)
    sums = torch.zeros(len(objective.names), dtype=torch.float64)
    several = chunked or len(parts) > 1
    with engine.one_reduction(0 if several else 1):
        for part in parts:
            made, output = read(part)
            with torch.enable_grad():
                terms = objective.forward(Forward(output, targets_of(part, engine.device)))
                objective.loss(terms, counts).backward()  # type: ignore[no-untyped-call]
            for i, name in enumerate(objective.names):
                if name in terms:
                    sums[i] += terms[name][0].detach().double().cpu()
            for surrogate in surrogates(made, engine.device):
                engine.backward(surrogate)
    summed = add_over_ranks(sums.to(engine.device)).tolist()
    return {
        name: (value, count) for name, value, count in zip(objective.names, summed, counts) if count
    }


def _counts(engine: Engine, parts: Sequence[Batch], objective: Objective) -> list[float]:
    """Returns each term's count over all parts and ranks, from the targets alone."""
    counts = torch.zeros(len(objective.names), dtype=torch.float64)
    for part in parts:
        nothing = torch.zeros(0)
        output = Scores(nothing) if part.pairs is not None else Embeddings(nothing, nothing)
        counts += objective.counts(Forward(output, targets_of(part)))
    # Ranks that disagree on these would wait for each other in different collectives.
    alike = torch.tensor([len(parts), sum(part.no_in_batch for part in parts)], dtype=counts.dtype)
    summed = add_over_ranks(torch.cat([counts, alike]).to(engine.device)).cpu()
    assert torch.equal(summed[-2:], alike * engine.world_size), "ranks hold unlike batches"
    return list(summed[:-2].tolist())


def _chunks(engine: Engine, inputs: Inputs, chunk_size: int) -> int:
    """Returns the number of chunks that all ranks make, 0 where each makes its own."""
    if not (chunk_size and engine.agrees_on_chunks and world_size() > 1):
        return 0
    rows = inputs["input_ids"].shape[0]
    count = torch.tensor([-(-rows // chunk_size)], device=engine.device)
    dist.all_reduce(count, op=dist.ReduceOp.MAX)
    return int(count)
