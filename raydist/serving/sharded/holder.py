"""What a replica of a shard has opened: its part of each index, for each generation in use."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

from raydist.errors import RaydistError
from raydist.serving.sharded.calls import Opening, Order, Reply

_RESTED_S = 120.0
"""Seconds after which an older generation that nobody asks for is closed."""


class Holder:
    """Opens parts when it is told to, and calls their methods on its threads.

    Args:
        threads: how many calls run beside each other.
        rested_s: seconds after which an older generation that nobody asks for is closed.
    """

    def __init__(self, threads: int, rested_s: float = _RESTED_S) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="shard")
        self._rested_s = rested_s
        self._parts: dict[str, Any] = {}
        self._asked: dict[str, float] = {}
        """When each part was asked last."""
        self._newest: dict[str, str] = {}
        """The key that was opened last, of each index."""
        self._opening = Lock()

    async def open(self, opening: Opening) -> Reply:
        """Opens a part, once; answers how many documents it has."""
        return await asyncio.to_thread(self._open, opening)

    def _open(self, opening: Opening) -> Reply:
        with self._opening:  # one at a time
            try:
                if opening.key not in self._parts:
                    self._parts[opening.key] = opening.make()
                part = self._parts[opening.key]
                self._asked[opening.key] = time.monotonic()
                self._newest[opening.folder] = opening.key
                return Reply(value=part.documents())
            except RaydistError as error:
                return _refused(error)

    async def ask(self, order: Order) -> Reply:
        """Calls a method of a part."""
        loop = asyncio.get_running_loop()
        ends = time.monotonic() + order.timeout_s
        return await loop.run_in_executor(self._threads, self._ask, order, ends)

    def _ask(self, order: Order, ends: float) -> Reply:
        if time.monotonic() > ends:
            return Reply("late")
        part = self._parts.get(order.key)
        if part is None:
            return Reply("unopened")
        self._asked[order.key] = time.monotonic()
        try:
            return Reply(value=getattr(part, order.method)(*order.arguments))
        except RaydistError as error:
            return _refused(error)

    def tidy(self) -> None:
        """Closes older generations that nobody asks for any more, unless one is being opened."""
        if not self._opening.acquire(blocking=False):
            return
        try:
            rested = time.monotonic() - self._rested_s
            for key in self._parts.keys() - {*self._newest.values()}:
                if self._asked[key] < rested:
                    del self._parts[key], self._asked[key]
        finally:
            self._opening.release()


def _refused(error: RaydistError) -> Reply:
    return Reply("refused", error=(type(error).__name__, str(error)))
