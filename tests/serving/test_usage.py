"""How the service is used: over HTTP, as plain functions, on Ray Serve."""

from __future__ import annotations

import asyncio

from ray import serve
from starlette.testclient import TestClient

from raydist.config.load import load
from raydist.config.serve import ServeConfig
from raydist.serving.app import build
from raydist.serving.http import make_app
from raydist.serving.schema import RerankRequest
from tests.serving.local import service

DOCUMENTS = ["bread is baked", "rain falls from clouds", "ice"]


def test_a_request_over_http() -> None:
    client = TestClient(make_app(service()), "http://localhost", client=("127.0.0.1", 50_000))
    answer = client.post("/v1/rerank", json={"query": "rain", "documents": DOCUMENTS, "top_n": 1})
    assert [result["index"] for result in answer.json()["results"]] == [1]


def test_a_route_is_a_plain_function() -> None:
    request = RerankRequest(query="rain", documents=list(DOCUMENTS))
    response = asyncio.run(service().rerank(request, request_id="id", client=""))
    assert response.results[0]["index"] == 1 and response.model == "bm25"


def test_a_configuration_becomes_a_serve_application() -> None:
    config = load(ServeConfig, (), ["reranker=bm25", "replicas=2"])
    assert isinstance(build(config), serve.Application)
