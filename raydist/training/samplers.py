"""Which samples a step reads, and which documents of each: pure functions of (seed, epoch, step).

Nothing here depends on workers, ranks or time, so that two integers, the epoch and the step, give
a run's order again. Every data set is an endless stream of passes, each pass a permutation of its
rows; an epoch takes the next stretch of each stream in batches of one data set, and mixes the
batches of all sets. All batches are full: an epoch's cover its `weight` passes, by less than a
batch more, and no row is left out: after n epochs at weight 1 each had n visits at least. A visit
counts a row's turns; the draws for a row depend on (seed, data set, row, visit) alone.

Named here: `DistillationListwiseSampler`, `DistillationNegativesSampler` and the contrastive
`GroupSampler`. A sampler is called with (sample, visit) and returns the drawn sample, or None to
skip the query.

Shapes: n rows of a step, G documents of a group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge

from raydist.records import Sample

MOST_OTHERS = 1000
"""Positives of a query, besides the drawn one, that are kept out of its negatives."""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = 8
_ROUNDING = 1e-9
"""A product of a weight and rows that is above a whole number by less is that number."""


def key(*parts: int) -> int:
    """Returns a 64-bit key of integers (splitmix64 folded over them)."""
    state = _GOLDEN
    for part in parts:
        state = (state ^ (part & _MASK)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state + _GOLDEN) & _MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


def _mix(values: np.ndarray) -> np.ndarray:
    """Returns splitmix64's finaliser of uint64 values."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ values >> np.uint64(31)
    return mixed


def shuffled(n: int, seed: int) -> np.ndarray:
    """Returns a permutation of range(n), int64 [n], in O(n log n)."""
    numbers = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(seed & _MASK)
    return np.argsort(_mix(numbers), kind="stable")


