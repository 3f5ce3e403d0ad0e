"""The service's routes as plain functions: checks, admission, deadline, answer. No HTTP, no Ray.

What computes is a `Backend`.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from raydist.serving.admission import Admission
from raydist.serving.answers import (
    DocumentText,
    Embedding,
    EmbeddingsResponse,
    Kind,
    Meta,
    ModelInfo,
    ModelList,
    RerankResponse,
    RerankResult,
    ScoreResponse,
    SearchResponse,
    SearchResult,
    Usage,
)
from raydist.serving.backend import Backend, Metrics
from raydist.serving.errors import ServiceError, deadline, not_ready
from raydist.serving.keys import Keys
from raydist.serving.limits import Limits
from raydist.serving.schema import EmbeddingsRequest, RerankRequest, ScoreRequest, SearchRequest

__all__ = ["Service"]

T = TypeVar("T")
_AT_ONCE = 16  # queries of one request that are scored at once
_PATIENCE = 1.5  # a request that waits this many times max_wait_s is refused: its client gives up
_NOTHING: Mapping[str, Any] = {
    "scores": [],
    "truncated": [],
    "chunks": [],
    "tokens": 0,
    "cached_prefix_tokens": 0,
    "timings_ms": {"queue": 0.0, "tokenize": 0.0, "infer": 0.0},
}


@dataclass
class Service:
    """The served models and the rules of the house.

    Attributes:
        backend: what computes.
        kinds: each model's name and kind (`reranker`, `embedder`, `index`), defaults first.
        limits: what requests may ask for.
        keys: bearer keys; none lets everybody in.
        metrics: where numbers go, if anywhere.
        fetch: whether the index's documents have texts, so that they can be reranked.
    """

    backend: Backend
    kinds: Mapping[str, Kind]
    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=lambda: Keys([]))
    metrics: Metrics | None = None
    fetch: bool = True
    draining: bool = False

    def __post_init__(self) -> None:
        self.admission = Admission(
            max_tokens=self.limits.queue_tokens,
            max_requests=self.limits.max_requests,
            max_wait_s=self.limits.max_wait_s,
        )

    def client(self, authorization: str | None) -> str:
        """Returns the client's name; raises ServiceError 401 for a wrong or missing key."""
        if not self.keys:
            return ""
        found = self.keys.client(authorization)
        if found is None:
            raise ServiceError(
                401,
                "a valid key is needed: Authorization: Bearer KEY",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return found

    async def rerank(self, request: RerankRequest, request_id: str, client: str) -> RerankResponse:
        """Answers /rerank."""
        model = self._model(request.model, "reranker")
        try:
            texts = request.contents()
        except ValueError as error:
            raise ServiceError(422, str(error), "no_text", param="documents") from None
        (answer,) = await self._score(
            model,
            [(request.query, texts)],
            client,
            truncation=request.mode,
            max_tokens_per_doc=request.max_tokens_per_doc,
            instruction=request.instruction,
            raw_scores=request.raw_scores,
        )
        scores = answer["scores"]
        order = sorted(range(len(texts)), key=lambda place: (-scores[place], place))
        ids = request.ids()
        texts_too = request.return_documents or request.return_text
        results = [
            RerankResult(
                index=place,
                id=ids[place],
                relevance_score=scores[place],
                document=DocumentText(text=texts[place]) if texts_too else None,
                truncated=answer["truncated"][place],
                chunks=answer["chunks"][place],
            )
            for place in order[: request.limit]
        ]
        cut = sum(answer["truncated"])
        warnings = [f"{cut} of {len(texts)} documents were truncated"] if cut else []
        if request.max_chunks_per_doc is not None:
            warnings.append("max_chunks_per_doc is ignored; see truncation: chunk_max")
        return RerankResponse(
            id=request_id,
            model=model,
            results=results,
            data=results,
            usage=_usage(answer),
            meta=Meta(
                warnings=warnings,
                timings_ms=answer["timings_ms"],
                model_version=answer.get("version") or None,
            ),
        )

    async def score(self, request: ScoreRequest, request_id: str, client: str) -> ScoreResponse:
        """Answers /v1/score."""
        model = self._model(request.model, "reranker")
        options = {
            "truncation": request.truncation,
            "instruction": request.instruction,
            "raw_scores": request.raw_scores,
        }
        texts = request.documents
        places: dict[str, list[int]] = {}
        if isinstance(request.queries, str):
            places[request.queries] = list(range(len(texts)))
        else:
            for place, query in enumerate(request.queries):
                places.setdefault(query, []).append(place)
        self.limits.check("", texts)
        asked = [(query, [texts[p] for p in mine]) for query, mine in places.items()]
        answers = await self._score(model, asked, client, **options)
        scores = [0.0] * len(texts)
        for mine, answer in zip(places.values(), answers):
            for place, value in zip(mine, answer["scores"]):
                scores[place] = value
        usage = [_usage(answer) for answer in answers]
        total = Usage(
            prompt_tokens=sum(u.prompt_tokens for u in usage),
            total_tokens=sum(u.total_tokens for u in usage),
            cached_prefix_tokens=sum(u.cached_prefix_tokens for u in usage),
        )
        timings = answers[0]["timings_ms"] if answers else {}
        return ScoreResponse(
            id=request_id, model=model, scores=scores, usage=total, meta=Meta(timings_ms=timings)
        )

    async def embeddings(
        self, request: EmbeddingsRequest, request_id: str, client: str
    ) -> EmbeddingsResponse:
        """Answers /v1/embeddings."""
        model = self._model(request.model, "embedder")
        texts = [request.input] if isinstance(request.input, str) else request.input
        tokens = self.limits.check("", texts, field="input")
        work = {"texts": texts, "role": request.input_type, "dimensions": request.dimensions}
        with self._admitted(tokens, client, model):
            answer = await self._within(self.backend.embed(model, work))
        if self.metrics is not None:
            self.metrics.scored(model, answer, len(texts))
        vectors_nd = np.frombuffer(answer["vectors"], "<f4").reshape(len(texts), -1)
        data = [
            Embedding(
                index=place,
                embedding=base64.b64encode(row.tobytes()).decode()
                if request.encoding_format == "base64"
                else row.tolist(),
            )
            for place, row in enumerate(vectors_nd)
        ]
        usage = Usage(prompt_tokens=answer["tokens"], total_tokens=answer["tokens"])
        return EmbeddingsResponse(model=model, data=data, usage=usage)

    async def search(self, request: SearchRequest, request_id: str, client: str) -> SearchResponse:
        """Answers /v1/search."""
        self._model(None, "index")
        self.limits.check(request.query, request.ids or [], field="ids")
        depth = max(request.depth, request.k)
        with self._admitted(len(request.query) // 4 + depth, client, "index"):
            work = {"query": request.query, "depth": depth, "ids": request.ids}
            found = await self._within(self.backend.search(work))
        hits, timings = found["hits"], dict(found["timings_ms"])
        rerankers = [name for name, kind in self.kinds.items() if kind == "reranker"]
        if request.rerank and rerankers and hits and self.fetch:
            begun = time.perf_counter()
            texts = [hit["contents"] for hit in hits]
            (answer,) = await self._score(rerankers[0], [(request.query, texts)], client)
            for hit, value in zip(hits, answer["scores"]):
                hit["scores"]["rerank"] = value
            hits.sort(key=lambda hit: -hit["scores"]["rerank"])
            timings["rerank"] = round((time.perf_counter() - begun) * 1000, 3)
        results = [
            SearchResult(
                rank=rank,
                id=hit["id"],
                score=list(hit["scores"].values())[-1],
                scores=hit["scores"],
                title=hit["title"] if request.return_documents else None,
                text=hit["text"] if request.return_documents else None,
            )
            for rank, hit in enumerate(hits[: request.k], 1)
        ]
        return SearchResponse(id=request_id, results=results, timings_ms=timings)

    def models(self) -> ModelList:
        """Answers /v1/models."""
        return ModelList(data=[ModelInfo(id=n, kind=k) for n, k in self.kinds.items()])

    async def ready(self) -> None:
        """Tries every model and the index; raises ServiceError 503 if one does not work."""
        if self.draining:
            raise not_ready("the service is shutting down")
        for name in self.kinds:
            try:
                async with asyncio.timeout(self.limits.deadline_s):
                    await self.backend.check(name)
            except TimeoutError:
                raise not_ready(f"{name} does not answer") from None

    async def _score(
        self, model: str, asked: Sequence[tuple[str, list[str]]], client: str, **options: Any
    ) -> list[dict[str, Any]]:
        """Returns an answer for each query and its texts, let in together."""
        tokens = sum(self.limits.check(query, texts) for query, texts in asked)
        self.limits.check_tokens(tokens)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(query: str, texts: list[str]) -> dict[str, Any]:
            if not texts:
                return dict(_NOTHING)
            request = {
                "query": query,
                "documents": texts,
                "timeout_s": self.limits.deadline_s,
                "patience_s": _PATIENCE * self.limits.max_wait_s,
            }
            async with turns:
                answer = await self.backend.score(model, request | options)
            if self.metrics is not None:
                self.metrics.scored(model, answer, len(texts))
            return answer

        with self._admitted(tokens, client, model):
            tasks = [asyncio.create_task(one(*each)) for each in asked]
            try:
                return await self._within(asyncio.gather(*tasks))
            finally:
                for task in tasks:  # where one failed, or the client went away
                    task.cancel()

    def _admitted(self, tokens: int, client: str, model: str) -> Any:
        if self.draining:
            raise not_ready("the service is shutting down")
        if self.metrics is not None:
            self.metrics.under_way(self.admission.requests + 1, self.admission.tokens + tokens)
        return self.admission.enter(tokens, client, model)

    async def _within(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self.limits.deadline_s):
                return await work
        except TimeoutError:
            raise deadline(self.limits.deadline_s) from None

    def _model(self, name: str | None, kind: str) -> str:
        """Returns the served model of that name and kind, or the first of the kind."""
        known = [model for model, its in self.kinds.items() if its == kind]
        if name is None and known:
            return known[0]
        if name in known:
            return name
        what = f"model {name!r}" if name is not None else f"{kind}"
        there = f"served here: {', '.join(known)}" if known else f"no {kind} is served here"
        raise ServiceError(404, f"{what} not found; {there}", "model_not_found", param="model")


def _usage(answer: Mapping[str, Any]) -> Usage:
    return Usage(
        prompt_tokens=answer["tokens"],
        total_tokens=answer["tokens"],
        cached_prefix_tokens=answer["cached_prefix_tokens"],
    )
