"""The batches of a run: a step's number becomes drawn samples, and those become tensors.

A pure function of (step, rank, world size) over prepared data sets: it can run ahead in a thread,
and gives the same batches for a step whenever it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from raydist.losses.targets import repair_positive
from raydist.records import Sample
from raydist.training.collate import Batch
from raydist.training.samplers import Order, Visit, share


class Rows(Protocol):
    """Samples by row: a prepared data set, or a list in a test."""

    def __len__(self) -> int:
        """Returns the number of samples."""
        ...

    def __getitem__(self, row: int, /) -> Sample:
        """Returns the sample of a row."""
        ...


Sampler = Callable[[Sample, Visit], Sample | None]
Collate = Callable[[Sequence[Sample], int], Batch]
"""(drawn samples, samples over all ranks) -> batch."""
ToTargets = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(teacher scores [B, D], mask [B, D]) -> targets [B, D]."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """One data set of a run.

    Attributes:
        name: for logs and messages.
        rows: its samples.
        sampler: draws a sample's documents.
        collate: makes tensors of drawn samples.
        fill: replaces ids of documents by their texts, where samples hold ids.
        drawn: rows -> how many documents are drawn of each, where that is known.
    """

    name: str
    rows: Rows
    sampler: Sampler
    collate: Collate
    fill: Callable[[Sequence[Sample]], list[Sample]] = list
    drawn: Callable[[np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """One rank's samples of a step, before they become tensors.

    Attributes:
        dataset: that all ranks' samples are of.
        samples: the drawn ones.
        rows: of the data set.
        ranks: how many samples each rank has.
        documents: how many documents each rank has; None where that is not known.
    """

    dataset: TrainingSet
    samples: list[Sample]
    rows: list[int]
    ranks: tuple[int, ...]
    documents: tuple[int, ...] | None = None

    @property
    def global_samples(self) -> int:
        """Samples of all ranks."""
        return sum(self.ranks)


@dataclass(frozen=True, slots=True)
class BatchSource:
    """The batches of one rank.

    Attributes:
        order: the global order.
        datasets: in the order of `order.streams`.
        rank, world_size: this rank's place.
        accumulation: parts that a step is computed in.
        pinned: put the tensors where a GPU can fetch them by itself.
    """

    order: Order
    datasets: tuple[TrainingSet, ...]
    rank: int = 0
    world_size: int = 1
    accumulation: int = 1
    pinned: bool = False

    def drawn(self, step: int) -> list[Drawn]:
        """Returns this rank's samples of a step (counted from 0), one entry per part of it."""
        which, rows, visits = self.order.at(*self.order.locate(step))
        dataset = self.datasets[which]
        parts = []
        for i in range(self.accumulation):
            part = share(len(rows), i, self.accumulation)
            size = part.stop - part.start
            shares = [share(size, rank, self.world_size) for rank in range(self.world_size)]
            own = shares[self.rank]
            span = slice(part.start + own.start, part.start + own.stop)
            own_rows, samples = rows[span].tolist(), []
            for row, number in zip(own_rows, visits[span].tolist()):
                sample = dataset.sampler(dataset.rows[row], self.order.visit(which, row, number))
                assert sample is not None, (dataset.name, row)  # excluded before launch
                samples.append(sample)
            filled = dataset.fill(samples)
            ranks = tuple(each.stop - each.start for each in shares)
            documents = None
            if dataset.drawn is not None:
                counts = dataset.drawn(rows[part])
                documents = tuple(int(counts[each].sum()) for each in shares)
            parts.append(Drawn(dataset, filled, own_rows, ranks, documents))
        return parts

    def __call__(self, step: int) -> list[Batch]:
        """Returns this rank's batches of a step, one per part of the accumulation."""
        batches = []
        for drawn in self.drawn(step):
            batch = drawn.dataset.collate(drawn.samples, drawn.global_samples)
            batch = batch.over_ranks(drawn.ranks, drawn.documents)
            batches.append(batch.pinned() if self.pinned else batch)
        return batches


@dataclass(frozen=True, slots=True)
class TeacherSampler:
    """A sampler whose samples come with targets, made before a draw takes some documents.

    A document's target is thus its place in the whole list, whatever else a step reads.

    Attributes:
        sampler: draws documents, by the teacher's scores where it uses them.
        to_targets: makes targets of a list's scores.
        repair: pull the target of a drawn positive up to the drawn best (`repair_positive`).
    """

    sampler: Sampler
    to_targets: ToTargets
    repair: bool = False

    def __call__(self, sample: Sample, visit: Visit) -> Sample | None:
        """Returns the drawn sample with its targets; None skips the query."""
        assert sample.scores is not None, sample
        drawn = self.sampler(replace(sample, targets=_of(self.to_targets, sample.scores)), visit)
        if drawn is None or not self.repair:
            return drawn
        assert drawn.targets is not None
        return replace(drawn, targets=_of(repair_positive, drawn.targets))


def _of(to_targets: ToTargets, scores: Sequence[float]) -> tuple[float, ...]:
    scores_1D = torch.tensor([scores], dtype=torch.float32)
    return tuple(to_targets(scores_1D, torch.ones_like(scores_1D, dtype=torch.bool))[0].tolist())


@contextmanager
def ahead(
    source: Callable[[int], list[Batch]], first: int, stop: int, depth: int = 2, threads: int = 1
) -> Iterator[Iterator[list[Batch]]]:
    """Yields the batches of steps first … stop − 1, prepared by threads while training runs.

    Args:
        source: step -> batches.
        first: first step.
        stop: step after the last one.
        depth: steps prepared ahead; 0 prepares each step when it is due.
        threads: steps that are prepared at a time; tokenizers leave Python to the others.
    """
    if depth == 0:
        yield (source(step) for step in range(first, stop))
        return
    depth = max(depth, threads)
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        waiting: list[Future[list[Batch]]] = []

        def run() -> Iterator[list[Batch]]:
            following = first
            while following < stop or waiting:
                while following < stop and len(waiting) <= depth:
                    waiting.append(pool.submit(source, following))
                    following += 1
                yield waiting.pop(0).result()

        try:
            yield run()
        finally:
            for future in waiting:
                future.cancel()
