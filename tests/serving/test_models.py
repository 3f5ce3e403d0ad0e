"""Models as a replica holds them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raydist.reranking.bm25 import BM25Reranker
from raydist.reranking.engine import Engine
from raydist.reranking.request import NotStarted
from raydist.serving.backend import EmbedAnswer, EmbedCall, ScoreCall
from raydist.serving.errors import ServiceError, not_ready, overloaded
from raydist.serving.served_models import EmbedderModel, RerankerModel
from raydist.serving.service import Service
from tests.reranking.test_engine import Letters
from tests.serving.local import LetterCounts, LocalBackend


def test_a_request_that_does_not_start_in_time_gets_a_time_to_retry() -> None:
    def submit(*_: Any, patience_s: float, **__: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(NotStarted(f"not within {patience_s}"))
        return future

    reranker: Any = SimpleNamespace(engine=SimpleNamespace(submit=submit))
    with pytest.raises(ServiceError) as caught:
        asyncio.run(RerankerModel(reranker).score(ScoreCall("q", ["a"], patience_s=14.6)))
    assert caught.value.status == 503
    assert caught.value.headers["Retry-After"] == "15"


def test_too_many_dimensions_are_refused_before_anything_is_encoded() -> None:
    class Counting(LetterCounts):
        texts = 0

        def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
            self.texts += len(texts)
            return super().encode_queries(texts)

    encoder = Counting()
    model = EmbedderModel(encoder)
    model.warm()
    warmed = encoder.texts
    with pytest.raises(ServiceError, match="dimensions=28: the model gives 27"):
        asyncio.run(model.embed(EmbedCall(["a"], "document", 28)))
    assert encoder.texts == warmed
    answer = asyncio.run(model.embed(EmbedCall(["a"], "document", 27)))
    assert answer.vectors_nD.shape == (1, 27) and encoder.texts == warmed + 1
    model.close()


class Gate:
    """An encoder that waits until its gate is open, and records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.entered, self.open = threading.Event(), threading.Event()

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        return self.encode("query", texts)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        return self.encode("document", texts)

    def encode(self, role: str, texts: Sequence[str]) -> np.ndarray:
        self.calls.append((role, list(texts)))
        self.entered.set()
        assert self.open.wait(10)
        if "bad" in texts:
            raise RuntimeError("no")
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32)


def test_waiting_requests_share_a_batch_and_get_their_own_vectors() -> None:
    async def embed_many() -> list[EmbedAnswer]:
        first = asyncio.create_task(model.embed(EmbedCall(["x"], "document")))
        assert await asyncio.to_thread(gate.entered.wait, 10)
        await asyncio.sleep(0.05)  # the next batch is formed ahead
        calls = [EmbedCall([f"{i}a", f"{i}bc"], "document") for i in range(5)]
        calls.append(EmbedCall(["q"], "query"))
        others = [asyncio.create_task(model.embed(call)) for call in calls]
        while model.batcher.queued_tokens < 11 * 8:
            await asyncio.sleep(0.001)
        gate.open.set()
        return await asyncio.gather(first, *others)

    gate = Gate()
    model = EmbedderModel(gate)
    first, *others, query = asyncio.run(embed_many())
    for i, answer in enumerate(others):
        np.testing.assert_array_equal(answer.vectors_nD, [[2, 48 + i], [3, 48 + i]])
        assert answer.cost.queue_ms > 0 and answer.cost.infer_ms > 0
    assert first.vectors_nD.tolist() == [[1, 120]]
    assert query.vectors_nD.tolist() == [[1, 113]]
    assert [(role, len(texts)) for role, texts in gate.calls] == [
        ("document", 1),
        ("query", 1),
        ("document", 10),
    ]
    model.close()


def test_a_small_request_does_not_wait_for_a_large_one() -> None:
    async def embed_both() -> tuple[EmbedAnswer, EmbedAnswer]:
        texts = [f"large {i}" for i in range(100)]
        large = asyncio.create_task(model.embed(EmbedCall(texts, "document")))
        assert await asyncio.to_thread(gate.entered.wait, 10)
        small = asyncio.create_task(model.embed(EmbedCall(["small"], "document")))
        await asyncio.sleep(0.05)
        gate.open.set()
        return await asyncio.gather(small, large)

    gate = Gate()
    model = EmbedderModel(gate, batch_chars=200)
    _, large = asyncio.run(embed_both())
    batch = next(i for i, (_, texts) in enumerate(gate.calls) if "small" in texts)
    assert batch <= 2 and len(large.vectors_nD) == 100
    assert len(gate.calls) > 5
    model.close()


def test_a_text_larger_than_a_batch_is_encoded_alone() -> None:
    gate = Gate()
    gate.open.set()
    model = EmbedderModel(gate, batch_chars=50)
    texts = ["a" * 40, "b" * 500, "c"]
    answer = asyncio.run(model.embed(EmbedCall(texts, "document")))
    assert answer.vectors_nD[:, 0].tolist() == [40, 500, 1]
    assert [each for _, each in gate.calls] == [[texts[1]], [texts[0]], [texts[2]]]
    model.close()


def test_a_cancelled_request_is_not_encoded_and_an_error_reaches_only_its_batch() -> None:
    async def embed_some() -> None:
        first = asyncio.create_task(model.embed(EmbedCall(["x"], "document")))
        assert await asyncio.to_thread(gate.entered.wait, 10)
        cancelled = asyncio.create_task(model.embed(EmbedCall(["cancelled"], "document")))
        bad = asyncio.create_task(model.embed(EmbedCall(["bad"], "query")))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        with pytest.raises(RuntimeError, match="no"):
            await bad
        await first
        answer = await model.embed(EmbedCall(["y"], "document"))
        assert answer.vectors_nD.tolist() == [[1, 121]]

    gate = Gate()
    model = EmbedderModel(gate)
    asyncio.run(embed_some())
    assert not any("cancelled" in texts for _, texts in gate.calls)
    model.close()


def test_a_check_does_not_wait_behind_batches() -> None:
    scorer = Letters()
    scorer.gate.clear()
    with Engine(scorer, batch_tokens=10) as engine:
        reranker: Any = SimpleNamespace(engine=engine, score=engine.score)
        model = RerankerModel(reranker)
        future = engine.submit("q", [f"{i:09}" for i in range(20)])
        while not model.pace.running_since:
            time.sleep(0.001)
        start = time.monotonic()
        asyncio.run(model.check())
        assert time.monotonic() - start < 1.0
        model.pace.running_since -= 700.0
        with pytest.raises(ServiceError, match="has computed one batch for 700 s"):
            asyncio.run(model.check())
        scorer.gate.set()
        future.result(timeout=5)
        batches = len(scorer.batches)
        asyncio.run(model.check())  # it worked a moment ago
        assert len(scorer.batches) == batches
        model.pace.finished_at -= 60.0
        asyncio.run(model.check())
        assert len(scorer.batches) > batches


def test_a_service_is_ready_while_its_replicas_are_at_work() -> None:
    class Busy(LocalBackend):
        async def check(self, model: str) -> None:
            raise error

    async def ready() -> None:
        await Service(Busy({"bm25": BM25Reranker()}), {"bm25": "reranker"}).ready()

    error = overloaded(1.0, "all replicas are busy")
    asyncio.run(ready())
    error = not_ready("lost")
    with pytest.raises(ServiceError, match="lost"):
        asyncio.run(ready())
