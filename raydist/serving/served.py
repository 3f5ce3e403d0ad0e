"""Models as the service holds them: requests in, plain dictionaries out, no Ray.

Dictionaries hold only numbers, strings and lists: they travel between processes as they are.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from raydist.errors import ConfigError
from raydist.protocols import Encoder, Reranker
from raydist.serving.admission import estimate_tokens
from raydist.serving.errors import ServiceError, deadline, not_ready
from raydist.serving.rounds import Rounds

_PROBE = ("what causes rain?", ["Rain falls from clouds.", "Bread is baked in an oven."])


class ServedReranker:
    """One reranker, many requests at once.

    Those with a scorer engine share its micro-batches; BM25, which has no model, scores one request
    after another in a thread of its own.
    """

    def __init__(self, reranker: Reranker) -> None:
        self.reranker = reranker
        self.engine = getattr(reranker, "engine", None)
        self.default_truncation = getattr(
            getattr(reranker, "options", None), "truncation", "truncate"
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rerank")

    async def score(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns scores and what they took.

        Args:
            request: `query`, `documents`, `truncation`, `max_tokens_per_doc`, `instruction`,
                `raw_scores`, `timeout_s`, `patience_s` (it may wait for its first batch).

        Raises:
            ServiceError: 422 a document does not fit or an instruction is not understood, 503 it
                was not begun in time, 504 the deadline passed, 500 a score is not a number.
        """
        query, documents = request["query"], request["documents"]
        if self.engine is None:
            answer = await self._plain(query, documents, request)
        else:
            answer = await self._engine(query, documents, request)
        if not all(map(math.isfinite, answer["scores"])):
            raise ServiceError(500, "the model gave a score that is not a number", "bad_score")
        return answer

    async def check(self) -> None:
        """Scores a known pair; raises ServiceError if that does not work."""
        answer = await self.score({"query": _PROBE[0], "documents": _PROBE[1], "timeout_s": 30.0})
        if len(answer["scores"]) != 2:
            raise not_ready("the model does not score a known pair")

    def warm(self) -> float:
        """Scores some texts twice, so that no request pays for the first time.

        Returns the speed of the second time, in estimated tokens per second.
        """
        query, texts = _PROBE[0], [f"{i} {' '.join(_PROBE[1] * 5)}" for i in range(8)]
        for _ in range(2):
            begun = time.monotonic()
            self.reranker.score([(query, texts)])
        return estimate_tokens(query, texts) / max(time.monotonic() - begun, 1e-4)

    def close(self) -> None:
        """Ends the threads after the requests under way are answered."""
        if self.engine is not None:
            self.engine.close()
        self._thread.shutdown()

    async def _engine(
        self, query: str, documents: Sequence[str], request: dict[str, Any]
    ) -> dict[str, Any]:
        from raydist.rerank.request import DeadlinePassed, NotBegun
        from raydist.rerank.rows import Options, TooLong

        truncation: Any = request.get("truncation") or self.default_truncation
        options = Options(
            truncation=truncation,
            max_tokens_per_document=request.get("max_tokens_per_doc") or 0,
            instruction=request.get("instruction"),
        )
        timeout = request.get("timeout_s") or 60.0
        patience = request.get("patience_s") or timeout
        before = time.monotonic()
        assert self.engine is not None
        future = self.engine.submit(
            query,
            documents,
            options,
            deadline=before + timeout,
            patience_s=patience,
        )
        try:
            # Cancelling the waiting task cancels the future: its rows are not computed.
            scored = await asyncio.wrap_future(future)
        except TooLong as error:
            raise ServiceError(422, str(error), "document_too_long", param=error.field) from None
        except ConfigError as error:
            raise ServiceError(422, str(error), "unsupported", param="instruction") from None
        except NotBegun:
            message = "the model is slower than a moment ago; try again"
            raise not_ready(message, patience) from None  # as long as those before it will take
        except DeadlinePassed:
            raise deadline(timeout) from None
        values = scored.logits if request.get("raw_scores") else scored.scores
        return {
            "scores": values.tolist(),
            "truncated": scored.truncated,
            "chunks": scored.chunks,
            "tokens": scored.tokens,
            "cached_prefix_tokens": scored.cached_prefix_tokens,
            "timings_ms": {
                "queue": _ms(scored.queue_s),
                "tokenize": _ms(scored.tokenize_s),
                "infer": _ms(scored.infer_s),
            },
        }

    async def _plain(
        self, query: str, documents: Sequence[str], request: dict[str, Any]
    ) -> dict[str, Any]:
        if request.get("instruction"):
            raise ServiceError(
                422, "this reranker takes no instruction", "unsupported", param="instruction"
            )
        warnings = []
        if request.get("max_tokens_per_doc"):
            warnings.append("max_tokens_per_doc is ignored: this reranker reads whole documents")
        before = time.monotonic()
        started = [before]

        def work() -> list[float]:
            started[0] = time.monotonic()
            return self.reranker.score([(query, documents)])[0]

        loop = asyncio.get_running_loop()
        scores = await loop.run_in_executor(self._thread, work)
        return {
            "scores": scores,
            "truncated": [False] * len(documents),
            "chunks": [1] * len(documents),
            "warnings": warnings,
            "tokens": sum(text.count(" ") + 1 for text in documents),
            "cached_prefix_tokens": 0,
            "timings_ms": {
                "queue": _ms(started[0] - before),
                "tokenize": 0.0,
                "infer": _ms(time.monotonic() - started[0]),
            },
        }


