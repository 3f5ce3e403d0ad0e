"""The micro-batcher: many requests, one model, micro-batches under a token budget.

A request is encoded to rows in threads, part by part; its rows wait for the model. Both wait in
fair queues, so a small request waits for a large one neither before it is tokenised nor after. One
thread forms micro-batches: the next request in fair order gives the seed (its longest row), and
rows of nearly that length, of the next few requests, fill the batch up to the budget: little is
padded. A batch that fails is computed again, request by request, in halves where memory was short,
so that a request fails for its own rows alone. Reranking and embedding run on it, served and
offline.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from raydist.reranking.queue import FairQueue, Unit
from raydist.reranking.request import BadForward, Pace, Request, Stats, Units, Work

A = TypeVar("A")
_QUANTUM_BATCHES = 8
"""After so many batches' worth of tokens a large request stands in line again."""
_QUANTUM_CHARS = 65_536
"""And after so many characters in the line for the tokenisers."""


class MicroBatcher:
    """Computes requests with one model; `submit` from any thread, `compute` for lists at once.

    Args:
        forward: collated rows to float32 values [rows, ...]; called from one thread at a time.
        budget: the most tokens of a micro-batch, padding and rows' prefixes included (a single
            longer row goes alone).
        packed: whether a batch costs the sum of its rows (True), or its longest row and its longest
            prefix times their number.
        threads: how many threads encode.
        collate: rows, as requests encode them, to what `forward` takes; called for the next batch
            while one is computed.
    """

    def __init__(
        self,
        forward: Callable[[Any], np.ndarray],
        *,
        budget: int,
        packed: bool,
        threads: int = 1,
        collate: Callable[[list[Any]], Any] = list,
    ) -> None:
        assert budget > 0 and threads > 0
        self.budget = budget
        self.stats = Stats()
        self.pace = Pace()
        self._forward, self._collate, self._packed = forward, collate, packed
        self._encoders = ThreadPoolExecutor(threads, thread_name_prefix="encode")
        self._device = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._changed = threading.Condition()
        self._open: set[Request[Any]] = set()
        self._closed = False
        self._driver: threading.Thread | None = None
        self._forget()

    def _forget(self) -> None:
        """Empties the queues."""
        self._queue: FairQueue[Request[Any]] = FairQueue(_QUANTUM_BATCHES * self.budget)
        self._texts: FairQueue[Request[Any]] = FairQueue(_QUANTUM_CHARS)
        self._encoding: set[Request[Any]] = set()

    @property
    def queued_tokens(self) -> int:
        """Tokens of encoded rows that wait for a batch."""
        return self._queue.tokens

    @property
    def is_idle(self) -> bool:
        """Whether no submitted request waits for its answer."""
        return not self._open

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
            patience_s: it fails with NotStarted if its first batch starts so long after this call.
        """
        assert not self._closed, "the batcher is closed"
        request = Request(work, deadline, patience_s)
        sizes = work.part_sizes()
        request.parts = [None] * len(sizes)
        part = _Part()
        with self._changed:
            self._open.add(request)
            self._encoding.add(request)
            self._texts.add(request, [Unit(size, part, request, n) for n, size in enumerate(sizes)])
            self._start()
        request.future.add_done_callback(lambda _: self._open.discard(request))
        for _ in sizes:
            self._encoders.submit(self._encode_next)
        return request.future

    def compute(self, groups: Iterable[Sequence[Work[A]]]) -> Iterator[list[A]]:
        """Yields the answers of each group of requests.

        Micro-batches go by the group alone, not by when a request was encoded: the same work, done
        again after a crash, gives the same bits. A group is encoded while the one before it is
        computed.
        """
        assert not self._closed, "the batcher is closed"
        pending: list[tuple[Request[A], Future[Units]]] = []
        for group in chain(groups, [()]):
            requests = [Request(work, parts=[None] * len(work.part_sizes())) for work in group]
            encoding = [(each, self._encoders.submit(each.encode_all)) for each in requests]
            queue: FairQueue[Request[Any]] = FairQueue()
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
            for request in list(self._open):
                request.future.cancel()
            self._forget()
            self._changed.notify_all()
        self._join()

    def _encode_next(self) -> None:
        """Encodes the part that is next in fair order; the last one's request joins the queue."""
        with self._changed:
            units = self._texts.take(1, packed=True)
        for unit in units:
            request = unit.owner
            with _errors_to(request.fail):
                if (error := request.too_late()) is not None:
                    raise error
                if not request.future.done():
                    request.encode(unit.number)
            with self._changed, _errors_to(self._give_up):
                if request.future.done():
                    self._texts.drop(request)
                    self._encoding.discard(request)
                elif request in self._encoding and None not in request.parts:
                    self._encoding.discard(request)
                    with _errors_to(request.fail):
                        rows = request.units()
                    if not request.future.done():
                        self._queue.add(request, rows)
                self._changed.notify_all()

    def _drive(self) -> None:
        with _errors_to(self._give_up):
            self._run(self._next_units)

    def _give_up(self, error: Exception) -> None:
        """Fails all requests under way after the unexpected; the next one finds a new driver."""
        with self._changed:
            if self._driver is threading.current_thread():
                self._driver = None
            self._forget()
            for request in list(self._open):
                request.fail(error)
            self._changed.notify_all()

    def _next_units(self, idle: bool) -> Units | None:
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

    def _take_or_end(self, queue: FairQueue[Request[Any]], idle: bool) -> Units | None:
        return queue.take(self.budget, packed=self._packed) or (None if idle else [])

    def _run(
        self, next_units: Callable[[bool], Units | None], *, raise_errors: bool = False
    ) -> None:
        """Computes micro-batches until there are no more.

        The next batch is formed and collated while the present one is computed.

        Args:
            next_units: returns the next batch (empty: none is ready, None: the end); its argument
                says whether the model is idle.
            raise_errors: whether an error ends the run, beside failing its requests.
        """
        running: tuple[Units, Future[np.ndarray]] | None = None
        while (units := next_units(running is None)) is not None:
            try:
                started = (units, self._launch(units)) if units else None
            except RuntimeError:  # the interpreter ends: its executors take nothing any more
                if raise_errors:
                    raise
                return
            if running is not None:
                error = self._settle(*running)
                if error is not None and raise_errors:
                    raise error
            running = started

    def _launch(self, units: Units) -> Future[np.ndarray]:
        now = time.monotonic()
        for unit in units:
            unit.owner.started = unit.owner.started or now
        batch: Any = None
        failed: Future[np.ndarray] = Future()
        with _errors_to(failed.set_exception):
            batch = self._collate([unit.row for unit in units])
        return failed if failed.done() else self._device.submit(self._compute, units, batch)

    def _compute(self, units: Units, batch: Any) -> np.ndarray:
        """Returns the values of a micro-batch's rows."""
        lengths = [unit.length for unit in units]
        tokens = sum(lengths)
        with self.pace.measure(tokens):
            values = self._forward(batch)
            if len(values) != len(units):
                raise BadForward(f"the model returned {len(values)} values for {len(units)} rows")
        self.stats.batches += 1
        self.stats.tokens += tokens
        self.stats.padded_tokens += tokens if self._packed else max(lengths) * len(lengths)
        return values

    def _settle(self, units: Units, batch: Future[np.ndarray]) -> BaseException | None:
        """Passes a batch's values to its requests; returns the error of one that failed, if any.

        A batch that failed is computed again in parts; only what fails alone fails.
        """
        error = batch.exception()
        if error is None:
            for unit, value in zip(units, batch.result()):
                with _errors_to(unit.owner.fail):
                    unit.owner.put(unit.number, value)
            return None
        parts = _parts(units, error)
        if len(parts) == 1:
            units[0].owner.fail(error)
            return error
        del batch
        error.__traceback__ = None  # whose frames hold the batch's tensors
        errors = [self._settle(part, self._launch(part)) for part in parts]
        return next((each for each in errors if each is not None), None)


class _Part:
    """A part of a request that waits to be encoded; it is taken alone."""

    prefix: tuple[int, ...] = ()

    def __len__(self) -> int:
        return 1


def _parts(units: Units, error: BaseException) -> list[Units]:
    """Returns what to compute instead of a batch that failed: halves, or each request's rows.

    One part where there is nothing to divide.
    """
    if _is_out_of_memory(error) and len(units) > 1:
        half = len(units) // 2
        return [units[:half], units[half:]]
    by_owner: dict[int, Units] = {}
    for unit in units:
        by_owner.setdefault(id(unit.owner), []).append(unit)
    return list(by_owner.values())


def _is_out_of_memory(error: BaseException) -> bool:
    """Returns whether memory was short, on an accelerator (torch's own error) or here."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


@contextmanager
def _errors_to(fail: Callable[[Exception], None]) -> Iterator[None]:
    """Passes an error of the block on; whatever it is, the thread continues."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  a request's own code may raise anything
        fail(error)
