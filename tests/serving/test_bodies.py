"""How bodies and headers arrive: encodings, content types, ids, methods, origins, names."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from raydist.serving.http import make_app
from raydist.serving.keys import Keys
from tests.serving.local import BODY, assert_envelope, client, local_client, service

RAW = json.dumps(BODY).encode()


def _headerless(data: bytes) -> bytes:
    press = zlib.compressobj(wbits=-15)
    return press.compress(data) + press.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("identity", RAW),
        ("gzip", gzip.compress(RAW)),
        ("GZIP", gzip.compress(RAW[:9]) + gzip.compress(RAW[9:])),
        ("deflate", zlib.compress(RAW)),
        ("deflate", _headerless(RAW)),
    ],
    ids=["plain", "gzip", "two members", "zlib", "headerless"],
)
def test_compressed_bodies_are_read(encoding: str, body: bytes) -> None:
    headers = {"content-encoding": encoding, "content-type": "application/json"}
    answer = client().post("/v1/rerank", content=body, headers=headers)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("encoding", "body", "status", "code"),
    [
        ("gzip", gzip.compress(b" " * 10_000_000), 413, "body_too_large"),
        ("deflate", zlib.compress(b" " * 10_000_000), 413, "body_too_large"),
        ("gzip", RAW, 400, "invalid_encoding"),
        ("gzip", gzip.compress(RAW)[:-9], 400, "invalid_encoding"),
        ("br", RAW, 415, "unsupported_encoding"),
        ("gzip, gzip", RAW, 415, "unsupported_encoding"),
    ],
    ids=["gzip grows", "deflate grows", "no gzip", "cut off", "brotli", "twice"],
)
def test_what_a_body_grows_to_is_limited(
    encoding: str, body: bytes, status: int, code: str
) -> None:
    headers = {"content-encoding": encoding, "content-type": "application/json"}
    answer = client(max_body_bytes=100_000).post("/v1/rerank", content=body, headers=headers)
    assert assert_envelope(answer, status)["code"] == code


@pytest.mark.parametrize("kind", [None, "", "text/json", "application/json; charset=utf-8"])
def test_json_needs_no_exact_content_type(kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    assert client().post("/v1/rerank", content=RAW, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("path", "field"),
    [("/v1/rerank", "query"), ("/v1/embeddings", "input"), ("/v2/embed", "texts")],
)
def test_an_empty_body_lacks_a_field_with_a_name(path: str, field: str) -> None:
    error = assert_envelope(client().post(path), 422)
    assert error["param"] == field and error["message"] == f"{field} is required"


@pytest.mark.parametrize("path", ["/healthz", "/health", "/readyz", "/docs", "/"])
def test_health_and_pages_answer_head(path: str) -> None:
    assert client(keys=["one"]).head(path).status_code == 200


def test_a_request_id_that_is_not_ascii_is_replaced_in_header_and_body() -> None:
    for sent in ("Anfrage-ü".encode(), "日本".encode(), b"\xff\xfe", b"a b", b"x" * 129):
        answer = client().post("/v1/rerank", json=BODY, headers={"x-request-id": sent})
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] == answer.json()["id"] != sent.decode("latin-1")
    twice = [("x-request-id", "one"), ("x-request-id", "two")]
    answer = client().post("/v1/rerank", json=BODY, headers=twice)
    assert answer.headers["x-request-id"] == answer.json()["id"] == "one"


def test_web_pages_of_named_origins_may_read_answers() -> None:
    def ask(**headers: str) -> str | None:
        app = make_app(service(keys=["one"]), cors=["https://a.example"])
        answer = local_client(app).post("/v1/rerank", json=BODY, headers=headers)
        return answer.headers.get("access-control-allow-origin")

    assert ask(Origin="https://a.example") == "https://a.example"  # of a 401 as well
    assert ask(Origin="https://b.example") is None
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization, content-type"
    app = make_app(service(keys=["one"]), cors=["https://a.example"])
    allowed = local_client(app).options("/v1/rerank", headers=asked)
    assert allowed.status_code == 200
    assert "POST" in allowed.headers["access-control-allow-methods"]
    assert client().options("/v1/rerank", headers=asked).status_code == 405


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("127.9.9.9:80", 200),
        ("[::1]:8000", 200),
        ("app.localhost", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("10.0.0.7:8000", 403),
    ],
)
def test_without_keys_only_this_machines_names_are_answered(host: str, status: int) -> None:
    """A page may point its own name at 127.0.0.1, and would then read what is served here."""
    headers = {"Host": host}
    answer = client().post("/v1/rerank", json=BODY, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert assert_envelope(answer, 403)["code"] == "host_not_allowed"
        assert client().get("/v1/models", headers=headers).status_code == 403
    assert client().get("/healthz", headers=headers).status_code == 200
    headers["Authorization"] = "Bearer one"
    assert client(keys=["one"]).post("/v1/rerank", json=BODY, headers=headers).status_code == 200
    everybody = service()
    everybody.keys = Keys([], anonymous=True)
    answer = local_client(make_app(everybody)).post("/v1/rerank", json=BODY, headers=headers)
    assert answer.status_code == 200
