"""What is at an address: a cluster, or the job server of one."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Iterator

from raydist import log
from raydist.commands.checks import Finding, brief


def job_server(where: str) -> Iterator[Finding]:
    """Looks at what `raydist submit` talks to; the nodes behind it are seen from a job only."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        jobs = JobSubmissionClient(where).list_jobs()
    except (OSError, RuntimeError, ValueError, AuthenticationError) as error:
        yield "bad", "Ray jobs", f"{where}: {brief(error)}"
        return
    running = sum(str(job.status) == "RUNNING" for job in jobs)
    yield "ok", "Ray jobs", f"{where}: {running} running of {len(jobs)} jobs"
    yield "note", "nodes", f"to look at them: raydist submit doctor storage=... address={where}"


def look_at_cluster(where: str) -> Generator[Finding, None, tuple[int, int, int]]:
    """Looks at a cluster; returns its CPUs, GPUs and nodes, this machine's if it is not there."""
    import ray

    if problem := unreachable(where):
        yield "bad", "Ray cluster", f"{where}: {problem}"
        return os.cpu_count() or 1, 0, 0
    try:
        if not ray.is_initialized():
            ray.init(address=where, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        token = os.environ.get("RAY_AUTH_MODE") == "token"
        remedy = "" if token else "; RAY_AUTH_MODE=token if it asks for one"
        yield "bad", "Ray cluster", f"{where}: {brief(error)}{remedy}"
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
