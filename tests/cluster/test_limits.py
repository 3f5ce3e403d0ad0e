"""What Ray itself meets on a cluster changes no result: little memory, nodes that come and go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydist.cli import main
from tests.cluster.test_nodes import ROOT, Nodes, cluster
from tests.outputs import results

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0, reason="only root may say how much memory there is"),
]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Three raylets that seem to have 8 GiB."""
    yield from cluster("memory=8")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    rows = (
        {"id": f"d{i}", "text": " ".join(f"w{i * j % 997}" for j in range(80))} for i in range(9000)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def undisturbed(corpus: Path) -> dict[str, bytes]:
    out = corpus.with_name("alone")
    assert main([*words(corpus), f"out={out}"]) == 0
    return results(out)


def words(corpus: Path) -> list[str]:
    return ["index", f"corpus={corpus}", "split_bytes=8kB"]


def begun(out: Path) -> bool:
    return len(list(out.glob(".work/splits/*.done"))) >= 2


def disturbed(nodes: Nodes, corpus: Path, out: Path, workers: int, *orders: str) -> list[str]:
    """Builds an index, with orders to the cluster in mid-build; returns its replies."""
    command = [sys.executable, "-m", "raydist", *words(corpus), f"out={out}", f"workers={workers}"]
    environment = {**nodes.environment, "RAYDIST_AUTOSCALING": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=sys.stderr) as program:
        while not begun(out):
            assert program.poll() is None, "it ended too soon"
            time.sleep(0.003)
        replies = [nodes.order(each) for each in orders]
        assert program.poll() is None, "it was over"
        assert program.wait(300) == 0
    return replies


def test_a_worker_killed_for_memory_is_replaced(
    nodes: Nodes, corpus: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "index"
    replies = disturbed(nodes, corpus, out, 3, "exhaust MapWorker", "exhaust MapWorker")
    assert replies == 2 * ["no memory was left for MapWorker"]
    assert results(out) == undisturbed


def test_a_node_that_joins_works_along(
    nodes: Nodes, corpus: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "index"
    replies = disturbed(nodes, corpus, out, 7, "add", "wait submit")
    assert replies == ["added a node", "the node runs submit"]
    assert results(out) == undisturbed


def test_a_node_that_is_lost_and_not_replaced_leaves_its_work_to_the_others(
    nodes: Nodes, corpus: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "index"
    replies = disturbed(nodes, corpus, out, 7, "kill MapWorker")
    assert replies == ["killed a node that ran MapWorker"]
    assert results(out) == undisturbed
