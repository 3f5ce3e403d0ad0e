"""What runs in a replica: a reranker, an encoder, or an index; each in a process of its own.

An expected failure is returned as `failed` instead of being raised: Serve would log its traceback
and wrap it.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from raydist.build import build_reranker
from raydist.config.model import EncoderSource
from raydist.config.reranker import Bm25Reranking, ServedRerankerConfig, settled
from raydist.config.serve import ServeConfig
from raydist.serving.errors import ServiceError
from raydist.serving.frame import open_log
from raydist.serving.metrics import EngineMetrics
from raydist.serving.reload import Following, Place, locate
from raydist.serving.served import ServedEmbedder, ServedReranker


def _place(config: ServedRerankerConfig, registry: str) -> Place:
    return Place("") if isinstance(config, Bm25Reranking) else locate(config.model, registry)


def _reranker(config: ServedRerankerConfig, place: Place) -> ServedReranker:
    return ServedReranker(build_reranker(settled(config, place.model)))


def _embedder(config: EncoderSource, place: Place) -> ServedEmbedder:
    from raydist.models.biencoder import BiEncoder
    from raydist.models.encode import default_max_tokens

    model = BiEncoder.load(place.model, **config.arguments())
    return ServedEmbedder(model, round_chars=8 * default_max_tokens(model))


def _failure(error: ServiceError) -> dict[str, Any]:
    parts = (error.status, error.message, error.code, error.param, error.headers)
    return {"failed": parts}


class Scorer:
    """One reranker in one process."""

    def __init__(self, config: ServeConfig, name: str) -> None:
        open_log(config.access_log)
        chosen = config.scorers()[name]
        self._following = Following(
            name,
            partial(_place, chosen, config.registry),
            partial(_reranker, chosen),
            check=ServedReranker.check,
            retire=ServedReranker.close,
            every_s=config.reload_s,
        )
        self._metrics = EngineMetrics(name)
        self._speed = self._following.model.warm()

    async def score(self, request: dict[str, Any]) -> dict[str, Any]:
        """See `ServedReranker.score`; a failure is returned as `failed`."""
        version, served = self._following.at.version, self._following.model
        try:
            return {**await served.score(request), "version": version}
        except ServiceError as error:
            return _failure(error)

    async def check(self) -> dict[str, Any]:
        """Scores a known pair."""
        try:
            await self._following.model.check()
        except ServiceError as error:
            return _failure(error)
        return {}

    async def check_health(self) -> None:
        """Tells Serve to replace this replica where the model does not work; shows its work."""
        self._following.start()
        if (engine := self._following.model.engine) is not None:
            self._metrics.look(engine)
        await self._following.model.check()

    async def state(self) -> dict[str, int]:
        """Returns the replica's process id, the tokens that wait in it, and tokens per second."""
        engine = self._following.model.engine
        queued = engine.queued_tokens if engine else 0
        return {"pid": os.getpid(), "queued_tokens": queued, "tokens_per_s": int(self._speed)}


class Embedder:
    """One encoder in one process."""

    def __init__(self, config: ServeConfig) -> None:
        open_log(config.access_log)
        assert config.embedder is not None
        self._following = Following(
            config.models()[-1],
            partial(locate, config.embedder.path, config.registry),
            partial(_embedder, config.embedder),
            check=ServedEmbedder.check,
            retire=ServedEmbedder.close,
            every_s=config.reload_s,
        )
        self._speed = self._following.model.warm()

    async def embed(self, request: dict[str, Any]) -> dict[str, Any]:
        """See `ServedEmbedder.embed`; a failure is returned as `failed`."""
        try:
            return await self._following.model.embed(request)
        except ServiceError as error:
            return _failure(error)

    async def state(self) -> dict[str, int]:
        """Returns the replica's process id and tokens per second."""
        return {"pid": os.getpid(), "tokens_per_s": int(self._speed)}

    async def check(self) -> dict[str, Any]:
        """Embeds a known text."""
        await self._following.model.check()
        return {}

    async def check_health(self) -> None:
        """Tells Serve to replace this replica where the model does not work."""
        self._following.start()
        await self._following.model.check()


class Index:
    """The index folders in one process."""

    def __init__(self, config: ServeConfig) -> None:
        from raydist.build import open_searcher

        self.searcher = open_searcher(config)
        # Of its own, so that a question for its health does not wait behind searches.
        self._threads = ThreadPoolExecutor(max(1, round(config.replicas.cpus)), "search")
        self._look()  # compiles before the first request

    def _look(self) -> None:
        self.searcher.search("a query that works", 1)

    async def check(self) -> dict[str, Any]:
        """Searches once."""
        await asyncio.to_thread(self._look)
        return {}

    async def check_health(self) -> None:
        """Tells Serve to replace this replica where the index cannot be searched."""
        await asyncio.to_thread(self._look)

    async def search(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns hits and milliseconds per stage."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self.searcher.answer, request)
