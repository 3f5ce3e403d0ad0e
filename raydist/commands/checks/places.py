"""Whether every node reaches the same storage, and whether MLflow answers."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from raydist.commands.checks import Finding, brief
from raydist.commands.checks.cluster import unreachable
from raydist.errors import JobError

_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_PATIENCE_S = 60


def check_storage(storage: str, nodes: int) -> Finding:
    """Writes a small file from here, which every node must see, and one from every node."""
    shown = brief(storage)
    mark = uuid.uuid4().hex
    problem = _try_storage(storage, "", mark)
    if problem:
        return "bad", "storage", f"{shown}: {problem}"
    try:
        broken = _from_nodes(storage, mark) if nodes else []
    finally:
        _remove(storage, mark)
    if broken:
        return "bad", "storage", f"{shown}: {'; '.join(broken)}"
    found = f" and from {nodes} node{'s' * (nodes != 1)}, which see the same" if nodes else ""
    return "ok", "storage", f"{shown}: writable from here{found}"


def _from_nodes(storage: str, mark: str) -> list[str]:
    """Returns a line for each node that cannot use the storage, or does not answer."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(max_retries=0)(_try_storage)
    asked = {
        probe.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(storage, mark, ""): f"node {node[:8]}"
        for node in (node["NodeID"] for node in ray.nodes() if node["Alive"])
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_PATIENCE_S)
    broken = [f"{asked[each]}: no answer within {_PATIENCE_S} seconds" for each in silent]
    for each in answered:
        try:
            problem = ray.get(each)
        except RayError as error:  # it died meanwhile, or has another raydist
            problem = brief(error)
        if problem:
            broken.append(f"{asked[each]}: {problem}")
    return broken


def _try_storage(storage: str, seen: str, mark: str) -> str:
    """Returns what is wrong with a storage root as this process sees it.

    Args:
        storage: the path or URI.
        seen: the mark of a file that must be there; none if empty.
        mark: of a file to write and leave; one is written and removed if empty.
    """
    from pyarrow import ArrowException
    from pyarrow.fs import FileType

    from raydist.data.files import filesystem

    try:
        system, path = filesystem(storage)
        if seen and system.get_file_info(_probe(path, seen)).type != FileType.File:
            return "is another place than here: a file that was written here is not there"
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


def check_tracking(given: str) -> Finding:
    """Asks an MLflow server for its health, a database for a connection, all else MLflow itself."""
    from raydist.evaluation.tracking import resolve_uri

    uri = resolve_uri(given)
    if uri is None:
        return "note", "MLflow", f"{given}: runs are not tracked"
    if uri.startswith(("http://", "https://")):
        state, found = _health(uri)
    elif urlsplit(uri).scheme.partition("+")[0] in _PORTS:
        state, found = _database(uri)
    else:
        state, found = _by_mlflow(uri)
    return state, "MLflow", f"{brief(uri)}: {brief(found)}"


def _health(uri: str) -> tuple[str, str]:
    import httpx

    try:
        answer = httpx.get(f"{uri.rstrip('/')}/health", timeout=10)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return "bad", str(error)
    return "ok" if answer.status_code == 200 else "bad", f"health {answer.status_code}"


def _database(uri: str) -> tuple[str, str]:
    """Connects once; MLflow itself would try again for minutes."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    place = urlsplit(uri)
    try:
        port = place.port or _PORTS[place.scheme.partition("+")[0]]
        if problem := unreachable(f"{place.hostname}:{port}"):
            return "bad", problem
        create_engine(uri).connect().close()
    except (SQLAlchemyError, ImportError, ValueError) as error:
        return "bad", str(error)
    return "ok", "the database answers"


def _by_mlflow(uri: str) -> tuple[str, str]:
    from raydist.evaluation.mlflow_store import connect, mlflow_errors

    file = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not file.exists():
        there = next(parent for parent in file.parents if parent.exists())
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            return "ok", "is made by the first run"
        return "bad", f"{there} is no folder that can be written to"
    try:
        with mlflow_errors(uri):
            connect(uri).search_experiments(max_results=1)
    except JobError as error:
        return "bad", str(error).removeprefix(f"tracking.uri = {uri}: ")
    return "ok", "MLflow reads it"
