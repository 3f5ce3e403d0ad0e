"""The Ray Serve application: one ingress, one scorer deployment per model.

    serve run cluster/serve/rerank.yaml
    applications: [{name: raydist, import_path: raydist.serving.app:build, args: {reranker: bm25}}]

The ingress is cheap and answers HTTP; a scorer holds one model and mixes the requests it has in
micro-batches. Serve validates the builder's argument by its annotation, which has to be a class: no
postponed annotations in this file.
"""

import asyncio
import contextlib
import os
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from raydist.build import build_reranker
from raydist.config.serve import ServeConfig
from raydist.errors import ConfigError, RaydistError
from raydist.serving.errors import ServiceError, not_ready, overloaded
from raydist.serving.http import log_to_stderr, make_app
from raydist.serving.keys import read_keys
from raydist.serving.limits import Limits
from raydist.serving.metrics import RayMetrics
from raydist.serving.served import ServedEmbedder, ServedReranker
from raydist.serving.service import Service

__all__ = ["Embedder", "Index", "Ingress", "Scorer", "build"]

_QUIET = {"enable_access_log": False, "log_level": "WARNING"}


def _failure(error: ServiceError) -> dict[str, Any]:
    parts = (error.status, error.message, error.code, error.param, error.headers)
    return {"failed": parts}


def _fingerprint(folder: str) -> float:
    """Returns when a model's weights were last written; 0 where they are not in a local folder."""
    times = [path.stat().st_mtime for path in Path(folder).rglob("*.safetensors")]
    return max(times, default=0.0)


class Scorer:
    """One reranker in one process."""

    def __init__(self, config: ServeConfig, name: str) -> None:
        self._config = config.scorers()[name]
        self._place = getattr(self._config, "model", "")
        self._seen = _fingerprint(self._place)
        self.served = ServedReranker(build_reranker(self._config))
        self._watch: asyncio.Task[None] | None = None
        self._every = config.reload_s

    async def score(self, request: dict[str, Any]) -> dict[str, Any]:
        """See `ServedReranker.score`; a failure is returned as `failed`."""
        if self._every and self._watch is None:
            self._watch = asyncio.create_task(self._reload())
        try:
            return await self.served.score(request)
        except ServiceError as error:
            return _failure(error)

    async def check(self) -> dict[str, Any]:
        """Scores a known pair."""
        try:
            await self.served.check()
        except ServiceError as error:
            return _failure(error)
        return {}

    async def check_health(self) -> None:
        """Tells Serve to replace this replica where the model does not work."""
        await self.served.check()

    async def pid(self) -> int:
        """Returns the replica's process id."""
        return os.getpid()

    async def _reload(self) -> None:
        """Loads a newer checkpoint beside the present one, tries it, and then uses it."""
        while True:
            await asyncio.sleep(self._every)
            now = await asyncio.to_thread(_fingerprint, self._place)
            if now == self._seen:
                continue
            self._seen = now
            with contextlib.suppress(RaydistError, OSError):  # a half-written one: next time
                newer = ServedReranker(await asyncio.to_thread(build_reranker, self._config))
                await newer.check()
                older, self.served = self.served, newer
                if older.engine is not None:
                    await asyncio.to_thread(older.engine.close)


class Embedder:
    """One encoder in one process."""

    def __init__(self, config: ServeConfig) -> None:
        from raydist.models.biencoder import BiEncoder

        assert config.embedder is not None
        model = BiEncoder.load(config.embedder.path, **config.embedder.arguments())
        self.served = ServedEmbedder(model)

    async def embed(self, request: dict[str, Any]) -> dict[str, Any]:
        """See `ServedEmbedder.embed`; a failure is returned as `failed`."""
        try:
            return await self.served.embed(request)
        except ServiceError as error:
            return _failure(error)

    async def check(self) -> dict[str, Any]:
        """Embeds a known text."""
        await self.served.check()
        return {}

    async def check_health(self) -> None:
        """Tells Serve to replace this replica where the model does not work."""
        await self.served.check()


