"""Says what this machine or cluster can run: one line per finding.

    raydist doctor
    raydist doctor address=http://127.0.0.1:8265 storage=s3://bucket/outputs tracking=http://127.0.0.1:5000

Exits 0 on a bare machine with neither cluster nor GPU; 1 only where something that was asked for
(`address=`, `storage=`, `tracking=`) is broken.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from raydist import extras, log
from raydist.config.base import Flags
from raydist.config.doctor import DoctorConfig
from raydist.errors import JobError

Config = DoctorConfig
FLAGS: tuple[str, ...] = ()
Finding = tuple[str, str, str]
"""`ok`, `note` or `bad`, then what was examined, then how it is."""

_PACKAGES = [
    *("raydist", "ray", "torch", "transformers", "deepspeed", "pyarrow", "ir-measures"),
    *("rank-bm25", "mlflow", "numba", "pydantic", "faiss-cpu", "peft", "sentence-transformers"),
]
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_PATIENCE_S = 60
_HEAD_S = 15
_QWEN3 = {"Qwen3-Reranker-0.6B": 0.6, "-4B": 4.0, "-8B": 8.2}  # parameters, billions


def run(config: DoctorConfig, flags: Flags) -> int:
    """Prints the findings and returns the exit code."""
    findings: list[Finding] = []
    for finding in _checks(config):
        findings.append(finding)
        state, subject, text = finding
        print(f"{state:<5} {subject:<22} {text}", flush=True)
    bad = sum(state == "bad" for state, _, _ in findings)
    print(log.count(bad, "problem") if bad else "nothing that was asked for is broken")
    return 1 if bad else 0


def _checks(config: DoctorConfig) -> Iterator[Finding]:
    yield "ok", "python", f"{platform.python_version()} on {platform.machine()}, {sys.executable}"
    yield from packages()
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    missing = "none: DeepSpeed's optional kernels cannot be built; nothing else needs it"
    yield "ok" if compiler else "note", "C compiler", compiler or missing
    sizes = yield from devices()
    yield from memory()
    cpus, gpus, nodes = os.cpu_count() or 1, len(sizes), 0
    address = config.address or os.environ.get("RAY_ADDRESS")
    if address and address.startswith(("http://", "https://")):
        yield from job_server(address)
    elif address:
        cpus, gpus, nodes = yield from cluster(address)
    else:
        yield "note", "Ray cluster", "none asked for; verbs with workers= above 0 start their own"
        mode = os.environ.get("RAY_AUTH_MODE", "not set")
        yield "ok" if mode == "token" else "note", "Ray auth", f"RAY_AUTH_MODE is {mode}"
    if config.storage:
        yield check_storage(config.storage, nodes)
    if config.tracking:
        yield check_tracking(config.tracking)
    yield from _verbs(cpus, gpus, sizes)


def _verbs(cpus: int, gpus: int, sizes: Sequence[int]) -> Iterator[Finding]:
    """Says how many workers fit now, and which models.

    Args:
        cpus: of the cluster, or of this machine.
        gpus: likewise.
        sizes: memory of this machine's accelerators, bytes.
    """
    import psutil

    most = f"workers up to {cpus}"
    if not cpus:
        most = "no worker now; RAYDIST_AUTOSCALING=1 on a cluster that grows on demand"
    yield "ok", "index, search, bm25", most
    if not extras.is_installed("torch"):
        yield "note", "embed, train, rerank", str(extras.missing("torch", "a model"))
        return
    if gpus:
        yield "ok", "embed, train, distill", f"workers up to {gpus} with gpus_per_worker=1"
    else:
        yield "ok", "embed, train, distill", f"{most}, on CPU, dtype float32"
    yield "ok", "mine, evaluate, export", "in one process, without Ray"
    verbs = "rerank, score, serve"
    if gpus and not sizes:
        yield "ok", verbs, "Qwen3 rerankers as far as the nodes' GPUs have memory for them"
        return
    free, width = (min(sizes), 2) if sizes else (psutil.virtual_memory().available, 4)
    fitting = [name for name, billions in _QWEN3.items() if billions * 1e9 * width * 1.1 < free]
    where = "bfloat16 within a GPU's memory" if sizes else "float32 within this machine's memory"
    models = ", ".join(fitting) or "none of the Qwen3 rerankers"
    yield "ok" if fitting else "note", verbs, f"{models} in {where}"


def packages() -> Iterator[Finding]:
    """Says which version of each package is installed."""
    for name in _PACKAGES:
        try:
            yield "ok", name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield "note", name, f"not installed{_remedy(name)}"


def _remedy(name: str) -> str:
    extra = extras.extra_of(name.removesuffix("-cpu"))
    return f": pip install 'raydist[{extra}]'" if extra else ""


def devices() -> Generator[Finding, None, list[int]]:
    """Finds accelerators; returns the memory of each, in bytes."""
    if not extras.is_installed("torch"):
        return []
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        yield "note", "GPU", "none; training and embedding use the CPU (gloo)"
    able = [name for name in ("amx_bf16", "avx512_bf16") if torch.cpu.get_capabilities().get(name)]
    yield (
        "ok",
        "CPU bfloat16",
        f"{able[0]}: dtype=bfloat16 of a model is quicker than float32, if less exact"
        if able
        else "no instructions for it: float32 is the quickest",
    )
    sizes = []
    for i in range(count):
        device = torch.cuda.get_device_properties(i)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield "ok", f"GPU {i}", f"{device.name}, {log.size(device.total_memory)}, {bf16}"
        sizes.append(int(device.total_memory))
    return sizes


def memory() -> Iterator[Finding]:
    """Examines memory, disk and shared memory."""
    import psutil

    memory = psutil.virtual_memory()
    yield "ok", "memory", f"{log.size(memory.available)} of {log.size(memory.total)} free"
    disk = shutil.disk_usage(Path.cwd())
    state = "ok" if disk.free > 5e9 else "note"
    yield state, "disk here", f"{log.size(disk.free)} of {log.size(disk.total)} free"
    shm = shutil.disk_usage("/dev/shm") if Path("/dev/shm").exists() else None
    if shm is not None:
        small = shm.total < 0.25 * memory.total
        hint = ", small: start containers with --shm-size" if small else ""
        yield "note" if small else "ok", "shared memory", f"{log.size(shm.total)}{hint}"


def job_server(address: str) -> Iterator[Finding]:
    """Examines what `raydist submit` talks to; only a job sees the nodes behind it."""
    from raydist.job_server import connect

    try:
        jobs = connect(address).list_jobs()
    except (OSError, RuntimeError, JobError) as error:
        problem = brief(error).removeprefix(f"address = {address}: ")
        yield "bad", "Ray jobs", f"{address}: {problem}"
        return
    running = sum(str(job.status) == "RUNNING" for job in jobs)
    yield "ok", "Ray jobs", f"{address}: {running} running of {len(jobs)} jobs"
    yield "note", "nodes", f"to examine them: raydist submit doctor storage=... address={address}"


def cluster(address: str) -> Generator[Finding, None, tuple[int, int, int]]:
    """Examines a cluster; returns its CPUs, GPUs and nodes, or this machine's without an answer."""
    import ray

    if problem := unreachable(address) or no_cluster(address):
        yield "bad", "Ray cluster", f"{address}: {problem}"
        return os.cpu_count() or 1, 0, 0
    try:
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        token = os.environ.get("RAY_AUTH_MODE") == "token"
        remedy = "" if token else "; RAY_AUTH_MODE=token if it asks for one"
        yield "bad", "Ray cluster", f"{address}: {brief(error)}{remedy}"
        return os.cpu_count() or 1, 0, 0
    nodes = [node for node in ray.nodes() if node["Alive"]]
    yield "ok", "Ray cluster", f"{address}: {log.count(len(nodes), 'node')}, Ray {ray.__version__}"
    resources = defaultdict(float, ray.cluster_resources())
    amounts = f"{resources['CPU']:g} CPU, {resources['GPU']:g} GPU, "
    amounts += f"{log.size(resources['memory'])} memory, "
    amounts += f"{log.size(resources['object_store_memory'])} object store"
    yield "ok", "cluster resources", amounts
    mode = os.environ.get("RAY_AUTH_MODE", "not set")
    if mode == "token":
        yield "ok", "Ray auth", mode
    else:
        yield "note", "Ray auth", f"RAY_AUTH_MODE is {mode}: anyone who reaches it can use it"
    return int(resources["CPU"]), int(resources["GPU"]), len(nodes)


