"""The HTTP layer: a FastAPI application over a `Service`; works with or without Ray.

Every error has one envelope; request ids are echoed; bodies are limited before they are parsed; the
access log has no document text.
"""

import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from raydist import __version__
from raydist.serving.answers import (
    EmbeddingsResponse,
    ErrorEnvelope,
    ModelList,
    RerankResponse,
    ScoreResponse,
    SearchResponse,
)
from raydist.serving.docs import docs_page
from raydist.serving.errors import ServiceError
from raydist.serving.schema import EmbeddingsRequest, RerankRequest, ScoreRequest, SearchRequest
from raydist.serving.service import Service

__all__ = ["make_app", "open_log"]

_ID = re.compile(r"[\x21-\x7e]{1,128}")
_LOG = logging.getLogger("raydist.access")
_PAGE = Path(__file__).with_name("page.html")
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope, "description": what}
    for status, what in {
        400: "The body is not JSON",
        401: "No valid key",
        404: "No such model or route",
        413: "The body, its documents or their tokens are too many",
        422: "A field is wrong, or a document does not fit and truncation is error",
        429: "Overloaded; Retry-After says when to come again",
        500: "The model failed",
        503: "Not ready",
        504: "The deadline passed",
    }.items()
}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def make_app(service: Service, *, echo_id: bool = True) -> FastAPI:
    """Returns the application.

    Args:
        service: what answers.
        echo_id: whether to add X-Request-Id to answers; Ray Serve's proxy does that itself.
    """
    app = FastAPI(
        title="raydist",
        version=__version__,
        description="Reranking, scoring, embeddings and search. Authorization: Bearer KEY where "
        "the server has keys. Every error has the form {error: {message, type, param, code}}.",
        docs_url=None,
        redoc_url=None,
        responses=_ERRORS,
    )
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ServiceError, _failed)
    app.add_exception_handler(HTTPException, _http)
    _routes(app, service)
    _pages(app, service)
    app.add_middleware(_Frame, service=service, echo_id=echo_id)
    return app


def _routes(app: FastAPI, service: Service) -> None:
    """Adds the routes that compute."""

    async def rerank(body: RerankRequest, request: Request) -> RerankResponse:
        """Puts documents in order of relevance to a query.

        Takes what the clients of Cohere (v1, v2), Jina, Voyage and TEI send, and answers all of
        them at once: `results` and `data` are the same list. Sorted by score, then by position.
        """
        return await service.rerank(body, *_who(request, service))

    for place, path in enumerate(("/v1/rerank", "/v2/rerank", "/rerank")):
        app.add_api_route(
            path,
            rerank,
            methods=["POST"],
            summary="Rerank documents",
            operation_id=f"rerank{place or ''}",
            response_model_exclude_none=True,
            tags=["rerank"],
        )

    @app.post("/v1/score", tags=["rerank"], summary="Score pairs")
    async def score(body: ScoreRequest, request: Request) -> ScoreResponse:
        """Scores each document with one query for all or with its own; keeps their order."""
        return await service.score(body, *_who(request, service))

    @app.post("/v1/embeddings", tags=["embeddings"], summary="Embed texts")
    async def embeddings(body: EmbeddingsRequest, request: Request) -> EmbeddingsResponse:
        """Embeds texts, as OpenAI's API does. `input_type: query` for queries."""
        return await service.embeddings(body, *_who(request, service))

    @app.post("/v1/search", tags=["search"], summary="Search", response_model_exclude_none=True)
    async def search(body: SearchRequest, request: Request) -> SearchResponse:
        """Searches the served index: retrievers, fusion, reranking, each with score and time."""
        return await service.search(body, *_who(request, service))

    @app.get("/v1/models", tags=["service"], summary="Served models")
    async def models(request: Request) -> ModelList:
        """Lists what is served."""
        _who(request, service)
        return service.models()


def _pages(app: FastAPI, service: Service) -> None:
    """Adds health, documentation and the page."""

    @app.get("/healthz", tags=["service"], summary="Alive")
    async def healthz() -> dict[str, str]:
        """Answers while the process is alive."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["service"], summary="Ready")
    async def readyz() -> dict[str, str]:
        """Scores a known pair with every model, and searches once."""
        await service.ready()
        return {"status": "ready"}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(_PAGE.read_text(encoding="utf-8"))


def _who(request: Request, service: Service) -> tuple[str, str]:
    """Returns the request's id and its client's name; raises ServiceError 401."""
    return request.state.id, service.client(request.headers.get("authorization"))


async def _invalid(request: Request, error: Exception) -> Response:
    """Answers a body that is not JSON with 400, one that has wrong fields with 422."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _answer(ServiceError(400, "the body is not valid JSON", "invalid_json"))
    parts = [str(part) for part in first["loc"] if part != "body"]
    param = ".".join(p for p in parts if p not in ("str", "TextDocument") and "[" not in p) or None
    message = str(first["msg"]).removeprefix("Value error, ")
    return _answer(
        ServiceError(422, f"{param}: {message}" if param else message, "invalid", param=param)
    )


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return _answer(error)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed", 400: "invalid_json"}
    code = codes.get(error.status_code, "error")
    failure = ServiceError(
        error.status_code, str(error.detail), code, headers=dict(error.headers or {})
    )
    return _answer(failure)


def _answer(error: ServiceError) -> Response:
    return JSONResponse(error.body(), error.status, error.headers)


class _Frame:
    """Around every request: its id, the limit on its body, the log, the last resort for errors."""

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        service: Service,
        echo_id: bool,
    ) -> None:
        self.app = app
        self.service = service
        self.echo_id = echo_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["id"] = request_id
        begun = time.monotonic()
        status = 0

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.echo_id:
                    echoed = (b"x-request-id", request_id.encode("latin-1"))
                    message["headers"] = [*message.get("headers", []), echoed]
            await send(message)

        most = self.service.limits.max_body_bytes
        body = await _read(receive, most, headers.get(b"content-length", b""))
        try:
            if body is None:
                await self._refuse(scope, sending, most)
                return
            await self.app(scope, _replay(body, receive), sending)
        finally:
            self._log(scope, request_id, status, time.monotonic() - begun, len(body or b""))

    async def _refuse(self, scope: Scope, send: Send, most: int) -> None:
        error = ServiceError(413, f"the body has more than {most} bytes", "body_too_large")
        response = _answer(error)
        response.headers["connection"] = "close"
        await response(scope, _nothing, send)

    def _log(self, scope: Scope, request_id: str, status: int, seconds: float, size: int) -> None:
        route = scope.get("route")
        path = getattr(route, "path", None) or "unknown"
        if self.service.metrics is not None:
            self.service.metrics.request(path, status or 499, seconds)
        if path not in ("/healthz", "/readyz"):
            line = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "id": request_id,
                "method": scope["method"],
                "route": path,
                "status": status or 499,  # 499: the client went away
                "ms": round(seconds * 1000, 1),
                "bytes": size,
            }
            _LOG.info(json.dumps(line))


async def _read(receive: Receive, most: int, announced: bytes) -> bytes | None:
    """Returns the body, or None if it is larger than `most`."""
    if announced.isdigit() and int(announced) > most:
        return None
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            return None
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
    if not _LOG.handlers:
        handler = logging.FileHandler(file) if file else logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        _LOG.addHandler(handler)
        _LOG.setLevel(logging.INFO)
        _LOG.propagate = False
