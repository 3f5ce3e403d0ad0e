"""The HTTP service of a pipeline, or of the keys of `raydist serve`, while a block runs."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from raydist.api import command
from raydist.api.command import Files
from raydist.errors import ConfigError, JobError, RaydistError

_READY_S = 300.0  # seconds until a service must answer
_PATIENCE_S = 60.0  # seconds in which it answers its last requests


class Service:
    """A running service; a context manager that stops it at the end.

    >>> import raydist as rd
    >>> with rd.serve(reranker="bm25", port=PORT) as service:  # doctest: +SKIP
    ...     service.url
    'http://127.0.0.1:8931'

    Attributes:
        url: its root; `/docs` below it is the reference, `/` a page to try it.
        log: the file with what it says.
    """

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = url
        self.log = log
        self._process = process
        atexit.register(self.stop)

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the service answers requests."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Answers running requests, then ends the service."""
        atexit.unregister(self.stop)
        if not self.running:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as lifeline:
            lifeline.write(b"\n")
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __repr__(self) -> str:
        return f"Service({self.url!r}{'' if self.running else ', stopped'})"

    def _repr_html_(self) -> str:
        from html import escape

        url = escape(self.url)
        if not self.running:
            return f"<div>{url}: stopped</div>"
        return f'<div><a href="{url}">{url}</a> (<a href="{url}/docs">reference</a>)</div>'


def serve(pipeline: Any = None, *, port: int = 8000, config: Files = (), **keys: Any) -> Service:
    """Serves a pipeline over HTTP, in a process of its own, and returns when it is ready.

    >>> import httpx, raydist as rd
    >>> index = rd.index({"1": "A heron eats fish.", "2": "A boat on a canal."}, "idx")
    >>> with rd.serve(index.bm25() >> rd.rerank("bm25"), port=PORT) as service:  # doctest: +SKIP
    ...     answer = httpx.post(f"{service.url}/v1/search", json={"query": "fish"})

    Args:
        pipeline: an index, vectors, or a pipeline of them: fused, and with one reranker.
        port: to listen on.
        config: YAML files.
        keys: the other keys of `raydist serve`, such as `reranker=`, `embedder=` or `replicas=`.

    Raises:
        ConfigError: as the verb does, or where no service answers as the pipeline does.
        JobError: the service does not start.
    """
    import yaml

    from raydist.api.spool import Spool
    from raydist.api.stages import pipeline_of
    from raydist.commands import check_packages
    from raydist.commands.serve import check_port
    from raydist.config.load import load, read_yaml
    from raydist.config.serve import ServeConfig

    served = {} if pipeline is None else pipeline_of(pipeline).served()
    names = [config] if isinstance(config, str | os.PathLike) else config
    with command.spoken_errors(), Spool() as spool:
        layers = [*(read_yaml(os.fspath(name)) for name in names), served]
        checked = load(ServeConfig, [*layers, spool.plain({"port": port, **keys})])
    check_packages("serve", checked)
    check_port(checked.host, checked.port)  # else another service there would be taken for this one
    folder = Path(tempfile.mkdtemp(prefix="raydist-service-"))
    file, log = folder / "serve.yaml", folder / "serve.log"
    file.write_text(yaml.safe_dump(checked.resolved()), encoding="utf-8")
    words = [sys.executable, "-m", "raydist.api.served", str(file)]
    with log.open("wb") as out:
        # Ctrl-C is for this process, which then ends the other one; the pipe ends it in any case.
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True
        )
    host = checked.host if ":" not in checked.host else f"[{checked.host}]"
    service = Service(f"http://{host}:{checked.port}", process, log)
    with contextlib.ExitStack() as failure:
        failure.callback(service.stop)
        _wait(service, process)
        failure.pop_all()
    return service


def _wait(service: Service, process: subprocess.Popen[bytes]) -> None:
    import httpx

    ends = time.monotonic() + _READY_S
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise _failure(service.log, process.returncode)
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{service.url}/readyz", timeout=5, trust_env=False).status_code == 200:
                return
        time.sleep(0.2)
    raise JobError(f"{service.url}: not ready after {_READY_S:.0f} s; {service.log} says why")


def _failure(log: Path, code: int) -> RaydistError:
    """Returns the error that a service ended with."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("error: ")), None)
    if first is None:
        return JobError(f"the service ended with exit code {code}; {log} says why")
    message = "\n".join(line.removeprefix("error: ") for line in lines[first:])
    return ConfigError(message) if code == 2 else JobError(message)
