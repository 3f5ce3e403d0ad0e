"""What replicas need is compared with what there is, before anything waits for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from raydist.config.load import load
from raydist.config.serve import ServeConfig
from raydist.errors import ConfigError
from raydist.serving.resources import Demand, demands, missing, shared_out
from tests.serving.test_live import free_port


def config(*words: str) -> ServeConfig:
    return load(ServeConfig, (), list(words))


def needs(*words: str) -> dict[str, tuple[int, float, float]]:
    return {
        each.name: (each.replicas, each.each["CPU"], each.each["GPU"])
        for each in demands(config(*words).all_replicas())
    }


def test_gpus_are_for_models_alone() -> None:
    words = ["reranker=M", "reranker.kind=cross_encoder", "embedder=E", "index=IDX"]
    words += ["rerankers.words=bm25", "replicas.gpus=1", "replicas.min=2"]
    assert needs(*words) == {
        "M": (2, 1.0, 1.0),
        "words": (2, 1.0, 0.0),
        "E": (2, 1.0, 1.0),
        "index": (2, 1.0, 0.0),
    }


def test_a_deployment_may_have_replicas_and_resources_of_its_own() -> None:
    words = ["reranker=bm25", "index=IDX", "replicas.min=3", "replicas.cpus=2"]
    words += ["deployments.index.cpus=4", "deployments.index.min=1", "deployments.bm25.gpus=0.5"]
    assert needs(*words) == {"bm25": (3, 2.0, 0.5), "index": (1, 4.0, 0.0)}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("deployments.other.cpus=1", "deployments.other: expected one of bm25"),
        ("deployments.bm25='{min: 4, max: 2}'", "max"),
    ],
)
def test_a_deployment_that_is_not_there_is_a_mistake(word: str, message: str) -> None:
    key, _, value = word.partition("=")
    with pytest.raises(ConfigError, match=message):
        config("reranker=bm25", f"{key}={value.strip(chr(39))}")


def test_replicas_that_name_no_cpus_share_the_machine() -> None:
    def cpus(machine: float, *words: str) -> list[float]:
        return [
            each.each["CPU"] for each in demands(shared_out(config(*words).all_replicas(), machine))
        ]

    three = ["reranker=bm25", "rerankers.b=bm25", "index=IDX"]
    assert cpus(2, *three) == [0.66] * 3
    assert cpus(3, *three) == [1.0] * 3
    assert cpus(4, *three) == [1.0] * 3
    assert cpus(7, *three) == [2.0] * 3
    assert cpus(1, "reranker=bm25") == [1.0]
    assert cpus(2, "reranker=bm25") == [1.0]
    assert cpus(8, "reranker=bm25") == [7.0]
    assert cpus(8, "reranker=bm25", "replicas.min=2") == [3.0]
    assert cpus(8, "reranker=bm25", "replicas.max=3") == [2.0]
    assert cpus(8, "reranker=bm25", "index=IDX", "deployments.index.cpus=4") == [3.0, 4.0]
    assert cpus(2, "reranker=bm25", "index=IDX", "deployments.index.cpus=1.5") == [0.5, 1.5]
    assert cpus(2, "reranker=bm25", "replicas.cpus=64") == [64.0]


@pytest.mark.parametrize(
    ("wanted", "nodes", "message"),
    [
        ([("a", 2, 1, 0)], [{"CPU": 2}], None),
        ([("a", 1, 2, 1), ("b", 2, 1, 0)], [{"CPU": 2, "GPU": 1}, {"CPU": 2}], None),
        (
            [("a", 1, 64, 0), ("b", 1, 1, 0)],
            [{"CPU": 2}],
            "need 65 CPU (a 64, b 1) and here has 2: 63 are missing; lower replicas.cpus",
        ),
        ([("a", 2, 1, 1)], [{"CPU": 8, "GPU": 1}], "need 2 GPU (a 2) and here has 1: 1 are"),
        ([("a", 1, 3, 0)], [{"CPU": 2}, {"CPU": 2}], "a replica of a needs 3 CPU and no node"),
    ],
)
def test_what_is_missing_is_named(wanted: Any, nodes: Any, message: str | None) -> None:
    each = [Demand(name, n, {"CPU": cpus, "GPU": gpus}) for name, n, cpus, gpus in wanted]
    text = missing(each, nodes, "here")
    assert text is None if message is None else message in str(text)


def test_missing_cpus_end_the_command_before_ray_starts() -> None:
    begin = time.monotonic()
    environment = {name: v for name, v in os.environ.items() if not name.startswith("RAY_")}
    words = ["reranker=bm25", "replicas.cpus=64", "port=28931"]
    done = subprocess.run(
        [sys.executable, "-m", "raydist", "serve", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert "the replicas need 64 CPU (bm25 64) and this machine has" in done.stderr
    assert "Traceback" not in done.stderr and time.monotonic() - begin < 15


HEAD = """
import os, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={
    "num_cpus": 1, "temp_dir": f"/tmp/rdr-{os.getpid()}", "object_store_memory": 200 << 20})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.ray
def test_a_cluster_is_asked_and_where_it_grows_waited_for_until_sigterm() -> None:
    environment = {name: v for name, v in os.environ.items() if not name.startswith("RAY_")}
    words = [sys.executable, "-m", "raydist", "serve", "reranker=bm25", "replicas.cpus=4"]
    words += [f"port={free_port()}"]
    with subprocess.Popen(
        [sys.executable, "-c", HEAD],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as head:
        assert head.stdout is not None
        environment["RAY_ADDRESS"] = head.stdout.readline().strip()
        fixed = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
        assert fixed.returncode == 2, fixed.stderr
        assert "need 4 CPU (bm25 4) and the cluster has 1: 3 are missing" in fixed.stderr
        grows = environment | {"RAYDIST_AUTOSCALING": "1"}
        with subprocess.Popen(words, env=grows, stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stderr is not None
            lines = iter(waiting.stderr.readline, "")
            assert any("waiting for nodes: the replicas need 4 CPU" in line for line in lines)
            assert any("waiting for scorer-bm25 (0 of 1 replicas run)" in line for line in lines)
            waiting.send_signal(signal.SIGTERM)
            begin = time.monotonic()
            assert "stopped before the service was ready" in waiting.stderr.read()
            assert waiting.wait(30) == 0 and time.monotonic() - begin < 20
        head.communicate("", timeout=60)
