"""Embedding in rounds: the texts of all waiting requests mixed, each request with its fair share.

One thread encodes a round at a time. A round takes turns among the requests, the one that got the
least so far first, until it is full: small requests are encoded together, and none waits for all of
a large one. Start-time fair queueing, as in the scorer engine.

Shapes: n texts of a request, D dimensions.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

_TURN = 16
"""Texts that a request puts into a round before the next one's turn."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors [n, D] of a request, and the seconds that it waited and was computed."""

    vectors_nD: np.ndarray
    queue_s: float
    infer_s: float


@dataclass(eq=False)
class _Asked:
    role: str
    texts: Sequence[str]
    future: Future[Embedded]
    born: float
    served: int = 0
    taken: int = 0
    started: float = 0.0
    parts: list[np.ndarray] = field(default_factory=list)


class Rounds:
    """Encodes requests from any thread, many at once.

    Args:
        encode: (role, texts) to float32 vectors; called from one thread.
        round_chars: characters of a round; a longer text goes alone.
    """

    def __init__(
        self, encode: Callable[[str, Sequence[str]], np.ndarray], *, round_chars: int = 8192
    ) -> None:
        self._encode = encode
        self._round_chars = round_chars
        self._waiting: list[_Asked] = []
        self._changed = threading.Condition()
        self._closed = False
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._thread = threading.Thread(target=self._drive, name="rounds", daemon=True)
        self._thread.start()

    def submit(self, role: str, texts: Sequence[str]) -> Future[Embedded]:
        """Begins to encode at least one text; cancel the future to drop what was not begun."""
        assert texts and not self._closed
        asked = _Asked(role, texts, Future(), time.monotonic())
        with self._changed:
            asked.served = min((other.served for other in self._waiting), default=0)
            self._waiting.append(asked)
            self._changed.notify_all()
        return asked.future

    @property
    def queued(self) -> int:
        """Texts that wait for a round."""
        with self._changed:
            return sum(len(asked.texts) - asked.taken for asked in self._waiting)

    def close(self) -> None:
        """Ends the thread after the requests under way are answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._encoder.shutdown()

    def _drive(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed:
                        return
                    self._changed.wait()
                turns = self._take()
            if turns:
                self._run(turns)

    def _take(self) -> list[tuple[_Asked, Sequence[str]]]:
        """Returns the next round: requests of one role with the texts of each turn."""
        self._waiting = [asked for asked in self._waiting if not asked.future.cancelled()]
        if not self._waiting:
            return []
        role = min(self._waiting, key=lambda asked: asked.served).role
        order = [(a.served, i, a) for i, a in enumerate(self._waiting) if a.role == role]
        heapq.heapify(order)
        turns: list[tuple[_Asked, Sequence[str]]] = []
        left = self._round_chars
        while order and (left > 0 or not turns):
            _, place, asked = heapq.heappop(order)
            begin = asked.taken
            while asked.taken < min(begin + _TURN, len(asked.texts)):
                size = len(asked.texts[asked.taken]) + 8
                if size > left and (turns or asked.taken > begin):
                    break
                left -= size
                asked.served += size
                asked.taken += 1
            if asked.taken == begin:
                break
            turns.append((asked, asked.texts[begin : asked.taken]))
            if asked.taken < len(asked.texts):
                heapq.heappush(order, (asked.served, place, asked))
        self._waiting = [asked for asked in self._waiting if asked.taken < len(asked.texts)]
        return turns

    def _run(self, turns: Sequence[tuple[_Asked, Sequence[str]]]) -> None:
        begun = time.monotonic()
        owners = list(dict.fromkeys(asked for asked, _ in turns))
        for asked in owners:
            asked.started = asked.started or begun
        texts = [text for _, part in turns for text in part]
        work = self._encoder.submit(self._encode, owners[0].role, texts)
        error = work.exception()
        if error is not None:
            self._fail(owners, error)
            return
        vectors_nD, row = work.result(), 0
        for asked, part in turns:
            asked.parts.append(vectors_nD[row : row + len(part)])
            row += len(part)
        done = time.monotonic()
        for asked in owners:
            whole = sum(map(len, asked.parts)) == len(asked.texts)
            if whole and asked.future.set_running_or_notify_cancel():
                waited = asked.started - asked.born
                result = Embedded(np.concatenate(asked.parts), waited, done - asked.started)
                asked.future.set_result(result)

    def _fail(self, failed: Sequence[_Asked], error: BaseException) -> None:
        with self._changed:
            self._waiting = [asked for asked in self._waiting if asked not in failed]
        for asked in failed:
            if asked.future.set_running_or_notify_cancel():
                asked.future.set_exception(error)
