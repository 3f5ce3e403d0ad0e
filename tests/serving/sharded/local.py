"""Replicas of shards in this process; whatever they are asked, and answer, travels as bytes."""

from __future__ import annotations

import asyncio
import pickle
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from raydist.build import open_searcher
from raydist.config.serve import ServeConfig
from raydist.serving.sharded.calls import Lost, Opening, Order, Reply
from raydist.serving.sharded.group import ShardGroup
from raydist.serving.sharded.holder import Holder
from raydist.serving.sharded.searcher import ShardedSearcher


class LocalReplica:
    """A replica that can be killed, and started again without what it had opened."""

    def __init__(self) -> None:
        self.holder: Holder | None = Holder(2)
        self.delay_s = 0.0
        self.asked: list[str] = []
        """The keys of the generations that were asked for."""
        self.dies_at = ""
        """The method during which it dies."""

    def kill(self) -> None:
        self.holder = None

    def start(self) -> None:
        self.holder = Holder(2)

    async def open(self, opening: Opening) -> Reply:
        return _sent(await self._living().open(_sent(opening)))

    async def ask(self, order: Order) -> Reply:
        holder = self._living()
        self.asked.append(order.key)
        await asyncio.sleep(self.delay_s)
        if self.dies_at == order.method:
            self.kill()
        self._living()
        return _sent(await holder.ask(_sent(order)))

    async def beat(self) -> None:
        self._living()

    def _living(self) -> Holder:
        if self.holder is None:
            raise Lost("killed")
        return self.holder


class Counted:
    """Counts what shards do."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.losses: Counter[int] = Counter()
        self.hedges: Counter[int] = Counter()
        self.documents: dict[int, int] = {}

    def answered(self, shard: int, seconds: float) -> None:
        self.answers[shard] += 1

    def failed(self, shard: int) -> None:
        self.losses[shard] += 1

    def hedged(self, shard: int) -> None:
        self.hedges[shard] += 1

    def searched(self, shard: int, documents: int) -> None:
        self.documents[shard] = documents


def local_replicas(shards: int, replicas: int = 1) -> list[list[LocalReplica]]:
    return [[LocalReplica() for _ in range(replicas)] for _ in range(shards)]


def local_searcher(
    config: ServeConfig,
    replicas: Sequence[Sequence[LocalReplica]],
    metrics: Counted | None = None,
) -> ShardedSearcher:
    """Returns what a process that asks shards searches with."""
    opened = partial(open_searcher, config, shards=len(replicas))
    return ShardedSearcher(config.index, opened, ShardGroup(replicas, metrics), metrics)


def _sent(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own
