"""Whether all that is served works, tried out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from raydist.serving.backend import Backend
from raydist.serving.errors import ServiceError, not_ready


class Trial:
    """Tries every model and the index.

    Nobody needs a key for it, so all who ask at the same time share one try.

    Args:
        backend: what computes.
        names: of the models and the index.
        deadline_s: of each.
    """

    def __init__(self, backend: Backend, names: Iterable[str], deadline_s: float) -> None:
        self._backend = backend
        self._names = tuple(names)
        self._deadline_s = deadline_s
        self._running: asyncio.Task[None] | None = None

    async def passed(self) -> None:
        """Returns if all works; raises ServiceError 503 if one does not."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        await asyncio.shield(self._running)

    async def _run(self) -> None:
        for name in self._names:
            try:
                async with asyncio.timeout(self._deadline_s):
                    await self._backend.check(name)
            except TimeoutError:
                raise not_ready(f"{name} does not answer") from None
            except ServiceError as error:
                if error.status != 500:
                    raise
                raise not_ready(f"{name} does not work: {error.message}") from error
