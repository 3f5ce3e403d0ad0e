"""Serves reranking, scoring, embeddings and search over HTTP until SIGTERM or Ctrl-C.

    raydist serve reranker=bm25 port=8931
    raydist serve index=IDX,VEC reranker=PATH
    raydist serve jobs/serve/rerank.yaml

It listens on loopback unless `host=` says otherwise, and then needs keys (`keys_file=` or
RAYDIST_API_KEYS). SIGTERM lets running requests end, then stops. On a cluster use `serve deploy`
with the YAML files in cluster/serve.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

from raydist import cluster, extras, log
from raydist.artefact import planned
from raydist.bow.spec import BowSearchSpec
from raydist.build import INDEXES, check_shards
from raydist.config.base import Flags
from raydist.config.serve import ServeConfig
from raydist.errors import ConfigError, DataError, JobError, RaydistError
from raydist.manifest import read_manifest

Config = ServeConfig


def run(config: ServeConfig, flags: Flags) -> None:
    """Serves until SIGTERM or Ctrl-C."""
    from raydist.serving.front import OF_RAY
    from raydist.serving.keys import ENVIRONMENT, read_keys

    check_port(config.host, config.port)
    _check_folders(config)
    keys = read_keys(config.keys_file, anonymous=config.anonymous, public_host=config.public_host)
    what = ", ".join([*config.models(), *(["search"] if config.index else [])])
    if flags.dry_run:
        _load_models(config)
    if planned(flags.dry_run, f"serve {what} at http://{_address(config)}"):
        return
    stop = threading.Event()
    os.environ.pop(ENVIRONMENT, None)  # Ray's processes inherit the environment
    for name, value in OF_RAY.items():
        os.environ.setdefault(name, value)
    config = _connect(config)
    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray has set its own
        signal.signal(number, _stopper(stop))
    from raydist.serving.app import metrics_url, open_port, start

    try:
        open_port(config)
        ready = start(config, keys, stop.is_set)
    except (ConfigError, JobError) as error:
        _end(error=error)
        raise
    if not ready:
        log.say("stopped before the service was ready")
        _end()
        return
    log.say(f"serving {what} at http://{_address(config)}")
    if not keys:
        if config.anonymous:
            log.say("no key is needed by anybody (anonymous=true)")
        else:
            log.say("no key is needed on this machine; others get 401")
    log.say(f"reference: http://{_address(config)}/docs   try it: http://{_address(config)}/")
    log.say(f"metrics: {metrics_url()}")
    while not stop.wait(0.5):
        pass
    log.say("stopping: running requests are answered first")
    _end(config.limits.deadline_s + 10)


def _connect(config: ServeConfig) -> ServeConfig:
    """Connects to Ray, or starts it; returns the configuration with the CPUs that there are.

    Raises:
        ConfigError: the replicas need what the machine or the cluster does not have.
    """
    from raydist.serving.resources import demands, missing, shared_out
    from raydist.serving.spec import OwnReplicas

    if cluster.is_new():
        cpus = float(os.cpu_count() or 1)
        shares = shared_out(config.all_replicas(), cpus)
        own = {
            name: replace(config.deployments.get(name, OwnReplicas()), cpus=each.cpus)
            for name, each in shares.items()
        }
        config = config.model_copy(update={"deployments": own})
        # GPUs are Ray's to count; a shortage of CPUs shows before it is started.
        if short := missing(
            demands(config.all_replicas()), [{"CPU": cpus, "GPU": 1e9}], "this machine"
        ):
            raise ConfigError(short)
        cluster.connect()
        if short := missing(demands(shares), cluster.nodes(), "this machine"):
            raise ConfigError(short)
        return config
    cluster.connect()
    if short := missing(demands(config.all_replicas()), cluster.nodes(), "the cluster"):
        if not cluster.grows():
            raise ConfigError(f"{short}; or set RAYDIST_AUTOSCALING=1 where nodes may still come")
        log.say(f"waiting for nodes: {short}")
    return config


def _end(patience_s: float = 10.0, error: RaydistError | None = None) -> None:
    """Lets running requests end, then stops Serve, and Ray if it was started here.

    A signal to the whole process group ends Ray's processes as well; then nothing is left to wait
    for.

    Args:
        patience_s: seconds after which this process ends in any case.
        error: why; it is then printed here, and decides the exit code.
    """
    children = _children()
    work = threading.Thread(target=_shut_down, name="drain", daemon=True)
    work.start()
    ends = time.monotonic() + patience_s
    while work.is_alive() and time.monotonic() < ends:
        work.join(0.5)
        if not children <= _children() and work.is_alive():
            work.join(3.0)
            break
    if work.is_alive():
        if error is not None:
            log.error(error)
        sys.stderr.flush()
        os._exit(error.exit_code if error is not None else 0)


def _shut_down() -> None:
    import ray

    from raydist.serving.app import stop

    # A Ray that was started here ends with everything in it; on a cluster only Serve is stopped.
    stop(whole_serve=bool(os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_JOB_ID")))
    ray.shutdown()


def _children() -> set[int]:
    """Returns this process's living children, where /proc says so."""
    children: set[int] = set()
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children.update(map(int, file.read_text().split()))
    living = set()
    for pid in children:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
            if not state.startswith("Z"):
                living.add(pid)
    return living


