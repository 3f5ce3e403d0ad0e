"""Says what this machine or cluster can run: one line per finding.

Exits 0 on a bare machine with neither cluster nor GPU; 1 only where something that was asked for
(`address=`, `storage=`, `tracking=`) is broken.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import uuid
from collections.abc import Generator, Iterator
from importlib import metadata
from pathlib import Path

from raydist import log
from raydist.config.base import Flags
from raydist.config.doctor import DoctorConfig

__all__ = ["Config", "run"]

Config = DoctorConfig
Finding = tuple[str, str, str]
"""`ok`, `note` or `bad`, then what was looked at, then what was found."""

_QWEN3 = {"Qwen3-Reranker-0.6B": 0.6, "-4B": 4.0, "-8B": 8.2}  # parameters, billions
_PACKAGES = [
    *("raydist", "ray", "torch", "transformers", "deepspeed", "pyarrow", "ir-measures"),
    *("rank-bm25", "mlflow", "numba", "pydantic", "faiss-cpu", "peft", "sentence-transformers"),
]


def run(config: DoctorConfig, flags: Flags) -> int:
    """Prints the findings and returns the exit code."""
    findings: list[Finding] = []
    for finding in _checks(config):
        findings.append(finding)
        state, what, found = finding
        print(f"{state:<5} {what:<22} {found}", flush=True)
    bad = sum(state == "bad" for state, _, _ in findings)
    print(f"{bad} problem{'s' * (bad != 1)}" if bad else "nothing that was asked for is broken")
    return 1 if bad else 0


def _checks(config: DoctorConfig) -> Iterator[Finding]:
    yield "ok", "python", f"{platform.python_version()} on {platform.machine()}, {sys.executable}"
    yield from _packages()
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    yield (
        ("ok", "C compiler", compiler)
        if compiler
        else (
            "note",
            "C compiler",
            "none: DeepSpeed's optional kernels cannot be built; nothing else needs it",
        )
    )
    gpus = yield from _devices()
    yield from _memory()
    cpus, cluster_gpus, nodes = os.cpu_count() or 1, gpus, 0
    where = config.address or os.environ.get("RAY_ADDRESS")
    if where and where.startswith(("http://", "https://")):
        yield from _job_server(where)
    elif where:
        cpus, cluster_gpus, nodes = yield from _cluster(where)
    else:
        yield "note", "Ray cluster", "none asked for; verbs with workers= above 0 start their own"
        mode = os.environ.get("RAY_AUTH_MODE", "not set")
        yield "ok" if mode == "token" else "note", "Ray auth", f"RAY_AUTH_MODE is {mode}"
    if config.storage:
        yield _storage(config.storage, nodes)
    if config.tracking:
        yield _tracking(config.tracking)
    yield from _verbs(cpus, cluster_gpus)


def _packages() -> Iterator[Finding]:
    for name in _PACKAGES:
        try:
            yield "ok", name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield "note", name, "not installed"


def _devices() -> Generator[Finding, None, int]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        yield "note", "GPU", "none; training and embedding use the CPU (gloo)"
    for i in range(count):
        found = torch.cuda.get_device_properties(i)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield "ok", f"GPU {i}", f"{found.name}, {log.size(found.total_memory)}, {bf16}"
    return count


def _memory() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{log.size(memory.available)} of {log.size(memory.total)} free"
    yield "ok", "memory", found
    disk = shutil.disk_usage(Path.cwd())
    state = "ok" if disk.free > 5e9 else "note"
    yield state, "disk here", f"{log.size(disk.free)} of {log.size(disk.total)} free"
    shm = shutil.disk_usage("/dev/shm") if Path("/dev/shm").exists() else None
    if shm is not None:
        small = shm.total < 0.25 * memory.total
        hint = ", small: start containers with --shm-size" if small else ""
        yield "note" if small else "ok", "shared memory", f"{log.size(shm.total)}{hint}"


def _job_server(where: str) -> Iterator[Finding]:
    """Looks at what `raydist submit` talks to; the nodes behind it are seen from a job only."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        jobs = JobSubmissionClient(where).list_jobs()
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        yield "bad", "Ray jobs", f"{where}: {str(error).splitlines()[0]}"
        return
    running = sum(str(job.status) == "RUNNING" for job in jobs)
    yield "ok", "Ray jobs", f"{where}: {running} running of {len(jobs)} jobs"
    yield "note", "nodes", f"to look at them: raydist submit doctor storage=... address={where}"


