"""What runs in a replica: a reranker, an encoder, or an index; each in a process of its own.

An expected error is returned instead of being raised: Serve would log its traceback and wrap it.

Shapes: n texts, D dimensions.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from raydist.config.serve import ServeConfig
from raydist.errors import ConfigError
from raydist.models.spec import EncoderSource
from raydist.protocols import Encoder, Reranker
from raydist.rerank.batcher import DeadlinePassed, MicroBatcher, NotStarted, Times
from raydist.rerank.engine import Engine
from raydist.rerank.load import load_reranker
from raydist.rerank.rows import Options, TooLong
from raydist.rerank.spec import Bm25Spec, RegisteredSpec, ServedRerankerSpec
from raydist.serving.admission import estimate_tokens
from raydist.serving.backend import (
    Cost,
    EmbedAnswer,
    EmbedCall,
    ScoreAnswer,
    ScoreCall,
    ScoreFailure,
    SearchAnswer,
    SearchCall,
)
from raydist.serving.errors import ServiceError, deadline, not_ready
from raydist.serving.frame import open_log
from raydist.serving.metrics import BatcherMetrics
from raydist.serving.watcher import ModelVersion, ModelWatcher, locate

if TYPE_CHECKING:
    from raydist.serving.lengths import Lengths

A = TypeVar("A")
_QUERY = "what causes rain?"
_TEXTS = ["Rain falls from clouds.", "Bread is baked in an oven."]
_WARMUP = [f"{i} {' '.join(_TEXTS * 5)}" for i in range(8)]


class RerankerModel:
    """One reranker, many requests at once.

    Those with a scorer engine share its micro-batches; BM25, which has no model, scores one request
    after another in a thread of its own.
    """

    def __init__(self, reranker: Reranker) -> None:
        self.reranker = reranker
        self.engine: Engine | None = getattr(reranker, "engine", None)
        self._options: Options = getattr(reranker, "options", Options())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rerank")

    async def score(self, call: ScoreCall) -> ScoreAnswer:
        """Returns scores and their cost.

        Raises:
            ServiceError: 422 a document does not fit or the model takes no instruction, 503 it did
                not start in time, 504 the deadline passed, 500 a score is not a number.
        """
        if self.engine is None:
            answer = await self._score_plainly(call)
        else:
            answer = await self._score_in_batches(self.engine, call)
        if not all(map(math.isfinite, answer.scores)):
            raise ServiceError(500, "the model gave a score that is not a number", "bad_score")
        return answer

    async def score_many(self, calls: Sequence[ScoreCall]) -> list[ScoreAnswer] | ScoreFailure:
        """Returns the answers to all calls, or the first failure, which ends the others."""
        tasks = [asyncio.create_task(self.score(call)) for call in calls]
        try:
            return list(await asyncio.gather(*tasks))
        except ServiceError as error:
            failed = next(n for n, task in enumerate(tasks) if _error(task) is error)
            return ScoreFailure(failed, error)
        finally:
            for task in tasks:
                task.cancel()

    async def check(self) -> None:
        """Scores a known pair; raises ServiceError if that does not work."""
        answer = await self.score(ScoreCall(_QUERY, _TEXTS, timeout_s=30.0, patience_s=30.0))
        if len(answer.scores) != 2:
            raise not_ready("the model does not score a known pair")

    def warm(self) -> float:
        """Scores some texts twice, so that no request pays for the first time.

        Returns the speed of the second time, in estimated tokens per second.
        """
        for _ in range(2):
            start = time.monotonic()
            self.reranker.score([(_QUERY, _WARMUP)])
        return estimate_tokens(_QUERY, _WARMUP) / max(time.monotonic() - start, 1e-4)

    def close(self) -> None:
        """Ends the threads after the requests under way are answered."""
        if self.engine is not None:
            self.engine.close()
        self._thread.shutdown()

    async def _score_in_batches(self, engine: Engine, call: ScoreCall) -> ScoreAnswer:
        options = Options(
            truncation=call.options.truncation or self._options.truncation,
            max_tokens_per_document=call.options.max_tokens_per_doc,
            instruction=call.options.instruction,
        )
        future = engine.submit(
            call.query,
            call.documents,
            options,
            deadline=time.monotonic() + call.timeout_s,
            patience_s=call.patience_s,
        )
        try:
            # Cancelling the waiting task cancels the future: its rows are not computed.
            result = await asyncio.wrap_future(future)
        except TooLong as error:
            raise ServiceError(422, str(error), "document_too_long", param=error.field) from None
        except ConfigError:  # its message has the model's path
            message = "this reranker takes no instruction"
            raise ServiceError(422, message, "unsupported", param="instruction") from None
        except NotStarted:
            message = "the model is slower than a moment ago; try again"
            # The requests before it will take about as long.
            raise not_ready(message, call.patience_s) from None
        except DeadlinePassed:
            raise deadline(call.timeout_s) from None
        scores = result.logits if call.options.raw_scores else result.scores
        return ScoreAnswer(
            scores=scores.tolist(),
            truncated=result.truncated,
            chunks=result.chunks,
            cost=_cost(result.times, result.tokens, result.cached_prefix_tokens),
        )

    async def _score_plainly(self, call: ScoreCall) -> ScoreAnswer:
        if call.options.instruction:
            message = "this reranker takes no instruction"
            raise ServiceError(422, message, "unsupported", param="instruction")
        warnings = []
        if call.options.max_tokens_per_doc:
            warnings.append("max_tokens_per_doc is ignored: this reranker reads whole documents")
        arrived = time.monotonic()

        def work() -> tuple[list[float], Times]:
            started = time.monotonic()
            (scores,) = self.reranker.score([(call.query, call.documents)])
            return scores, Times(started - arrived, 0.0, time.monotonic() - started)

        loop = asyncio.get_running_loop()
        scores, times = await loop.run_in_executor(self._thread, work)
        return ScoreAnswer(
            scores=scores,
            truncated=[False] * len(call.documents),
            chunks=[1] * len(call.documents),
            cost=_cost(times, sum(text.count(" ") + 1 for text in call.documents)),
            warnings=warnings,
        )


@dataclass(frozen=True, slots=True)
class _TextRow:
    """A text to embed; it costs its characters."""

    text: str
    role: str
    prefix: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.text) + 8


@dataclass(frozen=True, slots=True)
class _EmbedWork:
    """A request's texts, as the batcher sees them."""

    call: EmbedCall

    def encode(self) -> list[_TextRow]:
        """Returns the texts; the encoder tokenises them itself."""
        return [_TextRow(text, self.call.role) for text in self.call.texts]

    def answer(self, values: np.ndarray, times: Times) -> EmbedAnswer:
        """Returns the vectors."""
        tokens = sum(len(text) // 4 + 2 for text in self.call.texts)
        return EmbedAnswer(values, _cost(times, tokens))


class EmbedderModel:
    """One encoder; the texts of all requests share its batches.

    Args:
        encoder: the model.
        batch_chars: characters of a batch; a longer text is encoded alone.
        lengths: of texts, for calls that refuse those that do not fit.
    """

    def __init__(
        self, encoder: Encoder, *, batch_chars: int = 8192, lengths: Lengths | None = None
    ) -> None:
        self.encoder = encoder
        self._lengths = lengths
        self.batcher = MicroBatcher(self._forward, budget=batch_chars, packed=True)
        self._dimension = 0  # unknown until something was encoded

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        """Returns float32 vectors and their cost.

        Raises:
            ServiceError: 422 the model has fewer dimensions or a text does not fit, 500 a vector
                is not finite.
        """
        self._check_dimensions(call)
        if not call.truncate and self._lengths is not None:
            await asyncio.to_thread(self._lengths.check, call.texts, call.role)
        # Cancelling the waiting task cancels the future: its texts are not encoded.
        answer = await asyncio.wrap_future(self.batcher.submit(_EmbedWork(call)))
        vectors_nD = answer.vectors_nD
        self._dimension = vectors_nD.shape[1]
        self._check_dimensions(call)
        if call.dimensions:
            vectors_nD = vectors_nD[:, : call.dimensions]
            norms = np.linalg.norm(vectors_nD, axis=1, keepdims=True)
            vectors_nD = vectors_nD / np.maximum(norms, 1e-12)
        if not np.isfinite(vectors_nD).all():
            raise ServiceError(500, "the model gave a vector that is not finite", "bad_vector")
        return EmbedAnswer(np.ascontiguousarray(vectors_nD, np.float32), answer.cost)

    async def check(self) -> None:
        """Embeds a known text."""
        await self.embed(EmbedCall([_QUERY], "query"))

    def warm(self) -> float:
        """Embeds some texts twice; returns the speed, as `RerankerModel.warm`."""
        for _ in range(2):
            start = time.monotonic()
            self._dimension = self.encoder.encode_documents(_WARMUP).shape[1]
        return estimate_tokens("", _WARMUP) / max(time.monotonic() - start, 1e-4)

    def close(self) -> None:
        """Ends the threads after the requests under way are answered."""
        self.batcher.close()

    def _forward(self, rows: Sequence[_TextRow]) -> np.ndarray:
        """Returns the vectors [n, D] of texts of one role or of both."""
        parts, order = [], []
        for role, encode in (
            ("query", self.encoder.encode_queries),
            ("document", self.encoder.encode_documents),
        ):
            numbers = [number for number, row in enumerate(rows) if row.role == role]
            if numbers:
                parts.append(encode([rows[number].text for number in numbers]))
                order += numbers
        return np.concatenate(parts)[np.argsort(order)]

    def _check_dimensions(self, call: EmbedCall) -> None:
        if 0 < self._dimension < call.dimensions:
            raise ServiceError(
                422,
                f"dimensions={call.dimensions}: the model gives {self._dimension}",
                "too_many_dimensions",
                param="dimensions",
            )


class Scorer:
    """The deployment of a reranker."""

    def __init__(self, config: ServeConfig, name: str) -> None:
        open_log(config.access_log)
        reranker = config.scorers()[name]
        self._watcher = ModelWatcher(
            name,
            partial(_reranker_version, reranker, config.registry),
            partial(_load_reranker, reranker),
            check=RerankerModel.check,
            retire=RerankerModel.close,
            every_s=config.reload_s,
        )
        self._metrics = BatcherMetrics(name)
        self._speed = self._watcher.model.warm()

    async def score(self, call: ScoreCall) -> ScoreAnswer | ServiceError:
        """Scores with the present model."""
        version, model = self._watcher.version.name, self._watcher.model
        answer = await _returned(model.score(call))
        if isinstance(answer, ServiceError):
            return answer
        return replace(answer, version=version)

    async def score_many(self, calls: Sequence[ScoreCall]) -> list[ScoreAnswer] | ScoreFailure:
        """Scores several queries' documents with the present model."""
        version, model = self._watcher.version.name, self._watcher.model
        answers = await model.score_many(calls)
        if isinstance(answers, ScoreFailure):
            return answers
        return [replace(answer, version=version) for answer in answers]

    async def check(self) -> ServiceError | None:
        """Scores a known pair."""
        return await _returned(self._watcher.model.check())

    async def check_health(self) -> None:
        """Raises where the model does not work, so that Serve replaces this replica."""
        self._watcher.start()
        if (engine := self._watcher.model.engine) is not None:
            self._metrics.update(engine.batcher)
        await self._watcher.model.check()

    async def state(self) -> dict[str, int]:
        """Returns the replica's process id, the tokens that wait in it, and tokens per second."""
        engine = self._watcher.model.engine
        queued = engine.batcher.queued_tokens if engine else 0
        return {"pid": os.getpid(), "queued_tokens": queued, "tokens_per_s": int(self._speed)}


class Embedder:
    """The deployment of an encoder."""

    def __init__(self, config: ServeConfig) -> None:
        open_log(config.access_log)
        assert config.embedder is not None
        self._watcher = ModelWatcher(
            config.models()[-1],
            partial(locate, config.embedder.path, config.registry),
            partial(_load_embedder, config.embedder),
            check=EmbedderModel.check,
            retire=EmbedderModel.close,
            every_s=config.reload_s,
        )
        self._speed = self._watcher.model.warm()

    async def embed(self, call: EmbedCall) -> EmbedAnswer | ServiceError:
        """Embeds with the present model."""
        return await _returned(self._watcher.model.embed(call))

    async def check(self) -> ServiceError | None:
        """Embeds a known text."""
        return await _returned(self._watcher.model.check())

    async def check_health(self) -> None:
        """Raises where the model does not work, so that Serve replaces this replica."""
        self._watcher.start()
        await self._watcher.model.check()

    async def state(self) -> dict[str, int]:
        """Returns the replica's process id and tokens per second."""
        return {"pid": os.getpid(), "tokens_per_s": int(self._speed)}


class Index:
    """The deployment of the index folders."""

    def __init__(self, config: ServeConfig) -> None:
        from raydist.build import open_searcher

        self.searcher = open_searcher(config)
        # Health checks run in other threads, so that they do not wait behind searches.
        self._threads = ThreadPoolExecutor(max(1, round(config.replicas.cpus)), "search")
        self._probe()  # compiles before the first request

    async def search(self, call: SearchCall) -> SearchAnswer:
        """Returns hits and milliseconds per stage."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self.searcher.search, call)

    async def state(self) -> dict[str, int]:
        """Returns the replica's process id."""
        return {"pid": os.getpid()}

    async def check(self) -> None:
        """Searches once."""
        await asyncio.to_thread(self._probe)

    async def check_health(self) -> None:
        """Raises where the index cannot be searched, so that Serve replaces this replica."""
        await asyncio.to_thread(self._probe)

    def _probe(self) -> None:
        self.searcher.search(SearchCall("a query that works", 1))


def _error(task: asyncio.Task[A]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


async def _returned(work: Awaitable[A]) -> A | ServiceError:
    """Returns an answer or the expected error."""
    try:
        return await work
    except ServiceError as error:
        return error


def _reranker_version(reranker: ServedRerankerSpec, registry: str) -> ModelVersion:
    if isinstance(reranker, Bm25Spec):
        return ModelVersion("")
    return locate(reranker.model, registry)


def _load_reranker(reranker: ServedRerankerSpec, version: ModelVersion) -> RerankerModel:
    spec = reranker.at(version.model) if isinstance(reranker, RegisteredSpec) else reranker
    return RerankerModel(load_reranker(spec))


def _load_embedder(embedder: EncoderSource, version: ModelVersion) -> EmbedderModel:
    from raydist.models.backbone import default_dtype
    from raydist.models.biencoder import BiEncoder
    from raydist.models.encode import default_max_tokens
    from raydist.serving.lengths import Lengths

    settings = replace(embedder, path=version.model).settings(default_dtype())
    model = BiEncoder.load(settings)
    chars = 8 * default_max_tokens(model)
    return EmbedderModel(model, batch_chars=chars, lengths=Lengths(model))


def _cost(times: Times, tokens: int, cached_prefix_tokens: int = 0) -> Cost:
    queue, tokenize, infer = (
        round(max(seconds, 0.0) * 1000, 3)
        for seconds in (times.queue_s, times.tokenize_s, times.infer_s)
    )
    return Cost(tokens, cached_prefix_tokens, queue, tokenize, infer)