def _stopper(stop: threading.Event) -> Callable[[int, FrameType | None], None]:
    def handler(number: int, frame: FrameType | None) -> None:
        if stop.is_set():  # a second signal does not wait
            os._exit(130)
        stop.set()

    return handler


def _check_folders(config: ServeConfig) -> None:
    """Finds mistyped folders before anything is started."""
    models: dict[str, str] = {}
    for folder in config.index:
        if config.shards:
            check_shards(
                folder, config.shards, BowSearchSpec(scoring=config.scoring, fields=config.fields)
            )
        if "://" in folder:
            continue
        if (encoder := read_manifest(folder, INDEXES).get("model")) is not None:
            extras.require(f"index = {folder}", "torch", "transformers")
            models[f"index = {folder}"] = encoder["path"]
    rerankers = {f"rerankers.{name}": each for name, each in config.rerankers.items()}
    if config.reranker is not None:
        rerankers["reranker"] = config.reranker
    models |= {key: getattr(each, "model", "") for key, each in rerankers.items()}
    if config.embedder is not None:
        models["embedder"] = config.embedder.path
    for key, model in models.items():
        if model and "://" not in model and not model.startswith("models:/"):
            _check_model(key, model)


def _check_model(key: str, model: str) -> None:
    """Refuses a local folder that holds no model, as replicas would, again and again."""
    from raydist.models.folders.kinds import is_multivector
    from raydist.models.folders.packaged import local_folder

    try:
        folder = local_folder(model)
    except DataError as error:
        raise ConfigError(f"{key}: {error}") from None
    if folder is not None and not any(folder.rglob("*.safetensors")):
        raise ConfigError(f"{key}: model {folder}: no *.safetensors; other weights are not read")
    if key == "embedder" and folder is not None and is_multivector(folder):
        raise ConfigError(
            f"embedder: {folder} is a multi-vector model, and no route returns vectors of tokens; "
            "serve it as reranker=, or an index of it as index="
        )


def _load_models(config: ServeConfig) -> None:
    """Loads each model once, so that what a replica would refuse is refused here.

    One whose weights take more than half of the free memory, or are still to be downloaded, is left
    to the replicas.
    """
    import psutil

    from raydist.models.backbone import resolve_folder
    from raydist.models.biencoder import BiEncoder
    from raydist.reranking.load import load_reranker
    from raydist.reranking.spec import Bm25Spec, RegisteredSpec

    loads: dict[str, Callable[[], object]] = {}
    for spec in config.scorers().values():
        if isinstance(spec, Bm25Spec):
            load_reranker(spec)
        elif not isinstance(spec, RegisteredSpec):
            loads[spec.model] = partial(load_reranker, replace(spec, device="cpu"))
    if (embedder := config.embedder) is not None and not embedder.path.startswith("models:/"):
        loads[embedder.path] = partial(BiEncoder.load, embedder.settings("float32"), device="cpu")
    for name, load in loads.items():
        if "://" in name:
            continue
        folder = resolve_folder(name, ["*.json"])
        size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        if size == 0:
            log.say(f"{name}: its weights are not downloaded to be checked")
        elif size > psutil.virtual_memory().available / 2:
            log.say(f"{name}: {log.size(size)} of weights are not loaded to be checked")
        else:
            load()


def check_port(host: str, port: int) -> None:
    """Refuses a port that is taken.

    Raises:
        ConfigError: with the system's reason.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"port={port}: cannot listen on {host} ({error.strerror})") from None


def _address(config: ServeConfig) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{host}:{config.port}"
