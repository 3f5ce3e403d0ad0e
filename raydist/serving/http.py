"""The HTTP layer: a FastAPI application over a `Service`; works with or without Ray.

Every error has one envelope. `frame.py` surrounds every request. Answers are written by the
handlers; the response models describe them.
"""

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from raydist import __version__
from raydist.serving import embed_answers
from raydist.serving.answers import (
    CohereEmbeddings,
    EmbeddingsResponse,
    ErrorEnvelope,
    ModelInfo,
    ModelList,
    RerankResponse,
    ScoreResponse,
    SearchResponse,
    SparseTerm,
    TeiInfo,
)
from raydist.serving.bodies import JsonRequest
from raydist.serving.embed_schema import (
    CohereEmbedRequest,
    EmbeddingsRequest,
    EmbedOrder,
    TeiEmbedRequest,
    TeiSparseRequest,
)
from raydist.serving.errors import ServiceError
from raydist.serving.frame import HEALTH, TEI, Frame, error_response, report
from raydist.serving.pages import add_pages
from raydist.serving.rank_answers import rerank_json, score_json, tei_json
from raydist.serving.schema import RerankRequest, ScoreRequest, SearchRequest
from raydist.serving.service import Service

_RERANK = ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranking", "/reranking")
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope, "description": what}
    for status, what in {
        400: "The body is not JSON",
        401: "No valid key",
        403: "A service without keys was asked by another name than localhost",
        404: "No such model or route",
        408: "The body did not arrive in time",
        413: "The body, its documents or their tokens are too many",
        415: "The body's Content-Encoding is neither gzip nor deflate",
        422: "A field is wrong, or a document does not fit and truncation is error",
        429: "Overloaded; Retry-After says when to try again",
        500: "The model failed",
        503: "Not ready",
        504: "The deadline passed",
    }.items()
}


class _Route(APIRoute):
    """A route that reads bodies with `JsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(JsonRequest(request.scope, request.receive))

        return handle


def make_app(service: Service, *, echo_id: bool = True, cors: Sequence[str] = ()) -> FastAPI:
    """Returns the application.

    Args:
        service: answers the requests.
        echo_id: whether to add X-Request-Id to answers; Ray Serve's proxy does that itself.
        cors: origins whose web pages may read answers; `*` for all.
    """
    app = FastAPI(
        title="raydist",
        version=__version__,
        description="Reranking, scoring, embeddings and search. Authorization: Bearer KEY where "
        "the server has keys. Every error has the form {error: {message, type, param, code}, "
        "message, detail}; TEI's routes send the message alone as `error`.",
        docs_url=None,
        redoc_url=None,
        responses=_ERRORS,
    )
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ServiceError, _failed)
    app.add_exception_handler(HTTPException, _http)
    app.router.route_class = _Route
    _rerank_routes(app, service)
    _embed_routes(app, service)
    _service_routes(app, service)
    _health_routes(app, service)
    add_pages(app)
    paths = frozenset(getattr(route, "path", "") for route in app.routes)
    app.add_middleware(Frame, service=service, echo_id=echo_id, paths=paths)
    if cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    return app


def _rerank_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes that score."""

    async def rerank(body: RerankRequest, request: Request) -> Response:
        """Puts documents in order of relevance to a query.

        Takes what the clients of Cohere (v1, v2), Jina, Voyage, mixedbread, vLLM, infinity and
        llama.cpp send, and answers all of them at once: `results` and `data` are the same list.
        Sorted by score, then by position. To `texts` instead of `documents` it answers as TEI does:
        a bare list of {index, score}.
        """
        request.state.tei = body.texts is not None
        answer = await service.rerank(body, *_identity(request))
        return _json(tei_json(answer) if request.state.tei else rerank_json(answer))

    async def score(body: ScoreRequest, request: Request) -> Response:
        """Scores each document with one query for all or with its own; keeps their order."""
        return _json(score_json(await service.score(body, *_identity(request))))

    _add(app, rerank, RerankResponse, _RERANK, "Rerank documents", "rerank")
    _add(app, score, ScoreResponse, ("/v1/score", "/score"), "Score pairs", "rerank")


def _embed_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes that embed."""

    async def embed(
        order: EmbedOrder, name: str | None, request: Request, write: Callable[..., bytes]
    ) -> Response:
        """Answers in the form that `write` makes of vectors, a model's name, and tokens."""
        model, answer = await service.embed(order, name, request.state.client)
        form = partial(write, model=model, tokens=answer.cost.tokens)
        vectors_nD = answer.vectors_nD
        return _json(await embed_answers.written(vectors_nD, form, normalize=order.normalize))

    async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
        """Embeds texts, as OpenAI's API does. `input_type: query` for queries.

        Voyage's, Jina's, mixedbread's and infinity's fields are understood too.
        """
        order = body.order()
        return await embed(order, body.model, request, partial(embed_answers.openai, order=order))

    async def cohere(body: CohereEmbedRequest, request: Request) -> Response:
        """Embeds texts, as Cohere's API does."""
        order = body.order()
        by_type = request.url.path.endswith("/v2/embed") or body.embedding_types is not None
        form = partial(
            embed_answers.cohere, order=order, request_id=request.state.id, by_type=by_type
        )
        return await embed(order, body.model, request, form)

    async def tei(body: TeiEmbedRequest, request: Request) -> Response:
        """Embeds texts, as text-embeddings-inference does: a bare list of vectors."""
        return await embed(body.order(), None, request, embed_answers.tei)

    async def tei_sparse(body: TeiSparseRequest, request: Request) -> Response:
        """Weighs the terms of texts by a sparse model, as text-embeddings-inference does."""
        return await embed(body.order(), None, request, embed_answers.tei_sparse)

    async def embed_all() -> Response:
        """Is refused: vectors of tokens are not served."""
        message = "embed_all: vectors of tokens are not served; /embed has those of texts"
        raise ServiceError(422, message, "unsupported")

    tag = "embeddings"
    openai_paths = ("/v1/embeddings", "/embeddings")
    _add(app, embeddings, EmbeddingsResponse, openai_paths, "Embed texts", tag)
    _add(app, cohere, CohereEmbeddings, ("/v2/embed", "/v1/embed"), "Embed texts (Cohere)", tag)
    # TEI's clients that know no route post to the root.
    _add(app, tei, list[list[float]], ("/embed", "/"), "Embed texts (TEI)", tag)
    sparse = list[list[SparseTerm]]
    _add(app, tei_sparse, sparse, ("/embed_sparse",), "Weigh terms (TEI)", tag)
    app.post("/embed_all", include_in_schema=False)(embed_all)


