"""A real MLflow server of this machine, and a way to it that can be cut."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx


@contextlib.contextmanager
def mlflow_server(database: str, artifacts: str) -> Iterator[str]:
    """Runs a server and gives its address.

    Args:
        database: URI of its runs.
        artifacts: folder or URI where it puts what is uploaded to it.
    """
    port = _free_port()
    words = ["server", "--backend-store-uri", database, "--host", "127.0.0.1"]
    words += ["--artifacts-destination", artifacts, "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *words],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 180
    try:
        while True:
            assert process.poll() is None and time.monotonic() < deadline, process.poll()
            try:
                if httpx.get(f"{address}/health", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


class Way:
    """A port of this machine that leads to a server until it is cut.

    Attributes:
        address: of the port; it stays the same.
    """

    def __init__(self, server: str) -> None:
        self._target = ("127.0.0.1", int(server.rpartition(":")[2]))
        self._port = _free_port()
        self._open: list[socket.socket] = []
        self.address = f"http://127.0.0.1:{self._port}"
        self.restore()

    def __enter__(self) -> Way:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def restore(self) -> None:
        """Lets connections through."""
        listener = socket.create_server(("127.0.0.1", self._port))
        self._open.append(listener)
        threading.Thread(target=self._accept, args=[listener], daemon=True).start()

    def cut(self) -> None:
        """Ends all connections and refuses new ones."""
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = listener.accept()[0]
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=_forward, args=pair, daemon=True).start()


def _forward(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
