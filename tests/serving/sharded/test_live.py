"""A sharded service on Ray Serve: a killed shard costs 503s, and comes back."""

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


def test_a_killed_shard_costs_503s_until_it_is_back(url: str, config: ServeConfig) -> None:
    whole = client(searcher=open_searcher(config)).post("/v1/search", json=BODY).json()["results"]

    def ask(**more: Any) -> httpx.Response:
        return httpx.post(f"{url}/v1/search", json=BODY | more, timeout=60)

    assert ask().json()["results"] == whole != []
    statuses: Counter[int] = Counter()
    wrong: list[Any] = []
    last_refused, stop = [0.0], threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            answer = ask()
            statuses[answer.status_code] += 1
            if answer.status_code == 503:
                last_refused[0] = time.monotonic()
                assert answer.json()["error"]["code"] == "not_ready"
                assert int(answer.headers["retry-after"]) >= 1
            elif answer.json()["results"] != whole:
                wrong.append(answer.json())

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    killed = time.monotonic()
    os.kill(pid_of("shard-2-1"), signal.SIGKILL)
    ends = killed + 90
    parts: list[dict[str, Any]] = []
    while time.monotonic() < ends and not (parts and time.monotonic() > last_refused[0] + 3):
        part = ask(partial=True).json()
        if part.get("searched", 1.0) < 1:
            parts.append(part)
        time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join()
    print(f"recovered after {last_refused[0] - killed:.1f} s, {dict(statuses)}")
    assert set(statuses) == {200, 503} and wrong == [] and last_refused[0] < ends - 3
    # Of three segments one shard has two.
    assert parts and {round(3 * part["searched"], 6) for part in parts} <= {1.0, 2.0}
    assert ask().json()["results"] == whole


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
