"""The Ray Serve application: one ingress, one scorer deployment per model.

    serve run cluster/serve/rerank.yaml
    applications: [{name: raydist, import_path: raydist.serving.app:build, args: {reranker: bm25}}]

The ingress is cheap and answers HTTP; a scorer holds one model and mixes the requests it has in
micro-batches. Serve validates the builder's argument by its annotation, which has to be a class: no
postponed annotations in this file.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve._private.constants import SERVE_PROXY_NAME
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentID
from ray.serve.schema import ApplicationStatusOverview

from raydist import log
from raydist.config.serve import ServeConfig
from raydist.errors import JobError
from raydist.evaluation.tracking import resolve_uri
from raydist.reranking.spec import Bm25Spec, ServedRerankerSpec
from raydist.serving.answers import Kind
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
from raydist.serving.errors import ServiceError, not_ready, overloaded
from raydist.serving.frame import open_log
from raydist.serving.front import close_port
from raydist.serving.http import make_app
from raydist.serving.keys import Keys, read_keys, refuse_shown
from raydist.serving.metrics import RayMetrics
from raydist.serving.replicas import Embedder, Index, Scorer, ShardedIndex
from raydist.serving.service import Service
from raydist.serving.sharded.handles import ShardReplica
from raydist.text.passages import Passage

_NAME = "raydist"
_CONNECTIONS = 10_000
"""Requests that an ingress may hold; Serve refuses more with its own plain 429."""
_WAIT_S = 15.0
"""Seconds after which a line says what the start waits for, again and again."""
_LOADING_S = 1.0
_CLOSE_S = 3.0
"""Seconds within which the proxies answer what has arrived when the service ends."""
_QUIET = {"enable_access_log": False, "log_level": "WARNING"}


class _Handles:
    """The service's backend behind Ray Serve's handles."""

    def __init__(self, models: Mapping[str, DeploymentHandle], index: DeploymentHandle | None):
        self._models = models
        self._index = index

    async def score(self, model: str, call: ScoreCall) -> ScoreAnswer:
        answer: ScoreAnswer = await _remote(self._models[model].score, call)
        return answer

    async def score_many(
        self, model: str, calls: Sequence[ScoreCall]
    ) -> Sequence[ScoreAnswer] | ScoreFailure:
        answers: list[ScoreAnswer] | ScoreFailure = await _remote(
            self._models[model].score_many, calls
        )
        return answers

    async def embed(self, model: str, call: EmbedCall) -> EmbedAnswer:
        answer: EmbedAnswer = await _remote(self._models[model].embed, call)
        return answer

    async def search(self, call: SearchCall) -> SearchAnswer:
        assert self._index is not None
        answer: SearchAnswer = await _remote(self._index.search, call)
        return answer

    async def snippets(self, call: SnippetCall) -> Sequence[Sequence[Passage]]:
        assert self._index is not None
        passages: list[list[Passage]] = await _remote(self._index.snippets, call)
        return passages

    async def check(self, model: str) -> None:
        handle = self._models.get(model, self._index)
        assert handle is not None
        await _remote(handle.check)


async def _remote(method: Any, *arguments: Any) -> Any:
    """Calls a replica; a full queue is a 429, a failure of its code a 500, its loss a 503."""
    response = method.remote(*arguments)
    try:
        answer = await response
    except asyncio.CancelledError:
        response.cancel()  # the client went away, or the deadline passed
        raise
    except BackPressureError:
        raise overloaded(1.0, "all replicas are busy") from None
    except ServiceError:
        raise
    except RayTaskError as error:
        message = "the model failed; the service's log has the reason under this request's id"
        raise ServiceError(500, message, "model_failed") from error
    except (RayError, RayServeException) as error:
        raise not_ready(f"a replica was lost ({type(error).__name__}); try again") from None
    if isinstance(answer, ServiceError):
        raise answer
    return answer


@serve.ingress()
class Ingress:
    """Answers HTTP: keys, limits, admission, and the answers' form."""

    def __init__(
        self,
        config: ServeConfig,
        handles: dict[str, DeploymentHandle],
        index: DeploymentHandle | None,
        keys: Keys,
    ) -> None:
        open_log(config.access_log)
        kinds: dict[str, Kind] = dict.fromkeys(config.scorers(), "reranker")
        if config.embedder is not None:
            kinds[config.models()[-1]] = "embedder"
        if index is not None:
            kinds["index"] = "index"
        self._handles = {**handles, **({"index": index} if index is not None else {})}
        self._cors = config.cors
        self._ingresses = config.replicas.ingresses
        self._measuring: asyncio.Future[list[None]] | None = None
        self.service = Service(
            _Handles(handles, index),
            kinds,
            limits=config.limits,
            keys=keys,
            metrics=RayMetrics(),
            aliases=config.aliases(),
            loading=set(self._handles),
        )

    async def check_health(self) -> None:
        """Asks how many replicas run and what they say of themselves, beside the answering."""
        if self._measuring is None or self._measuring.done():
            measures = (self._measure(model) for model in self._handles)
            self._measuring = asyncio.gather(*measures)

    async def _measure(self, model: str) -> None:
        """Lets requests to a model in once it runs; admission uses its numbers."""
        handle = self._handles[model]
        while True:
            with contextlib.suppress(RayError, RayServeException):
                state: ReplicaState = await handle.state.remote()
                self.service.loading.discard(model)
                replicas = await asyncio.to_thread(_running_replicas, handle.deployment_id)
                self.service.admission.expect(model, state, replicas / self._ingresses)
                return
            await asyncio.sleep(_LOADING_S)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_app(self.service, echo_id=False, cors=self._cors)


