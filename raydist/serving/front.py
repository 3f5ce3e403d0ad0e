"""What surrounds Ray Serve's proxy: it speaks for the service while that cannot speak for itself.

Ray's proxy answers with a plain 404 before an application is there and after it was deleted, and
with a plain 500 when the process that had a request ends. Here both are a 503 in the envelope. The
proxy also fails on headers that are not UTF-8, and uvicorn drops the body of a request that offers
HTTP/2 (`Upgrade: h2c`, the default of Java's client).

Ray imports `middlewares` in each process of its proxy if RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH
names it where Ray is started; `raydist serve` sets the variable.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.middleware import Middleware
from uvicorn.protocols.http import auto

from raydist.serving.errors import ServiceError, not_ready, overloaded

OF_RAY = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "raydist.serving.front.middlewares",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}
"""Ray's variables. On a busy machine its proxy takes longer than 5 s to start, and was killed."""
REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
"""A request id that is taken over."""
_RETRY_S = 5.0
_OFFER = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n)", re.IGNORECASE)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def middlewares() -> list[Middleware]:
    """Returns what Ray's proxy is wrapped in."""
    return [Middleware(Front)]


class Front:
    """An ASGI middleware of Ray's proxy."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app
        keep_bodies_of_upgrades()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and answers where Ray does not, or not in the envelope."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["headers"] = headers = clean_headers(scope["headers"])
        started = replaced = False

        async def sending(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                if (error := _replacement(message)) is not None:
                    replaced = True
                    await _send(error, headers, send)
            if not replaced:
                await send(message)

        await self.app(scope, receive, sending)
        if not started:
            message = "the process that had this request has ended; try again"
            await _send(not_ready(message), headers, send)


def clean_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Returns the headers with exactly one valid X-Request-Id, and only what UTF-8 can read."""
    ids = [value for name, value in headers if name == b"x-request-id"]
    valid = [value for value in ids if REQUEST_ID.fullmatch(value)]
    request_id = valid[0] if valid else uuid.uuid4().hex.encode()
    others = [
        (name, value)
        for name, value in headers
        if name != b"x-request-id" and _is_text(name) and _is_text(value)
    ]
    return [*others, (b"x-request-id", request_id)]


def keep_bodies_of_upgrades() -> None:
    """Makes uvicorn ignore offers of HTTP/2 in this process: Ray does not let its protocol be set.

    An offer that is not taken up changes nothing (RFC 9110, 7.8), but the parser of `httptools`
    ends at it, and what follows is lost.
    """
    base: Any = auto.AutoHTTPProtocol
    if base.__name__ == "HttpToolsProtocol":

        class IgnoringOffers(base):  # type: ignore[misc]
            """HTTP/1.1 without offers of HTTP/2."""

            def data_received(self, data: bytes) -> None:
                super().data_received(_OFFER.sub(b"", data) if b"h2c" in data.lower() else data)

        auto.AutoHTTPProtocol = IgnoringOffers


def close_port(proxy: Any) -> bool:
    """Tells the server of a proxy to end; returns whether it has. Runs in the proxy's process.

    It is here because that process has imported this module already: an import would keep its
    requests waiting.
    """
    running, server = proxy._start_http_server_task.result()
    server.should_exit = True
    return bool(running.done())


def _replacement(start: Message) -> ServiceError | None:
    """Returns the error to send instead of an answer of Ray's own; the service's are JSON."""
    kind = dict(start.get("headers", ())).get(b"content-type", b"")
    status = start["status"]
    if status < 400 or kind.startswith(b"application/json"):
        return None
    if status == 429:
        return overloaded(1.0, "all processes that answer are busy")
    if status == 408:
        return ServiceError(504, "not answered in time", "deadline")
    return not_ready("the service is starting or stopping; try again", _RETRY_S)


async def _send(error: ServiceError, headers: list[tuple[bytes, bytes]], send: Send) -> None:
    body = json.dumps(error.body()).encode()
    fields = {name.lower(): value for name, value in error.headers.items()}
    fields |= {"content-type": "application/json", "content-length": str(len(body))}
    # A client that kept the connection would lose its next request when the proxy ends.
    fields["connection"] = "close"
    fields["x-request-id"] = dict(headers)[b"x-request-id"].decode()
    encoded = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
