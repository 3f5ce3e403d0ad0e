"""What surrounds Ray's proxy: its own plain answers become the envelope's, and bodies arrive."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http import auto

from raydist.serving.front import OF_RAY, Front, middlewares

seen: list[dict[str, Any]] = []


async def proxy(scope: Any, receive: Any, send: Any) -> None:
    """Answers as Ray's proxy does."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    headers = dict(scope["headers"])
    seen.append({"body": b"".join(parts), "headers": headers})
    if scope["path"] == "/lost":
        return
    kind = b"application/json" if scope["path"] == "/ours" else b"text/plain; charset=utf-8"
    status = {"/ours": 404, "/absent": 404, "/late": 408, "/full": 429}.get(scope["path"], 200)
    fields = [(b"content-type", kind), (b"x-request-id", headers[b"x-request-id"])]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": b'{"a": 1}'})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    before = auto.AutoHTTPProtocol
    (wrapped,) = middlewares()
    assert wrapped.cls is Front and f"{Front.__module__}.{middlewares.__name__}" in OF_RAY.values()
    config = uvicorn.Config(Front(proxy), port=0, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    ends = time.monotonic() + 20
    while not server.started and time.monotonic() < ends:
        time.sleep(0.02)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)
    auto.AutoHTTPProtocol = before  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/absent", 503, "not_ready"),
        ("/lost", 503, "not_ready"),
        ("/late", 504, "deadline"),
        ("/full", 429, "overloaded"),
    ],
)
def test_plain_answers_of_the_proxy_become_the_envelope(
    port: int, path: str, status: int, code: str
) -> None:
    answer = httpx.post(f"http://127.0.0.1:{port}{path}", json={}, headers={"x-request-id": "f-1"})
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code and answer.json()["detail"]
    assert answer.headers.get_list("x-request-id") == ["f-1"]
    assert status == 504 or int(answer.headers["retry-after"]) >= 1
    assert answer.headers["connection"] == "close"  # or the next request is lost with the proxy


def test_the_services_own_answers_pass(port: int) -> None:
    for path, status in (("/ours", 404), ("/", 200)):
        answer = httpx.get(f"http://127.0.0.1:{port}{path}")
        assert (answer.status_code, answer.json()) == (status, {"a": 1})


@pytest.mark.parametrize("pieces", [1, 3])
def test_an_offer_of_http_2_does_not_lose_the_body(port: int, pieces: int) -> None:
    """Java's client sends this by default, and falls back to HTTP/1.1 without an answer to it."""
    body = json.dumps({"query": "a", "documents": ["b" * 200_000]}).encode()
    head = (
        "POST / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        f"Content-Length: {len(body)}\r\nHost: 127.0.0.1:{port}\r\n"
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n"
        "User-Agent: Java-http-client/21\r\nContent-Type: application/json\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        if pieces == 1:
            connection.sendall(head + body)
        else:
            for part in (head, body[:1000], body[1000:]):
                connection.sendall(part)
                time.sleep(0.05)
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200") and seen[-1]["body"] == body


def test_headers_that_rays_proxy_cannot_read_do_not_reach_it(port: int) -> None:
    sent = [(b"x-request-id", b"\xff\xfe"), (b"x-other", b"\xff"), (b"x-name", "ü".encode())]
    answer = httpx.get(f"http://127.0.0.1:{port}/", headers=sent)
    headers = seen[-1]["headers"]
    assert b"x-other" not in headers and headers[b"x-name"] == "ü".encode()
    assert answer.headers["x-request-id"] == headers[b"x-request-id"].decode()
    assert headers[b"x-request-id"].isascii()


def test_what_is_not_http_passes() -> None:
    passed = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    asyncio.run(Front(app)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert passed == ["lifespan"]
