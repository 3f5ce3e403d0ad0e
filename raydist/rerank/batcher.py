"""The micro-batcher: many requests, one model, micro-batches under a token budget.

A request is encoded to rows in threads; its rows wait in a fair queue. One thread forms
micro-batches: the next request in fair order gives the seed (its longest row), and rows of nearly
that length, of the next few requests, fill the batch up to the budget. So a small request does not
wait for a large one, and little is padded. Reranking and embedding run on it, served and offline.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np

from raydist.rerank.queue import FairQueue, Row, Unit

A = TypeVar("A")
_Answer = TypeVar("_Answer", covariant=True)


class DeadlinePassed(TimeoutError):
    """The request's deadline came before its last batch."""


class NotStarted(TimeoutError):
    """The request's first batch did not start in time: there is more work than was estimated."""


@dataclass(frozen=True, slots=True)
class Times:
    """The seconds of a request: waiting (for a thread and for a batch), encoding, computing."""

    queue_s: float = 0.0
    tokenize_s: float = 0.0
    infer_s: float = 0.0


class Work(Protocol[_Answer]):
    """A request as the batcher sees it."""

    def encode(self) -> Sequence[Row]:
        """Returns its rows; called from one of several threads."""
        ...

    def answer(self, values: np.ndarray, times: Times) -> _Answer:
        """Returns its answer.

        Args:
            values: the model's values for the rows, float32 [rows, ...].
            times: the request's.
        """
        ...


@dataclass(slots=True)
class Stats:
    """Counters since the batcher started; `padded_tokens` includes `tokens`."""

    batches: int = 0
    tokens: int = 0
    padded_tokens: int = 0


