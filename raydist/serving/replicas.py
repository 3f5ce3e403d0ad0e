"""What runs in a replica: a reranker, an encoder, or an index; each in a process of its own.

The shards of an index are in `sharded`; what asks them is here.

An expected error is returned instead of being raised: Serve would log its traceback and wrap it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from ray.serve.handle import DeploymentHandle

from raydist.config.serve import ServeConfig
from raydist.models.spec import EncoderSource
from raydist.reranking.load import load_reranker
from raydist.reranking.spec import Bm25Spec, RegisteredSpec, ServedRerankerSpec
from raydist.serving.backend import (
    EmbedAnswer,
    EmbedCall,
    ReplicaState,
    ScoreAnswer,
    ScoreCall,
    ScoreFailure,
    SearchAnswer,
    SearchCall,
    SnippetCall,
)
from raydist.serving.errors import ServiceError
from raydist.serving.frame import open_log
from raydist.serving.index_watcher import IndexWatcher
from raydist.serving.metrics import BatcherMetrics, ShardCounters
from raydist.serving.scaling import scaling_stats
from raydist.serving.search import Searcher
from raydist.serving.served_models import EmbedderModel, RerankerModel
from raydist.serving.sharded.group import ShardGroup
from raydist.serving.sharded.handles import HandleReplica
from raydist.serving.sharded.searcher import ShardedSearcher
from raydist.serving.watcher import ModelVersion, ModelWatcher, locate
from raydist.text.passages import Passage

A = TypeVar("A")
_PROBE = "a query that works"


class _Model:
    """What the deployments of models share: the model, which may be replaced while they work."""

    _watcher: ModelWatcher[Any]

    async def check(self) -> ServiceError | None:
        """Checks the present model."""
        return await _returned(self._watcher.model.check())

    async def check_health(self) -> None:
        """Raises where the model does not work, so that Serve replaces this replica."""
        self._watcher.start()
        await self._watcher.model.check()

    async def state(self) -> ReplicaState:
        """Returns what the ingress asks for."""
        state: ReplicaState = self._watcher.model.state()
        return state

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Returns what `scaling.py` goes by."""
        return scaling_stats(await self.state())


class _Search:
    """What the deployments of indexes share: a searcher, and the threads that wait for it."""

    _threads: ThreadPoolExecutor

    @property
    def searcher(self) -> Searcher | ShardedSearcher:
        """What searches the present generations."""
        raise NotImplementedError

    async def search(self, call: SearchCall) -> SearchAnswer | ServiceError:
        """Returns hits and milliseconds per stage, or what is wrong."""
        loop = asyncio.get_running_loop()
        return await _returned(loop.run_in_executor(self._threads, self.searcher.search, call))

    async def snippets(self, call: SnippetCall) -> list[list[Passage]]:
        """Returns the passages of each text that match best."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self.searcher.snippets, call)

    async def state(self) -> ReplicaState:
        """Returns the replica's process id."""
        return ReplicaState(os.getpid())


class Scorer(_Model):
    """The deployment of a reranker."""

    def __init__(self, config: ServeConfig, name: str) -> None:
        open_log(config.access_log)
        reranker = config.scorers()[name]
        self._watcher: ModelWatcher[RerankerModel] = ModelWatcher(
            name,
            partial(_reranker_version, reranker, config.registry),
            partial(_load_reranker, reranker),
            check=RerankerModel.probe,
            retire=RerankerModel.close,
            every_s=config.reload_s,
        )
        self._metrics = BatcherMetrics(name)
        self._watcher.model.warm()

    async def score(self, call: ScoreCall) -> ScoreAnswer | ServiceError:
        """Scores with the present model."""
        version, model = self._watcher.version.name, self._watcher.model
        answer = await _returned(model.score(call))
        if isinstance(answer, ServiceError):
            return answer
        return replace(answer, version=version)

    async def score_many(self, calls: Sequence[ScoreCall]) -> list[ScoreAnswer] | ScoreFailure:
        """Scores several queries' documents with the present model."""
        version, model = self._watcher.version.name, self._watcher.model
        answers = await model.score_many(calls)
        if isinstance(answers, ScoreFailure):
            return answers
        return [replace(answer, version=version) for answer in answers]

    async def check_health(self) -> None:
        """Does the same, and reports its batches."""
        if (engine := self._watcher.model.engine) is not None:
            self._metrics.update(engine.batcher)
        await super().check_health()


