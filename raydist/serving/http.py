"""The HTTP layer: a FastAPI application over a `Service`; works with or without Ray.

Every error has one envelope. `frame.py` surrounds every request.
"""

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
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
from raydist.serving.frame import Frame, error_response, report
from raydist.serving.schema import EmbeddingsRequest, RerankRequest, ScoreRequest, SearchRequest
from raydist.serving.service import Service

_PAGE = Path(__file__).with_name("page.html")
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope, "description": what}
    for status, what in {
        400: "The body is not JSON",
        401: "No valid key",
        404: "No such model or route",
        408: "The body did not arrive in time",
        413: "The body, its documents or their tokens are too many",
        422: "A field is wrong, or a document does not fit and truncation is error",
        429: "Overloaded; Retry-After says when to try again",
        500: "The model failed",
        503: "Not ready",
        504: "The deadline passed",
    }.items()
}


def make_app(service: Service, *, echo_id: bool = True) -> FastAPI:
    """Returns the application.

    Args:
        service: answers the requests.
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
    paths = frozenset(getattr(route, "path", "") for route in app.routes)
    app.add_middleware(Frame, service=service, echo_id=echo_id, paths=paths)
    return app


def _routes(app: FastAPI, service: Service) -> None:
    """Adds the routes that compute."""

    async def rerank(body: RerankRequest, request: Request) -> RerankResponse:
        """Puts documents in order of relevance to a query.

        Takes what the clients of Cohere (v1, v2), Jina, Voyage and TEI send, and answers all of
        them at once: `results` and `data` are the same list. Sorted by score, then by position.
        """
        return await service.rerank(body, *_identity(request))

    for number, path in enumerate(("/v1/rerank", "/v2/rerank", "/rerank")):
        app.add_api_route(
            path,
            rerank,
            methods=["POST"],
            summary="Rerank documents",
            operation_id=f"rerank{number or ''}",
            response_model_exclude_none=True,
            tags=["rerank"],
        )

    @app.post("/v1/score", tags=["rerank"], summary="Score pairs")
    async def score(body: ScoreRequest, request: Request) -> ScoreResponse:
        """Scores each document with one query for all or with its own; keeps their order."""
        return await service.score(body, *_identity(request))

    @app.post("/v1/embeddings", tags=["embeddings"], summary="Embed texts")
    async def embeddings(body: EmbeddingsRequest, request: Request) -> EmbeddingsResponse:
        """Embeds texts, as OpenAI's API does. `input_type: query` for queries."""
        return await service.embeddings(body, *_identity(request))

    @app.post("/v1/search", tags=["search"], summary="Search", response_model_exclude_none=True)
    async def search(body: SearchRequest, request: Request) -> SearchResponse:
        """Searches the served index: retrievers, fusion, reranking, each with score and time."""
        return await service.search(body, *_identity(request))

    @app.get("/v1/models", tags=["service"], summary="Served models")
    async def models() -> ModelList:
        """Lists what is served."""
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


def _identity(request: Request) -> tuple[str, str]:
    """Returns the request's id and its client's name."""
    return request.state.id, request.state.client


async def _invalid(request: Request, error: Exception) -> Response:
    """Answers invalid JSON with 400, a list that is too long with 413, wrong fields with 422."""
    assert isinstance(error, RequestValidationError)
    # Where a value may have one of many forms, the deepest error is of the form that was meant.
    first = max(error.errors(), key=lambda each: (each["type"] == "too_long", len(each["loc"])))
    if first["type"] == "json_invalid":
        return error_response(ServiceError(400, "the body is not valid JSON", "invalid_json"))
    parts = [str(part) for part in first["loc"] if part != "body"]
    param = ".".join(p for p in parts if p not in ("str", "TextDocument") and "[" not in p) or None
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "too_long":
        message = f"{param} has more than {first['ctx']['max_length']} entries"
        return error_response(ServiceError(413, message, "too_many_documents", param=param))
    if first["type"] == "model_attributes_type" and not parts:
        sent = request.headers.get("content-type", "without a content type")
        message = "the body is not a JSON object"
        if not sent.partition(";")[0].endswith("json"):
            message = f"the body was sent as {sent}: send JSON with Content-Type: application/json"
    message = f"{param}: {message}" if param else message
    return error_response(ServiceError(422, message, "invalid", param=param))


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    if error.status == 500:
        report(request.state.id, error)
    return error_response(error)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed", 400: "invalid_json"}
    code = codes.get(error.status_code, "error")
    failure = ServiceError(
        error.status_code, str(error.detail), code, headers=dict(error.headers or {})
    )
    return error_response(failure)