@dataclass(eq=False, slots=True)
class _Request(Generic[A]):
    """A request from its arrival to its answer."""

    work: Work[A]
    deadline: float = float("inf")
    patience_s: float = float("inf")
    future: Future[A] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    encoded: float = 0.0
    started: float = 0.0
    tokenize_s: float = 0.0
    values: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    rows_left: int = 0

    def encode(self) -> _Units:
        """Returns the rows as units; none for a request that was cancelled."""
        if self.future.done():
            return []
        start = time.monotonic()
        rows = self.work.encode()
        self.encoded = time.monotonic()
        self.tokenize_s = self.encoded - start
        self.rows_left = len(rows)
        if not rows:
            self.started = self.encoded
            self.finish()
        return [Unit(len(row), row, self, number) for number, row in enumerate(rows)]

    def too_late(self) -> TimeoutError | None:
        """Returns the error of a request that waited too long."""
        now = time.monotonic()
        if self.deadline < now:
            return DeadlinePassed("the deadline passed before all documents were scored")
        if not self.started and self.encoded + self.patience_s < now:
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
        queued = self.started - self.arrived - self.tokenize_s
        times = Times(queued, self.tokenize_s, time.monotonic() - self.started)
        answer = self.work.answer(self.values, times)
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(answer)

    def fail(self, error: BaseException) -> None:
        """Answers with an error, unless there is an answer already."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


_Units: TypeAlias = list[Unit[_Request[Any]]]


class MicroBatcher:
    """Computes requests with one model; `submit` from any thread, `compute` for lists at once.

    Args:
        forward: rows, as requests encode them, to float32 values [rows, ...]; called from one
            thread at a time.
        budget: the most tokens of a micro-batch, padding and rows' prefixes included (a single
            longer row goes alone).
        packed: whether a batch costs the sum of its rows (True), or its longest row and its longest
            prefix times their number.
        threads: how many threads encode.
    """

    def __init__(
        self,
        forward: Callable[[list[Any]], np.ndarray],
        *,
        budget: int,
        packed: bool,
        threads: int = 1,
    ) -> None:
        assert budget > 0 and threads > 0
        self.budget = budget
        self.stats = Stats()
        self._forward, self._packed = forward, packed
        self._encoders = ThreadPoolExecutor(threads, thread_name_prefix="encode")
        self._device = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._queue: FairQueue[_Request[Any]] = FairQueue()
        self._changed = threading.Condition()
        self._encoding = 0
        self._closed = False
        self._driver: threading.Thread | None = None

    @property
    def queued_tokens(self) -> int:
        """Tokens of encoded rows that wait for a batch."""
        return self._queue.tokens

    def submit(
        self,
        work: Work[A],
        *,
        deadline: float = float("inf"),
        patience_s: float = float("inf"),
    ) -> Future[A]:
        """Starts to compute a request; cancel the future to drop the rows not computed yet.

        Args:
            work: the request.
            deadline: a `time.monotonic()` after which the future fails with DeadlinePassed.
            patience_s: it fails with NotStarted if it waits longer for its first batch.
        """
        assert not self._closed, "the batcher is closed"
        request = _Request(work, deadline, patience_s)
        with self._changed:
            self._encoding += 1
            self._start()
        encoding = self._encoders.submit(request.encode)
        encoding.add_done_callback(partial(self._enqueue, request))
        return request.future

    def compute(self, groups: Iterable[Sequence[Work[A]]]) -> Iterator[list[A]]:
        """Yields the answers of each group of requests.

        Micro-batches go by the group alone, not by when a request was encoded: the same work, done
        again after a crash, gives the same bits. A group is encoded while the one before it is
        computed.
        """
        assert not self._closed, "the batcher is closed"
        pending: list[tuple[_Request[A], Future[_Units]]] = []
        for group in chain(groups, [()]):
            requests = [_Request(work) for work in group]
            encoding = [(each, self._encoders.submit(each.encode)) for each in requests]
            queue: FairQueue[_Request[Any]] = FairQueue()
            for request, units in pending:
                if units.result():
                    queue.add(request, units.result())
            self._run(partial(self._take_or_end, queue), raise_errors=True)
            if pending:
                yield [request.future.result() for request, _ in pending]
            pending = encoding

    def close(self) -> None:
        """Ends the threads after the requests under way are answered."""
        atexit.unregister(self._abandon)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._encoders.shutdown(wait=True)
        self._join()
        self._device.shutdown(wait=True)

    def _start(self) -> None:
        """Starts the driver, which lives while there is work: an idle batcher can be collected."""
        if self._driver is None:
            self._driver = threading.Thread(target=self._drive, name="batcher", daemon=True)
            self._driver.start()
            atexit.register(self._abandon)

    def _join(self) -> None:
        driver = self._driver
        if driver is not None:
            driver.join()

    def _abandon(self) -> None:
        """Ends the driver before the interpreter ends, and drops waiting requests.

        Python kills daemon threads at its end, and one that is inside torch's destructors at that
        moment crashes the process.
        """
        with self._changed:
            self._closed = True
            for owner in self._queue.owners():
                self._queue.drop(owner)
                owner.future.cancel()
            self._changed.notify_all()
        self._join()

    def _enqueue(self, request: _Request[A], encoding: Future[_Units]) -> None:
        error = encoding.exception()
        if error is not None:
            request.fail(error)
        with self._changed:
            self._encoding -= 1
            if error is None and encoding.result():
                self._queue.add(request, encoding.result())
            self._changed.notify_all()

    def _drive(self) -> None:
        self._run(self._next_units)

    def _next_units(self, idle: bool) -> _Units | None:
        """Returns the driver's next micro-batch; waits for one if the model is idle."""
        with self._changed:
            while idle and not self._queue:
                if not self._encoding:
                    self._driver = None
                    if not self._closed:
                        atexit.unregister(self._abandon)
                    return None
                self._changed.wait()
            for owner in self._queue.owners():
                error = owner.too_late()
                if error is not None or owner.future.done():
                    self._queue.drop(owner)
                if error is not None:
                    owner.fail(error)
            return self._queue.take(self.budget, packed=self._packed)

    def _take_or_end(self, queue: FairQueue[_Request[Any]], idle: bool) -> _Units | None:
        return queue.take(self.budget, packed=self._packed) or (None if idle else [])

    def _run(
        self, next_units: Callable[[bool], _Units | None], *, raise_errors: bool = False
    ) -> None:
        """Computes micro-batches until there are no more.

        The next batch is formed while the present one is computed.

        Args:
            next_units: returns the next batch (empty: none is ready, None: the end); its argument
                says whether the model is idle.
            raise_errors: whether an error ends the run, beside failing its requests.
        """
        running: tuple[_Units, Future[np.ndarray]] | None = None
        while (units := next_units(running is None)) is not None:
            try:
                started = (units, self._launch(units)) if units else None
            except RuntimeError:  # the interpreter ends: its executors take nothing any more
                if raise_errors:
                    raise
                return
            if running is not None:
                _settle(*running)
                if raise_errors:
                    running[1].result()
            running = started

    def _launch(self, units: _Units) -> Future[np.ndarray]:
        now = time.monotonic()
        for unit in units:
            unit.owner.started = unit.owner.started or now
        lengths = [unit.length for unit in units]
        tokens = sum(lengths)
        with self._changed:
            self.stats.batches += 1
            self.stats.tokens += tokens
            self.stats.padded_tokens += tokens if self._packed else max(lengths) * len(lengths)
        return self._device.submit(self._forward, [unit.row for unit in units])


def _settle(units: _Units, batch: Future[np.ndarray]) -> None:
    """Passes a batch's values, or its error, to its requests."""
    error = batch.exception()
    if error is not None:
        for owner in {id(unit.owner): unit.owner for unit in units}.values():
            owner.fail(error)
        return
    for unit, value in zip(units, batch.result()):
        unit.owner.put(unit.number, value)