class Index:
    """The index folders in one process."""

    def __init__(self, config: ServeConfig) -> None:
        from raydist.build import open_searcher

        self.searcher = open_searcher(config)
        self.searcher.search("compile before the first request", 1)

    async def search(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns hits and milliseconds per stage."""
        work = partial(self.searcher.search, request["query"], request["depth"], request.get("ids"))
        hits, timings = await asyncio.to_thread(work)
        rows = [
            {
                "id": hit.doc_id,
                "scores": hit.scores,
                "title": hit.document.title if hit.document else None,
                "text": hit.document.text if hit.document else None,
                "contents": hit.document.contents if hit.document else "",
            }
            for hit in hits
        ]
        return {"hits": rows, "timings_ms": timings}


class _Handles:
    """The service's backend behind Ray Serve's handles."""

    def __init__(self, handles: dict[str, DeploymentHandle], index: DeploymentHandle | None):
        self._handles = handles
        self._index = index

    async def score(self, model: str, request: dict[str, Any]) -> dict[str, Any]:
        return await _call(self._handles[model].score, request)

    async def embed(self, model: str, request: dict[str, Any]) -> dict[str, Any]:
        return await _call(self._handles[model].embed, request)

    async def search(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._index is not None
        return await _call(self._index.search, request)

    async def check(self, model: str) -> None:
        await _call(self._handles[model].check)


async def _call(method: Any, *arguments: Any) -> dict[str, Any]:
    """Calls a replica; its loss is a 503, a full queue a 429, an own failure what it says."""
    response = method.remote(*arguments)
    try:
        answer: dict[str, Any] = await response
    except asyncio.CancelledError:
        response.cancel()  # the client went away, or the deadline passed
        raise
    except BackPressureError:
        raise overloaded(1.0, "all replicas are busy") from None
    except (RayError, RayServeException) as error:
        if "ServiceError" in type(error).__name__:
            raise
        raise not_ready(f"a replica was lost ({type(error).__name__}); try again") from None
    if "failed" in answer:
        status, message, code, param, headers = answer["failed"]
        raise ServiceError(status, message, code, param=param, headers=headers)
    return answer


@serve.ingress()
class Ingress:
    """Answers HTTP: keys, limits, admission, and the answers' form."""

    def __init__(
        self,
        config: ServeConfig,
        handles: dict[str, DeploymentHandle],
        index: DeploymentHandle | None,
    ) -> None:
        log_to_stderr()
        kinds: dict[str, Any] = {name: "reranker" for name in config.scorers()}
        if config.embedder is not None:
            kinds[config.models()[-1]] = "embedder"
        if index is not None:
            kinds["index"] = "index"
        self.service = Service(
            _Handles(handles, index),
            kinds,
            limits=Limits(**config.limits.model_dump()),
            keys=read_keys(config.keys_file),
            metrics=RayMetrics(),
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_app(self.service, echo_id=False)


def build(config: ServeConfig) -> serve.Application:
    """Returns the application of a configuration.

    Raises:
        ConfigError: no keys are given and `anonymous` is not set, although the address is not
            loopback.
    """
    if not read_keys(config.keys_file) and not config.loopback and not config.anonymous:
        raise ConfigError(
            f"host={config.host}: others can connect, so keys are needed: set keys_file= or "
            "RAYDIST_API_KEYS, or anonymous=true to let everybody in"
        )
    handles: dict[str, Any] = {
        name: _deployment(Scorer, f"scorer-{name}", config).bind(config, name)
        for name in config.scorers()
    }
    if config.embedder is not None:
        handles[config.models()[-1]] = _deployment(Embedder, "embedder", config).bind(config)
    index = _deployment(Index, "index", config).bind(config) if config.index else None
    ingress = serve.deployment(
        name="ingress",
        num_replicas=config.replicas.ingresses,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=2 * config.limits.max_requests,
        graceful_shutdown_timeout_s=config.limits.deadline_s + 5,
        graceful_shutdown_wait_loop_s=0.2,
        max_surge_percent=100,
        logging_config=_QUIET,
    )(Ingress)
    return ingress.bind(config, handles, index)


def _deployment(kind: type, name: str, config: ServeConfig) -> serve.Deployment:
    replicas = config.replicas
    options: dict[str, Any] = {"num_replicas": replicas.min}
    if replicas.max > replicas.min:
        scaling = {
            "min_replicas": replicas.min,
            "max_replicas": replicas.max,
            "target_ongoing_requests": replicas.target_ongoing,
        }
        options = {"autoscaling_config": scaling}
    return serve.deployment(
        name=name.replace("#", "-"),
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
        max_ongoing_requests=replicas.max_ongoing,
        max_queued_requests=replicas.max_queued,
        graceful_shutdown_timeout_s=config.limits.deadline_s + 5,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=5,
        health_check_timeout_s=60,
        max_surge_percent=100,
        logging_config=_QUIET,
        **options,
    )(kind)
