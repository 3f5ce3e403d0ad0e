from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import raydist
from raydist.records import Document, Query, Run
from raydist.rerank.bm25 import BM25Reranker
from raydist.rerank.qwen3 import Qwen3Reranker
from raydist.serving.errors import ServiceError
from raydist.serving.searcher import Searcher
from tests.rerank import small_qwen3
from tests.serving.local import LetterCounts, client

DOCUMENTS = ["bread is baked", "rain falls from clouds", "rain rain"]
BODY = {"query": "rain", "documents": DOCUMENTS}


def scores_of(query: str = "rain", documents: Sequence[str] = DOCUMENTS) -> list[float]:
    return BM25Reranker().score([(query, documents)])[0]


def assert_envelope(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    return dict(body["error"])


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank_answers_every_clients_shape_at_once(path: str) -> None:
    answer = client().post(path, json=BODY, headers={"X-Request-Id": "abc-1"})
    assert answer.status_code == 200 and answer.headers["x-request-id"] == "abc-1"
    body = answer.json()
    wanted = sorted(range(3), key=lambda i: (-scores_of()[i], i))
    assert [r["index"] for r in body["results"]] == wanted
    assert [r["relevance_score"] for r in body["results"]] == [scores_of()[i] for i in wanted]
    assert body["data"] == body["results"]
    assert body["id"] == "abc-1" and body["object"] == "rerank" and body["model"] == "bm25"
    assert body["usage"]["total_tokens"] == 9
    assert set(body["meta"]["timings_ms"]) == {"queue", "tokenize", "infer"}
    assert body["meta"]["api_version"] == {"version": "2"}
    assert "document" not in body["results"][0]


def test_null_means_absent_everywhere() -> None:
    fields = (
        "model top_n top_k return_documents return_text rank_fields max_tokens_per_doc "
        "max_chunks_per_doc truncation truncate instruction raw_scores texts"
    )
    nulls = {name: None for name in fields.split()}
    answer = client().post("/v1/rerank", json=BODY | nulls)
    plain = client().post("/v1/rerank", json=BODY)
    assert answer.status_code == 200
    assert answer.json()["results"] == plain.json()["results"]


def test_objects_ids_and_rank_fields() -> None:
    documents = [
        {"id": "a", "text": "bread", "title": "rain"},
        {"id": 7, "text": "rain rain snow"},
        "ice",
    ]
    body = {"query": "rain", "documents": documents, "return_documents": True}
    results = client().post("/v1/rerank", json=body).json()["results"]
    assert {r.get("id") for r in results} == {"a", 7, None}
    assert results[0]["document"] == {"text": "rain rain snow"}
    fields = body | {"rank_fields": ["title", "text"], "documents": documents[:2]}
    results = client().post("/v1/rerank", json=fields).json()["results"]
    assert {r["document"]["text"] for r in results} == {"rain\nbread", "rain rain snow"}


def test_tei_and_voyage_names() -> None:
    tei = client().post(
        "/rerank", json={"query": "rain", "texts": DOCUMENTS, "return_text": True, "top_k": 1}
    )
    (only,) = tei.json()["results"]
    assert only["document"]["text"] == DOCUMENTS[only["index"]]
    both = client().post("/rerank", json=BODY | {"texts": DOCUMENTS})
    assert_envelope(both, 422)


@pytest.mark.parametrize("name", ["top_n", "top_k"])
def test_the_limit_counts_results(name: str) -> None:
    for limit, count in ((1, 1), (3, 3), (50, 3)):
        answer = client().post("/v1/rerank", json=BODY | {name: limit})
        assert len(answer.json()["results"]) == count
    assert_envelope(client().post("/v1/rerank", json=BODY | {name: 0}), 422)


def test_an_empty_list_is_an_ordinary_request() -> None:
    answer = client().post("/v1/rerank", json={"query": "rain", "documents": []})
    assert answer.status_code == 200 and answer.json()["results"] == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"query": "a"', 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b'{"query": "a", "documents": ["\x00"]}', 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b'{"query":"a","documents":' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400, "invalid_json"),
        (b"[]", 422, "invalid"),
        (b'"text"', 422, "invalid"),
        (b"null", 422, "invalid"),
        (b"{}", 422, "invalid"),
        (b'{"query": "a"}', 422, "invalid"),
        (b'{"query": 1, "documents": ["a"]}', 422, "invalid"),
        (b'{"query": "a", "documents": "b"}', 422, "invalid"),
        (b'{"query": "a", "documents": [1]}', 422, "invalid"),
        (b'{"query": "a", "documents": [{}]}', 422, "no_text"),
        (b'{"query": "a", "documents": ["b"], "top_n": NaN}', 422, "invalid"),
        (b'{"query": "a", "documents": ["b"], "top_n": 1e400}', 422, "invalid"),
        (b'{"query": "a", "documents": ["b"], "top_n": -1}', 422, "invalid"),
        (b'{"query": "\\ud800", "documents": ["b"]}', 422, "invalid"),
        (b'{"query": "a", "documents": ["b\\u0000"]}', 422, "invalid"),
        (b'{"query": "a", "documents": ["b"], "model": "other"}', 404, "model_not_found"),
        (b'{"query": "a", "documents": ["b"], "instruction": "c"}', 422, "unsupported"),
        (b'{"query": "a", "documents": ["b"], "truncation": "half"}', 422, "invalid"),
    ],
)
def test_hostile_bodies_get_a_clear_4xx(body: bytes, status: int, code: str) -> None:
    answer = client().post("/v1/rerank", content=body, headers={"content-type": "application/json"})
    assert assert_envelope(answer, status)["code"] == code
    assert "x-request-id" in answer.headers


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"query": "a", "documents": [""] * 2001}, "too_many_documents", "documents"),
        ({"query": "a" * 33_000, "documents": ["b"]}, "query_too_long", "query"),
        ({"query": "a", "documents": ["b", "c" * 1_000_001]}, "text_too_long", "documents[1]"),
        ({"query": "a", "documents": ["b" * 900_000] * 12}, "too_many_tokens", "documents"),
        ({"query": "a", "documents": ["b" * 900_000] * 20}, "body_too_large", None),
    ],
)
def test_what_is_too_large_is_a_413(body: dict[str, Any], code: str, param: str | None) -> None:
    error = assert_envelope(client().post("/v1/rerank", json=body), 413)
    assert (error["code"], error["param"]) == (code, param)


