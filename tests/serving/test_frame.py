"""What holds for every request: who is let in, before what; its body's time; the last resort."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import httpx
import pytest

from raydist.serving.http import make_app
from raydist.serving.keys import Keys
from tests.serving.local import BODY, assert_envelope, client, local_client, service

PAGES = ("/", "/docs", "/openapi.json", "/healthz", "/readyz")


class Broken:
    def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        raise RuntimeError("out of memory")


class Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def logs() -> Iterator[list[logging.LogRecord]]:
    """What is written to the access log and to the log of failures."""
    recorder = Recorder()
    loggers = [logging.getLogger(f"raydist.{name}") for name in ("access", "failures")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(recorder)
        logger.setLevel(logging.INFO)
    yield recorder.records
    for logger, level in zip(loggers, levels):
        logger.removeHandler(recorder)
        logger.setLevel(level)


def test_keys_are_required_where_there_are_some() -> None:
    guarded = client(keys=["one", "two"])
    for headers in ({}, {"Authorization": "Bearer three"}, {"Authorization": "Basic one"}):
        answer = guarded.post("/v1/rerank", json=BODY, headers=headers)
        assert_envelope(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    for key in ("one", "two"):
        answer = guarded.post("/v1/rerank", json=BODY, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200
    assert guarded.get("/v1/models").status_code == 401
    assert [guarded.get(path).status_code for path in PAGES] == [200] * 5


def test_a_bearer_is_ignored_where_there_is_no_key() -> None:
    answer = client().post("/v1/rerank", json=BODY, headers={"Authorization": "Bearer what"})
    assert answer.status_code == 200


def test_without_a_key_no_byte_of_the_body_is_read() -> None:
    guarded = client(keys=["one"])
    read = 0

    def chunks() -> Iterator[bytes]:
        nonlocal read
        for _ in range(3):
            read += 1
            yield b"{"

    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": next(chunks()), "more_body": True}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/rerank", "headers": []}
    asyncio.run(guarded.app(scope, receive, send))
    assert (sent[0]["status"], read) == (401, 0)
    # So faults of a body are reported only to clients that may send one.
    assert_envelope(guarded.post("/v1/rerank", json={}), 401)
    assert_envelope(guarded.post("/v1/nothing", json={}), 401)


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        ("127.0.0.1", 200),
        ("127.3.2.1", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("10.0.0.7", 401),
        ("::ffff:10.0.0.7", 401),
        ("2001:db8::1", 401),
        ("", 401),
    ],
)
def test_without_keys_only_this_machine_is_answered(peer: str, status: int) -> None:
    def request(keys: Keys) -> httpx.Response:
        serving = service()
        serving.keys = keys
        return local_client(make_app(serving), peer).post("/v1/rerank", json=BODY)

    answer = request(Keys([]))
    assert answer.status_code == status
    if status == 401:
        message = assert_envelope(answer, 401)["message"]
        assert "keys_file=" in message and "anonymous=true" in message
    assert request(Keys([], anonymous=True)).status_code == 200
    assert request(Keys(["one"])).status_code == 401


def test_only_so_many_bodies_are_waited_for() -> None:
    app = make_app(service(max_requests=1, deadline_s=0.2))
    statuses: list[int] = []
    peer = ("127.0.0.1", 1)

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    def ask(path: str) -> Any:
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "client": peer}
        return app(scope, receive, send)

    async def all_at_once(count: int) -> None:
        await asyncio.gather(*(ask("/v1/score") for _ in range(count)))

    asyncio.run(all_at_once(5))
    assert statuses == [429] * 3 + [408] * 2
    asyncio.run(all_at_once(2))
    assert statuses[5:] == [408] * 2  # their places are free again


def test_a_body_that_does_not_arrive_is_a_408() -> None:
    app = make_app(service(deadline_s=0.05))
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    peer = ("127.0.0.1", 1)
    scope = {"type": "http", "method": "POST", "path": "/v1/score", "headers": [], "client": peer}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["code"] == "slow_body"


def test_whatever_fails_is_a_500_in_the_envelope_and_in_the_log(
    logs: list[logging.LogRecord],
) -> None:
    answer = client({"broken": Broken()}).post(
        "/v1/rerank", json=BODY, headers={"X-Request-Id": "f-1"}
    )
    error = assert_envelope(answer, 500)
    assert error["code"] == "internal_error" and "f-1" in error["message"]
    assert "memory" not in answer.text and answer.headers["x-request-id"] == "f-1"
    failed, access = logs
    assert failed.getMessage() == "request f-1 failed" and failed.exc_info
    assert "out of memory" in logging.Formatter().format(failed)
    assert json.loads(access.getMessage())["status"] == 500


def test_a_failure_that_was_understood_is_in_the_log_too(logs: list[logging.LogRecord]) -> None:
    class Lost:
        def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
            return [[float("nan")] * len(texts) for _, texts in batch]

    answer = client({"lost": Lost()}).post("/v1/rerank", json=BODY, headers={"X-Request-Id": "f-2"})
    assert_envelope(answer, 500)
    assert logs[0].getMessage() == "request f-2 failed"


def test_the_log_calls_only_known_paths_by_their_name(logs: list[logging.LogRecord]) -> None:
    serving = client(keys=["one"])
    serving.post("/v1/rerank", json=BODY)
    serving.get("/secret/path")
    lines = [json.loads(record.getMessage()) for record in logs]
    assert [(line["route"], line["status"]) for line in lines] == [
        ("/v1/rerank", 401),
        ("unknown", 401),
    ]
