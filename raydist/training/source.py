"""The batches of a run: a step's number becomes drawn samples, and those become tensors.

A pure function of (step, rank, world size) over prepared data sets, so that it can run ahead in a
thread and be asked again for any step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from raydist.records import Sample
from raydist.training.collate import Batch
from raydist.training.samplers import Order, Visit, share


class Rows(Protocol):
    """Samples by row: a prepared data set, or a list in a test."""

    def __len__(self) -> int:
        """Returns how many samples there are."""
        ...

    def __getitem__(self, row: int, /) -> Sample:
        """Returns a sample."""
        ...


Sampler = Callable[[Sample, Visit], Sample | None]
Collate = Callable[[Sequence[Sample], Sequence[int], int], Batch]
"""(drawn samples, their rows, samples over all ranks) -> batch."""


@dataclass(frozen=True, slots=True)
class Part:
    """One data set of a run.

    Attributes:
        name: for logs and messages.
        rows: its samples.
        sampler: draws a sample's documents.
        collate: makes tensors of drawn samples.
        fill: puts texts into drawn samples whose documents are ids so far.
    """

    name: str
    rows: Rows
    sampler: Sampler
    collate: Collate
    fill: Callable[[Sequence[Sample]], list[Sample]] = list


@dataclass(frozen=True, slots=True)
class Drawn:
    """One rank's samples of a step, before they become tensors."""

    part: Part
    samples: list[Sample]
    rows: list[int]
    global_samples: int


@dataclass(frozen=True, slots=True)
class BatchSource:
    """The batches of one rank.

    Attributes:
        order: the global order.
        parts: the data sets, in the order of `order.streams`.
        rank, world_size: this rank's place.
        accumulation: parts that a step is computed in.
    """

    order: Order
    parts: tuple[Part, ...]
    rank: int = 0
    world_size: int = 1
    accumulation: int = 1

    def drawn(self, step: int) -> list[Drawn]:
        """Returns this rank's samples of a step (counted from 0), one entry per part of it."""
        which, rows, visits = self.order.at(*self.order.locate(step))
        part = self.parts[which]
        found = []
        for i in range(self.accumulation):
            piece = share(len(rows), i, self.accumulation)
            mine = share(piece.stop - piece.start, self.rank, self.world_size)
            span = slice(piece.start + mine.start, piece.start + mine.stop)
            samples, kept = [], []
            for row, number in zip(rows[span].tolist(), visits[span].tolist()):
                sample = part.sampler(part.rows[row], self.order.visit(which, row, number))
                assert sample is not None, (part.name, row)  # excluded before launch
                samples.append(sample)
                kept.append(row)
            found.append(Drawn(part, part.fill(samples), kept, piece.stop - piece.start))
        return found

    def __call__(self, step: int) -> list[Batch]:
        """Returns this rank's batches of a step, one per part of the accumulation."""
        return [
            one.part.collate(one.samples, one.rows, one.global_samples) for one in self.drawn(step)
        ]


@contextmanager
def ahead(
    source: Callable[[int], list[Batch]], first: int, stop: int, depth: int = 2
) -> Iterator[Iterator[list[Batch]]]:
    """Gives the batches of steps first … stop − 1, prepared by a thread while training runs.

    Args:
        source: step -> batches.
        first: first step.
        stop: step after the last one.
        depth: steps prepared ahead; 0 prepares each when it is asked for.
    """
    if depth == 0:
        yield (source(step) for step in range(first, stop))
        return
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
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