def unreachable(address: str) -> str:
    """Says why a cluster's port does not answer; Ray itself would wait for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdigit()):
        return ""  # auto or local
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        return str(error)
    return ""


def no_cluster(address: str) -> str:
    """Says whether what answers is no head of a cluster, of which Ray would not give up soon."""
    if address.startswith("ray://") or ":" not in address:
        return ""
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        subprocess.run(command, capture_output=True, timeout=_HEAD_S, check=False)
    except subprocess.TimeoutExpired:
        return (
            f"no head of a cluster answers within {_HEAD_S} seconds; expected the head's host:port "
            "(6379 is usual), or the URL of its dashboard, http://host:8265"
        )
    return ""


def check_storage(storage: str, nodes: int) -> Finding:
    """Writes a small file from here, which every node must see, and one from every node."""
    name = brief(storage)
    mark = uuid.uuid4().hex
    problem = _try_storage(storage, "", mark)
    if problem:
        return "bad", "storage", f"{name}: {problem}"
    try:
        broken = _from_nodes(storage, mark) if nodes else []
    finally:
        _remove(storage, mark)
    if broken:
        return "bad", "storage", f"{name}: {'; '.join(broken)}"
    also = f" and from {log.count(nodes, 'node')}, which see the same" if nodes else ""
    return "ok", "storage", f"{name}: writable from here{also}"


def _from_nodes(storage: str, mark: str) -> list[str]:
    """Returns a line for each node that cannot use the storage, or does not answer."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(max_retries=0)(_try_storage)
    probes = {
        probe.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(storage, mark, ""): f"node {node[:8]}"
        for node in (node["NodeID"] for node in ray.nodes() if node["Alive"])
    }
    answered, silent = ray.wait(list(probes), num_returns=len(probes), timeout=_PATIENCE_S)
    broken = [f"{probes[each]}: no answer within {_PATIENCE_S} seconds" for each in silent]
    for each in answered:
        try:
            problem = ray.get(each)
        except RayError as error:  # it died meanwhile, or has another raydist
            problem = brief(error)
        if problem:
            broken.append(f"{probes[each]}: {problem}")
    return broken