class ServedEmbedder:
    """One encoder; the texts of all requests are mixed in rounds.

    Args:
        encoder: the model.
        round_chars: see `Rounds`.
    """

    def __init__(self, encoder: Encoder, *, round_chars: int = 8192) -> None:
        self.encoder = encoder
        self._dimension = 0  # unknown until something was encoded
        self.rounds = Rounds(self._encode, round_chars=round_chars)

    def _encode(self, role: str, texts: Sequence[str]) -> np.ndarray:
        if role == "query":
            return self.encoder.encode_queries(texts)
        return self.encoder.encode_documents(texts)

    async def embed(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns float32 vectors as bytes, their dimension, an estimate of the tokens, and times.

        Args:
            request: `texts`, `role` (query or document), `dimensions` (None keeps all).
        """
        texts, wanted = request["texts"], request.get("dimensions")
        self._check(wanted)
        # Cancelling the waiting task cancels the future: its texts are not encoded.
        embedded = await asyncio.wrap_future(self.rounds.submit(request["role"], texts))
        vectors_nd = embedded.vectors_nD
        self._dimension = vectors_nd.shape[1]
        self._check(wanted)
        if wanted is not None:
            vectors_nd = vectors_nd[:, :wanted]
            norms = np.linalg.norm(vectors_nd, axis=1, keepdims=True)
            vectors_nd = vectors_nd / np.maximum(norms, 1e-12)
        vectors_nd = np.ascontiguousarray(vectors_nd, np.float32)
        if not np.isfinite(vectors_nd).all():
            raise ServiceError(500, "the model gave a vector that is not finite", "bad_vector")
        return {
            "vectors": vectors_nd.tobytes(),
            "dimension": int(vectors_nd.shape[1]),
            "tokens": sum(len(text) // 4 + 2 for text in texts),
            "cached_prefix_tokens": 0,
            "timings_ms": {
                "queue": _ms(embedded.queue_s),
                "tokenize": 0.0,
                "infer": _ms(embedded.infer_s),
            },
        }

    def _check(self, wanted: int | None) -> None:
        if wanted is not None and 0 < self._dimension < wanted:
            raise ServiceError(
                422,
                f"dimensions={wanted}: the model gives {self._dimension}",
                "too_many_dimensions",
                param="dimensions",
            )

    def warm(self) -> float:
        """Does as `ServedReranker.warm`."""
        texts = [f"{i} {' '.join(_PROBE[1] * 5)}" for i in range(8)]
        for _ in range(2):
            begun = time.monotonic()
            self._dimension = self.encoder.encode_documents(texts).shape[1]
        return estimate_tokens("", texts) / max(time.monotonic() - begun, 1e-4)

    def close(self) -> None:
        """Ends the threads after the requests under way are answered."""
        self.rounds.close()

    async def check(self) -> None:
        """Embeds a known text."""
        await self.embed({"texts": [_PROBE[0]], "role": "query"})


def _ms(seconds: float) -> float:
    return round(max(seconds, 0.0) * 1000, 3)
