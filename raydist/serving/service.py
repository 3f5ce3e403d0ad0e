"""The service's routes as plain functions: checks, admission, deadline, answer. No HTTP, no Ray.

What computes is a `Backend`.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from raydist.serving.admission import Admission, estimate_tokens
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
    Usage,
)
from raydist.serving.asked import NOTHING, Asked, by_query
from raydist.serving.backend import Backend, Metrics
from raydist.serving.errors import ServiceError, deadline
from raydist.serving.found import readable, reordered, search_results
from raydist.serving.keys import Keys
from raydist.serving.limits import Limits
from raydist.serving.schema import EmbeddingsRequest, RerankRequest, ScoreRequest, SearchRequest
from raydist.serving.trial import Trial

T = TypeVar("T")
_AT_ONCE = 16  # queries of one request that are scored at once
_PATIENCE = 1.5  # a request that waits this many times max_wait_s is refused: its client gives up


@dataclass
class Service:
    """The served models and the rules of the house.

    Attributes:
        backend: what computes.
        kinds: each model's name and kind (`reranker`, `embedder`, `index`), defaults first.
        limits: what requests may ask for.
        keys: who is let in.
        metrics: where numbers go, if anywhere.
        aliases: further names of models, and the name that each stands for.
    """

    backend: Backend
    kinds: Mapping[str, Kind]
    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=lambda: Keys([]))
    metrics: Metrics | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._hit_tokens = 128.0  # of a found document; corrected by every search
        self._trial = Trial(self.backend, self.kinds, self.limits.deadline_s)
        self.admission = Admission(
            max_tokens=self.limits.queue_tokens,
            max_requests=self.limits.max_requests,
            max_wait_s=self.limits.max_wait_s,
        )

    async def rerank(self, request: RerankRequest, request_id: str, client: str) -> RerankResponse:
        """Answers /rerank."""
        model = self._model(request.model, "reranker")
        try:
            texts = request.contents()
        except ValueError as error:
            raise ServiceError(422, str(error), "no_text", param="documents") from None
        (answer,) = await self._score(
            model,
            [Asked(request.query, texts, range(len(texts)))],
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
        warnings += answer.get("warnings", [])
        if request.max_chunks_per_doc is not None:
            warnings.append("max_chunks_per_doc is ignored; see truncation: chunk_max")
        return RerankResponse(
            id=request_id,
            model=model,
            results=results,
            data=results,
            usage=_usage([answer]),
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
        self.limits.check("", texts)
        asked = by_query(request.queries, texts)
        answers = await self._score(model, asked, client, **options)
        scores = [0.0] * len(texts)
        for each, answer in zip(asked, answers):
            for place, value in zip(each.places, answer["scores"]):
                scores[place] = value
        timings = answers[0]["timings_ms"] if answers else {}
        warnings = answers[0].get("warnings", []) if answers else []
        return ScoreResponse(
            id=request_id,
            model=model,
            scores=scores,
            usage=_usage(answers),
            meta=Meta(warnings=warnings, timings_ms=timings),
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
        return EmbeddingsResponse(model=model, data=data, usage=_usage([answer]))

    async def search(self, request: SearchRequest, request_id: str, client: str) -> SearchResponse:
        """Answers /v1/search: one admission and one deadline for all its stages."""
        self._model(None, "index")
        self.limits.check(request.query, request.ids or [], field="ids")
        rerankers = [name for name, kind in self.kinds.items() if kind == "reranker"]
        reranker = rerankers[0] if request.rerank and rerankers else None
        depth = max(request.depth, request.k)
        hits = depth if request.ids is None else min(depth, len(request.ids))
        tokens = len(request.query) // 4 + hits
        if reranker is not None:
            each = estimate_tokens(request.query, [""]) + round(self._hit_tokens)
            tokens += min(hits, self.limits.max_documents) * each
        with self._admitted(tokens, client, reranker or "index"):
            return await self._within(self._search(request, request_id, depth, reranker))

    async def _search(
        self, request: SearchRequest, request_id: str, depth: int, reranker: str | None
    ) -> SearchResponse:
        ends = time.monotonic() + self.limits.deadline_s
        work = {"query": request.query, "depth": depth, "ids": request.ids}
        found = await self.backend.search(work)
        hits, timings = found["hits"], dict(found["timings_ms"])
        warnings: list[str] = []
        if reranker is not None and hits:
            begun = time.perf_counter()
            reading = readable(hits, request.query, self.limits)
            warnings = reading.warnings
            if reading.texts:
                asked = Asked(request.query, reading.texts, reading.places)
                answer = await self._ask(reranker, asked, ends)
                hits = reordered(hits, reading, answer["scores"])
                mean = estimate_tokens("", reading.texts, overhead=0) / len(reading.texts)
                self._hit_tokens += 0.2 * (mean - self._hit_tokens)
                timings["rerank"] = round((time.perf_counter() - begun) * 1000, 3)
        return SearchResponse(
            id=request_id,
            results=search_results(hits[: request.k], texts=request.return_documents),
            warnings=warnings,
            timings_ms=timings,
        )

    def models(self) -> ModelList:
        """Answers /v1/models."""
        return ModelList(data=[ModelInfo(id=n, kind=k) for n, k in self.kinds.items()])

    async def ready(self) -> None:
        """Tries every model and the index; raises ServiceError 503 if one does not work."""
        await self._trial.passed()

    async def _score(
        self, model: str, asked: Sequence[Asked], client: str, **options: Any
    ) -> list[dict[str, Any]]:
        """Returns an answer for each query and its texts, let in together."""
        tokens = sum(self.limits.check(each.query, each.texts, asked=each.field) for each in asked)
        self.limits.check_tokens(tokens)
        turns = asyncio.Semaphore(_AT_ONCE)
        ends = time.monotonic() + self.limits.deadline_s

        async def one(each: Asked) -> dict[str, Any]:
            if not each.texts:
                return dict(NOTHING)
            async with turns:
                return await self._ask(model, each, ends, **options)

        with self._admitted(tokens, client, model):
            tasks = [asyncio.create_task(one(each)) for each in asked]
            try:
                return await self._within(asyncio.gather(*tasks))
            finally:
                for task in tasks:  # where one failed, or the client went away
                    task.cancel()

    async def _ask(self, model: str, asked: Asked, ends: float, **options: Any) -> dict[str, Any]:
        """Lets a model score one query's texts until `ends`."""
        request = {
            "query": asked.query,
            "documents": asked.texts,
            "timeout_s": max(ends - time.monotonic(), 1e-3),
            "patience_s": _PATIENCE * self.limits.max_wait_s,
        }
        try:
            answer = await self.backend.score(model, request | options)
        except ServiceError as error:
            raise asked.placed(error) from error.__cause__
        if self.metrics is not None:
            self.metrics.scored(model, answer, len(asked.texts))
        return answer

    @contextmanager
    def _admitted(self, tokens: int, client: str, model: str) -> Iterator[None]:
        try:
            with self.admission.enter(tokens, client, model):
                self._show()
                yield
        finally:
            self._show()

    def _show(self) -> None:
        if self.metrics is not None:
            self.metrics.under_way(self.admission.requests, self.admission.tokens)

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
        if (named := self.aliases.get(name or "", name)) in known:
            return named
        what = f"model {name!r}" if name is not None else f"{kind}"
        there = f"served here: {', '.join(known)}" if known else f"no {kind} is served here"
        raise ServiceError(404, f"{what} not found; {there}", "model_not_found", param="model")


def _usage(answers: Sequence[Mapping[str, Any]]) -> Usage:
    tokens = sum(answer["tokens"] for answer in answers)
    cached = sum(answer["cached_prefix_tokens"] for answer in answers)
    return Usage(prompt_tokens=tokens, total_tokens=tokens, cached_prefix_tokens=cached)
