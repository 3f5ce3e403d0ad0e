"""The models of replicas: a reranker or an encoder, many requests at once.

Shapes: n texts, D dimensions.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from raydist.errors import ConfigError
from raydist.protocols import Encoder, Reranker
from raydist.reranking.batcher import MicroBatcher
from raydist.reranking.engine import Engine
from raydist.reranking.highlights import Match
from raydist.reranking.request import BadForward, DeadlinePassed, NotStarted, Pace, Times
from raydist.reranking.rows import Options, TooLong
from raydist.serving.admission import estimate_tokens, text_tokens
from raydist.serving.backend import (
    Cost,
    EmbedAnswer,
    EmbedCall,
    ReplicaState,
    ScoreAnswer,
    ScoreCall,
    ScoreFailure,
)
from raydist.serving.errors import ServiceError, deadline, not_ready
from raydist.serving.rank_answers import best_first

if TYPE_CHECKING:
    from raydist.models.biencoder import BiEncoder
    from raydist.serving.lengths import Lengths

_CHARS_PER_TOKEN = 4
"""The batches of an embedder count characters."""
_LATELY_S = 10.0
"""A model that worked so lately need not be tried."""
_STUCK_S = 600.0
"""A batch that takes longer will not end."""
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
        self._pace = Pace()
        self._options: Options = getattr(reranker, "options", Options())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rerank")

    async def score(self, call: ScoreCall) -> ScoreAnswer:
        """Returns scores and their cost.

        Raises:
            ServiceError: 422 a document does not fit or the model takes no instruction, 503 it did
                not start in time, 504 the deadline passed, 500 a score is not a number.
        """
        scorer = getattr(self.engine, "scorer", None)
        if call.options.highlights and not getattr(scorer, "matching", False):
            raise ServiceError(
                422,
                "return_highlights: this reranker has no vector for each token",
                "unsupported",
                param="return_highlights",
            )
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

    @property
    def pace(self) -> Pace:
        """What the model does."""
        return self._pace if self.engine is None else self.engine.batcher.pace

    @property
    def max_length(self) -> int:
        """The tokens of a pair to which it is cut; 0 where there is no such limit."""
        length: int = getattr(getattr(self.reranker, "scorer", None), "max_length", 0)
        return length if self._options.truncation == "truncate" else 0

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for the model."""
        return 0 if self.engine is None else self.engine.batcher.queued_tokens

    def state(self) -> ReplicaState:
        """Returns what the ingress asks for."""
        return ReplicaState(
            os.getpid(), self.queued_tokens, self.pace.tokens_per_s, self.max_length
        )

    async def check(self) -> None:
        """Raises ServiceError unless the model works: it just did, does, or scores a known pair."""
        if not _is_at_work(self.pace):
            await self.probe()

    async def probe(self) -> None:
        """Scores a known pair; raises ServiceError if that does not work."""
        answer = await self.score(ScoreCall(_QUERY, _TEXTS, timeout_s=30.0, patience_s=30.0))
        if len(answer.scores) != 2:
            raise not_ready("the model does not score a known pair")

    def warm(self) -> None:
        """Scores some texts twice, so that no request pays for the first time."""
        for _ in range(2):
            start = time.monotonic()
            self.reranker.score([(_QUERY, _WARMUP)])
        tokens = estimate_tokens(_QUERY, _WARMUP)
        self.pace.begin_with(tokens, max(time.monotonic() - start, 1e-4))

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
        highlights: dict[int, list[Match]] = {}
        if call.options.highlights and call.documents:
            best = best_first(result.scores, call.options.highlights)
            texts = [call.documents[number] for number in best]
            found = asyncio.to_thread(engine.scorer.matches, call.query, texts, options)  # type: ignore[attr-defined]
            highlights = dict(zip(best, await found))
        return ScoreAnswer(
            highlights=highlights,
            scores=scores.tolist(),
            truncated=result.truncated,
            chunks=result.chunks,
            cost=_cost(self.pace, result.times, result.tokens, result.cached_prefix_tokens),
        )

    async def _score_plainly(self, call: ScoreCall) -> ScoreAnswer:
        if call.options.instruction:
            message = "this reranker takes no instruction"
            raise ServiceError(422, message, "unsupported", param="instruction")
        warnings = []
        if call.options.max_tokens_per_doc:
            warnings.append("max_tokens_per_doc is ignored: this reranker reads whole documents")
        arrived = time.monotonic()
        tokens = sum(text.count(" ") + 1 for text in call.documents)

        def work() -> tuple[list[float], Times]:
            with self.pace.measure(tokens):
                started = time.monotonic()
                (scores,) = self.reranker.score([(call.query, call.documents)])
            if len(scores) != len(call.documents):
                raise BadForward(f"{len(scores)} scores for {len(call.documents)} documents")
            return scores, Times(started - arrived, 0.0, time.monotonic() - started)

        loop = asyncio.get_running_loop()
        scores, times = await loop.run_in_executor(self._thread, work)
        return ScoreAnswer(
            scores=scores,
            truncated=[False] * len(call.documents),
            chunks=[1] * len(call.documents),
            cost=_cost(self.pace, times, tokens),
            warnings=warnings,
        )


