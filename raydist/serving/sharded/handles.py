"""Replicas of shards behind Ray Serve's handles: one deployment each, so that each can be asked."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from raydist.serving.sharded.calls import Lost, Opening, Order, Reply
from raydist.serving.sharded.holder import Holder


class ShardReplica:
    """The deployment of one replica of a shard.

    Args:
        threads: searches that run beside each other.
    """

    def __init__(self, threads: int) -> None:
        self._holder = Holder(threads)

    async def open(self, opening: Opening) -> Reply:
        """Opens a part, once; answers how many documents it has."""
        return await self._holder.open(opening)

    async def ask(self, order: Order) -> Reply:
        """Calls a method of a part."""
        return await self._holder.ask(order)

    async def beat(self) -> None:
        """Returns at once."""

    async def check_health(self) -> None:
        """Closes generations that nobody asks for; Serve replaces this replica if it ended."""
        self._holder.tidy()


class HandleReplica:
    """A replica behind its deployment's handle."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def open(self, opening: Opening) -> Reply:
        """Opens a part, once."""
        reply: Reply = await _call(self._handle.open, opening)
        return reply

    async def ask(self, order: Order) -> Reply:
        """Calls a method of a part."""
        reply: Reply = await _call(self._handle.ask, order)
        return reply

    async def beat(self) -> None:
        """Returns at once, unless the replica is not there."""
        await _call(self._handle.beat)


async def _call(method: Any, *arguments: Any) -> Any:
    response = method.remote(*arguments)
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except RayTaskError:
        raise  # a fault in the replica's code
    except (RayError, RayServeException) as error:
        raise Lost(str(error)) from None