def build(config: ServeConfig) -> serve.Application:
    """Returns the application of a configuration; Ray Serve's entry.

    Raises:
        ConfigError: as for `read_keys` and `refuse_shown`.
    """
    if ray.is_initialized():
        refuse_shown(ray.get_runtime_context().runtime_env.get("env_vars") or {})
    keys = read_keys(config.keys_file, anonymous=config.anonymous, public_host=config.public_host)
    return application(config, keys)


def application(config: ServeConfig, keys: Keys) -> serve.Application:
    """Returns the application of a configuration, with the keys of its clients."""
    config = _absolute(config)
    handles: dict[str, Any] = {
        name: deployment(Scorer, f"scorer-{name}", config, name).bind(config, name)
        for name in config.scorers()
    }
    if config.embedder is not None:
        name = config.models()[-1]
        handles[name] = deployment(Embedder, "embedder", config, name).bind(config)
    index = None
    if config.shards:
        sharded = deployment(ShardedIndex, "index", config, "index")
        index = sharded.bind(config, _shards(config))
    elif config.index:
        index = deployment(Index, "index", config, "index").bind(config)
    ingress = serve.deployment(
        name="ingress",
        num_replicas=config.replicas.ingresses,
        ray_actor_options={"num_cpus": 0},
        # More than an ingress admits: it refuses the rest itself, in the envelope.
        max_ongoing_requests=_CONNECTIONS,
        max_queued_requests=_CONNECTIONS,
        backpressure_config={"status_code": 429, "retry_after_s": 1},
        graceful_shutdown_timeout_s=config.limits.deadline_s + 5,
        graceful_shutdown_wait_loop_s=0.2,
        max_surge_percent=100,
        logging_config=_QUIET,
    )(Ingress)
    return ingress.bind(config, handles, index, keys)


def _shards(config: ServeConfig) -> list[list[Any]]:
    """Returns the replicas of each shard: a deployment each, so that each can be asked.

    Serve places them on different nodes where it can, and starts one again that is lost.
    """
    replicas = config.replicas_of("shards")
    cpus = 1.0 if replicas.cpus is None else replicas.cpus
    each = deployment(ShardReplica, "shard", config, "shards").options(
        num_replicas=1,
        # The searches of all who ask wait for its threads; looks at it do not wait.
        max_ongoing_requests=_CONNECTIONS,
        max_queued_requests=-1,
        health_check_period_s=1,
    )
    return [
        [
            each.options(name=f"shard-{shard}-{number}").bind(max(1, round(cpus)))
            for number in range(1, replicas.min + 1)
        ]
        for shard in range(1, config.shards + 1)
    ]


def _absolute(config: ServeConfig) -> ServeConfig:
    """Returns the configuration with paths that mean the same in every process."""

    def absolute(path: str) -> str:
        return str(Path(path).absolute()) if Path(path).exists() else path

    def with_path(spec: ServedRerankerSpec) -> ServedRerankerSpec:
        if isinstance(spec, Bm25Spec):
            return replace(spec, index=spec.index and absolute(spec.index))
        return replace(spec, model=absolute(spec.model))

    changed: dict[str, Any] = {
        "rerankers": {name: with_path(each) for name, each in config.rerankers.items()},
        "index": tuple(absolute(folder) for folder in config.index),
        "registry": resolve_uri(config.registry) or "",
    }
    if config.reranker is not None:
        changed |= {"reranker": with_path(config.reranker), "name": config.models()[0]}
    if config.embedder is not None:
        path = absolute(config.embedder.path)
        changed["embedder"] = replace(config.embedder, path=path)
    if config.access_log is not None:
        changed["access_log"] = str(Path(config.access_log).absolute())
    return config.model_copy(update=changed)