@dataclass(frozen=True, slots=True)
class _TextRow:
    """A text to embed; it costs its characters, of which `most` are read."""

    text: str
    role: str
    most: int
    prefix: tuple[int, ...] = ()

    def __len__(self) -> int:
        return min(len(self.text), self.most) + 8


@dataclass(frozen=True, slots=True)
class _EmbedWork:
    """A request's texts, as the batcher sees them."""

    call: EmbedCall
    model: EmbedderModel

    def part_sizes(self) -> list[int]:
        """Returns one part: there is nothing to encode."""
        return [1]

    def encode(self, part: int) -> list[_TextRow]:
        """Returns the texts; the encoder tokenises them itself."""
        most = _CHARS_PER_TOKEN * (self.model.max_length or 1 << 30)
        return [_TextRow(text, self.call.role, most) for text in self.call.texts]

    def answer(self, values: np.ndarray, times: Times) -> EmbedAnswer:
        """Returns the vectors."""
        tokens = sum(text_tokens(text, self.model.max_length) + 2 for text in self.call.texts)
        return EmbedAnswer(
            values, _cost(self.model.pace, times, tokens, per_token=_CHARS_PER_TOKEN)
        )


_Role = Literal["query", "document"]
_ROLES: tuple[_Role, ...] = get_args(_Role)


@dataclass(frozen=True, slots=True)
class _RoleBatch:
    """Texts of one role: their places among the rows, and their tokens (None: not known here)."""

    role: _Role
    numbers: Sequence[int]
    texts: Sequence[str]
    tokens: Sequence[list[int]] | None


