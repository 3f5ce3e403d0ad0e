"""Requests as real clients send them, and the answers that those clients read.

The bodies are what the clients' newest versions put on the wire.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from raydist.reranking.bm25 import BM25Reranker
from raydist.serving.vectors import quantized
from tests.serving.local import (
    BODY,
    LetterCounts,
    assert_envelope,
    client,
)

TEXTS = BODY["documents"]
SCORES = BM25Reranker().score([("rain", TEXTS)])[0]
ORDER = sorted(range(3), key=lambda i: (-SCORES[i], i))
VECTORS = LetterCounts().encode_documents(TEXTS)


class Roles(LetterCounts):
    """Letters, and a first component that is -1 for queries."""

    def encode_queries(self, texts: Any) -> np.ndarray:
        vectors = super().encode_documents(texts)
        vectors[:, 0] = -1.0
        return vectors


@pytest.fixture(scope="module")
def serving() -> TestClient:
    return client(embedder=Roles())


def post(serving: TestClient, path: str, **body: Any) -> Any:
    answer = serving.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(serving: TestClient, path: str, **body: Any) -> dict[str, Any]:
    return assert_envelope(serving.post(path, json=body), 422)


# Text-embeddings-inference


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_texts_are_reranked_as_tei_does(serving: TestClient, path: str) -> None:
    sent = {"query": "rain", "texts": TEXTS, "raw_scores": False, "truncate": True}
    assert post(serving, path, **sent) == [{"index": i, "score": SCORES[i]} for i in ORDER]
    texts = post(serving, path, **sent, return_text=True, truncation_direction="Right")
    assert [row["text"] for row in texts] == [TEXTS[i] for i in ORDER]


def test_teis_routes_embed_and_tell_of_the_model(serving: TestClient) -> None:
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    np.testing.assert_allclose(post(serving, "/embed", inputs=TEXTS), unit, atol=1e-6)
    np.testing.assert_allclose(post(serving, "/", inputs=TEXTS[0]), unit[:1], atol=1e-6)
    raw = post(serving, "/embed", inputs=TEXTS, normalize=False, truncate=True)
    np.testing.assert_array_equal(raw, VECTORS)
    query = post(serving, "/embed", inputs="rain", normalize=False, prompt_name="query")
    assert query[0][0] == -1.0
    info = serving.get("/info").json()
    assert info["model_id"] == "bm25" and info["model_type"] == {"reranker": {}}
    assert info["max_client_batch_size"] == 2048
    assert serving.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/rerank", {"texts": ["a"]}, 422, "Validation"),
        ("/rerank", {"query": "a", "texts": ["b" * 1_000_001]}, 413, "Validation"),
        ("/embed", {"inputs": ["a"] * 2049}, 413, "Validation"),
        ("/embed", {"inputs": "a", "prompt_name": "sts"}, 422, "Validation"),
        ("/embed", {"inputs": "a", "truncation_direction": "Left"}, 422, "Validation"),
        ("/embed", {"inputs": "a", "encoding_format": "base64"}, 422, "Validation"),
        ("/", {"inputs": {"source_sentence": "a", "sentences": ["b"]}}, 422, "Validation"),
        ("/embed_all", {"inputs": "a"}, 422, "Validation"),
    ],
)
def test_teis_errors_are_strings(
    serving: TestClient, path: str, body: dict[str, Any], status: int, kind: str
) -> None:
    answer = serving.post(path, json=body)
    error = answer.json()
    assert answer.status_code == status and error["error_type"] == kind
    assert error["error"] == error["message"] == error["detail"] and isinstance(error["error"], str)
    keyed = client(embedder=Roles(), keys=["one"]).post("/embed", json={"inputs": "a"})
    assert keyed.status_code == 401 and isinstance(keyed.json()["error"], str)


# vLLM, llama.cpp, infinity, mixedbread


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_vllms_pairs_are_scored(serving: TestClient, path: str) -> None:
    body = post(serving, path, model="bm25", text_1="rain", text_2=TEXTS, truncate_prompt_tokens=-1)
    assert [(row["index"], row["score"]) for row in body["data"]] == list(enumerate(SCORES))
    assert body["object"] == "list" and body["data"][0]["object"] == "score"
    assert body["created"] > 0 and body["id"] and body["usage"]["total_tokens"] == 9
    (one,) = post(serving, path, text_1="rain", text_2=TEXTS[1])["data"]
    assert one["score"] == BM25Reranker().score([("rain", [TEXTS[1]])])[0][0]
    pairs = post(serving, path, queries=["rain", "bread"], items=[TEXTS[1], TEXTS[0]])
    assert pairs["scores"][1] == BM25Reranker().score([("bread", [TEXTS[0]])])[0][0]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/reranking", "/v1/reranking"])
def test_documents_are_reranked_on_every_path(serving: TestClient, path: str) -> None:
    results = post(serving, path, model="bm25", query="rain", documents=TEXTS)["results"]
    assert [(row["index"], row["relevance_score"]) for row in results] == [
        (i, SCORES[i]) for i in ORDER
    ]
    assert "score" not in results[0]


def test_mixedbreads_form_is_answered(serving: TestClient) -> None:
    sent = {"model": "bm25", "query": "rain", "input": TEXTS, "top_k": 2, "return_input": True}
    data = post(serving, "/v1/reranking", **sent)["data"]
    assert [(row["index"], row["score"], row["input"]) for row in data] == [
        (i, SCORES[i], TEXTS[i]) for i in ORDER[:2]
    ]
    fields = [{"text": "bread", "title": "rain"}, {"text": "rain rain snow", "title": "ice"}]
    ranked = post(serving, "/v1/reranking", query="rain", input=fields, rank_fields=["title"])
    assert [row["index"] for row in ranked["data"]] == [0, 1]


# Embeddings: OpenAI, Voyage, Jina, mixedbread, Cohere


def vectors(body: Any) -> np.ndarray:
    return np.array([row["embedding"] for row in body["data"]])


@pytest.mark.parametrize(
    ("fields", "is_query"),
    [
        ({}, False),
        ({"input_type": "query"}, True),
        ({"input_type": "passage"}, False),
        ({"task": "retrieval.query"}, True),
        ({"task": "retrieval.passage"}, False),
        ({"prompt_name": "query"}, True),
        ({"prompt_name": "document", "task": "retrieval.passage"}, False),
    ],
)
def test_roles_have_many_names(serving: TestClient, fields: dict[str, str], is_query: bool) -> None:
    body = post(serving, "/v1/embeddings", input="rain", **fields)
    assert (vectors(body)[0, 0] == -1.0) == is_query


def test_voyages_numbers_are_what_was_asked_for(serving: TestClient) -> None:
    """Its client asks for base64, and reads it as `output_dtype` says."""
    for kind, numpy_kind in (
        ("float", np.float32),
        ("int8", np.int8),
        ("uint8", np.uint8),
        ("binary", np.int8),
        ("ubinary", np.uint8),
    ):
        sent = {"input": TEXTS, "output_dtype": kind, "output_dimension": 16, "truncation": True}
        packed = post(serving, "/v1/embeddings", **sent, encoding_format="base64")["data"]
        read = [np.frombuffer(base64.b64decode(row["embedding"]), numpy_kind) for row in packed]
        first = VECTORS[:, :16] / np.linalg.norm(VECTORS[:, :16], axis=1, keepdims=True)
        np.testing.assert_array_equal(read, quantized(first, kind))
        plain = vectors(post(serving, "/v1/embeddings", **sent)).astype(numpy_kind)
        np.testing.assert_array_equal(plain, read)
        assert len(read[0]) == (2 if "binary" in kind else 16)


def test_few_bits_keep_the_direction() -> None:
    random = np.random.default_rng(5).normal(size=(50, 96)).astype(np.float32)
    whole = random / np.linalg.norm(random, axis=1, keepdims=True)
    int8 = quantized(whole, "int8").astype(np.float64)
    assert np.abs(int8).max() == 127
    cosines = (int8 * whole).sum(1) / np.linalg.norm(int8, axis=1)
    assert cosines.min() > 0.999
    np.testing.assert_array_equal(quantized(whole, "uint8"), int8 + 128)
    bits = np.unpackbits(quantized(whole, "ubinary"), axis=1)
    np.testing.assert_array_equal(bits, whole > 0)
    np.testing.assert_array_equal(
        quantized(whole, "binary").astype(int) + 128, quantized(whole, "ubinary")
    )


def test_jinas_and_mixedbreads_fields_are_understood(serving: TestClient) -> None:
    sent = {"model": "letters", "input": [{"text": text} for text in TEXTS], "normalized": True}
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors(post(serving, "/v1/embeddings", **sent)), unit, atol=1e-6)
    for field in ("embedding_type", "encoding_format"):
        bits = post(serving, "/v1/embeddings", input=TEXTS, **{field: ["ubinary"]})
        np.testing.assert_array_equal(vectors(bits), quantized(VECTORS, "ubinary"))


def test_coheres_embeddings_come_by_type(serving: TestClient) -> None:
    body = post(
        serving,
        "/v2/embed",
        model="letters",
        texts=TEXTS,
        input_type="search_document",
        embedding_types=["float", "int8", "ubinary", "base64"],
        truncate="END",
    )
    assert body["response_type"] == "embeddings_by_type" and body["texts"] == TEXTS
    assert list(body["embeddings"]) == ["float", "int8", "ubinary", "base64"]
    np.testing.assert_array_equal(body["embeddings"]["float"], VECTORS)
    np.testing.assert_array_equal(body["embeddings"]["int8"], quantized(VECTORS, "int8"))
    np.testing.assert_array_equal(body["embeddings"]["ubinary"], quantized(VECTORS, "ubinary"))
    read = np.frombuffer(base64.b64decode(body["embeddings"]["base64"][1]), "<f4")
    np.testing.assert_array_equal(read, VECTORS[1])
    assert body["meta"]["billed_units"]["input_tokens"] > 0 and body["id"]
    query = post(serving, "/v2/embed", texts=["rain"], input_type="search_query")
    assert query["embeddings"]["float"][0][0] == -1.0
    first = post(serving, "/v1/embed", texts=TEXTS, input_type="search_document")
    assert first["response_type"] == "embeddings_floats"
    np.testing.assert_array_equal(first["embeddings"], VECTORS)


def test_floats_are_written_with_the_digits_of_float32() -> None:
    class Thirds(LetterCounts):
        def encode_documents(self, texts: Any) -> np.ndarray:
            return np.full((len(texts), 40_000), 1 / 3, np.float32)

    answer = client(embedder=Thirds()).post("/v1/embeddings", json={"input": ["a", "b", "c"]})
    assert answer.text.count("0.33333334") == 120_000 and len(answer.content) < 1_330_000
    assert np.array(answer.json()["data"][2]["embedding"], np.float32)[7] == np.float32(1 / 3)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/embeddings", {"input": [[101, 7592], [102]]}, "input"),
        ("/v1/embeddings", {"input": [101, 7592]}, "input"),
        ("/v1/embeddings", {"input": "a", "task": "text-matching"}, "task"),
        ("/v1/embeddings", {"input": "a", "task": "classification"}, "task"),
        ("/v1/embeddings", {"input": "a", "prompt_name": "sts"}, "prompt_name"),
        ("/v1/embeddings", {"input": "a", "late_chunking": True}, "late_chunking"),
        ("/v1/embeddings", {"input": "a", "return_multivector": True}, "return_multivector"),
        ("/v1/embeddings", {"input": "a", "prompt": "b: "}, "prompt"),
        ("/v1/embeddings", {"input": "a", "modality": "image"}, "modality"),
        ("/v1/embeddings", {"input": "a", "truncate": "START"}, "truncate"),
        ("/v1/embeddings", {"input": [{"image": "b"}]}, "input[0]"),
        ("/v1/embeddings", {"input": "a", "embedding_type": ["float", "binary"]}, "embedding_type"),
        (
            "/v1/embeddings",
            {"input": "a", "task": "retrieval.query", "input_type": "document"},
            "task and input_type",
        ),
        ("/v2/embed", {"texts": ["a"], "input_type": "clustering"}, "input_type"),
        ("/v2/embed", {"texts": ["a"], "max_tokens": 5}, "max_tokens"),
        ("/v2/embed", {"texts": ["a"], "priority": 3}, "priority"),
        ("/v2/embed", {"texts": ["a"], "images": ["data:"]}, "images"),
        ("/v2/embed", {"texts": ["a"], "truncate": "START"}, "truncate"),
        ("/v2/embed", {"texts": []}, "texts"),
        ("/v2/rerank", BODY | {"priority": 3}, "priority"),
        ("/v1/rerank", BODY | {"max_chunks_per_doc": 3}, "max_chunks_per_doc"),
        ("/v1/rerank", BODY | {"truncate_prompt_tokens": 99}, "truncate_prompt_tokens"),
        ("/score", {"text_1": "a", "text_2": "b", "priority": 1}, "priority"),
    ],
)
def test_what_a_contract_has_and_this_service_has_not_is_refused_by_its_name(
    serving: TestClient, path: str, body: dict[str, Any], param: str
) -> None:
    error = refused(serving, path, **body)
    assert error["code"] == "unsupported"
    assert {*str(error["param"]).split(" and ")} == {*param.split(" and ")}
    assert error["message"].startswith(str(error["param"]))


def test_token_ids_are_refused_with_langchains_remedy(serving: TestClient) -> None:
    sent = {"input": [[3923, 11384, 11422]], "model": "letters", "encoding_format": "base64"}
    assert (
        "check_embedding_ctx_length=False" in refused(serving, "/v1/embeddings", **sent)["message"]
    )


def test_a_text_that_does_not_fit_is_refused_if_the_client_says_so(tiny_bert: Any) -> None:
    from raydist.models.biencoder import BiEncoder

    model = BiEncoder.load(tiny_bert, device="cpu")
    limit = model.contract.document_max_length
    strict = client(embedder=model)
    texts = ["query", "index " * limit]
    for path, field, no in (
        ("/v1/embeddings", "input", {"truncation": False}),
        ("/v1/embeddings", "input", {"truncate": False}),
        ("/v2/embed", "texts", {"truncate": "NONE"}),
    ):
        error = refused(strict, path, **{field: texts}, **no)
        assert error["param"] == f"{field}[1]" and error["message"].startswith(f"{field}[1] has")
        assert f"the model reads {limit}" in error["message"]
        assert strict.post(path, json={field: texts}).status_code == 200
        assert strict.post(path, json={field: texts[:1], **no}).status_code == 200
    tei = strict.post("/embed", json={"inputs": texts, "truncate": False})
    assert tei.status_code == 422 and tei.json()["error"].startswith("inputs[1] has")


def test_a_served_model_is_told_of_by_its_name(serving: TestClient) -> None:
    assert serving.get("/v1/models/letters").json()["kind"] == "embedder"
    listed = serving.get("/v1/models").json()["data"]
    assert listed[0] == serving.get("/v1/models/bm25").json() and listed[0]["created"] > 0
    error = assert_envelope(serving.get("/v1/models/org/other"), 404)
    assert "org/other" in error["message"] and error["code"] == "model_not_found"


def test_an_answer_is_json_without_the_frameworks_help(serving: TestClient) -> None:
    answer: httpx.Response = serving.post("/v1/rerank", json=BODY)
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.content)["results"][0]["index"] == ORDER[0]
