"""Bodies of requests: read within limits, decompressed, parsed where they cannot block the loop."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
from starlette.requests import Request

from raydist.serving.errors import ServiceError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_SMALL = 1 << 16
"""Bytes that are parsed at once; more are parsed in a thread."""
_JSON_TYPES = frozenset({b"", b"text/json", b"text/x-json", b"application/x-json"})
"""Content types that mean JSON beside those that say so; empty: none was sent."""


async def read(receive: Receive, most: int, announced: bytes) -> bytes:
    """Returns a body; raises ServiceError 413 for more than `most` bytes.

    Args:
        receive: the connection's.
        most: the limit.
        announced: the Content-Length header.
    """
    if announced.isdigit() and int(announced[:20]) > most:
        raise _too_large(most)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise _too_large(most)
        if not message.get("more_body"):
            return b"".join(parts)


async def decoded(body: bytes, encoding: bytes, most: int) -> bytes:
    """Returns a body without its Content-Encoding; raises ServiceError 400, 413 or 415.

    Args:
        body: as sent.
        encoding: the header.
        most: the limit in bytes of the result.
    """
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return body
    if name not in (b"gzip", b"x-gzip", b"deflate"):
        message = f"Content-Encoding {name[:40].decode('latin-1')}: send gzip, deflate, or none"
        headers = {"Accept-Encoding": "gzip, deflate"}
        raise ServiceError(415, message, "unsupported_encoding", headers=headers)
    return await asyncio.to_thread(_inflated, body, name == b"deflate", most)


def _inflated(body: bytes, deflate: bool, most: int) -> bytes:
    # What is called deflate is zlib's format, or, as some clients have it, has no header.
    raw = deflate and (len(body) < 2 or body[0] & 15 != 8 or int.from_bytes(body[:2]) % 31)
    parts: list[bytes] = []
    left = most + 1
    while body:
        stream = zlib.decompressobj(-15 if raw else 47)
        try:
            parts.append(stream.decompress(body, left))
        except zlib.error:
            raise ServiceError(400, "the body is not what it says", "invalid_encoding") from None
        left -= len(parts[-1])
        if left <= 0:
            raise _too_large(most)
        if not stream.eof:
            raise ServiceError(400, "the compressed body is cut off", "invalid_encoding")
        body = stream.unused_data  # gzip may have several members
    return b"".join(parts)


def as_json(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Returns the headers with JSON's own content type where one means it, or none was sent."""
    kind = next((value for name, value in headers if name == b"content-type"), b"")
    if kind.partition(b";")[0].strip().lower() not in _JSON_TYPES:
        return headers
    others = [(name, value) for name, value in headers if name != b"content-type"]
    return [*others, (b"content-type", b"application/json")]


class JsonRequest(Request):
    """A request whose body is parsed by orjson; a large one in a thread."""

    async def json(self) -> Any:
        """Returns the body's value; raises json.JSONDecodeError."""
        body = await self.body()
        if len(body) <= _SMALL:
            return orjson.loads(body)
        return await asyncio.to_thread(orjson.loads, body)


def _too_large(most: int) -> ServiceError:
    return ServiceError(413, f"the body has more than {most} bytes", "body_too_large")
