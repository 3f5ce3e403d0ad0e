"""What surrounds every request: its id, its key, its body's limits, the log, unexpected errors.

Keys are checked before the body is read, so that nobody without a key costs more than a header.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from starlette.responses import JSONResponse, Response

from raydist.serving.errors import ServiceError, overloaded
from raydist.serving.service import Service

_ID = re.compile(r"[\x21-\x7e]{1,128}")
_ACCESS = logging.getLogger("raydist.access")
_FAILURES = logging.getLogger("raydist.failures")
_OPEN = frozenset({"/", "/docs", "/openapi.json", "/healthz", "/readyz"})
"""Routes that need neither key nor body."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
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
        headers = dict(scope["headers"])
        own_id = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = own_id if _ID.fullmatch(own_id) else uuid.uuid4().hex
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
            response = error_response(error)
            response.headers["connection"] = "close"  # a part of the body may not be read
            await response(scope, _nothing, sending)

        try:
            if path in _OPEN:
                await self.app(scope, _replay(b"", receive), sending)
            else:
                peer = (scope.get("client") or ("",))[0]
                key = headers.get(b"authorization")
                state["client"] = self.service.keys.admit(key and key.decode("latin-1"), peer)
                with self._counted():
                    body = await self._body(receive, headers.get(b"content-length", b""))
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
            raise overloaded(1.0, f"{self._open} requests are open already")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _body(self, receive: Receive, announced: bytes) -> bytes:
        """Returns the body; raises ServiceError 413 or 408."""
        limits = self.service.limits
        try:
            async with asyncio.timeout(limits.deadline_s):
                return await _read(receive, limits.max_body_bytes, announced)
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
        if path not in ("/healthz", "/readyz"):
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


def error_response(error: ServiceError) -> Response:
    """Returns an error in the envelope."""
    return JSONResponse(error.body(), error.status, error.headers)


def report(request_id: str, error: Exception) -> None:
    """Logs an unexpected error with its traceback, not in the access log."""
    _FAILURES.error("request %s failed", request_id, exc_info=error)


async def _read(receive: Receive, most: int, announced: bytes) -> bytes:
    too_large = ServiceError(413, f"the body has more than {most} bytes", "body_too_large")
    if announced.isdigit() and int(announced) > most:
        raise too_large
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise too_large
        if not message.get("more_body"):
            return b"".join(parts)


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
