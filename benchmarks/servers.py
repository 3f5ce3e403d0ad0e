"""The servers that `benchmarks.serving` compares, each a process of its own, and what they use."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from benchmarks.peers.environment import environment
from benchmarks.report import memory_bytes

Server = tuple[str, int]
"""A server's URL and its process."""


@contextlib.contextmanager
def raydist_server(
    folder: Path, cores: int, *, kind: str = "reranker", checkout: str = ""
) -> Iterator[Server]:
    """Yields `raydist serve` with a replica per core.

    Args:
        folder: the model.
        cores: replicas.
        kind: reranker or embedder.
        checkout: run the raydist of this checkout instead of this one.
    """
    port = _free_port()
    words = [f"{kind}={folder}", f"port={port}", f"replicas.min={cores}", "replicas.cpus=1"]
    command = [sys.executable, "-m", "raydist", "serve", *words]
    with _server(command, port, checkout=checkout) as process:
        yield f"http://127.0.0.1:{port}", process


@contextlib.contextmanager
def plain_server(folder: Path) -> Iterator[Server]:
    """Yields FastAPI around sentence-transformers' CrossEncoder."""
    port = _free_port()
    command = [sys.executable, "-m", "benchmarks.plain_server", str(folder), str(port)]
    with _server(command, port) as process:
        yield f"http://127.0.0.1:{port}", process


@contextlib.contextmanager
def infinity_server(folder: Path, engine: str, cache: Path) -> Iterator[Server]:
    """Yields infinity with an engine: torch, or optimum for a folder in ONNX.

    Raises:
        Unavailable: its environment cannot be built.
    """
    port = _free_port()
    program = environment("infinity", cache) / "infinity_emb"
    command = [str(program), "v2", "--model-id", str(folder), "--served-model-name", "model"]
    command += ["--port", str(port), "--url-prefix", "/v1", "--engine", engine, "--device", "cpu"]
    command += ["--dtype", "float32", "--pooling-method", "mean", "--no-bettertransformer"]
    command += ["--onnx-disable-optimize"]
    with _server(command, port, ready="/health") as process:
        yield f"http://127.0.0.1:{port}", process


@contextlib.contextmanager
def _server(
    command: Sequence[str], port: int, ready: str = "/readyz", checkout: str = ""
) -> Iterator[int]:
    variables = os.environ | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    variables.pop("OMP_NUM_THREADS", None)
    if checkout:
        variables["PYTHONPATH"] = checkout
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command, env=variables, stdout=log, stderr=log, cwd=checkout or None
        ) as process,
    ):
        try:
            ends = time.monotonic() + 180
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"http://127.0.0.1:{port}{ready}", timeout=30).status_code == 200:
                        break
                if process.poll() is not None or time.monotonic() > ends:
                    log.seek(0)
                    raise SystemExit(f"{command}: did not start\n{log.read().decode()[-3000:]}")
                time.sleep(0.5)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ingress_cpu_s(process: int) -> float:
    """Returns the seconds of CPU that the service's ingresses and proxies have used."""
    ticks = 0
    for pid in _descendants(process):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/cmdline").read_text()
            if ":ingress" in name or "ProxyActor" in name:
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
                ticks += int(stat[11]) + int(stat[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mb(process: int) -> float:
    """Returns the memory of a server's processes that no file backs."""
    total = 0
    for pid in _descendants(process):
        with contextlib.suppress(OSError, KeyError):  # it ended
            total += memory_bytes("RssAnon", pid)
    return total / 1e6


def _descendants(process: int) -> Iterator[int]:
    yield process
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in listed.read_text().split():
                yield from _descendants(int(child))
