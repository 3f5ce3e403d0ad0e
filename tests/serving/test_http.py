from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import raydist
from raydist.reranking.bm25 import BM25Reranker
from raydist.reranking.qwen3 import Qwen3Reranker
from raydist.reranking.rows import Options
from raydist.reranking.spec import Qwen3Spec
from raydist.serving.answers import RerankResponse, ScoreResponse
from raydist.serving.backend import Cost, ScoreCall
from raydist.serving.errors import overloaded
from raydist.serving.http import make_app
from tests.reranking import small_qwen3
from tests.serving.local import (
    BODY,
    LetterCounts,
    LocalBackend,
    assert_envelope,
    client,
    local_client,
    service,
)

DOCUMENTS = BODY["documents"]


def scores_of(query: str = "rain", documents: Sequence[str] = DOCUMENTS) -> list[float]:
    return BM25Reranker().score([(query, documents)])[0]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank_answers_every_clients_shape_at_once(path: str) -> None:
    answer = client().post(path, json=BODY, headers={"X-Request-Id": "abc-1"})
    assert answer.status_code == 200 and answer.headers["x-request-id"] == "abc-1"
    body = answer.json()
    expected = sorted(range(3), key=lambda i: (-scores_of()[i], i))
    assert [r["index"] for r in body["results"]] == expected
    assert [r["relevance_score"] for r in body["results"]] == [scores_of()[i] for i in expected]
    assert body["data"] == body["results"]
    assert body["id"] == "abc-1" and body["object"] == "rerank" and body["model"] == "bm25"
    assert body["usage"]["total_tokens"] == 9
    assert set(body["meta"]["timings_ms"]) == {"queue", "tokenize", "infer"}
    assert body["meta"]["api_version"] == {"version": "2"}
    assert "document" not in body["results"][0]


def test_null_means_absent_everywhere() -> None:
    fields = (
        "model top_n top_k return_documents return_text rank_fields max_tokens_per_doc "
        "max_chunks_per_doc truncation truncate instruction raw_scores texts input priority"
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


def test_documents_have_one_name() -> None:
    both = client().post("/rerank", json=BODY | {"input": DOCUMENTS})
    assert assert_envelope(both, 422)["message"] == "give one of documents, input"


@pytest.mark.parametrize("name", ["top_n", "top_k"])
def test_the_limit_counts_results(name: str) -> None:
    for limit, count in ((1, 1), (3, 3), (50, 3)):
        answer = client().post("/v1/rerank", json=BODY | {name: limit})
        assert len(answer.json()["results"]) == count
    assert_envelope(client().post("/v1/rerank", json=BODY | {name: 0}), 422)


def test_an_empty_list_is_an_ordinary_request() -> None:
    answer = client().post("/v1/rerank", json={"query": "rain", "documents": []})
    assert answer.status_code == 200 and answer.json()["results"] == []


def test_score_keeps_the_order() -> None:
    one = client().post("/v1/score", json={"queries": "rain", "documents": DOCUMENTS})
    assert one.json()["scores"] == scores_of()
    each = client().post(
        "/v1/score", json={"queries": ["rain", "bread", "rain"], "documents": DOCUMENTS}
    )
    rain = scores_of("rain", [DOCUMENTS[0], DOCUMENTS[2]])
    assert each.json()["scores"] == [rain[0], scores_of("bread", [DOCUMENTS[1]])[0], rain[1]]
    many = [f"rain {i}" for i in range(600)]  # one request, however many queries it has
    response = client(max_requests=2).post("/v1/score", json={"queries": many, "documents": many})
    assert len(response.json()["scores"]) == 600
    assert client().post("/v1/score", json={"queries": [], "documents": []}).json()["scores"] == []
    uneven = {"queries": ["rain", "bread"], "documents": DOCUMENTS}
    assert_envelope(client().post("/v1/score", json=uneven), 422)


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        ("/v1/rerank", BODY, RerankResponse),
        ("/v1/rerank", BODY | {"return_documents": True, "top_n": 2}, RerankResponse),
        ("/v1/rerank", {"query": "rain", "input": [{"id": 7, "text": "a"}, "b"]}, RerankResponse),
        ("/v1/score", {"queries": "rain", "documents": DOCUMENTS}, ScoreResponse),
    ],
)
def test_answers_have_the_form_that_is_documented(
    path: str, body: dict[str, Any], model: type[RerankResponse] | type[ScoreResponse]
) -> None:
    answer = client().post(path, json=body).content
    read = model.model_validate_json(answer, strict=True, extra="forbid")
    assert read.model_dump(exclude_none=True) == json.loads(answer)