def permuted(positions: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Returns the places of positions under a permutation of range(n), in O(1) memory.

    A Feistel network over the next power of four, walked until it lands below n.
    """
    half = max(2, ((n - 1).bit_length() + 1) // 2)
    low, shift = np.uint64((1 << half) - 1), np.uint64(half)
    keys = [np.uint64(key(seed, r)) for r in range(_ROUNDS)]
    values = positions.astype(np.uint64)
    todo = np.arange(len(values))
    while len(todo):
        left, right = values[todo] >> shift, values[todo] & low
        for k in keys:
            left, right = right, (left ^ _mix(right * np.uint64(_GOLDEN) + k)) & low
        values[todo] = left << shift | right
        todo = todo[values[todo] >= n]
    return values.astype(np.int64)


def share(n: int, rank: int, world_size: int) -> slice:
    """Returns a rank's contiguous share of n rows; shares differ by one row at most."""
    return slice(rank * n // world_size, (rank + 1) * n // world_size)


@dataclass(frozen=True, slots=True)
class Stream:
    """A data set as the order reads it, or the samples of about one length in it.

    Attributes:
        rows: its samples.
        batch_size: its samples in a step, over all ranks.
        weight: passes over it in an epoch (2 = twice, 0.5 = half of it).
        dataset: the number of its data set; None = the stream's own.
        subset: the data set's rows that it reads, int64 [rows]; None = all.
    """

    rows: int
    batch_size: int
    weight: float = 1.0
    dataset: int | None = None
    subset: np.ndarray | None = field(default=None, compare=False)

    @property
    def batches(self) -> int:
        """Its steps in an epoch: the last batch is filled from the next pass."""
        return max(1, math.ceil(self.weight * self.rows / self.batch_size - _ROUNDING))


@dataclass(frozen=True, slots=True)
class Visit:
    """A row's turn: `key` is of (seed, data set, row), `number` counts the passes from 0."""

    key: int
    number: int


@dataclass(frozen=True, slots=True)
class Order:
    """The global order of a run."""

    streams: tuple[Stream, ...]
    seed: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch, over all data sets."""
        return sum(stream.batches for stream in self.streams)

    def locate(self, step: int) -> tuple[int, int]:
        """Returns (epoch, step within it) of the run's step, both counted from 0."""
        return divmod(step, self.steps_per_epoch)

    def at(self, epoch: int, step: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Returns a step's data set and its rows and their visit numbers, int64 [n] each."""
        which, batch = _slot(tuple(s.batches for s in self.streams), key(self.seed, epoch), step)
        stream = self.streams[which]
        dataset = which if stream.dataset is None else stream.dataset
        first = (epoch * stream.batches + batch) * stream.batch_size
        places = np.arange(first, first + stream.batch_size, dtype=np.int64)
        passes = places // stream.rows
        rows = np.empty_like(places)
        for number in np.unique(passes):
            at = passes == number
            seed = key(self.seed, which, int(number), 1)
            rows[at] = permuted(places[at] % stream.rows, stream.rows, seed)
        return dataset, rows if stream.subset is None else stream.subset[rows], passes

    def visit(self, dataset: int, row: int, number: int) -> Visit:
        """Returns the visit of a row of a data set."""
        return Visit(key(self.seed, dataset, row, 2), number)


@lru_cache(maxsize=4)
def _epoch(batches: tuple[int, ...], seed: int) -> np.ndarray:
    """Returns the data set of each step of an epoch."""
    sets = np.repeat(np.arange(len(batches)), batches)
    mixed: np.ndarray = sets[shuffled(len(sets), seed)]
    return mixed


def _slot(batches: tuple[int, ...], seed: int, step: int) -> tuple[int, int]:
    """Returns a step's data set and the number of its batch within the epoch."""
    if len(batches) == 1:
        return 0, step
    sets = _epoch(batches, seed)
    which = int(sets[step])
    return which, int((sets[:step] == which).sum())


def _cycle(n: int, take: int, visit: Visit, salt: int) -> np.ndarray:
    """Returns `take` of n items for a visit: without replacement while there are enough.

    Successive visits go through all items before a new permutation begins; the last visit of a
    cycle is filled up from the cycle's beginning, and too few items are repeated.
    """
    visits = -(-n // take)
    cycle, turn = divmod(visit.number, visits)
    order = shuffled(n, key(visit.key, salt, cycle))
    chosen: np.ndarray = order[(turn * take + np.arange(take)) % n]
    return chosen


def _pick(sample: Sample, chosen: Sequence[int], positives: int) -> Sample:
    """Returns the sample with some of its documents, in the order given."""
    return replace(
        sample,
        documents=tuple(sample.documents[i] for i in chosen),
        positives=positives,
        labels=None if sample.labels is None else tuple(sample.labels[i] for i in chosen),
        scores=None if sample.scores is None else tuple(sample.scores[i] for i in chosen),
        targets=None if sample.targets is None else tuple(sample.targets[i] for i in chosen),
        doc_ids=None if sample.doc_ids is None else tuple(sample.doc_ids[i] for i in chosen),
    )


def _with_others(drawn: Sample, sample: Sample, chosen: Sequence[int], positives: int) -> Sample:
    """Returns the drawn sample with the positives that were not chosen as its `others`."""
    missed = [i for i in range(positives) if i not in chosen][:MOST_OTHERS]
    others = (*(sample.documents[i] for i in missed), *sample.others)
    return replace(drawn, others=others[:MOST_OTHERS])


@dataclass(frozen=True, slots=True)
class GroupSampler:
    """A positive and G − 1 negatives, for contrastive training.

    Attributes:
        size: G. One positive per visit; negatives go without replacement through all of them.
        answers: A, the answer and A − 1 negative answers; 0 or 1 leaves the negatives out.
    """

    size: int
    answers: int = 0

    def drawn(self, sizes_n2: np.ndarray, judged: bool) -> np.ndarray:
        """Returns how many documents are drawn of samples, int64 [n]; see `SampleSet.sizes_n2`."""
        return np.full(len(sizes_n2), self.size)

    def __call__(self, sample: Sample, visit: Visit) -> Sample | None:
        """Returns the drawn group; negatives by teacher score, descending, where there is one."""
        count = len(sample.documents) - sample.positives
        if sample.positives < 1 or (self.size > 1 and count < 1):
            return None
        positive = int(_cycle(sample.positives, 1, visit, 1)[0])
        negatives: list[int] = []
        if self.size > 1:
            drawn = _cycle(count, self.size - 1, visit, 2) + sample.positives
            negatives = drawn.tolist()
        if sample.scores is not None:
            scores = sample.scores
            negatives.sort(key=lambda i: -scores[i])
        group = _pick(sample, [positive, *negatives], 1)
        group = _with_others(group, sample, [positive], sample.positives)
        return self._answers(group, visit)

    def _answers(self, sample: Sample, visit: Visit) -> Sample:
        count = len(sample.negative_answers)
        if not count:
            return sample
        drawn: list[int] = []
        if self.answers > 1:
            drawn = _cycle(count, self.answers - 1, visit, 3).tolist()
        scores = sample.answer_scores
        if scores is not None:
            drawn.sort(key=lambda i: -scores[i + 1])
        return replace(
            sample,
            negative_answers=tuple(sample.negative_answers[i] for i in drawn),
            answer_scores=None if scores is None else (scores[0], *(scores[i + 1] for i in drawn)),
        )


@dataclass(frozen=True, slots=True)
class DistillationListwiseSampler:
    """The teacher's best documents of a query (DistillationListwiseSampler)."""

    primary: ClassVar[str] = "kind"

    kind: Literal["listwise"] = field(default="listwise", kw_only=True, repr=False)
    """Lists as the teacher gives them; with `qrels` the grades are the targets, not its scores."""
    top_k: Annotated[int, Ge(0)] = 0
    """Documents of a list that are used at all, the best first; 0 = all. Judged positives stay."""
    size: Annotated[int, Ge(0)] = 16
    """Documents drawn of them for a step, all in turn over the passes; 0 = all at once."""

    def drawn(self, sizes_n2: np.ndarray, judged: bool) -> np.ndarray:
        """Returns how many documents are drawn of samples, int64 [n].

        Args:
            sizes_n2: documents and positives of the samples.
            judged: they have labels.
        """
        drawn_n: np.ndarray = sizes_n2[:, 0].astype(np.int64)
        if self.top_k:
            most_n = np.maximum(self.top_k, sizes_n2[:, 1]) if judged else self.top_k
            drawn_n = np.minimum(drawn_n, most_n)
        return np.minimum(drawn_n, self.size) if self.size else drawn_n

    def __call__(self, sample: Sample, visit: Visit) -> Sample | None:
        """Returns the sample with the drawn documents, the best first.

        Without labels the teacher's order says what is best. With labels the grades do, then the
        teacher, and every draw has a positive, each in turn.
        """
        order = list(range(len(sample.documents)))
        if (scores := sample.scores) is not None:
            order.sort(key=lambda i: -scores[i])
        judged = 0
        if (labels := sample.labels) is not None:
            judged = sample.positives
            order.sort(key=lambda i: (i >= judged, -labels[i]))
        if self.top_k:
            order = order[: max(self.top_k, judged)]
        if self.size and self.size < len(order):
            places = _cycle(len(order), self.size, visit, 2).tolist()
            if judged and min(places) >= judged:
                places[-1] = int(_cycle(judged, 1, visit, 1)[0])
            order = [order[i] for i in sorted(places)]
        if not order:
            return None
        drawn = sum(i < judged for i in order)
        return _with_others(_pick(sample, order, max(1, drawn)), sample, order, judged)


@dataclass(frozen=True, slots=True)
class DistillationNegativesSampler:
    """A judged positive against other retrieved documents (DistillationNegativesSampler)."""

    primary: ClassVar[str] = "kind"

    kind: Literal["negatives"] = field(default="negatives", kw_only=True, repr=False)
    """Positives by `qrels`."""
    passages_per_query: Annotated[int, Ge(2)] = 8
    """Documents of a query in a step."""
    positives: Literal["first", "random", "all"] = "first"
    """The teacher's best positive, one per pass, or all of them."""

    def drawn(self, sizes_n2: np.ndarray, judged: bool) -> np.ndarray:
        """Returns how many documents are drawn of samples, int64 [n]; see `SampleSet.sizes_n2`."""
        return np.full(len(sizes_n2), self.passages_per_query)

    def __call__(self, sample: Sample, visit: Visit) -> Sample | None:
        """Returns the drawn sample; None for a query without a positive or a negative.

        The sample's first `positives` documents are those retrieved and judged relevant, the others
        every other retrieved document. `all` of them leave room for at least one negative.
        """
        count = len(sample.documents) - sample.positives
        if sample.positives < 1 or count < 1:
            return None
        if self.positives == "all":
            labels = sample.labels or (0.0,) * sample.positives
            chosen = sorted(range(sample.positives), key=lambda i: -labels[i])
            chosen = chosen[: self.passages_per_query - 1]
        elif self.positives == "random":
            chosen = _cycle(sample.positives, 1, visit, 1).tolist()
        else:
            scores = sample.scores or tuple(-float(i) for i in range(sample.positives))
            chosen = [max(range(sample.positives), key=lambda i: (scores[i], -i))]
        negatives = self.passages_per_query - len(chosen)
        drawn = _cycle(count, negatives, visit, 2) + sample.positives
        group = _pick(sample, [*chosen, *drawn.tolist()], len(chosen))
        return _with_others(group, sample, chosen, sample.positives)


DataSampler = GroupSampler | DistillationListwiseSampler | DistillationNegativesSampler
"""What draws the documents of a data set's samples."""