def deployment(kind: type, name: str, config: ServeConfig, of: str) -> serve.Deployment:
    """Returns a replica class as a deployment: its number, resources, scaling and shutdown.

    Args:
        kind: the class.
        name: the deployment's.
        config: the service's.
        of: the model, `index`, or `shards`.
    """
    replicas = config.replicas_of(of)
    options: dict[str, Any] = {"num_replicas": replicas.min}
    if replicas.max > replicas.min:
        scaling: dict[str, Any] = {
            "min_replicas": replicas.min,
            "max_replicas": replicas.max,
            "target_ongoing_requests": replicas.target_ongoing,
            "upscale_delay_s": replicas.upscale_delay_s,
            "downscale_delay_s": replicas.downscale_delay_s,
            "look_back_period_s": replicas.look_back_s,
            "metrics_interval_s": min(10.0, replicas.look_back_s),
        }
        if kind not in (Index, ShardedIndex):
            scaling["policy"] = {
                "policy_function": "raydist.serving.scaling:ByTokens",
                "policy_kwargs": {"target_wait_s": replicas.target_wait_s},
            }
        options = {"autoscaling_config": scaling}
    return serve.deployment(
        name=name.replace("#", "-"),
        ray_actor_options={
            "num_cpus": 1.0 if replicas.cpus is None else replicas.cpus,
            "num_gpus": replicas.gpus,
        },
        max_ongoing_requests=replicas.max_ongoing,
        max_queued_requests=replicas.max_queued * max(replicas.min, replicas.max),
        graceful_shutdown_timeout_s=config.limits.deadline_s + 5,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=5,
        health_check_timeout_s=60,
        max_surge_percent=100,
        logging_config=_QUIET,
        **options,
    )(kind)


def open_port(config: ServeConfig) -> None:
    """Starts Serve's proxy."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options={"host": config.host, "port": config.port})


def start(config: ServeConfig, keys: Keys, is_stopped: Callable[[], bool] = lambda: False) -> bool:
    """Runs the application; returns True when it is ready, False when it was stopped before.

    Raises:
        JobError: it does not start; with the last error of a replica.
    """
    target = serve.RunTarget(application(config, keys), name=_NAME, route_prefix="/")
    serve.run_many([target], wait_for_applications_running=False)
    said = time.monotonic()
    while not is_stopped():
        status = serve.status().applications[_NAME]
        if status.status == "RUNNING":
            return True
        if status.status == "DEPLOY_FAILED":  # UNHEALTHY: Serve starts the replica again
            error = _last_error() or status.message
            raise JobError(f"the service did not start: {error}")
        if time.monotonic() - said > _WAIT_S:
            said = time.monotonic()
            log.say(f"waiting for {_not_ready(status)}")
        time.sleep(0.2)
    return False


def _not_ready(application: ApplicationStatusOverview) -> str:
    """Returns the deployments that are not ready, and how many of their replicas run."""
    return ", ".join(
        f"{name} ({status.replica_states.get('RUNNING', 0)} of "
        f"{sum(status.replica_states.values())} replicas run)"
        for name, status in application.deployments.items()
        if status.status != "HEALTHY"
    )


def _running_replicas(deployment: DeploymentID) -> int:
    """Returns the number of running replicas of a deployment, 1 at least."""
    status = serve.status().applications.get(deployment.app_name)
    own = status.deployments.get(deployment.name) if status else None
    return max(1, own.replica_states.get("RUNNING", 1)) if own else 1


def _last_error() -> str:
    """Returns the last error that a replica met when it started, empty if none is known."""
    application = serve.status().applications.get(_NAME)
    for status in application.deployments.values() if application else ():
        errors = re.findall(r"^(?:[\w.]+\.)?\w+Error: .*$", status.message, re.M)
        if errors:
            return str(errors[-1]).removeprefix("raydist.errors.")
    return ""


def metrics_url() -> str:
    """Returns where Prometheus finds this node's metrics."""
    node_id = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == node_id)
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


def stop(*, whole_serve: bool) -> None:
    """Lets running requests end, then stops the application, or the whole of Serve."""
    serve.delete(_NAME)
    _close_ports()
    if whole_serve:
        serve.shutdown()


def _close_ports() -> None:
    """Lets the proxies answer what has arrived and take no more; Ray would end them in between."""
    ends = time.monotonic() + _CLOSE_S
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith(SERVE_PROXY_NAME):
            with contextlib.suppress(RayError, ValueError):  # it has ended
                proxy = ray.get_actor(actor["name"], namespace=actor["namespace"])
                while not ray.get(proxy.__ray_call__.remote(close_port), timeout=_CLOSE_S):
                    if time.monotonic() > ends:
                        return
                    time.sleep(0.05)