def test_many_queries_are_one_call() -> None:
    class Counting(LocalBackend):
        calls = 0

        async def score_many(self, model: str, calls: Sequence[ScoreCall]) -> Any:
            self.calls += 1
            assert len(calls) == 400
            return await super().score_many(model, calls)

    serving = service()
    serving.backend = backend = Counting({"bm25": BM25Reranker()})
    body = {"queries": [f"rain {i}" for i in range(400)], "documents": ["rain"] * 400}
    answer = local_client(make_app(serving)).post("/v1/score", json=body)
    assert answer.status_code == 200 and backend.calls == 1


def test_a_model_that_is_loading_is_a_503_with_the_time_to_wait() -> None:
    serving = service(embedder=LetterCounts())
    serving.loading = {"letters"}
    app = local_client(make_app(serving))
    for answer in (app.post("/v1/embeddings", json={"input": "a"}), app.get("/readyz")):
        error = assert_envelope(answer, 503)
        assert error["code"] == "not_ready" and "letters" in error["message"]
        assert int(answer.headers["retry-after"]) >= 1
    assert app.post("/v1/rerank", json=BODY).status_code == 200
    serving.loading.clear()
    assert app.post("/v1/embeddings", json={"input": "a"}).status_code == 200


def test_a_full_replica_is_a_429_that_says_how_long_the_work_takes() -> None:
    class Full(LocalBackend):
        async def score(self, model: str, call: ScoreCall) -> Any:
            raise overloaded(1.0, "all replicas are busy")

    serving = service(max_wait_s=60.0)
    serving.backend = Full({"bm25": BM25Reranker()})
    with serving.admission.enter(40_000, "other", "bm25"):  # at 2,000 tokens per second
        answer = local_client(make_app(serving)).post("/v1/rerank", json=BODY)
    assert assert_envelope(answer, 429)["code"] == "overloaded"
    assert 20 <= int(answer.headers["retry-after"]) <= 21


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


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Qwen3Reranker:
    folder = small_qwen3.write(tmp_path_factory.mktemp("qwen3"))
    return Qwen3Reranker(Qwen3Spec(model=str(folder), max_length=256, device="cpu"))


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
    instructed = serving.post("/v1/rerank", json=body | {"instruction": "Find organs."}).json()
    assert instructed["results"][0]["relevance_score"] != answer["results"][0]["relevance_score"]
    capped = serving.post("/v1/rerank", json=body | {"max_tokens_per_doc": 1}).json()
    assert all(r["truncated"] for r in capped["results"])


def test_without_a_word_on_truncation_the_servers_own_setting_counts(tmp_path: Path) -> None:
    folder = small_qwen3.write(tmp_path)
    options = Options(truncation="error")
    strict = Qwen3Reranker(
        Qwen3Spec(model=str(folder), max_length=256, device="cpu", truncation=options.truncation)
    )
    serving = client({"qwen3": strict})
    texts = ["heart disease", "lung " * 400]
    for path, body in (
        ("/v1/rerank", {"query": "heart", "documents": texts}),
        ("/v1/score", {"queries": "heart", "documents": texts}),
    ):
        assert_envelope(serving.post(path, json=body), 422)
        for choice in ({"truncation": "truncate"}, {"truncation": "chunk_max"}):
            assert serving.post(path, json=body | choice).status_code == 200
    for choice in ({"truncation": True}, {"truncate": True}):  # Voyage's and TEI's words
        body = {"query": "heart", "documents": texts} | choice
        assert serving.post("/v1/rerank", json=body).status_code == 200


def test_an_error_names_the_documents_place_in_the_request(qwen3: Qwen3Reranker) -> None:
    serving = client({"qwen3": qwen3}, max_query_chars=100)
    body = {
        "queries": ["heart", "lung", "heart", "lung"],
        "documents": ["a", "b", "c", "lung " * 400],
        "truncation": "error",
    }
    error = assert_envelope(serving.post("/v1/score", json=body), 422)
    assert error["param"] == "documents[3]" and error["message"].startswith("documents[3] has")
    long = {"queries": ["heart", "lung " * 30], "documents": ["a", "b"]}
    assert assert_envelope(serving.post("/v1/score", json=long), 413)["param"] == "queries[1]"
    long = {"queries": "lung " * 30, "documents": ["a", "b"]}
    assert assert_envelope(serving.post("/v1/score", json=long), 413)["param"] == "queries"


