"""Real clients against one local Ray Serve."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import raydist
from raydist.cli import main
from raydist.config.load import load
from raydist.config.serve import ServeConfig
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.reranking.bm25 import BM25Reranker
from raydist.reranking.cross_encoder import CrossEncoder
from raydist.reranking.spec import CrossEncoderSpec

pytestmark = [pytest.mark.ray, pytest.mark.alone]
ROOT = Path(raydist.__file__).parents[1]

DOCUMENTS = ["bread is baked", "rain falls from clouds", "rain rain"]
BODY = {"query": "rain", "documents": DOCUMENTS}
EARLY: list[httpx.Response] = []
"""The answer to a request before there was an application."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def model(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "crossencoder"
    CrossEncoderModel.load(
        tiny_bert, fresh_head=True, activation="sigmoid", seed=3, device="cpu"
    ).save(folder)
    return folder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    rows = [{"id": f"d{i}", "text": text} for i, text in enumerate(DOCUMENTS)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["index", f"corpus={folder}/corpus.jsonl", f"out={folder}/index"]) == 0
    return folder / "index"


@pytest.fixture(scope="module")
def url(index: Path, ray_cluster: None, tiny_bert: Path, model: Path) -> Iterator[str]:
    from ray import serve

    from raydist.serving.app import build

    port = free_port()
    config = load(
        ServeConfig,
        (),
        [
            "reranker=bm25",
            f"rerankers={{neural: {{kind: cross_encoder, model: {model}, threads: 1}}}}",
            f"embedder={tiny_bert}",
            f"index={index}",
            f"port={port}",
            "replicas.cpus=0.1",
            "limits.max_wait_s=1",
            "limits.max_requests=32",
            "limits.deadline_s=300",  # on a busy machine a replica takes its time to come back
        ],
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    EARLY.append(httpx.post(f"http://127.0.0.1:{port}/v1/rerank", json=BODY))
    serve.run(build(config), name="raydist", route_prefix="/", blocking=False)
    yield f"http://127.0.0.1:{port}"
    serve.delete("raydist")
    serve.shutdown()


def order() -> list[int]:
    scores = BM25Reranker().score([("rain", DOCUMENTS)])[0]
    return sorted(range(3), key=lambda i: (-scores[i], i))


def test_coheres_first_client(url: str) -> None:
    import cohere

    answer = cohere.Client("key", base_url=url).rerank(
        query="rain",
        documents=[{"text": text} for text in DOCUMENTS],
        model="bm25",
        top_n=2,
        return_documents=True,
    )
    assert answer.id
    assert [r.index for r in answer.results] == order()[:2]
    assert [r.document.text for r in answer.results if r.document] == [
        DOCUMENTS[i] for i in order()[:2]
    ]
    scores = BM25Reranker().score([("rain", DOCUMENTS)])[0]
    assert [r.relevance_score for r in answer.results] == [scores[i] for i in order()[:2]]
    assert answer.meta is not None and answer.meta.api_version is not None


def test_coheres_second_client(url: str) -> None:
    import cohere

    answer = cohere.ClientV2("key", base_url=url).rerank(
        model="bm25", query="rain", documents=DOCUMENTS, top_n=3, max_tokens_per_doc=100
    )
    assert answer.id and [r.index for r in answer.results] == order()
    assert all(isinstance(r.relevance_score, float) for r in answer.results)
    with pytest.raises(cohere.NotFoundError):
        cohere.ClientV2("key", base_url=url).rerank(model="other", query="a", documents=["b"])


def test_voyages_client(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import voyageai

    client = voyageai.Client(api_key="key", base_url=f"{url}/v1")
    answer = client.rerank("rain", DOCUMENTS, model="bm25", top_k=None)
    assert [r.index for r in answer.results] == order()
    assert [r.document for r in answer.results] == [DOCUMENTS[i] for i in order()]
    assert answer.total_tokens == 9


def test_openais_client(url: str, tiny_bert: Path) -> None:
    import openai

    client = openai.OpenAI(api_key="key", base_url=f"{url}/v1")
    name = tiny_bert.name
    expected = BiEncoder.load(tiny_bert, device="cpu").encode_documents(DOCUMENTS)
    packed = client.embeddings.create(model=name, input=DOCUMENTS)
    np.testing.assert_allclose([row.embedding for row in packed.data], expected, atol=1e-5)
    floats = client.embeddings.create(model=name, input=DOCUMENTS, encoding_format="float")
    np.testing.assert_allclose([row.embedding for row in floats.data], expected, atol=1e-5)
    assert packed.usage.total_tokens > 0
    assert {m.id for m in client.models.list()} >= {"bm25", "neural", name}
    with pytest.raises(openai.UnprocessableEntityError, match="tokens and the model reads"):
        client.embeddings.create(
            model=name, input="index " * 1000, extra_body={"truncation": False}
        )


def test_the_models_scores_are_the_librarys(url: str, model: Path) -> None:
    answer = httpx.post(f"{url}/v1/rerank", json=BODY | {"model": "neural"}, timeout=30)
    assert answer.status_code == 200
    scores = CrossEncoder(CrossEncoderSpec(model=str(model), device="cpu")).score(
        [("rain", DOCUMENTS)]
    )[0]
    by_index = {r["index"]: r["relevance_score"] for r in answer.json()["results"]}
    assert [by_index[i] for i in range(3)] == pytest.approx(scores, abs=1e-6)


def test_a_search_shows_passages_with_the_querys_words(url: str) -> None:
    body = {"query": "falling rains", "k": 2, "rerank": False, "snippets": True}
    answer = httpx.post(f"{url}/v1/search", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    (best, second) = answer.json()["results"]
    assert (best["id"], second["id"]) == ("d1", "d2")
    (snippet,) = best["snippets"]
    words = [snippet["text"][start:end] for start, end in snippet["marks"]]
    assert snippet["text"] == "rain falls from clouds" and words == ["rain", "falls"]


def test_request_ids_are_echoed_once(url: str) -> None:
    answer = httpx.post(f"{url}/v1/rerank", json=BODY, headers={"X-Request-Id": "abc-1"})
    assert answer.headers.get_list("x-request-id") == ["abc-1"]
    assert answer.json()["id"] == "abc-1"


def test_without_keys_others_are_refused_wherever_serve_listens(url: str) -> None:
    """Serve's proxy passes on a request's address, also that of a proxy before it."""
    answer = httpx.post(f"{url}/v1/rerank", json=BODY, headers={"X-Forwarded-For": "10.0.0.7"})
    assert answer.status_code == 401 and "anonymous=true" in answer.json()["error"]["message"]


def test_what_comes_too_early_is_told_when_to_try_again(url: str) -> None:
    (answer,) = EARLY
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "not_ready"
    assert int(answer.headers["retry-after"]) >= 1 and answer.headers["x-request-id"]


def test_what_rays_proxy_cannot_read_does_no_harm(url: str) -> None:
    headers = [(b"x-request-id", "日本".encode()), (b"x-other", b"\xff\xfe")]
    answer = httpx.post(f"{url}/v1/rerank", json=BODY, headers=headers)
    assert answer.status_code == 200 and answer.headers["x-request-id"] == answer.json()["id"]


def test_health_and_readiness(url: str) -> None:
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert httpx.get(f"{url}/readyz").json() == {"status": "ready"}


def test_schemathesis_finds_no_server_error(url: str) -> None:
    import schemathesis

    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [each.ok() for each in schema.get_all_operations()]
    posts = [operation for operation in operations if operation.method.upper() == "POST"]
    assert len(posts) == 15
    for operation in posts:

        @settings(
            max_examples=15,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            answer = case.call(timeout=30)
            assert answer.status_code < 500, answer.text

        check()


def test_overload_is_answered_with_429_and_ends(url: str) -> None:
    statuses: Counter[int] = Counter()
    waits: list[str | None] = []
    texts = [f"{'word ' * 30}{i}" for i in range(40)]
    stop = time.monotonic() + 4

    def hammer() -> None:
        with httpx.Client(timeout=120) as client:
            while time.monotonic() < stop:
                body = {"query": "rain", "documents": texts, "model": "neural"}
                answer = client.post(f"{url}/v1/rerank", json=body)
                statuses[answer.status_code] += 1
                if answer.status_code == 429:
                    waits.append(answer.headers.get("retry-after"))
                    assert answer.json()["error"]["code"] == "overloaded"

    with concurrent.futures.ThreadPoolExecutor(48) as pool:
        for future in [pool.submit(hammer) for _ in range(48)]:
            future.result()
    assert set(statuses) <= {200, 429, 503} and statuses[200] > 0
    assert statuses[429] > 0 and all(wait and int(wait) >= 1 for wait in waits)
    deadline = time.monotonic() + 20
    while httpx.post(f"{url}/v1/rerank", json=BODY | {"model": "neural"}).status_code != 200:
        assert time.monotonic() < deadline, "the service did not recover"
        time.sleep(0.2)


def test_more_requests_than_an_ingress_takes_are_refused_in_its_own_words(url: str) -> None:
    async def burst() -> list[httpx.Response]:
        everybody = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=300, limits=everybody) as client:
            body = {"query": "rain", "documents": ["word " * 30] * 40, "model": "neural"}
            requests = [client.post(f"{url}/v1/rerank", json=body) for _ in range(300)]
            return await asyncio.gather(*requests)

    answers = asyncio.run(burst())
    assert {answer.status_code for answer in answers} <= {200, 429, 503}
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) > 50
    for answer in refused:
        assert answer.json()["error"]["code"] in ("overloaded", "not_ready")
        assert int(answer.headers["retry-after"]) >= 1


def test_a_client_that_goes_away_takes_its_work_with_it(url: str) -> None:
    from ray import serve

    scorer = serve.get_deployment_handle("scorer-neural", "raydist")

    def queued() -> int:
        return int(scorer.state.remote().result(timeout_s=60).queued_tokens)

    texts = [f"{'of the index ' * 250}{i}" for i in range(400)]
    body = {"query": "rain", "documents": texts, "model": "neural", "truncation": "chunk_max"}

    async def ask_and_leave() -> tuple[int, float]:
        """Returns the most tokens that were queued, and the seconds until none was any more."""
        async with httpx.AsyncClient(timeout=300) as client:
            request = asyncio.create_task(client.post(f"{url}/v1/rerank", json=body))
            ends = time.monotonic() + 60
            while not (most := await asyncio.to_thread(queued)):
                assert time.monotonic() < ends
                if request.done():  # a busy machine tokenises for longer than the patience here
                    assert request.result().status_code == 503
                    request = asyncio.create_task(client.post(f"{url}/v1/rerank", json=body))
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
        start = time.monotonic()
        while await asyncio.to_thread(queued):
            assert time.monotonic() < start + 60
        return most, time.monotonic() - start

    most, seconds = asyncio.run(ask_and_leave())
    assert most > 50_000
    # What was queued is gone at once, not computed: that takes much longer.
    start = time.monotonic()
    short = body | {"documents": texts[:40]}
    assert httpx.post(f"{url}/v1/rerank", json=short, timeout=300).status_code == 200
    assert seconds < 5 * (time.monotonic() - start)


def test_the_dashboards_metrics_are_in_rays_endpoint(url: str) -> None:
    from raydist.serving.app import metrics_url

    board = json.loads((ROOT / "cluster" / "grafana-serving.json").read_text())
    queries = " ".join(t["expr"] for panel in board["panels"] for t in panel["targets"])
    expected = {
        name
        for name in re.findall(r"ray_raydist_\w+", queries)
        # Only models with a shared prefix and sharded indexes have these.
        if "cached_prefix" not in name and "_shard_" not in name
    }
    assert len(expected) >= 10
    for model in ("bm25", "neural"):
        answer = httpx.post(f"{url}/v1/rerank", json=BODY | {"model": model}, timeout=60)
        assert answer.status_code == 200
    ends = time.monotonic() + 90  # they are collected every few seconds
    while True:
        text = httpx.get(metrics_url(), timeout=30).text
        if missing := [name for name in expected if not re.search(rf"^{name}{{", text, re.M)]:
            assert time.monotonic() < ends, missing
            time.sleep(1)
            continue
        break
    assert re.search(r'^ray_raydist_requests_total{.*route="/v1/rerank".*status="200"', text, re.M)
    assert "word" not in "".join(re.findall(r"^ray_raydist_.*$", text, re.M))


def pid_of(deployment: str) -> int:
    """Returns the process of a deployment's only replica."""
    import psutil

    pids = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            if f"ServeReplica:raydist:{deployment}" in " ".join(process.cmdline()):
                pids.append(process.pid)
    assert len(pids) == 1, pids
    return pids[0]


@pytest.mark.parametrize("deployment", ["scorer-neural", "ingress"])
def test_a_killed_process_loses_at_most_what_it_had_in_flight(url: str, deployment: str) -> None:
    """Later requests wait for the new one: they are late, not lost."""
    pid = pid_of(deployment)
    answers: list[tuple[float, int]] = []  # when it was sent, the status
    clients = 2
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=400) as client:
            while not stop.is_set():
                sent = time.monotonic()
                answer = client.post(f"{url}/v1/rerank", json=BODY | {"model": "neural"})
                answers.append((sent, answer.status_code))
                if answer.status_code != 200:
                    refusal = answer.json()["error"]["message"]
                    assert answer.status_code in (429, 503), (answer.status_code, refusal)
                    assert int(answer.headers.get("retry-after", 0)) >= 1, refusal
                time.sleep(0.02)

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(ask) for _ in range(clients)]
        while len(answers) < 20:
            time.sleep(0.1)
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        ends = killed + 280
        back: list[int] = []
        while time.monotonic() < ends and (len(back) < 20 or set(back[-20:]) != {200}):
            time.sleep(0.5)
            back = [status for sent, status in answers if sent > killed + 1]
        stop.set()
        for future in running:
            future.result()
    statuses = Counter(status for _, status in answers)
    assert len(back) >= 20 and set(back[-20:]) == {200}, statuses
    assert pid_of(deployment) != pid
    assert set(statuses) <= {200, 429, 503}, statuses
    assert statuses[503] <= 2 * clients, statuses  # in flight, and sent before it was noticed