def _service_routes(app: FastAPI, service: Service) -> None:
    """Adds search, and the routes that describe the service."""

    async def search(body: SearchRequest, request: Request) -> Response:
        """Searches the served index: retrievers, fusion, reranking, each with score and time."""
        answer = await service.search(body, *_identity(request))
        return _json(answer.model_dump_json(exclude_none=True))

    _add(app, search, SearchResponse, ("/v1/search",), "Search", "search")

    @app.get("/v1/models", tags=["service"], summary="Served models")
    async def models() -> ModelList:
        """Lists what is served."""
        return service.models()

    @app.get("/v1/models/{model:path}", tags=["service"], summary="A served model")
    async def model(model: str) -> ModelInfo:
        """Describes a served model."""
        return service.model(model)

    @app.get("/info", tags=["service"], summary="The first model (TEI)")
    async def info() -> TeiInfo:
        """Describes the first model and the limits, as text-embeddings-inference does."""
        return service.info()


def _add(
    app: FastAPI,
    handler: Callable[..., Coroutine[Any, Any, Response]],
    model: Any,
    paths: Sequence[str],
    summary: str,
    tag: str,
) -> None:
    """Adds a handler under each path."""
    for number, path in enumerate(paths):
        app.add_api_route(
            path,
            handler,
            methods=["POST"],
            summary=summary,
            operation_id=f"{handler.__name__}{number or ''}",
            response_model=model,
            tags=[tag],
        )


def _health_routes(app: FastAPI, service: Service) -> None:
    """Adds what probes ask."""

    async def healthz() -> dict[str, str]:
        """Answers while the process is alive."""
        return {"status": "ok"}

    async def readyz() -> dict[str, str]:
        """Answers once every model and the index work: they just did, or are tried now."""
        await service.ready()
        return {"status": "ready"}

    # `/health` means what it does to clients of TEI and vLLM.
    for path, handler in zip(HEALTH, (healthz, readyz, readyz), strict=True):
        summary = "Ready" if handler is readyz else "Alive"
        app.get(path, tags=["service"], summary=summary, operation_id=path[1:])(handler)
        app.head(path, include_in_schema=False)(handler)


def _identity(request: Request) -> tuple[str, str]:
    """Returns the request's id and its client's name."""
    return request.state.id, request.state.client


def _json(content: bytes | str) -> Response:
    return Response(content, media_type="application/json")


def _is_tei(request: Request, body: Any = None) -> bool:
    """Returns whether a request is in TEI's contract, by its route or by what was read of it."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    if path in TEI or getattr(request.state, "tei", False):
        return True
    return path in _RERANK and isinstance(body, dict) and "texts" in body


async def _invalid(request: Request, error: Exception) -> Response:
    """Answers invalid JSON with 400, a list that is too long with 413, wrong fields with 422."""
    assert isinstance(error, RequestValidationError)
    # Where a value may have one of many forms, the deepest error is of the form that was meant.
    first = max(error.errors(), key=lambda each: (each["type"] == "too_long", len(each["loc"])))
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        failure = ServiceError(400, f"the body is not valid JSON: {reason}", "invalid_json")
        return error_response(failure, tei=_is_tei(request))
    tei = _is_tei(request, error.body)
    parts = [str(part) for part in first["loc"] if part != "body"]
    param = ".".join(p for p in parts if p not in ("str", "TextDocument") and "[" not in p) or None
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "too_long":
        message = f"{param} has more than {first['ctx']['max_length']} entries"
        failure = ServiceError(413, message, "too_many_documents", param=param)
        return error_response(failure, tei=tei)
    if first["type"] == "model_attributes_type" and not parts:
        sent = request.headers.get("content-type", "without a content type")
        message = "the body is not a JSON object"
        if not sent.partition(";")[0].endswith("json"):
            message = f"the body was sent as {sent}: send JSON with Content-Type: application/json"
    if param:
        message = f"{param} is required" if first["type"] == "missing" else f"{param}: {message}"
    return error_response(ServiceError(422, message, "invalid", param=param), tei=tei)


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    if error.status == 500:
        report(request.state.id, error)
    return error_response(error, tei=_is_tei(request))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed", 400: "invalid_json"}
    code = codes.get(error.status_code, "error")
    message = str(error.detail)
    if error.status_code == 404:
        message = (
            f"no such route: {request.method} {request.url.path[:100]}; there are /v1/rerank, "
            "/v1/score, /v1/embeddings, /v2/embed, /v1/search and the others of /docs"
        )
    failure = ServiceError(error.status_code, message, code, headers=dict(error.headers or {}))
    return error_response(failure, tei=_is_tei(request))
