"""The scorer engine: many requests, one model, micro-batches under a token budget.

A request is tokenised in threads, its equal documents once; its rows wait in a pool sorted by
length. One thread forms micro-batches: the next request in fair order gives the seed (its longest
row), and rows of nearly that length, of the next few requests, fill the batch up to the token
budget. So a small request is not kept waiting by a large one, and little is padded.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import numpy as np

from raydist.rerank.pool import Pool, Unit
from raydist.rerank.request import Request
from raydist.rerank.rows import Options, Scorer, TooLong
from raydist.rerank.scored import Scored, Stats

_Batch: TypeAlias = tuple[list[Unit[Request]], "Future[np.ndarray]"]
_Tokenising: TypeAlias = list[tuple[Request, "Future[None]"]]


class Engine:
    """Scores requests with one model; `submit` from any thread, `score` for a batch at once.

    Args:
        scorer: the model.
        batch_tokens: the most tokens of a micro-batch, padding and what rows read of prefixes
            included (a single longer row goes alone).
        threads: how many threads tokenise.
        window: how many documents `score` has under way at once; more are sorted together.
    """

    def __init__(
        self, scorer: Scorer, *, batch_tokens: int = 16384, threads: int = 2, window: int = 4096
    ) -> None:
        assert batch_tokens > 0 and threads > 0 and window > 0
        self.scorer = scorer
        self.batch_tokens = batch_tokens
        self.window = window
        self.stats = Stats()
        self._tokenisers = ThreadPoolExecutor(threads, thread_name_prefix="tokenise")
        self._device = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._pool: Pool[Request] = Pool()
        self._changed = threading.Condition()
        self._tokenising = 0
        self._closed = False
        self._driver: threading.Thread | None = None

    @property
    def queued_tokens(self) -> int:
        """Tokens of tokenised rows that wait for a batch."""
        return self._pool.tokens

    def submit(
        self,
        query: str,
        documents: Sequence[str],
        options: Options = Options(),  # noqa: B008  frozen
        *,
        deadline: float = float("inf"),
        patience_s: float = float("inf"),
    ) -> Future[Scored]:
        """Begins to score `documents`; cancel the future to drop what was not computed yet.

        Args:
            query: the query's text.
            documents: any number of texts, equal ones allowed.
            options: truncation and instruction.
            deadline: a `time.monotonic()` after which the future fails with DeadlinePassed.
            patience_s: it fails with NotBegun if it waits longer for its first batch.

        Raises:
            TooLong: (from the future) a document does not fit and truncation is "error".
        """
        assert not self._closed, "the engine is closed"
        request = Request.of(query, documents, options, deadline, patience_s)
        if not documents:
            return request.future
        with self._changed:
            self._tokenising += 1
            self._start()
        self._tokenisers.submit(self._tokenise, request).add_done_callback(
            lambda done: self._tokenised(request, done)
        )
        return request.future

    def score(
        self,
        batch: Sequence[tuple[str, Sequence[str]]],
        options: Options = Options(),  # noqa: B008  frozen
    ) -> list[list[float]]:
        """Returns one score per document, larger is better; lists may be ragged or empty.

        Micro-batches go by `batch` alone, not by when a text was tokenised: the same work, done
        again after a crash, gives the same bits.
        """
        assert not self._closed, "the engine is closed"
        results: list[list[float]] = []
        now: _Tokenising = []
        for group in [*_groups(batch, self.window), []]:
            # Tokenised while the group before it is computed.
            made = [Request.of(query, documents, options) for query, documents in group]
            coming = [(each, self._tokenisers.submit(self._encode, each)) for each in made]
            results += self._compute(now)
            now = coming
        return results

    def close(self) -> None:
        """Ends the threads after the requests under way are answered."""
        atexit.unregister(self._leave)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._tokenisers.shutdown(wait=True)
        self._join()
        self._device.shutdown(wait=True)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        """Starts the thread that there is while there is work: an idle engine can be collected."""
        if self._driver is None:
            self._driver = threading.Thread(target=self._drive, name="engine", daemon=True)
            self._driver.start()
            atexit.register(self._leave)

    def _join(self) -> None:
        driver = self._driver
        if driver is not None:
            driver.join()

    def _leave(self) -> None:
        """Ends the thread before the interpreter ends; what still waits is dropped.

        Python cuts daemon threads off at its end, and one that is just then inside torch's
        destructors takes the process down with it.
        """
        with self._changed:
            self._closed = True
            for owner in self._pool.owners():
                self._pool.drop(owner)
                owner.future.cancel()
            self._changed.notify_all()
        self._join()

    def _compute(self, group: _Tokenising) -> list[list[float]]:
        pool: Pool[Request] = Pool()
        for request, task in group:
            task.result()
            if units := _units(request):
                pool.add(request, units)
        running: _Batch | None = None
        while pool or running is not None:
            units = pool.take(self.batch_tokens, packed=self.scorer.packed)
            started = self._launch(units) if units else None
            if running is not None:
                self._settle(*running)
                running[1].result()  # nothing more is computed after a failure
            running = started
        return [request.future.result().scores.tolist() for request, _ in group]

    def _tokenise(self, request: Request) -> None:
        self._encode(request)
        if units := _units(request):
            with self._changed:
                self._pool.add(request, units)
                self._changed.notify_all()

    def _encode(self, request: Request) -> None:
        if request.future.done():  # it has no documents, or is not wanted any more
            return
        begun = time.monotonic()
        try:
            request.encoded = self.scorer.encode(request.query, request.documents, request.options)
        except TooLong as error:  # equal documents were encoded once
            first = [request.place.index(number) for number in range(len(request.documents))]
            raise error.placed(first) from None
        request.ready = time.monotonic()
        request.tokenize_s = request.ready - begun
        request.waiting = sum(map(len, request.encoded.rows))
        request.logits = [0.0] * request.waiting
        with self._changed:
            self.stats.requests += 1
            self.stats.documents += len(request.place)
            self.stats.tokenize_s += request.tokenize_s

    def _tokenised(self, request: Request, task: Future[None]) -> None:
        error = task.exception()
        if error is not None and request.future.set_running_or_notify_cancel():
            request.future.set_exception(error)
        with self._changed:
            self._tokenising -= 1
            self._changed.notify_all()

    def _drive(self) -> None:
        """Forms micro-batches and runs them until nothing waits.

        The next batch is formed while the present one is computed.
        """
        running: _Batch | None = None
        while True:
            units: list[Unit[Request]] = []
            with self._changed:
                while running is None and not self._pool:
                    if not self._tokenising:
                        self._driver = None
                        if not self._closed:
                            atexit.unregister(self._leave)
                        return
                    self._changed.wait()
                for owner in self._pool.owners():
                    late = owner.late
                    if owner.future.done():
                        self._pool.drop(owner)
                    elif late is not None:
                        self._pool.drop(owner)
                        if owner.future.set_running_or_notify_cancel():
                            owner.future.set_exception(late)
                units = self._pool.take(self.batch_tokens, packed=self.scorer.packed)
            try:
                started = self._launch(units) if units else None
            except RuntimeError:  # the interpreter ends: its executors take nothing any more
                return
            if running is not None:
                self._settle(*running)
            running = started

    def _launch(self, units: list[Unit[Request]]) -> _Batch:
        now = time.monotonic()
        for unit in units:
            unit.owner.started = unit.owner.started or now
        lengths = [unit.length for unit in units]
        with self._changed:
            self.stats.batches += 1
            self.stats.rows += len(units)
            self.stats.tokens += sum(lengths)
            self.stats.padded_tokens += (
                sum(lengths) if self.scorer.packed else max(lengths) * len(lengths)
            )
        return units, self._device.submit(self.scorer.forward, [unit.row for unit in units])

    def _settle(self, units: list[Unit[Request]], batch: Future[np.ndarray]) -> None:
        begun = time.monotonic()
        error = batch.exception()
        self.stats.infer_s += time.monotonic() - begun
        if error is not None:
            for owner in {id(unit.owner): unit.owner for unit in units}.values():
                if not owner.future.done() and owner.future.set_running_or_notify_cancel():
                    owner.future.set_exception(error)
            return
        for unit, logit in zip(units, batch.result().tolist()):
            owner = unit.owner
            owner.logits[unit.number] = logit
            owner.waiting -= 1
            if not owner.waiting and not owner.future.done():
                owner.finish(self.scorer.sigmoid)


def _units(request: Request) -> list[Unit[Request]]:
    rows = (row for rows in request.encoded.rows for row in rows)
    return [Unit(len(row), row, request, number) for number, row in enumerate(rows)]


def _groups(
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
