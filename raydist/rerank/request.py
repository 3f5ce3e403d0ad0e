"""A request as the scorer engine has it under way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from raydist.rerank.rows import Encoded, Options, sigmoid
from raydist.rerank.scored import Scored


class DeadlinePassed(TimeoutError):
    """The request's deadline came before its last batch."""


class NotBegun(TimeoutError):
    """The request's first batch did not come in time: there is more to do than was thought."""


@dataclass(eq=False)
class Request:
    """One query with its distinct documents, from its arrival to its answer."""

    query: str
    documents: list[str]
    """Distinct texts; the original's i-th is `documents[place[i]]`."""
    place: list[int]
    options: Options
    deadline: float
    patience_s: float
    future: Future[Scored]
    born: float
    encoded: Encoded = field(default_factory=lambda: Encoded([], []))
    logits: list[float] = field(default_factory=list)
    waiting: int = 0
    ready: float = 0.0
    started: float = 0.0
    tokenize_s: float = 0.0

    @classmethod
    def of(
        cls,
        query: str,
        documents: Sequence[str],
        options: Options,
        deadline: float = float("inf"),
        patience_s: float = float("inf"),
    ) -> Request:
        """Returns a new request; one without documents is answered."""
        where: dict[str, int] = {}
        place = [where.setdefault(text, len(where)) for text in documents]
        born = time.monotonic()
        request = cls(query, list(where), place, options, deadline, patience_s, Future(), born)
        if not documents:
            request.future.set_result(Scored(np.zeros(0), np.zeros(0, np.float32), [], []))
        return request

    @property
    def late(self) -> TimeoutError | None:
        """What the request fails with by now."""
        now = time.monotonic()
        if self.deadline < now:
            return DeadlinePassed("the deadline passed before all was scored")
        if not self.started and self.ready + self.patience_s < now:
            return NotBegun(f"the request was not begun within {self.patience_s:g} s")
        return None

    def finish(self, probabilities: bool) -> None:
        """Answers: all rows have their logits.

        Args:
            probabilities: whether scores are the sigmoids of the logits.
        """
        done = time.monotonic()
        encoded = self.encoded
        begins = np.cumsum([0, *map(len, encoded.rows[:-1])])
        # The best piece of each document; NaN if one of them is: it must not be outvoted.
        best = np.maximum.reduceat(np.asarray(self.logits, np.float32), begins)
        shared = sum(len(row.prefix) for rows in encoded.rows for row in rows)
        logits = best[self.place]
        if not self.future.set_running_or_notify_cancel():
            return
        self.future.set_result(
            Scored(
                scores=sigmoid(logits) if probabilities else logits.astype(np.float64),
                logits=logits,
                truncated=[encoded.truncated[p] for p in self.place],
                chunks=[len(encoded.rows[p]) for p in self.place],
                tokens=encoded.tokens,
                cached_prefix_tokens=shared - len(encoded.rows[0][0].prefix),
                queue_s=self.started - self.born - self.tokenize_s,
                tokenize_s=self.tokenize_s,
                infer_s=done - self.started,
            )
        )
