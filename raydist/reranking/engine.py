"""The scorer engine: queries and their documents through one model, in shared micro-batches.

The micro-batcher (`batcher.py`) schedules the work; here a query's documents become rows, equal
ones once, and the rows' logits become scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain, count
from typing import TypeVar

import numpy as np

from raydist.reranking.batcher import MicroBatcher
from raydist.reranking.request import Times
from raydist.reranking.rows import (
    CollatingScorer,
    EncodedDocuments,
    Options,
    Row,
    Scorer,
    TooLong,
    sigmoid,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scores:
    """The answer to one request of n documents.

    Attributes:
        scores: float64 [n], larger is better.
        logits: float32 [n], the model's own numbers.
        truncated: for each document whether a part of it or of the query was not read.
        chunks: in how many pieces each document was read.
        tokens: prompt tokens, shared prefixes counted once per row.
        cached_prefix_tokens: how many of them were not computed again.
        times: seconds of the request.
    """

    scores: np.ndarray
    logits: np.ndarray
    truncated: list[bool]
    chunks: list[int]
    tokens: int
    cached_prefix_tokens: int
    times: Times


_FIRST = 256
"""Documents that `score` encodes before the model has work; more are encoded beside it."""
_PART_CHARS = 65_536
"""Characters of documents that are tokenised in one go; then it may be another request's turn."""


class _ScoreWork:
    """One query with its documents; equal documents are one."""

    def __init__(
        self,
        scorer: Scorer,
        query: str,
        documents: Sequence[str],
        options: Options,
        number: int = 0,
    ) -> None:
        self.scorer, self.query, self.options, self.number = scorer, query, options, number
        numbers: dict[str, int] = {}
        self.positions = [numbers.setdefault(text, len(numbers)) for text in documents]
        """The i-th document is the `positions[i]`-th distinct one."""
        self.parts = list(_windows(numbers, len, _PART_CHARS)) or [[]]
        self.encoded: list[EncodedDocuments] = [EncodedDocuments([], [])] * len(self.parts)

    def part_sizes(self) -> list[int]:
        """Returns the characters of each part's texts."""
        return [len(self.query) + sum(map(len, texts)) + 1 for texts in self.parts]

    def encode(self, part: int) -> list[Row]:
        """Returns the rows of a part's documents."""
        texts = self.parts[part]
        if not texts:
            return []
        before = sum(map(len, self.parts[:part]))
        try:
            encoded = self.scorer.encode(self.query, texts, self.options)
        except TooLong as error:
            first = [self.positions.index(before + number) for number in range(len(texts))]
            renumbered = error.renumbered(first)
            renumbered.request = self.number
            raise renumbered from None
        assert len(encoded.rows) == len(texts), "the scorer encoded too few documents"
        self.encoded[part] = encoded
        return [row for rows in encoded.rows for row in rows]

    def answer(self, values: np.ndarray, times: Times) -> Scores:
        """Returns the scores; a document in pieces has the best one's."""
        rows = list(chain.from_iterable(part.rows for part in self.encoded))
        if not rows:
            return Scores(np.zeros(0), np.zeros(0, np.float32), [], [], 0, 0, times)
        truncated = [cut for part in self.encoded for cut in part.truncated]
        begins = np.cumsum([0, *map(len, rows[:-1])])
        # NaN if one of the pieces is: it must not be outvoted.
        logits = np.maximum.reduceat(values, begins)[self.positions]
        probability = self.scorer.sigmoid and not self.options.raw
        shared = sum(len(row.prefix) for pieces in rows for row in pieces)
        return Scores(
            scores=sigmoid(logits) if probability else logits.astype(np.float64),
            logits=logits,
            truncated=[truncated[p] for p in self.positions],
            chunks=[len(rows[p]) for p in self.positions],
            tokens=sum(part.tokens for part in self.encoded),
            cached_prefix_tokens=shared - len(rows[0][0].prefix),
            times=times,
        )


class Engine:
    """Scores requests with one model; `submit` from any thread, `score` for a batch at once.

    Args:
        scorer: the model.
        batch_tokens: the most tokens of a micro-batch; see `MicroBatcher`.
        threads: how many threads tokenise.
        window: how many documents `score` has under way at once; more are sorted together.
    """

    def __init__(
        self, scorer: Scorer, *, batch_tokens: int = 16384, threads: int = 2, window: int = 4096
    ) -> None:
        assert window > 0
        self.scorer = scorer
        self.window = window
        two_steps = scorer if isinstance(scorer, CollatingScorer) else None
        self.batcher = MicroBatcher(
            two_steps.compute if two_steps else scorer.forward,
            budget=batch_tokens,
            packed=scorer.packed,
            threads=threads,
            collate=two_steps.collate if two_steps else list,
        )

    def submit(
        self,
        query: str,
        documents: Sequence[str],
        options: Options = Options(),  # noqa: B008  frozen
        *,
        deadline: float = float("inf"),
        patience_s: float = float("inf"),
    ) -> Future[Scores]:
        """Starts to score `documents`; cancel the future to drop the rows not computed yet.

        Args:
            query: the query's text.
            documents: any number of texts, equal ones allowed.
            options: truncation and instruction.
            deadline: a `time.monotonic()` after which the future fails with DeadlinePassed.
            patience_s: it fails with NotStarted if it waits longer for its first batch.

        Raises:
            TooLong: (from the future) a document does not fit and truncation is "error".
        """
        work = _ScoreWork(self.scorer, query, documents, options)
        return self.batcher.submit(work, deadline=deadline, patience_s=patience_s)

    def score(
        self,
        batch: Sequence[tuple[str, Sequence[str]]],
        options: Options = Options(),  # noqa: B008  frozen
    ) -> list[list[float]]:
        """Returns one score per document, larger is better; lists may be ragged or empty.

        The same list always forms the same micro-batches, so it always gives the same bits.

        Raises:
            TooLong: a text does not fit and truncation is "error"; `request` counts in `batch`.
        """
        number = count()
        groups = (
            [_ScoreWork(self.scorer, *request, options, next(number)) for request in group]
            for group in _windows(batch, lambda each: len(each[1]), self.window, _FIRST)
        )
        return [each.scores.tolist() for group in self.batcher.compute(groups) for each in group]

    def close(self) -> None:
        """Ends the threads after the requests under way are answered."""
        self.batcher.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _windows(
    items: Iterable[T], size: Callable[[T], int], most: int, first: int = 0
) -> Iterator[list[T]]:
    """Yields consecutive items, as many as are of size `most` together, or one that is larger.

    With `first`, groups begin with that size and double.
    """
    group: list[T] = []
    total = 0
    limit = min(first or most, most)
    for item in items:
        if group and total + size(item) > limit:
            yield group
            group, total, limit = [], 0, min(2 * limit, most)
        group.append(item)
        total += size(item)
    if group:
        yield group
