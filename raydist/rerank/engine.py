"""The scorer engine: queries and their documents through one model, in shared micro-batches.

The micro-batcher (`batcher.py`) schedules the work; here a query's documents become rows, equal
ones once, and the rows' logits become scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from raydist.rerank.batcher import MicroBatcher, Times
from raydist.rerank.rows import EncodedDocuments, Options, Row, Scorer, TooLong, sigmoid


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


@dataclass(slots=True)
class _ScoreWork:
    """One query with its documents."""

    scorer: Scorer
    query: str
    documents: Sequence[str]
    options: Options
    number: int = 0
    positions: list[int] = field(default_factory=list)
    """The i-th document is the `positions[i]`-th distinct one."""
    encoded: EncodedDocuments = field(default_factory=lambda: EncodedDocuments([], []))

    def encode(self) -> list[Row]:
        """Returns the rows of the distinct documents."""
        if not self.documents:
            return []
        numbers: dict[str, int] = {}
        self.positions = [numbers.setdefault(text, len(numbers)) for text in self.documents]
        try:
            self.encoded = self.scorer.encode(self.query, list(numbers), self.options)
        except TooLong as error:
            first = [self.positions.index(number) for number in range(len(numbers))]
            renumbered = error.renumbered(first)
            renumbered.request = self.number
            raise renumbered from None
        return [row for rows in self.encoded.rows for row in rows]

    def answer(self, values: np.ndarray, times: Times) -> Scores:
        """Returns the scores; a document in pieces has the best one's."""
        encoded = self.encoded
        if not encoded.rows:
            return Scores(np.zeros(0), np.zeros(0, np.float32), [], [], 0, 0, times)
        begins = np.cumsum([0, *map(len, encoded.rows[:-1])])
        # NaN if one of the pieces is: it must not be outvoted.
        logits = np.maximum.reduceat(values, begins)[self.positions]
        probability = self.scorer.sigmoid and not self.options.raw
        shared = sum(len(row.prefix) for rows in encoded.rows for row in rows)
        return Scores(
            scores=sigmoid(logits) if probability else logits.astype(np.float64),
            logits=logits,
            truncated=[encoded.truncated[p] for p in self.positions],
            chunks=[len(encoded.rows[p]) for p in self.positions],
            tokens=encoded.tokens,
            cached_prefix_tokens=shared - len(encoded.rows[0][0].prefix),
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
        self.batcher = MicroBatcher(
            scorer.forward, budget=batch_tokens, packed=scorer.packed, threads=threads
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
            for group in _windows(batch, self.window)
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
    batch: Sequence[tuple[str, Sequence[str]]], window: int
) -> Iterator[list[tuple[str, Sequence[str]]]]:
    """Yields consecutive requests, as many as have `window` documents together, or one."""
    group: list[tuple[str, Sequence[str]]] = []
    size = 0
    for query, documents in batch:
        if group and size + len(documents) > window:
            yield group
            group, size = [], 0
        group.append((query, documents))
        size += len(documents)
    if group:
        yield group
