"""The service's routes as plain functions: checks, admission, deadline, answer. No HTTP, no Ray.

A `Backend` computes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from raydist import __version__
from raydist.serving.admission import (
    Admission,
    Ticket,
    check_size,
    check_tokens,
    estimate_tokens,
)
from raydist.serving.answers import (
    Kind,
    Meta,
    ModelInfo,
    ModelList,
    RerankResponse,
    ScoreResponse,
    SearchResponse,
    TeiInfo,
    Usage,
)
from raydist.serving.backend import (
    Backend,
    Cost,
    EmbedAnswer,
    EmbedCall,
    Hit,
    Metrics,
    ScoreAnswer,
    ScoreCall,
    ScoreFailure,
    ScoreOptions,
    SearchAnswer,
    SearchCall,
)
from raydist.serving.embed_schema import EmbedOrder
from raydist.serving.errors import ServiceError, deadline, not_ready, overloaded
from raydist.serving.keys import Keys
from raydist.serving.query_groups import QueryGroup, by_query, renamed
from raydist.serving.rank_answers import ranked
from raydist.serving.schema import RerankRequest, ScoreRequest, SearchRequest
from raydist.serving.search import by_document, candidates, reranked, results, snippet_call
from raydist.serving.spec import RequestLimits
from raydist.text.passages import Passage

T = TypeVar("T")
_LATELY_S = 10.0
"""A model that answered so lately is ready."""
_LOADING_S = 5.0
"""Seconds after which a client may ask for a model that is loading."""
_GRACE_S = 1.0
"""Seconds that a request waits for a model that is loading."""
_PATIENCE = 1.5
"""A request that waits this many times max_wait_s is refused: its client gives up."""


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
        loading: models that do not work yet.
    """

    backend: Backend
    kinds: Mapping[str, Kind]
    limits: RequestLimits = field(default_factory=RequestLimits)
    keys: Keys = field(default_factory=lambda: Keys([]))
    metrics: Metrics | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    loading: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.started = int(time.time())
        self._hit_tokens = 128.0  # of a hit's text; corrected by every search
        self._readiness: asyncio.Task[None] | None = None
        self._answered: dict[str, float] = {}
        """When each model, and the index, answered last."""
        self.admission = Admission(
            max_tokens=self.limits.queue_tokens,
            max_requests=self.limits.max_requests,
            max_wait_s=self.limits.max_wait_s,
        )

    async def rerank(self, request: RerankRequest, request_id: str, client: str) -> RerankResponse:
        """Answers /rerank."""
        model = self._model(request.model, "reranker")
        await self._loaded(model)
        try:
            texts = request.contents()
        except ValueError as error:
            raise ServiceError(422, str(error), "no_text", param=request.items_field) from None
        options = ScoreOptions(
            truncation=request.mode,
            max_tokens_per_doc=request.max_tokens_per_doc or 0,
            instruction=request.instruction,
            raw_scores=request.logits,
            highlights=(request.limit or len(texts)) if request.return_highlights else 0,
        )
        groups = [
            QueryGroup(request.query, texts, range(len(texts)), texts_field=request.items_field)
        ]
        (answer,) = await self._score(model, groups, client, options)
        results = ranked(request, texts, answer)
        truncated = sum(answer.truncated)
        warnings = [f"{truncated} of {len(texts)} documents were truncated"] if truncated else []
        warnings += answer.warnings
        return RerankResponse.model_construct(
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
        """Answers /score."""
        model = self._model(request.model, "reranker")
        await self._loaded(model)
        options = ScoreOptions(
            truncation=request.truncation,
            instruction=request.instruction,
            raw_scores=request.raw_scores or not request.use_activation,
        )
        texts = request.texts
        check_size(self.limits, "", texts)
        groups = by_query(request.each_query, texts)
        answers = await self._score(model, groups, client, options)
        scores = [0.0] * len(texts)
        for group, answer in zip(groups, answers):
            for position, score in zip(group.positions, answer.scores):
                scores[position] = score
        meta = Meta()
        if answers:
            warnings = list(answers[0].warnings)
            meta = Meta(warnings=warnings, timings_ms=answers[0].cost.timings_ms)
        usage = _usage([answer.cost for answer in answers])
        return ScoreResponse.model_construct(
            id=request_id,
            created=int(time.time()),
            model=model,
            scores=scores,
            data=[{"index": i, "object": "score", "score": s} for i, s in enumerate(scores)],
            usage=usage,
            meta=meta,
        )

    async def embed(
        self, order: EmbedOrder, name: str | None, client: str
    ) -> tuple[str, EmbedAnswer]:
        """Returns the name of the model that answers, and its vectors."""
        model = self._model(name, "embedder")
        await self._loaded(model)
        check_size(self.limits, "", order.texts, field=order.field)
        tokens = self.admission.estimate(model, "", order.texts)
        call = EmbedCall(order.texts, order.role, order.dimensions, order.truncate, order.terms)
        with self._admitted(tokens, client, model) as ticket:
            try:
                answer = await self._within(self.backend.embed(model, call))
            except ServiceError as error:
                if (error.param or "").startswith("texts["):
                    error = renamed(error, order.field + str(error.param).removeprefix("texts"))
                raise error from error.__cause__
            ticket.costs.append(answer.cost)
        self._answered[model] = time.monotonic()
        if self.metrics is not None:
            self.metrics.computed(model, answer.cost, len(order.texts))
        return model, answer

    async def search(self, request: SearchRequest, request_id: str, client: str) -> SearchResponse:
        """Answers /v1/search: one admission and one deadline for all its stages."""
        self._model(None, "index")
        check_size(self.limits, request.query, request.ids or [], field="ids")
        rerankers = [name for name, kind in self.kinds.items() if kind == "reranker"]
        reranker = rerankers[0] if request.rerank and rerankers else None
        await self._loaded("index", *rerankers[:1])
        depth = max(request.depth, request.k)
        call = SearchCall(
            request.query,
            depth,
            request.ids,
            request.filter,
            timeout_s=self.limits.deadline_s,
            partial=request.partial,
            by=by_document(request),
        )
        hits = call.depth if call.ids is None else min(call.depth, len(call.ids))
        tokens = len(call.query) // 4 + hits
        if reranker is not None:
            per_hit = estimate_tokens(call.query, [""]) + round(self._hit_tokens)
            tokens += min(hits, self.limits.max_documents) * per_hit
        with self._admitted(tokens, client, reranker or "index") as ticket:
            answer, warnings, cost = await self._within(self._search(call, reranker))
            hits_, timings = answer.hits[: request.k], dict(answer.timings_ms)
            passages = await self._within(self._snippets(request, hits_, timings))
            if reranker is None:
                cost = Cost(tokens, tokens_per_s=1000 * tokens / max(sum(timings.values()), 1.0))
            ticket.costs.append(cost)
        return SearchResponse(
            id=request_id,
            results=results(hits_, passages, texts=request.return_documents),
            warnings=warnings,
            searched=answer.searched if request.partial else None,
            timings_ms=timings,
        )

    async def _search(
        self, call: SearchCall, reranker: str | None
    ) -> tuple[SearchAnswer, list[str], Cost]:
        """Returns the answer, reranked if asked, warnings, and the reranking's cost."""
        ends = time.monotonic() + self.limits.deadline_s
        answer = await self.backend.search(call)
        self._answered["index"] = time.monotonic()
        hits, timings, warnings = answer.hits, dict(answer.timings_ms), []
        if answer.searched < 1:
            warnings.append(
                f"{answer.searched:.1%} of the documents were searched: a shard is lost"
            )
        if reranker is None or not hits:
            return answer, warnings, Cost()
        start = time.perf_counter()
        chosen, cost = candidates(hits, call.query, self.limits), Cost()
        if texts := chosen.texts:
            group = QueryGroup(call.query, texts, chosen.ranks)
            scored = await self._score_group(reranker, group, ScoreOptions(), ends)
            hits, cost = reranked(hits, chosen.ranks, scored.scores), scored.cost
            mean = estimate_tokens("", texts, overhead=0) / len(texts)
            self._hit_tokens += 0.2 * (mean - self._hit_tokens)
            timings["rerank"] = round((time.perf_counter() - start) * 1000, 3)
        answer = replace(answer, hits=hits, timings_ms=timings)
        return answer, [*warnings, *chosen.warnings], cost

    async def _snippets(
        self, request: SearchRequest, hits: Sequence[Hit], timings: dict[str, float]
    ) -> dict[str, Sequence[Passage]]:
        """Returns the snippets of those hits that have texts, and notes the milliseconds."""
        start = time.perf_counter()
        call = snippet_call(request, hits)
        if not call.texts:
            return {}
        passages = await self.backend.snippets(call)
        timings["snippets"] = round((time.perf_counter() - start) * 1000, 3)
        return dict(zip((hit.doc_id for hit in hits if hit.document), passages))

    def models(self) -> ModelList:
        """Answers /v1/models."""
        return ModelList(data=[self._info(name) for name in self.kinds])

    def model(self, name: str) -> ModelInfo:
        """Answers /v1/models/NAME; raises ServiceError 404."""
        served = self.aliases.get(name, name)
        if served not in self.kinds:
            choice = f"served here: {', '.join(self.kinds)}"
            message = f"model {name[:100]!r} not found; {choice}"
            raise ServiceError(404, message, "model_not_found", param="model")
        return self._info(served)

    def info(self) -> TeiInfo:
        """Answers /info."""
        name, kind = next(iter(self.kinds.items()))
        kinds = {"embedder": {"embedding": {"pooling": "own"}}}
        return TeiInfo(
            model_id=name,
            model_type=kinds.get(kind, {kind: {}}),
            max_client_batch_size=self.limits.max_documents,
            max_concurrent_requests=self.limits.max_requests,
            version=__version__,
        )

    def _info(self, name: str) -> ModelInfo:
        return ModelInfo(id=name, created=self.started, kind=self.kinds[name])

    async def ready(self) -> None:
        """Tries the models and the index that gave no answer of late; raises ServiceError 503.

        It needs no key, so requests at the same time share one try.
        """
        if self._readiness is None or self._readiness.done():
            self._readiness = asyncio.create_task(self._check_models())
        await asyncio.shield(self._readiness)

    async def _check_models(self) -> None:
        await self._loaded(*self.kinds)
        for name in self.kinds:
            if time.monotonic() - self._answered.get(name, -_LATELY_S) < _LATELY_S:
                continue  # a try would wait behind the requests of others
            try:
                async with asyncio.timeout(self.limits.deadline_s):
                    await self.backend.check(name)
            except TimeoutError:
                raise not_ready(f"{name} does not answer") from None
            except ServiceError as error:
                if error.status == 429:  # all replicas are at work
                    continue
                if error.status != 500:
                    raise
                raise not_ready(f"{name} does not work: {error.message}") from error

    async def _score(
        self, model: str, groups: Sequence[QueryGroup], client: str, options: ScoreOptions
    ) -> list[ScoreAnswer]:
        """Returns an answer for each group; all are admitted together."""
        tokens = sum(
            check_size(self.limits, g.query, g.texts, g.texts_field, query_field=g.field)
            for g in groups
        )
        check_tokens(self.limits, tokens)
        tokens = sum(self.admission.estimate(model, g.query, g.texts, options) for g in groups)
        ends = time.monotonic() + self.limits.deadline_s
        with self._admitted(tokens, client, model) as ticket:
            if len(groups) == 1 and groups[0].texts:
                (group,) = groups
                answers = [await self._within(self._score_group(model, group, options, ends))]
            else:
                answers = await self._within(self._score_groups(model, groups, options, ends))
            ticket.costs += [answer.cost for answer in answers]
            return answers

    async def _score_groups(
        self, model: str, groups: Sequence[QueryGroup], options: ScoreOptions, ends: float
    ) -> list[ScoreAnswer]:
        """Lets a model score the texts of several queries, in one call."""
        full = [group for group in groups if group.texts]
        if not full:
            return [ScoreAnswer() for _ in groups]
        answers = await self.backend.score_many(
            model, [self._call(group, options, ends) for group in full]
        )
        if isinstance(answers, ScoreFailure):
            raise full[answers.number].in_request(answers.error)
        for group, answer in zip(full, answers):
            self._count(model, group, answer)
        by_group = iter(answers)
        return [next(by_group) if group.texts else ScoreAnswer() for group in groups]

    async def _score_group(
        self, model: str, group: QueryGroup, options: ScoreOptions, ends: float
    ) -> ScoreAnswer:
        """Lets a model score one query's texts until `ends`."""
        try:
            answer = await self.backend.score(model, self._call(group, options, ends))
        except ServiceError as error:
            raise group.in_request(error) from error.__cause__
        self._count(model, group, answer)
        return answer

    def _call(self, group: QueryGroup, options: ScoreOptions, ends: float) -> ScoreCall:
        timeout_s = max(ends - time.monotonic(), 1e-3)
        patience_s = _PATIENCE * self.limits.max_wait_s
        return ScoreCall(group.query, group.texts, options, timeout_s, patience_s)

    def _count(self, model: str, group: QueryGroup, answer: ScoreAnswer) -> None:
        self._answered[model] = time.monotonic()
        if self.metrics is not None:
            self.metrics.computed(model, answer.cost, len(group.texts))

    @contextmanager
    def _admitted(self, tokens: int, client: str, model: str) -> Iterator[Ticket]:
        try:
            with self.admission.enter(tokens, client, model) as ticket:
                self._show_admitted()
                try:
                    yield ticket
                except ServiceError as error:
                    if error.status != 429:
                        raise
                    # A replica's queue is full, and does not know how long it takes.
                    wait_s = self.admission.backlog_s()
                    raise overloaded(wait_s, "all replicas are busy") from None
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
        model = self.aliases.get(name, name) if name is not None else next(iter(served), None)
        if model is None or model not in served:
            what = f"model {name[:100]!r}" if name is not None else kind
            choice = f"served here: {', '.join(served)}" if served else f"no {kind} is served here"
            raise ServiceError(404, f"{what} not found; {choice}", "model_not_found", param="model")
        return model

    async def _loaded(self, *models: str) -> None:
        """Waits a moment for models that are loading; raises ServiceError 503.

        The moment is for an ingress that is new itself, and finds its models a little later.
        """
        ends = time.monotonic() + _GRACE_S
        while loading := self.loading.intersection(models):
            if time.monotonic() > ends:
                names = ", ".join(sorted(loading))
                raise not_ready(f"{names} is loading; try again", _LOADING_S)
            await asyncio.sleep(0.02)


def _usage(costs: Sequence[Cost]) -> Usage:
    tokens = sum(cost.tokens for cost in costs)
    cached = sum(cost.cached_prefix_tokens for cost in costs)
    return Usage(prompt_tokens=tokens, total_tokens=tokens, cached_prefix_tokens=cached)
