"""What the service does not do, and how it says so: one envelope for every error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.serving.local import BODY, assert_envelope, client


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
        (b'{"query": "a", "documents": ["b"], "top_n": NaN}', 400, "invalid_json"),
        (b'{"query": "a", "documents": ["b"], "top_n": 1e400}', 400, "invalid_json"),
        (b'{"query": "a", "documents": ["b"], "top_n": -1}', 422, "invalid"),
        (b'{"query": "\\ud800", "documents": ["b"]}', 400, "invalid_json"),
        (b'{"query": "a", "documents": ["b\\u0000"]}', 422, "invalid"),
        (b'{"query": "a", "documents": [{"id": "\\ud800", "text": "b"}]}', 400, "invalid_json"),
        (b'{"query": "a", "documents": [{"id": "\\u0000", "text": "b"}]}', 422, "invalid"),
        (
            b'{"query": "a", "documents": [{"title": "\\u0000", "text": "b"}],'
            b'"rank_fields": ["title"], "return_documents": true}',
            422,
            "invalid",
        ),
        (b'{"query": "a", "documents": ["b"], "top_n": ' + b"9" * 5000 + b"}", 400, "invalid_json"),
        (b'{"query": "a", "documents": [' + b"1," * 200_000 + b"1]}", 422, "invalid"),
        (b'{"query": "a", "documents": [' + b'"",' * 200_000 + b'""]}', 413, "too_many_documents"),
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
        ({"query": "a", "documents": [""] * 2049}, "too_many_documents", "documents"),
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


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/score", b'{"documents": [], "queries": ['),
        ("/v1/embeddings", b'{"input": ['),
        ("/v1/search", b'{"query": "a", "ids": ['),
    ],
)
def test_no_list_is_read_to_its_end_that_is_longer_than_any_server_allows(
    path: str, body: bytes
) -> None:
    headers = {"content-type": "application/json"}
    answer = client().post(path, content=body + b'"",' * 200_000 + b'""]}', headers=headers)
    assert assert_envelope(answer, 413)["code"] == "too_many_documents"


def test_a_body_without_json_s_content_type_is_refused_with_the_remedy() -> None:
    for kind, quoted in (  # a web page may send these anywhere, unasked
        ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded"),
        ("text/plain; charset=utf-8", "text/plain"),
    ):
        answer = client().post(
            "/v1/rerank", content=json.dumps(BODY), headers={"content-type": kind}
        )
        message = assert_envelope(answer, 422)["message"]
        assert quoted in message and "Content-Type: application/json" in message
    answer = client().post("/v1/rerank", json=[BODY])
    assert assert_envelope(answer, 422)["message"] == "the body is not a JSON object"


def test_an_error_names_the_field_that_was_meant() -> None:
    documents = [{"text": "a"}, {"id": "\u0000", "text": "a"}]
    text = json.dumps({"query": "a", "documents": documents})
    answer = client().post("/v1/rerank", content=text, headers={"content-type": "application/json"})
    assert assert_envelope(answer, 422)["param"] == "documents.1.id"


def test_unknown_routes_and_methods_have_the_envelope_too() -> None:
    assert "such route: GET /nothing; there are /v1" in client().get("/nothing").json()["message"]
    assert_envelope(client().get("/nothing"), 404)
    assert_envelope(client().get("/v1/rerank"), 405)
    assert_envelope(client().post("/v1/embeddings", json={"input": "a"}), 404)
    assert_envelope(client().post("/v1/search", json={"query": "a"}), 404)


def test_a_score_that_is_not_a_number_is_a_500_with_the_request_id() -> None:
    class Broken:
        def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
            return [[float("nan")] * len(texts) for _, texts in batch]

    answer = client({"broken": Broken()}).post(
        "/v1/rerank", json=BODY, headers={"X-Request-Id": "n-1"}
    )
    assert assert_envelope(answer, 500)["code"] == "bad_score"
    assert answer.headers["x-request-id"] == "n-1"