class Embedder(_Model):
    """The deployment of an encoder."""

    def __init__(self, config: ServeConfig) -> None:
        open_log(config.access_log)
        assert config.embedder is not None
        self._watcher: ModelWatcher[EmbedderModel] = ModelWatcher(
            config.models()[-1],
            partial(locate, config.embedder.path, config.registry),
            partial(_load_embedder, config.embedder),
            check=EmbedderModel.probe,
            retire=EmbedderModel.close,
            every_s=config.reload_s,
        )
        self._watcher.model.warm()

    async def embed(self, call: EmbedCall) -> EmbedAnswer | ServiceError:
        """Embeds with the present model."""
        return await _returned(self._watcher.model.embed(call))


class Index(_Search):
    """The deployment of the index folders."""

    def __init__(self, config: ServeConfig) -> None:
        open_log(config.access_log)
        self.watcher = IndexWatcher(config.index, partial(_open_whole, config))
        self.watcher.watch(config.reload_s)
        # Health checks run in other threads, so that they do not wait behind searches.
        self._threads = ThreadPoolExecutor(
            max(1, round(config.replicas_of("index").cpus or 1)), "search"
        )

    @property
    def searcher(self) -> Searcher:
        """Searches this process's files."""
        return self.watcher.present

    async def check(self) -> None:
        """Searches once."""
        await asyncio.to_thread(self._probe)

    async def check_health(self) -> None:
        """Raises where the index cannot be searched, so that Serve replaces this replica."""
        await asyncio.to_thread(self._probe)

    def _probe(self) -> None:
        self.searcher.search(SearchCall(_PROBE, 1))


class ShardedIndex(_Search):
    """The deployment that searches index folders by their shards, and fuses their rankings.

    Args:
        config: the service's.
        shards: the replicas of each.
    """

    def __init__(self, config: ServeConfig, shards: Sequence[Sequence[DeploymentHandle]]) -> None:
        from raydist.build import open_searcher

        open_log(config.access_log)
        metrics = ShardCounters()
        group = ShardGroup([[HandleReplica(each) for each in own] for own in shards], metrics)
        opened = partial(open_searcher, config, shards=config.shards)
        self._sharded = ShardedSearcher(config.index, opened, group, metrics)
        # Its threads wait for shards; queries' vectors alone are computed here.
        self._threads = ThreadPoolExecutor(config.replicas_of("index").max_ongoing, "search")
        self.searcher.search(SearchCall(_PROBE, 1))  # compiles before the first request
        self.searcher.snippets(SnippetCall("words", [("a few words", 0)], 1, 20))
        self._sharded.watcher.watch(config.reload_s)

    @property
    def searcher(self) -> ShardedSearcher:
        """Searches the shards."""
        return self._sharded

    async def check(self) -> ServiceError | None:
        """Searches once."""
        probe = asyncio.to_thread(self.searcher.search, SearchCall(_PROBE, 1))
        answer = await _returned(probe)
        return answer if isinstance(answer, ServiceError) else None

    async def check_health(self) -> None:
        """Raises where no thread runs; a lost shard is not this replica's fault."""
        await asyncio.get_running_loop().run_in_executor(None, int)


def _open_whole(config: ServeConfig) -> Searcher:
    """Returns a searcher that was asked once, which compiles what a request would wait for."""
    from raydist.build import open_searcher

    searcher = open_searcher(config)
    searcher.search(SearchCall(_PROBE, 1))
    if searcher.analyzers:
        searcher.snippets(SnippetCall("words", [("a few words", 0)], 1, 20))
    return searcher


async def _returned(work: Awaitable[A]) -> A | ServiceError:
    """Returns an answer or the expected error."""
    try:
        return await work
    except ServiceError as error:
        return error


def _reranker_version(reranker: ServedRerankerSpec, registry: str) -> ModelVersion:
    if isinstance(reranker, Bm25Spec):
        return ModelVersion("")
    return locate(reranker.model, registry)


def _load_reranker(reranker: ServedRerankerSpec, version: ModelVersion) -> RerankerModel:
    spec = reranker.at(version.model) if isinstance(reranker, RegisteredSpec) else reranker
    return RerankerModel(load_reranker(spec))


def _load_embedder(embedder: EncoderSource, version: ModelVersion) -> EmbedderModel:
    from raydist.models.encode import default_max_tokens
    from raydist.models.inference import load_encoder

    model = load_encoder(replace(embedder, path=version.model))
    return EmbedderModel(model, batch_chars=8 * default_max_tokens(model))