def _try_storage(storage: str, seen: str, mark: str) -> str:
    """Returns what is wrong with a storage root as this process sees it.

    Args:
        storage: the path or URI.
        seen: the mark of a file that must exist; none if empty.
        mark: of a file to write and leave; if empty, one is written and removed.
    """
    from pyarrow import ArrowException
    from pyarrow.fs import FileType

    from raydist.data.files import filesystem

    try:
        system, path = filesystem(storage)
        if seen and system.get_file_info(_probe(path, seen)).type != FileType.File:
            return "is not the same place as here: a file written here is missing there"
        system.create_dir(path, recursive=True)
        name = _probe(path, mark or uuid.uuid4().hex)
        with system.open_output_stream(name) as out:
            out.write(b"raydist")
        if not mark:
            system.delete_file(name)
    except (OSError, RuntimeError, ValueError, ArrowException) as error:
        return brief(error)
    return ""


def _probe(path: str, mark: str) -> str:
    return f"{path.rstrip('/')}/.raydist-doctor-{mark}"


def _remove(storage: str, mark: str) -> None:
    from raydist.data.files import filesystem

    system, path = filesystem(storage)
    with contextlib.suppress(OSError):
        system.delete_file(_probe(path, mark))


def check_tracking(tracking: str) -> Finding:
    """Asks a server for its health, a database for a connection, MLflow itself for the rest."""
    from raydist.evaluation.tracking import resolve_uri

    uri = resolve_uri(tracking)
    if uri is None:
        return "note", "MLflow", f"{tracking}: runs are not tracked"
    if uri.startswith(("http://", "https://")):
        state, text = _health(uri)
    elif urlsplit(uri).scheme.partition("+")[0] in _PORTS:
        state, text = _database(uri)
    else:
        state, text = _by_mlflow(uri)
    return state, "MLflow", f"{brief(uri)}: {brief(text)}"


def _health(uri: str) -> tuple[str, str]:
    import httpx

    try:
        answer = httpx.get(f"{uri.rstrip('/')}/health", timeout=10)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return "bad", str(error)
    return "ok" if answer.status_code == 200 else "bad", f"health {answer.status_code}"


def _database(uri: str) -> tuple[str, str]:
    """Connects once: MLflow itself would try again for minutes."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    parts = urlsplit(uri)
    try:
        port = parts.port or _PORTS[parts.scheme.partition("+")[0]]
        if problem := unreachable(f"{parts.hostname}:{port}"):
            return "bad", problem
        create_engine(uri).connect().close()
    except (SQLAlchemyError, ImportError, ValueError) as error:
        return "bad", str(error)
    return "ok", "the database answers"


def _by_mlflow(uri: str) -> tuple[str, str]:
    from raydist.evaluation.mlflow_store import connect, mlflow_errors

    file = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not file.exists():
        parent = next(each for each in file.parents if each.exists())
        if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
            return "ok", "the first run creates it"
        return "bad", f"{parent} is not a folder that can be written to"
    try:
        with mlflow_errors(uri):
            connect(uri).search_experiments(max_results=1)
    except JobError as error:
        return "bad", str(error).removeprefix(f"tracking.uri = {uri}: ")
    return "ok", "MLflow reads it"


def brief(text: object) -> str:
    """Returns an error's or address's first line, without the password that a URL may hold."""
    first = str(text).partition("\n")[0] or type(text).__name__
    return re.sub(r"(://[^/\s:@]*:)[^/\s]*@", r"\1***@", first)
