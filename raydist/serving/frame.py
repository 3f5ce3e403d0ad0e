"""What surrounds every request: its id, its key, its body's limits, the log, unexpected errors.

Keys are checked before the body is read, so that nobody without a key costs more than a header.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from starlette.responses import JSONResponse, Response

from raydist.serving.bodies import Receive, as_json, decoded, read
from raydist.serving.errors import ServiceError, overloaded
from raydist.serving.front import REQUEST_ID
from raydist.serving.service import Service

_ACCESS = logging.getLogger("raydist.access")
_FAILURES = logging.getLogger("raydist.failures")
HEALTH = ("/healthz", "/health", "/readyz")
_OPEN = frozenset({"/", "/docs", "/openapi.json", *HEALTH})
"""Routes that need neither key nor body to be read."""
TEI = frozenset({"/", "/embed", "/embed_all", "/embed_sparse", "/info"})
"""Routes of TEI's contract alone: errors have its form."""

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Frame:
    """An ASGI middleware.

    Args:
        app: what answers.
        service: whose keys, limits and metrics count.
        echo_id: whether to add X-Request-Id to answers.
        paths: those that the log and the metrics name; others are `unknown`.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        service: Service,
        echo_id: bool,
        paths: Collection[str],
    ) -> None:
        self.app = app
        self.service = service
        self.echo_id = echo_id
        self.paths = paths
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(reversed(scope["headers"]))  # the first of several counts
        own_id = headers.get(b"x-request-id", b"")
        request_id = own_id.decode() if REQUEST_ID.fullmatch(own_id) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["id"] = request_id
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        start = time.monotonic()
        status, body = 0, b""

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.echo_id:
                    echoed = (b"x-request-id", request_id.encode("latin-1"))
                    message["headers"] = [*message.get("headers", []), echoed]
            await send(message)

        async def refuse(error: ServiceError) -> None:
            tei = path in TEI or state.get("tei", False)
            response = error_response(error, tei=tei)
            response.headers["connection"] = "close"  # a part of the body may not be read
            await response(scope, _nothing, sending)

        try:
            if path in _OPEN and scope["method"] in ("GET", "HEAD", "OPTIONS"):
                await self.app(scope, _replay(b"", receive), sending)
            else:
                peer = (scope.get("client") or ("",))[0]
                key, host = (
                    value and value.decode("latin-1")
                    for value in (headers.get(b"authorization"), headers.get(b"host"))
                )
                state["client"] = self.service.keys.admit(key, peer, host)
                with self._counted():
                    body = await self._body(receive, headers)
                    if scope["method"] == "POST":
                        scope["headers"] = as_json(scope["headers"])
                        body = body or b"{}"  # the first field that is missing is named
                    await self.app(scope, _replay(body, receive), sending)
        except ServiceError as error:
            await refuse(error)
        except Exception as error:  # whatever fails, the client gets the envelope
            report(request_id, error)
            if status:  # the answer has started: the connection can only be cut
                raise
            message = f"the service failed; its log has the reason under {request_id}"
            await refuse(ServiceError(500, message, "internal_error"))
        finally:
            self._log(scope["method"], path, request_id, status, start, len(body))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Counts a request while it and its body are in memory; raises ServiceError 429."""
        if self._open >= 2 * self.service.limits.max_requests:
            wait_s = self.service.admission.backlog_s()
            raise overloaded(wait_s, f"{self._open} requests are open already")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _body(self, receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
        """Returns the body without its encoding; raises ServiceError 400, 408, 413 or 415."""
        limits = self.service.limits
        try:
            async with asyncio.timeout(limits.deadline_s):
                announced = headers.get(b"content-length", b"")
                body = await read(receive, limits.max_body_bytes, announced)
                encoding = headers.get(b"content-encoding", b"")
                return await decoded(body, encoding, limits.max_body_bytes)
        except TimeoutError:
            message = f"the body did not arrive within {limits.deadline_s:g} s"
            raise ServiceError(408, message, "slow_body") from None

    def _log(
        self, method: str, path: str, request_id: str, status: int, start: float, size: int
    ) -> None:
        seconds = time.monotonic() - start
        route = path if path in self.paths else "unknown"
        if self.service.metrics is not None:
            self.service.metrics.request(route, status or 499, seconds)
        if path not in HEALTH:
            line = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "id": request_id,
                "method": method,
                "route": route,
                "status": status or 499,  # 499: the client went away
                "ms": round(seconds * 1000, 1),
                "bytes": size,
            }
            _ACCESS.info(json.dumps(line))


def error_response(error: ServiceError, *, tei: bool = False) -> Response:
    """Returns an error in the envelope, or in TEI's form."""
    return JSONResponse(error.body(tei=tei), error.status, error.headers)


def report(request_id: str, error: Exception) -> None:
    """Logs an unexpected error with its traceback, not in the access log."""
    _FAILURES.error("request %s failed", request_id, exc_info=error)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> MutableMapping[str, Any]:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _nothing() -> MutableMapping[str, Any]:
    return {"type": "http.disconnect"}


def open_log(file: str | None = None) -> None:
    """Sends the access log to a file or to stderr, one JSON object per line."""
    if not _ACCESS.handlers:
        handler = logging.FileHandler(file) if file else logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        _ACCESS.addHandler(handler)
        _ACCESS.setLevel(logging.INFO)
        _ACCESS.propagate = False
