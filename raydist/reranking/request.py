"""A request of the micro-batcher, from its arrival to its answer, and what a batcher measures."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np

from raydist.reranking.queue import Row, Unit

A = TypeVar("A")
_Answer = TypeVar("_Answer", covariant=True)
_MEMORY_S = 10.0
"""Seconds of computing after which a measured speed counts for a third."""


class DeadlinePassed(TimeoutError):
    """The request's deadline came before its last batch."""


class NotStarted(TimeoutError):
    """The request's first batch did not start in time: there is more work than was estimated."""


class BadForward(RuntimeError):
    """The model returned another number of values than it was given rows."""


@dataclass(frozen=True, slots=True)
class Times:
    """The seconds of a request: waiting (for a thread and for a batch), encoding, computing."""

    queue_s: float = 0.0
    tokenize_s: float = 0.0
    infer_s: float = 0.0


class Work(Protocol[_Answer]):
    """A request as the batcher sees it."""

    def part_sizes(self) -> Sequence[int]:
        """Returns about how long encoding takes, part by part, in characters; one part or more."""
        ...

    def encode(self, part: int) -> Sequence[Row]:
        """Returns a part's rows; called from one of several threads."""
        ...

    def answer(self, values: np.ndarray, times: Times) -> _Answer:
        """Returns its answer.

        Args:
            values: the model's values for the rows of all parts, in order, float32 [rows, ...].
            times: the request's.
        """
        ...


@dataclass(slots=True)
class Stats:
    """Counters since the batcher started; `padded_tokens` includes `tokens`."""

    batches: int = 0
    tokens: int = 0
    padded_tokens: int = 0


@dataclass(slots=True)
class Pace:
    """What the model does: its speed of late, and whether it is at work.

    Attributes:
        tokens_per_s: row tokens per second of computing, of the last ten seconds or so; 0 before
            the first batch.
        running_since: when the present batch began, as `time.monotonic()`; 0 if there is none.
        finished_at: when a batch succeeded last; 0 if none has.
    """

    running_since: float = 0.0
    finished_at: float = 0.0
    _tokens: float = 0.0
    _seconds: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """Row tokens per second of computing."""
        return self._tokens / self._seconds if self._seconds else 0.0

    @contextmanager
    def measure(self, tokens: int) -> Iterator[None]:
        """Counts the block, unless it fails, as a batch."""
        start = self.running_since = time.monotonic()
        try:
            yield
            self.finished_at = time.monotonic()
        finally:
            self.running_since = 0.0
        seconds = self.finished_at - start
        decay = math.exp(-seconds / _MEMORY_S)
        self._tokens = self._tokens * decay + tokens
        self._seconds = self._seconds * decay + seconds

    def begin_with(self, tokens: int, seconds: float) -> None:
        """Forgets what was measured, but for this."""
        self._tokens, self._seconds = float(tokens), seconds


@dataclass(eq=False, slots=True)
class Request(Generic[A]):
    """A request from its arrival to its answer."""

    work: Work[A]
    deadline: float = float("inf")
    patience_s: float = float("inf")
    future: Future[A] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    started: float = 0.0
    tokenize_s: float = 0.0
    parts: list[Sequence[Row] | None] = field(default_factory=list)
    """The rows of each part; None where it is not encoded yet."""
    values: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    rows_left: int = 0

    def encode(self, part: int) -> None:
        """Encodes a part."""
        start = time.monotonic()
        self.parts[part] = self.work.encode(part)
        self.tokenize_s += time.monotonic() - start

    def encode_all(self) -> Units:
        """Encodes all parts and returns their rows."""
        for part in range(len(self.parts)):
            self.encode(part)
        return self.units()

    def units(self) -> Units:
        """Returns the rows as units; answers if there are none."""
        rows = [row for part in self.parts for row in part or ()]
        self.rows_left = len(rows)
        if not rows:
            self.started = time.monotonic()
            self.finish()
        return [Unit(len(row), row, self, number) for number, row in enumerate(rows)]

    def too_late(self) -> TimeoutError | None:
        """Returns the error of a request that waited too long."""
        now = time.monotonic()
        if self.deadline < now:
            return DeadlinePassed("the deadline passed before all documents were scored")
        if not self.started and self.arrived + self.patience_s < now:
            return NotStarted(f"the request did not start within {self.patience_s:g} s")
        return None

    def put(self, number: int, value: np.ndarray) -> None:
        """Stores a row's value; answers once all rows have theirs."""
        if len(self.values) == 0:
            self.values = np.empty((self.rows_left, *np.shape(value)), np.float32)
        self.values[number] = value
        self.rows_left -= 1
        if not self.rows_left and not self.future.done():
            self.finish()

    def finish(self) -> None:
        """Answers with the values."""
        queued = max(0.0, self.started - self.arrived - self.tokenize_s)
        times = Times(queued, self.tokenize_s, time.monotonic() - self.started)
        answer = self.work.answer(self.values, times)
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(answer)

    def fail(self, error: BaseException) -> None:
        """Answers with an error, unless there is an answer already."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


Units: TypeAlias = list[Unit[Request[Any]]]