def _cluster(where: str) -> Generator[Finding, None, tuple[int, int, int]]:
    import ray

    if problem := _unreachable(where):
        yield "bad", "Ray cluster", f"{where}: {problem}"
        return os.cpu_count() or 1, 0, 0
    try:
        if not ray.is_initialized():
            ray.init(address=where, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        yield "bad", "Ray cluster", f"{where}: {str(error).splitlines()[0]}"
        return os.cpu_count() or 1, 0, 0
    nodes = [node for node in ray.nodes() if node["Alive"]]
    found = ray.cluster_resources()
    yield (
        "ok",
        "Ray cluster",
        f"{where}: {len(nodes)} node{'s' * (len(nodes) != 1)}, Ray {ray.__version__}",
    )
    store = found.get("object_store_memory", 0)
    yield (
        "ok",
        "cluster resources",
        (
            f"{found.get('CPU', 0):g} CPU, {found.get('GPU', 0):g} GPU, "
            f"{log.size(found.get('memory', 0))} memory, {log.size(store)} object store"
        ),
    )
    mode = os.environ.get("RAY_AUTH_MODE", "not set")
    yield (
        "ok" if mode == "token" else "note",
        "Ray auth",
        "token"
        if mode == "token"
        else f"RAY_AUTH_MODE is {mode}: anyone who reaches it can use it",
    )
    return int(found.get("CPU", 0)), int(found.get("GPU", 0)), len(nodes)


def _unreachable(address: str) -> str:
    """Says why a cluster's port does not answer; Ray itself would wait for many minutes."""
    import socket

    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdigit()):
        return ""  # auto or local
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        return str(error)
    return ""


def _storage(storage: str, nodes: int) -> Finding:
    """Writes and removes a small file from here and from every node of the cluster."""
    problem = _try_write(storage)
    if problem:
        return "bad", "storage", f"{storage}: {problem}"
    if not nodes:
        return "ok", "storage", f"{storage}: writable from here"
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(_try_write)
    alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    answers = ray.get(
        [
            probe.options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
            ).remote(storage)
            for node in alive
        ],
        timeout=60,
    )
    broken = [f"node {node[:8]}: {answer}" for node, answer in zip(alive, answers) if answer]
    if broken:
        return "bad", "storage", f"{storage}: {'; '.join(broken)}"
    found = f"writable from here and from {len(alive)} node{'s' * (len(alive) != 1)}"
    return "ok", "storage", f"{storage}: {found}"


def _try_write(storage: str) -> str:
    from pyarrow import ArrowException, fs

    try:
        system, path = fs.FileSystem.from_uri(
            storage if "://" in storage else Path(storage).absolute().as_uri()
        )
        system.create_dir(path, recursive=True)
        name = f"{path}/.raydist-doctor-{uuid.uuid4().hex[:8]}"
        with system.open_output_stream(name) as out:
            out.write(b"raydist")
        system.delete_file(name)
    except (OSError, ArrowException) as error:
        return str(error).splitlines()[0]
    return ""


def _tracking(uri: str) -> Finding:
    """Asks a tracking server for its health, or opens a local database's file."""
    if uri.startswith(("http://", "https://")):
        import httpx

        try:
            answer = httpx.get(f"{uri.rstrip('/')}/health", timeout=10)
        except httpx.HTTPError as error:
            return "bad", "MLflow", f"{uri}: {error}"
        state = "ok" if answer.status_code == 200 else "bad"
        return state, "MLflow", f"{uri}: health {answer.status_code}"
    path = Path(uri.removeprefix("sqlite:///"))
    problem = _try_write(str(path.parent))
    return ("bad", "MLflow", f"{uri}: {problem}") if problem else ("ok", "MLflow", uri)


def _verbs(cpus: int, gpus: int) -> Iterator[Finding]:
    import psutil

    yield "ok", "index, rerank=bm25", f"workers up to {cpus}"
    if gpus:
        yield "ok", "embed, train, distill", f"workers up to {gpus} with gpus_per_worker=1"
    else:
        yield "ok", "embed, train, distill", f"workers up to {cpus}, on CPU, dtype float32"
    have = psutil.virtual_memory().available
    fitting = [name for name, billions in _QWEN3.items() if billions * 4e9 * 1.1 < have]
    found = ", ".join(fitting) or "none of the Qwen3 rerankers"
    yield "ok" if fitting else "note", "rerank", f"{found} in float32 within this machine's memory"
