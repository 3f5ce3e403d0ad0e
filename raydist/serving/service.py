"""The service's routes as plain functions: checks, admission, deadline, answer. No HTTP, no Ray.

A `Backend` computes.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from raydist.serving.admission import Admission, check_size, check_tokens, estimate_tokens
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
from raydist.serving.backend import (
    Backend,
    Cost,
    EmbedCall,
    Hit,
    Metrics,
    ScoreAnswer,
    ScoreCall,
    ScoreOptions,
    SearchCall,
)
from raydist.serving.errors import ServiceError, deadline, not_ready
from raydist.serving.keys import Keys
from raydist.serving.schema import EmbeddingsRequest, RerankRequest, ScoreRequest, SearchRequest
from raydist.serving.search import candidates, reranked
from raydist.serving.spec import Limits

T = TypeVar("T")
_CONCURRENT_QUERIES = 16
"""Queries of one request that are scored at once."""
_PATIENCE = 1.5
"""A request that waits this many times max_wait_s is refused: its client gives up."""


@dataclass(frozen=True, slots=True)
class _Group:
    """One query of a request, with its documents.

    Attributes:
        query: the query's text.
        texts: the documents'.
        positions: of the texts among the request's documents.
        field: where the request has the query.
    """

    query: str
    texts: list[str]
    positions: Sequence[int]
    field: str = "query"

    def in_request(self, error: ServiceError) -> ServiceError:
        """Returns an error of the group's second document, say, as one of the request's fifth."""
        match = re.fullmatch(r"documents\[(\d+)\]", error.param or "")
        if match is None:
            return error
        param = f"documents[{self.positions[int(match[1])]}]"
        message = error.message.replace(match[0], param)
        return ServiceError(error.status, message, error.code, param=param, headers=error.headers)


@dataclass
class Service:
    """The served models and the rules for requests.

    Attributes:
        backend: the models.
        kinds: each model's name and kind (`reranker`, `embedder`, `index`), defaults first.
        limits: of requests.
        keys: of the clients.
        metrics: counters, if any.
        aliases: further names of models, by which `kinds` has them under another.
    """

    backend: Backend
    kinds: Mapping[str, Kind]
    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=lambda: Keys([]))
    metrics: Metrics | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._hit_tokens = 128.0  # of a hit's text; corrected by every search
        self._readiness: asyncio.Task[None] | None = None
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
        options = ScoreOptions(
            truncation=request.mode,
            max_tokens_per_doc=request.max_tokens_per_doc or 0,
            instruction=request.instruction,
            raw_scores=request.raw_scores,
        )
        groups = [_Group(request.query, texts, range(len(texts)))]
        (answer,) = await self._score(model, groups, client, options)
        results = _rerank_results(request, texts, answer)
        truncated = sum(answer.truncated)
        warnings = [f"{truncated} of {len(texts)} documents were truncated"] if truncated else []
        warnings += answer.warnings
        if request.max_chunks_per_doc is not None:
            warnings.append("max_chunks_per_doc is ignored; see truncation: chunk_max")
        return RerankResponse(
            id=request_id,
            model=model,
            results=results,
            data=results,
            usage=_usage([answer.cost]),
            meta=Meta(
                warnings=warnings,
                timings_ms=answer.cost.timings_ms,
                model_version=answer.version or None,
            ),
        )

    async def score(self, request: ScoreRequest, request_id: str, client: str) -> ScoreResponse:
        """Answers /v1/score."""
        model = self._model(request.model, "reranker")
        options = ScoreOptions(
            truncation=request.truncation,
            instruction=request.instruction,
            raw_scores=request.raw_scores,
        )
        check_size(self.limits, "", request.documents)
        groups = _by_query(request.queries, request.documents)
        answers = await self._score(model, groups, client, options)
        scores = [0.0] * len(request.documents)
        for group, answer in zip(groups, answers):
            for position, score in zip(group.positions, answer.scores):
                scores[position] = score
        meta = Meta()
        if answers:
            warnings = list(answers[0].warnings)
            meta = Meta(warnings=warnings, timings_ms=answers[0].cost.timings_ms)
        usage = _usage([answer.cost for answer in answers])
        return ScoreResponse(id=request_id, model=model, scores=scores, usage=usage, meta=meta)

    async def embeddings(
        self, request: EmbeddingsRequest, request_id: str, client: str
    ) -> EmbeddingsResponse:
        """Answers /v1/embeddings."""
        model = self._model(request.model, "embedder")
        texts = [request.input] if isinstance(request.input, str) else request.input
        tokens = check_size(self.limits, "", texts, field="input")
        call = EmbedCall(texts, request.input_type, request.dimensions or 0)
        with self._admitted(tokens, client, model):
            answer = await self._within(self.backend.embed(model, call))
        if self.metrics is not None:
            self.metrics.computed(model, answer.cost, len(texts))
        data = [
            Embedding(
                index=position,
                embedding=base64.b64encode(vector_D.astype("<f4").tobytes()).decode()
                if request.encoding_format == "base64"
                else vector_D.tolist(),
            )
            for position, vector_D in enumerate(np.asarray(answer.vectors_nD))
        ]
        return EmbeddingsResponse(model=model, data=data, usage=_usage([answer.cost]))

    async def search(self, request: SearchRequest, request_id: str, client: str) -> SearchResponse:
        """Answers /v1/search: one admission and one deadline for all its stages."""
        self._model(None, "index")
        check_size(self.limits, request.query, request.ids or [], field="ids")
        rerankers = [name for name, kind in self.kinds.items() if kind == "reranker"]
        reranker = rerankers[0] if request.rerank and rerankers else None
        call = SearchCall(request.query, max(request.depth, request.k), request.ids)
        hits = call.depth if call.ids is None else min(call.depth, len(call.ids))
        tokens = len(call.query) // 4 + hits
        if reranker is not None:
            per_hit = estimate_tokens(call.query, [""]) + round(self._hit_tokens)
            tokens += min(hits, self.limits.max_documents) * per_hit
        with self._admitted(tokens, client, reranker or "index"):
            hits_, timings, warnings = await self._within(self._search(call, reranker))
        return SearchResponse(
            id=request_id,
            results=_search_results(hits_[: request.k], texts=request.return_documents),
            warnings=warnings,
            timings_ms=timings,
        )

    async def _search(
        self, call: SearchCall, reranker: str | None
    ) -> tuple[Sequence[Hit], dict[str, float], list[str]]:
        """Returns the hits, the milliseconds of each stage, and warnings."""
        ends = time.monotonic() + self.limits.deadline_s
        answer = await self.backend.search(call)
        hits, timings = answer.hits, dict(answer.timings_ms)
        if reranker is None or not hits:
            return hits, timings, []
        start = time.perf_counter()
        chosen = candidates(hits, call.query, self.limits)
        if texts := chosen.texts:
            group = _Group(call.query, texts, chosen.ranks)
            scored = await self._score_group(reranker, group, ScoreOptions(), ends)
            hits = reranked(hits, chosen.ranks, scored.scores)
            mean = estimate_tokens("", texts, overhead=0) / len(texts)
            self._hit_tokens += 0.2 * (mean - self._hit_tokens)
            timings["rerank"] = round((time.perf_counter() - start) * 1000, 3)
        return hits, timings, chosen.warnings

    def models(self) -> ModelList:
        """Answers /v1/models."""
        return ModelList(data=[ModelInfo(id=n, kind=k) for n, k in self.kinds.items()])

    async def ready(self) -> None:
        """Tries every model and the index; raises ServiceError 503 if one does not work.

        It needs no key, so requests at the same time share one try.
        """
        if self._readiness is None or self._readiness.done():
            self._readiness = asyncio.create_task(self._check_models())
        await asyncio.shield(self._readiness)

    async def _check_models(self) -> None:
        for name in self.kinds:
            try:
                async with asyncio.timeout(self.limits.deadline_s):
                    await self.backend.check(name)
            except TimeoutError:
                raise not_ready(f"{name} does not answer") from None
            except ServiceError as error:
                if error.status != 500:
                    raise
                raise not_ready(f"{name} does not work: {error.message}") from error

    async def _score(
        self, model: str, groups: Sequence[_Group], client: str, options: ScoreOptions
    ) -> list[ScoreAnswer]:
        """Returns an answer for each group; all are admitted together."""
        tokens = sum(check_size(self.limits, g.query, g.texts, query_field=g.field) for g in groups)
        check_tokens(self.limits, tokens)
        slots = asyncio.Semaphore(_CONCURRENT_QUERIES)
        ends = time.monotonic() + self.limits.deadline_s

        async def score(group: _Group) -> ScoreAnswer:
            if not group.texts:
                return ScoreAnswer()
            async with slots:
                return await self._score_group(model, group, options, ends)

        with self._admitted(tokens, client, model):
            tasks = [asyncio.create_task(score(group)) for group in groups]
            try:
                return await self._within(asyncio.gather(*tasks))
            finally:
                for task in tasks:  # where one failed, or the client went away
                    task.cancel()

    async def _score_group(
        self, model: str, group: _Group, options: ScoreOptions, ends: float
    ) -> ScoreAnswer:
        """Lets a model score one query's texts until `ends`."""
        timeout_s = max(ends - time.monotonic(), 1e-3)
        patience_s = _PATIENCE * self.limits.max_wait_s
        call = ScoreCall(group.query, group.texts, options, timeout_s, patience_s)
        try:
            answer = await self.backend.score(model, call)
        except ServiceError as error:
            raise group.in_request(error) from error.__cause__
        if self.metrics is not None:
            self.metrics.computed(model, answer.cost, len(group.texts))
        return answer

    @contextmanager
    def _admitted(self, tokens: int, client: str, model: str) -> Iterator[None]:
        try:
            with self.admission.enter(tokens, client, model):
                self._show_admitted()
                yield
        finally:
            self._show_admitted()

    def _show_admitted(self) -> None:
        if self.metrics is not None:
            self.metrics.under_way(self.admission.requests, self.admission.tokens)

    async def _within(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self.limits.deadline_s):
                return await work
        except TimeoutError:
            raise deadline(self.limits.deadline_s) from None

    def _model(self, name: str | None, kind: Kind) -> str:
        """Returns the served model of that name and kind, or the first of the kind."""
        served = [model for model, its_kind in self.kinds.items() if its_kind == kind]
        if name is None and served:
            return served[0]
        if (full_name := self.aliases.get(name or "", name)) in served:
            return full_name
        what = f"model {name!r}" if name is not None else kind
        choice = f"served here: {', '.join(served)}" if served else f"no {kind} is served here"
        raise ServiceError(404, f"{what} not found; {choice}", "model_not_found", param="model")


