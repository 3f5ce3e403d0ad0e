"""A sharded service on Ray Serve: a shard that is lost costs 503s at most, and comes back."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from raydist.build import open_searcher
from raydist.config.serve import ServeConfig
from tests.serving.local import client
from tests.serving.sharded.test_searcher import build, configured
from tests.serving.test_live import free_port, pid_of

pytestmark = [pytest.mark.ray, pytest.mark.alone]
BODY: dict[str, Any] = {"query": "heron fish lake", "k": 50}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ServeConfig:
    (folder,) = build(tmp_path_factory.mktemp("live"))
    words = ["reranker=bm25", f"port={free_port()}", "replicas.cpus=0.1", "reload_s=1"]
    return configured(folder, words=words)


@pytest.fixture(scope="module")
def url(config: ServeConfig, ray_cluster: None) -> Iterator[str]:
    from ray import serve

    from raydist.serving.app import build as application

    serve.start(http_options={"host": "127.0.0.1", "port": config.port})
    serve.run(application(config), name="raydist", route_prefix="/")
    root = f"http://127.0.0.1:{config.port}"
    ends = time.monotonic() + 60
    while httpx.get(f"{root}/readyz", timeout=30).status_code != 200:
        assert time.monotonic() < ends
        time.sleep(0.2)
    yield root
    serve.delete("raydist")
    serve.shutdown()


class Load:
    """Clients that search again and again while something happens to the shards."""

    def __init__(self, url: str, whole: list[Any]) -> None:
        self._url, self._whole = url, whole
        self.statuses: Counter[int] = Counter()
        self.wrong: list[Any] = []
        self.refused = 0.0  # when a request was refused last
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._hammer) for _ in range(3)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def ask(self, **more: Any) -> httpx.Response:
        return httpx.post(f"{self._url}/v1/search", json=BODY | more, timeout=60)

    def _hammer(self) -> None:
        while not self._stop.is_set():
            answer = self.ask()
            self.statuses[answer.status_code] += 1
            if answer.status_code != 200:
                self.refused = time.monotonic()
                if answer.status_code != 503 or int(answer.headers["retry-after"]) < 1:
                    self.wrong.append(answer)
            elif answer.json()["results"] != self._whole:
                self.wrong.append(answer.json())


@pytest.fixture(scope="module")
def whole(config: ServeConfig) -> list[Any]:
    """What one process answers."""
    searcher = open_searcher(config)
    results: list[Any] = client(searcher=searcher).post("/v1/search", json=BODY).json()["results"]
    assert results
    return results


def test_a_killed_shard_is_replaced(url: str, whole: list[Any]) -> None:
    """Requests that Serve's router holds back meanwhile are late; others may get 503."""
    with Load(url, whole) as load:
        assert load.ask().json()["results"] == whole
        killed, first = time.monotonic(), pid_of("shard-2-1")
        os.kill(first, signal.SIGKILL)
        while not replaced(first) or time.monotonic() < load.refused + 3:
            assert time.monotonic() < killed + 90
            time.sleep(0.1)
        assert load.ask().json()["results"] == whole
    print(f"recovered after {max(load.refused - killed, 0):.1f} s, {dict(load.statuses)}")
    assert set(load.statuses) <= {200, 503} and load.statuses[200] and load.wrong == []


def replaced(pid: int) -> bool:
    """Whether shard 2 runs in another process."""
    try:
        return pid_of("shard-2-1") != pid
    except AssertionError:  # none, or both
        return False


def test_a_shard_that_does_not_answer_costs_503s_until_it_does(url: str, whole: list[Any]) -> None:
    pid = pid_of("shard-2-1")
    parts: list[dict[str, Any]] = []
    with Load(url, whole) as load:
        ends = time.monotonic() + 60
        os.kill(pid, signal.SIGSTOP)
        try:
            while not (parts and load.statuses[503]):
                assert time.monotonic() < ends
                part = load.ask(partial=True).json()
                if part.get("searched", 1.0) < 1:
                    parts.append(part)
        finally:
            os.kill(pid, signal.SIGCONT)
        while time.monotonic() < load.refused + 3:
            assert time.monotonic() < ends
            time.sleep(0.1)
        assert load.ask().json()["results"] == whole
    assert set(load.statuses) == {200, 503} and load.wrong == []
    # Of three segments one shard has two.
    assert {round(3 * part["searched"], 6) for part in parts} <= {1.0, 2.0}


def test_a_newer_generation_and_the_metrics_of_shards_are_seen(
    url: str, config: ServeConfig, tmp_path: Path
) -> None:
    from raydist.cli import main
    from raydist.serving.app import metrics_url

    (tmp_path / "more.jsonl").write_text('{"id": "n", "text": "heron fish lake", "year": 1}\n')
    words = [f"corpus={tmp_path / 'more.jsonl'}", "corpus.columns=year", f"out={config.index[0]}"]
    assert main(["index", *words, "--append"]) == 0
    ends = time.monotonic() + 60
    while True:
        answer = httpx.post(f"{url}/v1/search", json=BODY, timeout=60).json()
        if any(each["id"] == "n" for each in answer["results"]):
            break
        assert time.monotonic() < ends
        time.sleep(0.2)
    names = ("shard_seconds_bucket", "shard_documents", "shard_failures_total")
    while True:
        text = httpx.get(metrics_url(), timeout=30).text
        if all(re.search(rf'^ray_raydist_{name}{{.*shard="2"', text, re.M) for name in names):
            break
        assert time.monotonic() < ends + 60
        time.sleep(1)
