"""A real cluster of three raylets on one machine: what a node's sudden death leaves unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raydist.cli import main
from raydist.data import docstrings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return docstrings.write(tmp_path_factory.mktemp("docstrings"))


def on_three_nodes(folder: Path, markers: int, *words: str, timeout: int = 300) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token"}
    environment["RAY_AUTH_TOKEN"] = "a" * 64
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.nodes", str(folder), str(markers), *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the files of an output that are its result, not how it came about."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", "config.json")
    }


@pytest.mark.ray
def test_a_node_that_dies_while_indexing_leaves_the_same_bytes(data: Path, tmp_path: Path) -> None:
    words = ["index", f"corpus={data}/corpus.jsonl", "split_bytes=20kB"]
    assert main([*words, f"out={tmp_path}/alone"]) == 0
    said = on_three_nodes(
        tmp_path / "nodes", 2, *words, f"out={tmp_path}/nodes", "workers=3", "cpus_per_worker=1"
    )
    assert "killed a node" in said
    assert contents(tmp_path / "nodes") == contents(tmp_path / "alone")