def test_a_body_without_length_is_limited_while_it_arrives() -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 1_000

    answer = client(max_body_bytes=10_000).post(
        "/v1/rerank", content=chunks(), headers={"content-type": "application/json"}
    )
    assert assert_envelope(answer, 413)["code"] == "body_too_large"


def test_unknown_routes_and_methods_have_the_envelope_too() -> None:
    assert_envelope(client().get("/nothing"), 404)
    assert_envelope(client().get("/v1/rerank"), 405)
    assert_envelope(client().post("/v1/embeddings", json={"input": "a"}), 404)
    assert_envelope(client().post("/v1/search", json={"query": "a"}), 404)


def test_keys_are_asked_for_where_there_are_some() -> None:
    guarded = client(keys=["one", "two"])
    for headers in ({}, {"Authorization": "Bearer three"}, {"Authorization": "Basic one"}):
        answer = guarded.post("/v1/rerank", json=BODY, headers=headers)
        assert_envelope(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    for key in ("one", "two"):
        answer = guarded.post("/v1/rerank", json=BODY, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200
    assert guarded.get("/v1/models").status_code == 401
    assert guarded.get("/healthz").status_code == 200


def test_a_bearer_is_ignored_where_there_is_no_key() -> None:
    answer = client().post("/v1/rerank", json=BODY, headers={"Authorization": "Bearer what"})
    assert answer.status_code == 200


def test_a_score_that_is_not_a_number_is_a_500_with_the_request_id() -> None:
    class Broken:
        def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
            return [[float("nan")] * len(texts) for _, texts in batch]

    answer = client({"broken": Broken()}).post(
        "/v1/rerank", json=BODY, headers={"X-Request-Id": "n-1"}
    )
    assert assert_envelope(answer, 500)["code"] == "bad_score"
    assert answer.headers["x-request-id"] == "n-1"


def test_score_keeps_the_order() -> None:
    one = client().post("/v1/score", json={"queries": "rain", "documents": DOCUMENTS})
    assert one.json()["scores"] == scores_of()
    each = client().post(
        "/v1/score", json={"queries": ["rain", "bread", "rain"], "documents": DOCUMENTS}
    )
    rain = scores_of("rain", [DOCUMENTS[0], DOCUMENTS[2]])
    assert each.json()["scores"] == [rain[0], scores_of("bread", [DOCUMENTS[1]])[0], rain[1]]
    many = [f"rain {i}" for i in range(600)]  # one request, however many queries it has
    found = client(max_requests=2).post("/v1/score", json={"queries": many, "documents": many})
    assert len(found.json()["scores"]) == 600
    assert client().post("/v1/score", json={"queries": [], "documents": []}).json()["scores"] == []
    uneven = {"queries": ["rain"], "documents": DOCUMENTS}
    assert_envelope(client().post("/v1/score", json=uneven), 422)


def test_embeddings_as_floats_and_base64() -> None:
    vectors = LetterCounts().encode_documents(["abba", "c"])
    serving = client(embedder=LetterCounts())
    floats = serving.post("/v1/embeddings", json={"input": ["abba", "c"]}).json()
    np.testing.assert_array_equal([row["embedding"] for row in floats["data"]], vectors)
    packed = serving.post(
        "/v1/embeddings", json={"input": "abba", "encoding_format": "base64"}
    ).json()
    raw = base64.b64decode(packed["data"][0]["embedding"])
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4"), vectors[0])
    short = serving.post("/v1/embeddings", json={"input": "abba", "dimensions": 3}).json()
    np.testing.assert_allclose(
        short["data"][0]["embedding"], vectors[0, :3] / np.linalg.norm(vectors[0, :3]), atol=1e-6
    )
    assert_envelope(serving.post("/v1/embeddings", json={"input": "a", "dimensions": 99}), 422)
    assert_envelope(serving.post("/v1/embeddings", json={"input": []}), 422)


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
        return [Document(d, self.texts[d], title=d.upper()) for d in doc_ids]


TEXTS = {"a": "rain and snow", "b": "snow", "c": "rain rain rain", "d": "ice"}


def test_search_shows_every_stages_score_and_time() -> None:
    serving = client(searcher=Searcher({"words": Words(TEXTS)}, Store(TEXTS)))
    found = serving.post("/v1/search", json={"query": "rain snow", "k": 2}).json()
    assert len(found["results"]) == 2
    for rank, result in enumerate(found["results"], 1):
        assert result["rank"] == rank
        assert set(result["scores"]) == {"words", "rerank"}
        assert result["score"] == result["scores"]["rerank"]
        assert result["text"] == TEXTS[result["id"]] and result["title"] == result["id"].upper()
    assert set(found["timings_ms"]) == {"words", "texts", "rerank"}
    body = {"query": "rain snow", "rerank": False, "return_documents": False}
    plain = serving.post("/v1/search", json=body).json()
    assert [r["id"] for r in plain["results"]] == ["a", "b", "c"]
    assert "text" not in plain["results"][0]


def test_search_fuses_and_filters() -> None:
    def fuse(runs: Sequence[Run], k: int) -> Run:
        scores: dict[str, float] = {}
        for run in runs:
            for _, docs, values in run:
                for doc, value in zip(docs, values.tolist()):
                    scores[doc] = scores.get(doc, 0.0) + value
        best = sorted(scores, key=lambda d: -scores[d])[:k]
        return Run.from_lists([("q", best, [scores[d] for d in best])])

    searcher = Searcher({"x": Words(TEXTS), "y": Words(TEXTS)}, Store(TEXTS), fuse)
    serving = client(searcher=searcher)
    body = {"query": "rain snow", "rerank": False}
    found = serving.post("/v1/search", json=body).json()["results"]
    assert found[0]["scores"] == {"x": 2.0, "y": 2.0, "fusion": 4.0}
    found = serving.post("/v1/search", json=body | {"ids": ["c", "b"]}).json()["results"]
    assert {r["id"] for r in found} == {"b", "c"}
    assert serving.post("/v1/search", json=body | {"ids": []}).json()["results"] == []
    # The filter comes before the cut at k: the only one wanted is not among the first.
    last = body | {"ids": ["b", "nowhere"], "k": 1, "depth": 1}
    found = serving.post("/v1/search", json=last).json()["results"]
    assert [r["id"] for r in found] == ["b"] and found[0]["scores"]["x"] == 1.0


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Qwen3Reranker:
    folder = small_qwen3.write(tmp_path_factory.mktemp("qwen3"))
    return Qwen3Reranker(folder, max_length=256, device="cpu")


def test_an_engines_details_reach_the_answer(qwen3: Qwen3Reranker) -> None:
    serving = client({"qwen3": qwen3})
    documents = ["heart disease", "lung " * 400, "heart disease"]
    body = {"query": "heart", "documents": documents}
    answer = serving.post("/v1/rerank", json=body).json()
    by_index = {r["index"]: r for r in answer["results"]}
    assert [by_index[i]["truncated"] for i in range(3)] == [False, True, False]
    assert answer["meta"]["warnings"] == ["1 of 3 documents were truncated"]
    assert answer["usage"]["cached_prefix_tokens"] > 0
    order = [r["index"] for r in answer["results"]]
    assert order.index(0) < order.index(2)  # equal scores keep the request's order
    scores = qwen3.score([("heart", documents)])[0]
    assert [by_index[i]["relevance_score"] for i in range(3)] == pytest.approx(scores)
    chunked = serving.post("/v1/rerank", json=body | {"truncation": "chunk_max"}).json()
    assert {r["index"]: r["chunks"] for r in chunked["results"]}[1] > 1
    for refused in ({"truncation": "error"}, {"truncation": False}, {"truncate": False}):
        error = assert_envelope(serving.post("/v1/rerank", json=body | refused), 422)
        assert error["param"] == "documents[1]"
    raw = serving.post("/v1/rerank", json=body | {"raw_scores": True}).json()["results"]
    assert [r["index"] for r in raw] == order
    told = serving.post("/v1/rerank", json=body | {"instruction": "Find organs."}).json()
    assert told["results"][0]["relevance_score"] != answer["results"][0]["relevance_score"]
    capped = serving.post("/v1/rerank", json=body | {"max_tokens_per_doc": 1}).json()
    assert all(r["truncated"] for r in capped["results"])


def test_ready_scores_a_known_pair(qwen3: Qwen3Reranker) -> None:
    assert client({"qwen3": qwen3}).get("/readyz").json() == {"status": "ready"}
    assert client().get("/healthz").json() == {"status": "ok"}

    class Broken(Words):
        def search(self, queries: Sequence[Query], k: int) -> Run:
            raise ServiceError(503, "the disk is gone", "not_ready")

    searcher = Searcher({"words": Broken(TEXTS)}, Store(TEXTS))
    assert_envelope(client(searcher=searcher).get("/readyz"), 503)


def test_models_are_listed() -> None:
    body = client(embedder=LetterCounts()).get("/v1/models").json()
    assert [(m["id"], m["kind"]) for m in body["data"]] == [
        ("bm25", "reranker"),
        ("letters", "embedder"),
    ]


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def test_the_access_log_has_no_text() -> None:
    logger, kept = logging.getLogger("raydist.access"), Lines()
    before = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    client().post("/v1/rerank", json={"query": "secretquery", "documents": ["secrettext"]})
    logger.removeHandler(kept)
    logger.setLevel(before)
    (line,) = kept.lines
    assert json.loads(line)["route"] == "/v1/rerank" and json.loads(line)["status"] == 200
    assert "secret" not in line


def test_docs_and_page_need_nothing_from_elsewhere() -> None:
    for path in ("/docs", "/"):
        text = client().get(path).text
        assert "<title>" in text and "lang" in text
        assert "http://" not in text.replace("http://HOST:PORT", "") and "https://" not in text
    docs = client().get("/docs").text
    assert "/v1/rerank" in docs and "max_tokens_per_doc" in docs


def test_the_page_has_no_script_from_elsewhere() -> None:
    page = (Path(raydist.__file__).parent / "serving" / "page.html").read_text()
    assert "src=" not in page and "@import" not in page
