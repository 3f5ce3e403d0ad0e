"""All shards of a service, asked together: the replica that answers, and what becomes of lost ones.

A call goes to a shard's least busy replica. If it has no answer after the time that 95 of 100 calls
take, another replica is asked as well, and the first answer counts. A replica that is lost is not
asked until it has opened again what is searched; a shard without replicas ends a request, or is
missed by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, NamedTuple, Protocol

import numpy as np

from raydist import errors
from raydist.errors import JobError
from raydist.serving.errors import ServiceError, deadline, not_ready
from raydist.serving.sharded.calls import (
    REQUEST,
    Lost,
    Opening,
    Order,
    Replica,
    Reply,
    Request,
)

_BEAT_S = 1.0
"""Seconds between looks at each replica."""
_SILENT_S = 5.0
"""Seconds after which a replica that does not answer counts as lost."""
_PAUSE_S = 0.2
_OPENING_S = 600.0
"""Seconds within which every shard has to open its part."""
_LATELY = 512
"""Calls whose times decide when another replica is asked."""
_FEWEST = 32
"""Calls after which that is computed again."""
_SHARE = 0.95
_AGAIN_S = 2.0
"""Seconds after which a client may ask again for a shard that was lost."""


class Outdated(Exception):
    """The generation that is searched cannot be opened any more."""


class ShardMetrics(Protocol):
    """Counters of shards."""

    def answered(self, shard: int, seconds: float) -> None:
        """Counts an answer."""
        ...

    def failed(self, shard: int) -> None:
        """Counts the loss of a replica."""
        ...

    def hedged(self, shard: int) -> None:
        """Counts a call for which another replica was asked as well."""
        ...

    def searched(self, shard: int, documents: int) -> None:
        """Sets how many documents a shard has, of all indexes."""
        ...


class _Missing(Exception):
    """No replica of a shard is there."""


@dataclass(eq=False, slots=True)
class _Member:
    """A replica of a shard, and what runs in it."""

    shard: int
    replica: Replica
    is_lost: bool = False
    calls: set[asyncio.Task[Reply]] = field(default_factory=set)


class Generation(NamedTuple):
    """One generation of an index, opened by all shards; a `protocols.Group`.

    Attributes:
        group: the shards.
        key: of the generation.
        documents: how many each shard has.
    """

    group: ShardGroup
    key: str
    documents: Sequence[int]

    def ask(self, method: str, arguments: Sequence[Sequence[Any] | None]) -> list[Any]:
        """Returns what a method of each part returns; None also for shards that are missed.

        Raises:
            RaydistError: a user's mistake.
            ServiceError: 503 a shard is lost, 504 the request's time has passed.
            Outdated: a shard that was lost cannot open the generation any more.
        """
        return self.group.ask(self.key, method, arguments)


class ShardGroup:
    """The replicas of all shards of a service; calls come from threads.

    Args:
        replicas: of each shard.
        metrics: counters, if any.
        silent_s: seconds after which a replica that does not answer counts as lost.
    """

    def __init__(
        self,
        replicas: Sequence[Sequence[Replica]],
        metrics: ShardMetrics | None = None,
        *,
        silent_s: float = _SILENT_S,
    ) -> None:
        self._members = [
            [_Member(shard, each) for each in own] for shard, own in enumerate(replicas)
        ]
        self._metrics = metrics
        self._silent_s = silent_s
        self._openings: dict[str, list[Opening]] = {}
        """What each shard has to open, by key."""
        self._lately: deque[float] = deque(maxlen=_LATELY)
        self._calls = 0
        self._patience_s: float | None = None
        """Seconds after which another replica is asked; None while too few calls were seen."""
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, name="shards", daemon=True).start()
        self._watches = [
            asyncio.run_coroutine_threadsafe(self._watch(each), self._loop)
            for own in self._members
            for each in own
        ]

    def close(self) -> None:
        """Ends the looks at the replicas."""
        for each in self._watches:
            each.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def open(self, folder: str, makers: Sequence[Callable[[], Any]]) -> Generation:
        """Opens a generation of an index in all replicas.

        Raises:
            RaydistError: a part cannot be opened.
            ServiceError: 503, all replicas of a shard are lost.
        """
        assert len(makers) == len(self._members)
        key = hashlib.blake2b(repr(makers).encode(), digest_size=12).hexdigest()
        with contextlib.ExitStack() as undo:
            if key not in self._openings:
                self._openings[key] = [Opening(folder, key, make) for make in makers]
                undo.callback(self.forget, key)
            opened = asyncio.run_coroutine_threadsafe(self._open_all(key), self._loop)
            undo.callback(opened.cancel)
            documents = opened.result(_OPENING_S)
            undo.pop_all()
        return Generation(self, key, documents)

    def forget(self, key: str) -> None:
        """Lets a generation go: replicas that come back do not open it any more."""
        self._openings.pop(key, None)

    @property
    def lost(self) -> list[int]:
        """The numbers of the shards without a replica."""
        return [n for n, own in enumerate(self._members) if all(each.is_lost for each in own)]

    def ask(self, key: str, method: str, arguments: Sequence[Sequence[Any] | None]) -> list[Any]:
        """Returns what a method of each part of a generation returns; see `Generation.ask`."""
        request = REQUEST.get(None) or Request(_OPENING_S)
        asked = {
            shard: Order(key, method, values, 0.0)
            for shard, values in enumerate(arguments)
            if values is not None and shard not in request.missed
        }
        work = asyncio.run_coroutine_threadsafe(self._ask_all(asked, request.ends), self._loop)
        answers: list[Any] = [None] * len(arguments)
        for shard, reply in zip(asked, work.result()):
            if isinstance(reply, _Missing):
                if not request.partial:
                    raise self._missing(shard)
                request.missed.add(shard)
            elif isinstance(reply, BaseException):
                raise reply
            elif reply.outcome == "late":
                raise deadline(request.timeout_s)
            elif reply.outcome == "refused":
                raise _error(reply)
            else:
                answers[shard] = reply.value
        if len(request.missed) == len(arguments):
            raise self._missing(0)
        return answers

    def _missing(self, shard: int) -> ServiceError:
        return not_ready(
            f"shard {shard + 1} of {len(self._members)} was lost and is being opened again; try "
            "again, or send partial=true to search the others",
            _AGAIN_S,
        )

    async def _ask_all(self, asked: dict[int, Order], ends: float) -> list[Reply | BaseException]:
        calls = (self._answer(shard, order, ends) for shard, order in asked.items())
        return await asyncio.gather(*calls, return_exceptions=True)

    async def _answer(self, shard: int, order: Order, ends: float) -> Reply:
        """Returns the first answer of a shard's replicas.

        Raises:
            _Missing: there is none.
            Outdated: they cannot open the generation.
        """
        start = time.monotonic()
        left = [each for each in self._members[shard] if not each.is_lost]
        left.sort(key=lambda each: -len(each.calls))  # the least busy one is last
        waiting: dict[asyncio.Task[Reply], _Member] = {}
        try:
            while True:
                if not waiting:
                    if not left:
                        raise _Missing
                    self._send(left.pop(), order, ends, waiting)
                now = time.monotonic()
                wait_s = ends - now
                if left and len(waiting) == 1 and self._patience_s is not None:
                    wait_s = min(wait_s, start + self._patience_s - now)
                done, _ = await asyncio.wait(
                    waiting, timeout=max(wait_s, 0.0), return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    if time.monotonic() >= ends:
                        return Reply("late")
                    self._send(left.pop(), order, ends, waiting)
                    if self._metrics is not None:
                        self._metrics.hedged(shard)
                for task in done:
                    member = waiting.pop(task)
                    if not task.cancelled() and not isinstance(task.exception(), Lost):
                        self._note(shard, time.monotonic() - start)
                        return task.result()
                    self._lose(member)
        finally:
            for task in waiting:
                task.cancel()

    def _send(
        self,
        member: _Member,
        order: Order,
        ends: float,
        waiting: dict[asyncio.Task[Reply], _Member],
    ) -> None:
        task = asyncio.ensure_future(self._call(member, order, ends))
        member.calls.add(task)
        task.add_done_callback(member.calls.discard)
        waiting[task] = member

    async def _call(self, member: _Member, order: Order, ends: float) -> Reply:
        order = order._replace(timeout_s=max(ends - time.monotonic(), 0.0))
        reply = await member.replica.ask(order)
        if reply.outcome != "unopened":
            return reply
        openings = self._openings.get(order.key)
        if openings is None:
            raise Outdated
        opened = await member.replica.open(openings[member.shard])
        if opened.outcome != "done":
            raise Outdated(opened.error[1])
        return await member.replica.ask(order)

    def _note(self, shard: int, seconds: float) -> None:
        self._lately.append(seconds)
        self._calls += 1
        if self._calls % _FEWEST == 0:
            self._patience_s = float(np.quantile(self._lately, _SHARE))
        if self._metrics is not None:
            self._metrics.answered(shard, seconds)

    def _lose(self, member: _Member) -> None:
        """Asks a replica no more until it is back; its calls go to others."""
        if member.is_lost:
            return
        if self._metrics is not None:
            self._metrics.failed(member.shard)
        member.is_lost = True
        for task in member.calls:
            task.cancel()

    async def _watch(self, member: _Member) -> None:
        """Loses a replica that does not answer, and takes one back that has opened its parts."""
        while True:
            look = asyncio.ensure_future(self._look(member))
            await asyncio.wait([look])
            if look.exception() is not None:  # whatever it is
                self._lose(member)
            await asyncio.sleep(_PAUSE_S if member.is_lost else _BEAT_S)

    async def _look(self, member: _Member) -> None:
        async with asyncio.timeout(self._silent_s):
            await member.replica.beat()
        if member.is_lost:
            await self._reopen(member)

    async def _reopen(self, member: _Member) -> None:
        for openings in list(self._openings.values()):
            # What is outdated is not searched for long, and its requests say so.
            await member.replica.open(openings[member.shard])
        member.is_lost = False

    async def _open_all(self, key: str) -> list[int]:
        """Returns how many documents each shard has opened."""
        if self.lost:
            raise self._missing(self.lost[0])
        members = [each for own in self._members for each in own if not each.is_lost]
        opened = await asyncio.gather(
            *(each.replica.open(self._openings[key][each.shard]) for each in members),
            return_exceptions=True,
        )
        documents: dict[int, int] = {}
        for member, reply in zip(members, opened):
            if isinstance(reply, Lost):
                self._lose(member)
            elif isinstance(reply, BaseException):
                raise reply
            elif reply.outcome == "refused":
                raise _error(reply)
            else:
                documents[member.shard] = reply.value
        for shard in range(len(self._members)):
            if shard not in documents:
                raise self._missing(shard)
        return [documents[shard] for shard in range(len(self._members))]


def _error(reply: Reply) -> errors.RaydistError:
    name, message = reply.error
    error: errors.RaydistError = getattr(errors, name, JobError)(message)
    return error