def _by_query(queries: str | Sequence[str], texts: list[str]) -> list[_Group]:
    """Returns each distinct query with its texts: one for all, or one for each text."""
    if isinstance(queries, str):
        return [_Group(queries, texts, range(len(texts)), "queries")]
    positions: dict[str, list[int]] = {}
    for position, query in enumerate(queries):
        positions.setdefault(query, []).append(position)
    return [
        _Group(query, [texts[position] for position in own], own, f"queries[{own[0]}]")
        for query, own in positions.items()
    ]


def _rerank_results(
    request: RerankRequest, texts: Sequence[str], answer: ScoreAnswer
) -> list[RerankResult]:
    """Returns the first results, best first; equal scores in the request's order."""
    order = sorted(range(len(texts)), key=lambda position: (-answer.scores[position], position))
    ids = request.ids()
    with_texts = request.return_documents or request.return_text
    return [
        RerankResult(
            index=position,
            id=ids[position],
            relevance_score=answer.scores[position],
            document=DocumentText(text=texts[position]) if with_texts else None,
            truncated=answer.truncated[position],
            chunks=answer.chunks[position],
        )
        for position in order[: request.limit]
    ]


def _search_results(hits: Sequence[Hit], *, texts: bool) -> list[SearchResult]:
    """Returns the results of hits, with or without their texts."""
    return [
        SearchResult(
            rank=rank,
            id=hit.doc_id,
            score=list(hit.scores.values())[-1],
            scores=dict(hit.scores),
            title=hit.document.title if texts and hit.document else None,
            text=hit.document.text if texts and hit.document else None,
        )
        for rank, hit in enumerate(hits, 1)
    ]


def _usage(costs: Sequence[Cost]) -> Usage:
    tokens = sum(cost.tokens for cost in costs)
    cached = sum(cost.cached_prefix_tokens for cost in costs)
    return Usage(prompt_tokens=tokens, total_tokens=tokens, cached_prefix_tokens=cached)
