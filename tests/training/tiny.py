"""A tiny encoder and random batches of all ranks, cut at will: for parity tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from raydist.losses.inputs import Supervision
from raydist.training.collate import Batch, Inputs
from tests.losses import naive

LENGTH = 6
VOCABULARY = 60


class TinyEncoder(nn.Module):
    """Mean of token embeddings through a two-layer network; dropout only on request."""

    def __init__(self, dtype: torch.dtype, *, seed: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.tokens = nn.Embedding(VOCABULARY, 8)
        self.body = nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 6))
        self.unused = nn.Linear(2, 2)
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
        self.to(dtype)

    def forward(self, inputs: Inputs, role: str = "query") -> Tensor:
        mask = inputs.get("attention_mask")
        states = self.tokens(inputs["input_ids"])
        if mask is None:
            mean = states.mean(1)
        else:
            weights = mask[..., None].to(states.dtype)
            mean = (states * weights).sum(1) / weights.sum(1)
        hidden: Tensor = self.body(self.dropout(mean))
        return hidden + 0.1 if role == "document" else hidden


class TinyScorer(TinyEncoder):
    """The same as a cross-encoder: one logit for each row."""

    def forward(self, inputs: Inputs, role: str = "query") -> Tensor:
        return super().forward(inputs).sum(1)


@dataclass
class Data:
    """The joined batch of all ranks."""

    queries: Inputs
    passages: Inputs
    answers: Inputs
    hashes: Tensor
    known: Tensor
    teacher: Tensor
    labels: Tensor
    answer_mask: Tensor
    answer_hashes: Tensor
    answer_teacher: Tensor
    group: int

    @property
    def size(self) -> int:
        return len(self.teacher)


def data(size: int = 9, group: int = 3, answers: int = 2, seed: int = 3) -> Data:
    """Random tokens, duplicates and known positives, absent and negative answers, ties."""
    g = torch.Generator().manual_seed(seed)

    def inputs(n: int) -> Inputs:
        lengths = torch.randint(2, LENGTH + 1, (n, 1), generator=g)
        mask = (torch.arange(LENGTH)[None] < lengths).long()
        ids = torch.randint(1, VOCABULARY, (n, LENGTH), generator=g) * mask
        return {"input_ids": ids, "attention_mask": mask}

    hashes = torch.randint(0, size * 2, (size * group,), generator=g)
    known = torch.cat(
        [hashes[::group, None], torch.randint(0, size * 2, (size, 2), generator=g)], 1
    )
    answer_mask = torch.rand(size, answers, generator=g) > 0.3
    answer_mask[:, 1:] &= answer_mask[:, :1]
    answer_mask[0], answer_mask[1] = True, False
    return Data(
        queries=inputs(size),
        passages=inputs(size * group),
        answers=inputs(size * answers),
        hashes=hashes,
        known=known,
        teacher=torch.randint(0, 4, (size, group), generator=g).double(),
        labels=(torch.rand(size, group, generator=g) > 0.5).double(),
        answer_mask=answer_mask,
        answer_hashes=torch.randint(0, size, (size * answers,), generator=g),
        answer_teacher=torch.randn(size, answers, generator=g, dtype=torch.float64),
        group=group,
    )


def blocks(size: int, world: int) -> list[range]:
    """Uneven shares of the queries."""
    cuts = {1: [size], 2: [size // 2 + 1], 4: [3, 4, 6]}[world]
    edges = [0, *cuts, size] if world > 1 else [0, size]
    return [range(a, b) for a, b in pairwise(edges)]


def joined(whole: Data, world: int) -> naive.Joined:
    """What the naive formulas read of all rows, cut over so many ranks."""
    return naive.Joined(
        group=whole.group,
        hashes=whole.hashes,
        known=whole.known,
        teacher=whole.teacher,
        answer_mask=whole.answer_mask,
        answer_hashes=whole.answer_hashes,
        answer_teacher=whole.answer_teacher,
        blocks=blocks(whole.size, world),
    )


def batch(
    whole: Data, rows: Sequence[int], *, teacher: bool = True, no_in_batch: bool = False
) -> Batch:
    """One rank's part of the data."""
    i = torch.tensor(list(rows))

    def spread(n: int) -> Tensor:
        return (i[:, None] * n + torch.arange(n)).flatten()

    def some(inputs: Inputs, index: Tensor) -> Inputs:
        return {k: v[index] for k, v in inputs.items()}

    answers = whole.answer_mask.shape[1]
    supervision = Supervision(
        sizes_B=torch.full((len(rows),), whole.group),
        mask_BD=torch.ones(len(rows), whole.group, dtype=torch.bool),
        targets_BD=whole.teacher[i] if teacher else None,
        labels_BD=whole.labels[i],
        hashes_P=whole.hashes[spread(whole.group)],
        known_BK=whole.known[i],
        answer_mask_BA=whole.answer_mask[i],
        answer_hashes=whole.answer_hashes[spread(answers)],
        answer_targets_BA=whole.answer_teacher[i] if teacher else None,
        no_in_batch=no_in_batch,
    )
    return Batch(
        supervision,
        queries=some(whole.queries, i),
        passages=some(whole.passages, spread(whole.group)),
        answers=some(whole.answers, spread(answers)),
    )


def pair_batch(whole: Data, rows: range) -> Batch:
    """One rank's ragged lists of pairs: the passages stand for (query, document) pairs."""
    sizes = torch.tensor([1 + (i % whole.group) for i in rows])
    index = torch.cat([torch.arange(s) + i * whole.group for i, s in zip(rows, sizes.tolist())])
    mask = torch.arange(int(sizes.max()))[None] < sizes[:, None]
    i = torch.tensor(list(rows))
    width = mask.shape[1]
    supervision = Supervision(
        sizes_B=sizes,
        mask_BD=mask,
        targets_BD=whole.teacher[i][:, :width] * mask,
        labels_BD=whole.labels[i][:, :width] * mask,
        hashes_P=whole.hashes[index],
    )
    return Batch(supervision, pairs={k: v[index] for k, v in whole.passages.items()})


def gradient(module: nn.Module) -> Tensor:
    """All gradients in one vector, zeros where there is none."""
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in module.parameters()]
    ).clone()