def test_what_a_reranker_does_not_do_it_says() -> None:
    bm25 = {"query": "rain", "documents": DOCUMENTS, "max_tokens_per_doc": 2}
    answer = client().post("/v1/rerank", json=bm25 | {"truncation": "error"}).json()
    (ignored,) = answer["meta"]["warnings"]
    assert ignored.startswith("max_tokens_per_doc is ignored")
    assert client().post("/v1/rerank", json=BODY).json()["meta"]["warnings"] == []


def test_a_models_full_name_is_understood_too() -> None:
    serving = service({"Qwen3-Reranker-0.6B": BM25Reranker()})
    serving.aliases = {"Qwen/Qwen3-Reranker-0.6B": "Qwen3-Reranker-0.6B"}
    app = local_client(make_app(serving))
    for name, status in (
        ("Qwen/Qwen3-Reranker-0.6B", 200),
        ("Qwen3-Reranker-0.6B", 200),
        ("other/Qwen3-Reranker-0.6B", 404),
    ):
        assert app.post("/v1/rerank", json=BODY | {"model": name}).status_code == status


def test_what_is_under_way_is_shown_while_it_is_and_what_is_refused_is_not() -> None:
    class Seen:
        def __init__(self) -> None:
            self.under: list[tuple[int, int]] = []

        def request(self, route: str, status: int, seconds: float) -> None: ...

        def computed(self, model: str, cost: Cost, documents: int) -> None: ...

        def under_way(self, requests: int, tokens: int) -> None:
            self.under.append((requests, tokens))

    serving = service(max_requests=1)
    serving.metrics = seen = Seen()
    app = local_client(make_app(serving))
    assert app.post("/v1/rerank", json=BODY).status_code == 200
    (requests, tokens), last = seen.under
    assert requests == 1 and tokens > 0 and last == (0, 0)
    with serving.admission.enter(5, model="bm25"):
        assert app.post("/v1/rerank", json=BODY).status_code == 429
    assert all(requests <= 1 for requests, _ in seen.under)


def test_ready_scores_a_known_pair(qwen3: Qwen3Reranker) -> None:
    assert client({"qwen3": qwen3}).get("/readyz").json() == {"status": "ready"}
    assert client().get("/healthz").json() == {"status": "ok"}


def test_all_who_ask_whether_it_is_ready_share_one_try() -> None:
    serving = service()
    tried: list[str] = []

    async def check(model: str) -> None:
        tried.append(model)
        await asyncio.sleep(0.05)

    serving.backend.check = check  # type: ignore[method-assign]

    async def ask() -> None:
        await asyncio.gather(*(serving.ready() for _ in range(5)))
        await serving.ready()

    asyncio.run(ask())
    assert tried == ["bm25", "bm25"]


def test_a_model_that_fails_is_not_ready() -> None:
    class Lost:
        def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
            return [[float("nan")] * len(texts) for _, texts in batch]

    assert client({"lost": Lost()}).get("/health").status_code == 503
    assert client({"lost": Lost()}).get("/healthz").status_code == 200
    error = assert_envelope(client({"lost": Lost()}).get("/readyz"), 503)
    assert error["message"].startswith("lost does not work: the model gave a score")


def test_models_are_listed() -> None:
    body = client(embedder=LetterCounts()).get("/v1/models").json()
    assert [(m["id"], m["kind"]) for m in body["data"]] == [
        ("bm25", "reranker"),
        ("letters", "embedder"),
    ]


class Lines(logging.Handler):
    """Collects log records."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def test_the_access_log_has_no_text() -> None:
    logger, recorder = logging.getLogger("raydist.access"), Lines()
    before = logger.level
    logger.addHandler(recorder)
    logger.setLevel(logging.INFO)
    client().post("/v1/rerank", json={"query": "secretquery", "documents": ["secrettext"]})
    logger.removeHandler(recorder)
    logger.setLevel(before)
    (line,) = recorder.lines
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