class EmbedderModel:
    """One encoder; the texts of all requests share its batches.

    Args:
        encoder: the model.
        batch_chars: characters of a batch; a longer text is encoded alone.
    """

    def __init__(self, encoder: Encoder, *, batch_chars: int = 8192) -> None:
        self.encoder = encoder
        self._lengths: Lengths | None = None
        self._model: BiEncoder | None = None
        self.max_length = 0
        if (contract := getattr(encoder, "contract", None)) is not None:
            from raydist.serving.lengths import Lengths

            self._model = cast("BiEncoder", encoder)  # nothing else has a contract
            self._lengths = Lengths(self._model)
            self.max_length = contract.document_max_length
        self.batcher = MicroBatcher(
            self._forward, budget=batch_chars, packed=True, collate=self._collate
        )
        self.pace = self.batcher.pace
        self._dimension = 0  # unknown until something was encoded

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        """Returns float32 vectors and their cost.

        Raises:
            ServiceError: 422 the model has fewer dimensions, weighs no terms, or a text does not
                fit; 500 a vector is not finite.
        """
        if call.terms and (self._model is None or self._model.contract.kind != "sparse"):
            raise ServiceError(422, "the served model weighs no terms: use /embed", "unsupported")
        self._check_dimensions(call)
        if not call.truncate and self._lengths is not None:
            await asyncio.to_thread(self._lengths.check, call.texts, call.role)
        # Cancelling the waiting task cancels the future: its texts are not encoded.
        answer = await asyncio.wrap_future(self.batcher.submit(_EmbedWork(call, self)))
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

    def state(self) -> ReplicaState:
        """Returns what the ingress asks for."""
        speed = self.pace.tokens_per_s / _CHARS_PER_TOKEN
        return ReplicaState(os.getpid(), self.queued_tokens, speed, self.max_length)

    async def check(self) -> None:
        """Raises unless the model works: it just did, does, or embeds a known text."""
        if not _is_at_work(self.pace):
            await self.probe()

    async def probe(self) -> None:
        """Embeds a known text."""
        await self.embed(EmbedCall([_QUERY], "query"))

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for the model."""
        return self.batcher.queued_tokens // _CHARS_PER_TOKEN

    def warm(self) -> None:
        """Embeds some texts twice, so that no request pays for the first time."""
        for _ in range(2):
            start = time.monotonic()
            self._dimension = self.encoder.encode_documents(_WARMUP).shape[1]
        self.pace.begin_with(sum(map(len, _WARMUP)), max(time.monotonic() - start, 1e-4))

    def close(self) -> None:
        """Ends the threads after the requests under way are answered."""
        self.batcher.close()

    def _collate(self, rows: Sequence[_TextRow]) -> list[_RoleBatch]:
        """Returns the rows by role, tokenised where the encoder lets us."""
        batches = []
        for role in _ROLES:
            numbers = [number for number, row in enumerate(rows) if row.role == role]
            if numbers:
                texts = [rows[number].text for number in numbers]
                tokens = self._model.tokenize(texts, role) if self._model is not None else None
                batches.append(_RoleBatch(role, numbers, texts, tokens))
        return batches

    def _forward(self, batches: Sequence[_RoleBatch]) -> np.ndarray:
        """Returns the vectors [n, D] of collated texts, in the order of their rows."""
        order = [number for batch in batches for number in batch.numbers]
        return np.concatenate([self._encode(batch) for batch in batches])[np.argsort(order)]

    def _encode(self, batch: _RoleBatch) -> np.ndarray:
        if self._model is None or batch.tokens is None:
            if batch.role == "query":
                return self.encoder.encode_queries(batch.texts)
            return self.encoder.encode_documents(batch.texts)
        from raydist.models.encode import default_max_tokens, encode_rows

        return encode_rows(self._model, batch.tokens, batch.role, default_max_tokens(self._model))

    def _check_dimensions(self, call: EmbedCall) -> None:
        if 0 < self._dimension < call.dimensions:
            raise ServiceError(
                422,
                f"dimensions={call.dimensions}: the model gives {self._dimension}",
                "too_many_dimensions",
                param="dimensions",
            )


def _error(task: asyncio.Task[Any]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def _is_at_work(pace: Pace) -> bool:
    """Returns whether a model worked a moment ago or computes a batch; then a probe would wait.

    Raises:
        ServiceError: 503, it has computed one batch for much too long.
    """
    now, since = time.monotonic(), pace.running_since
    if since and now - since > _STUCK_S:
        raise not_ready(f"the model has computed one batch for {now - since:.0f} s")
    return bool(since) or now - pace.finished_at < _LATELY_S


def _cost(
    pace: Pace, times: Times, tokens: int, cached_prefix_tokens: int = 0, per_token: int = 1
) -> Cost:
    queue, tokenize, infer = (
        round(max(seconds, 0.0) * 1000, 3)
        for seconds in (times.queue_s, times.tokenize_s, times.infer_s)
    )
    speed = pace.tokens_per_s / per_token
    return Cost(tokens, cached_prefix_tokens, queue, tokenize, infer, speed)
