"""The service in this process: real models behind the HTTP layer, no cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from starlette.testclient import TestClient

from raydist.records import Document, Query, Run
from raydist.reranking.bm25 import BM25Reranker
from raydist.serving.backend import (
    EmbedAnswer,
    EmbedCall,
    ScoreAnswer,
    ScoreCall,
    ScoreFailure,
    SearchAnswer,
    SearchCall,
    SnippetCall,
)
from raydist.serving.http import make_app
from raydist.serving.keys import Keys
from raydist.serving.search import Searcher
from raydist.serving.served_models import EmbedderModel, RerankerModel
from raydist.serving.service import Service
from raydist.serving.spec import RequestLimits
from raydist.text.passages import Passage

BODY = {
    "query": "rain",
    "documents": ["bread is baked", "rain falls from clouds", "rain rain"],
}


class Words:
    """Ranks by how many of a query's words a text has; equal counts in input order."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts

    def only(self, doc_ids: Sequence[str], /) -> Words:
        return Words({d: t for d, t in self.texts.items() if d in set(doc_ids)})

    def search(self, queries: Sequence[Query], k: int) -> Run:
        lists = []
        for query in queries:
            counts = {d: sum(w in t for w in query.text.split()) for d, t in self.texts.items()}
            best = sorted((d for d in counts if counts[d]), key=lambda d: -counts[d])[:k]
            lists.append((query.query_id, best, [float(counts[d]) for d in best]))
        return Run.from_lists(lists)


class Store:
    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts

    def get(self, doc_ids: Sequence[str]) -> list[Document | None]:
        return [
            Document(d, self.texts[d], title=d.upper()) if d in self.texts else None
            for d in doc_ids
        ]


TEXTS = {"a": "rain and snow", "b": "snow", "c": "rain rain rain", "d": "ice"}


class LetterCounts:
    """An encoder: how often each of 26 letters occurs, and a constant."""

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        return np.array(
            [[1.0, *(text.lower().count(chr(97 + i)) for i in range(26))] for text in texts],
            np.float32,
        )

    encode_documents = encode_queries


class LocalBackend:
    """Models in this process."""

    def __init__(
        self,
        rerankers: Mapping[str, Any],
        embedder: Any = None,
        searcher: Searcher | None = None,
    ) -> None:
        self.rerankers = {name: RerankerModel(each) for name, each in rerankers.items()}
        self.embedder = EmbedderModel(embedder) if embedder is not None else None
        self.searcher = searcher

    async def score(self, model: str, call: ScoreCall) -> ScoreAnswer:
        return await self.rerankers[model].score(call)

    async def score_many(
        self, model: str, calls: Sequence[ScoreCall]
    ) -> Sequence[ScoreAnswer] | ScoreFailure:
        return await self.rerankers[model].score_many(calls)

    async def embed(self, model: str, call: EmbedCall) -> EmbedAnswer:
        assert self.embedder is not None
        return await self.embedder.embed(call)

    async def search(self, call: SearchCall) -> SearchAnswer:
        assert self.searcher is not None
        return self.searcher.search(call)

    async def snippets(self, call: SnippetCall) -> Sequence[Sequence[Passage]]:
        assert self.searcher is not None
        return self.searcher.snippets(call)

    async def check(self, model: str) -> None:
        if model in self.rerankers:
            await self.rerankers[model].check()
        elif model == "index":
            await self.search(SearchCall("ready", 1))


def service(
    rerankers: Mapping[str, Any] | None = None,
    *,
    embedder: Any = None,
    searcher: Searcher | None = None,
    keys: Sequence[str] = (),
    **limits: Any,
) -> Service:
    """Returns a service with BM25 unless said otherwise."""
    rerankers = {"bm25": BM25Reranker()} if rerankers is None else rerankers
    kinds: dict[str, Any] = {name: "reranker" for name in rerankers}
    if embedder is not None:
        kinds["letters"] = "embedder"
    if searcher is not None:
        kinds["index"] = "index"
    backend = LocalBackend(rerankers, embedder, searcher)
    return Service(backend, kinds, limits=RequestLimits(**limits), keys=Keys(keys))


def client(*args: Any, **kwargs: Any) -> TestClient:
    """Returns an HTTP client of such a service."""
    app = make_app(service(*args, **kwargs))
    return local_client(app)


def local_client(app: FastAPI, peer: str = "127.0.0.1") -> TestClient:
    """Returns an HTTP client of this machine, or of another."""
    url = "http://localhost"
    return TestClient(app, url, raise_server_exceptions=False, client=(peer, 50_000))


def assert_envelope(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert list(body) == ["error", "message", "detail"]
    assert body["message"] == body["detail"] == body["error"]["message"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    return dict(body["error"])
