"""A live service under a stream of requests while its model, its configuration or its load change:
none is dropped."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest

from raydist.config.load import load
from raydist.config.serve import ServeConfig
from raydist.evaluation.registry import Candidate, promote
from raydist.models.crossencoder import CrossEncoderModel
from raydist.reranking.cross_encoder import CrossEncoder
from raydist.reranking.spec import CrossEncoderSpec
from tests.serving.test_live import DOCUMENTS, free_port

pytestmark = pytest.mark.ray

BODY = {"query": "rain", "documents": DOCUMENTS}
PATIENCE_S = 300.0


@pytest.fixture(scope="module")
def models(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two cross-encoders that score differently."""
    folder = tmp_path_factory.mktemp("rolling")
    for seed in (3, 4):
        CrossEncoderModel.load(
            tiny_bert, fresh_head=True, activation="sigmoid", seed=seed, device="cpu"
        ).save(folder / f"seed{seed}")
    return [folder / "seed3", folder / "seed4"]


@pytest.fixture(scope="module")
def port(ray_cluster: None) -> Iterator[int]:
    from ray import serve

    free = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": free})
    yield free
    serve.delete("raydist")
    serve.shutdown()


def deploy(port: int, *words: str) -> None:
    from ray import serve

    from raydist.serving.app import build

    config = load(ServeConfig, (), [f"port={port}", "replicas.cpus=0.1", *words])
    serve.run(build(config), name="raydist", route_prefix="/", blocking=False)


def scores(model: Path) -> list[float]:
    return CrossEncoder(CrossEncoderSpec(model=str(model), device="cpu")).score(
        [("rain", DOCUMENTS)]
    )[0]


class Stream:
    """Clients that send one request after the other, keeping every answer."""

    def __init__(self, port: int, model: str, clients: int = 3) -> None:
        self.url = f"http://127.0.0.1:{port}/v1/rerank"
        self.body = BODY | {"model": model}
        self.statuses: Counter[int | str] = Counter()
        self.answers: list[dict[str, Any]] = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.ask) for _ in range(clients)]

    def ask(self) -> None:
        with httpx.Client(timeout=PATIENCE_S) as client:
            while not self.stop.is_set():
                try:
                    answer = client.post(self.url, json=self.body)
                except httpx.HTTPError as error:
                    self.statuses[type(error).__name__] += 1
                    continue
                self.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    self.answers.append(answer.json())
                time.sleep(0.01)

    def scores(self, answer: dict[str, Any]) -> list[float]:
        by_index = {r["index"]: r["relevance_score"] for r in answer["results"]}
        return [by_index[i] for i in range(len(DOCUMENTS))]

    def wait_for(self, expected: list[float]) -> None:
        """Returns when the last answers are all of the model with these scores."""
        ends = time.monotonic() + PATIENCE_S
        before = len(self.answers)
        while True:
            last = self.answers[before:][-10:]
            if len(last) == 10 and all(
                self.scores(a) == pytest.approx(expected, abs=1e-6) for a in last
            ):
                return
            assert time.monotonic() < ends, (self.statuses, last[-1:], expected)
            time.sleep(0.1)

    def __enter__(self) -> Stream:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


def test_a_new_champion_and_a_new_checkpoint_are_taken_over_without_a_dropped_request(
    port: int, models: list[Path], database: str, tmp_path: Path
) -> None:
    first, second = (scores(model) for model in models)
    assert first != pytest.approx(second, abs=1e-3)
    values = {f"q{i}": 0.1 + 0.01 * i for i in range(10)}
    old = Candidate(
        name="toy", folder=models[0], metric="nDCG@10", values=values, fingerprint="first"
    )
    promote(database, old)
    link = tmp_path / "newest"
    link.symlink_to(models[0])
    deploy(
        port,
        "reranker=models:/toy@champion",
        f"registry={database}",
        f"rerankers={{newest: {{kind: cross_encoder, model: {link}}}}}",
        "reload_s=1",
    )
    with Stream(port, "toy") as registry, Stream(port, "newest") as folder:
        registry.wait_for(first)
        folder.wait_for(first)
        better = {query: value + 0.5 for query, value in values.items()}
        new = replace(old, folder=models[1], values=better, fingerprint="second")
        assert promote(database, new).moved
        link.unlink()
        link.symlink_to(models[1])
        registry.wait_for(second)
        folder.wait_for(second)
    for stream in (registry, folder):
        assert set(stream.statuses) == {200}, stream.statuses
        for answer in stream.answers:  # every answer is one model's, never a mixture
            answered = stream.scores(answer)
            assert answered in (pytest.approx(first, abs=1e-6), pytest.approx(second, abs=1e-6))
    versions = [answer["meta"]["model_version"] for answer in registry.answers]
    assert versions[0] == "1" and versions[-1] == "2"


def test_a_redeploy_drops_no_request(port: int, models: list[Path]) -> None:
    first, second = (scores(model) for model in models)
    settings = ["name=neural", "limits.max_documents=50"]
    deploy(port, f"reranker={models[0]}", *settings)
    with Stream(port, "neural") as stream:
        stream.wait_for(first)
        deploy(port, f"reranker={models[1]}", "name=neural", "limits.max_documents=60")
        stream.wait_for(second)
    assert set(stream.statuses) == {200}, stream.statuses
    url = f"http://127.0.0.1:{port}/v1/rerank"
    answer = httpx.post(url, json=BODY | {"documents": ["a"] * 61}, timeout=30)
    assert answer.status_code == 413 and "the limit is 60" in answer.text


@pytest.mark.slow
def test_waiting_tokens_start_more_replicas_which_end_with_them(
    port: int, models: list[Path]
) -> None:
    from ray import serve

    deploy(
        port,
        f"reranker={models[0]}",
        "name=neural",
        # So many requests a replica that their number alone never starts one.
        "replicas={min: 1, max: 2, target_ongoing: 1000, target_wait_s: 0.02, upscale_delay_s: 0,"
        " downscale_delay_s: 1, look_back_s: 2}",
        # How fast this machine is decides neither over admission nor over deadlines.
        "limits={queue_tokens: 10000000, max_wait_s: 600, deadline_s: 600}",
    )

    def wait_for(replicas: int) -> None:
        ends = time.monotonic() + PATIENCE_S
        while True:
            states = serve.status().applications["raydist"].deployments["scorer-neural"]
            if states.replica_states == {"RUNNING": replicas}:
                return
            assert time.monotonic() < ends, (states, stream.statuses)
            time.sleep(0.5)

    with Stream(port, "neural", clients=6) as stream:
        stream.body = {
            "query": "rain",
            "documents": [f"{'the index ' * 300}{i}" for i in range(100)],
            "model": "neural",
        }
        wait_for(2)
    wait_for(1)
    assert set(stream.statuses) == {200}, stream.statuses
