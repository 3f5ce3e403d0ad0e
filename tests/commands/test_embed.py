from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from raydist.dense.vectors import VectorShards
from tests.training.small import checkpoint

ON_RAY = pytest.param(2, marks=[pytest.mark.slow, pytest.mark.ray])


@pytest.mark.parametrize("workers", [0, ON_RAY])
def test_a_killed_command_goes_on_and_leaves_each_document_once(
    tmp_path: Path, workers: int
) -> None:
    model, corpus = checkpoint(tmp_path / "model"), tmp_path / "corpus.jsonl"
    rows = [{"id": f"d{i}", "text": "river stone lamp " * (1 + i % 9)} for i in range(1200)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "raydist", "embed", f"corpus={corpus}", f"model={model}"]
    command += ["model.pooling=mean", "split_bytes=5kB", f"workers={workers}"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*command, f"out={killed}"], stderr=subprocess.DEVNULL)
    while len(done := list(killed.glob("shards/*.done"))) < 3:
        assert process.poll() is None, "it was over before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "manifest.json").exists()
    before = {path: path.stat().st_mtime_ns for path in done}
    for folder in (killed, whole):
        subprocess.run([*command, f"out={folder}"], check=True, stderr=subprocess.DEVNULL)
    assert {path: path.stat().st_mtime_ns for path in done} == before, "done splits were redone"
    found, expected = VectorShards.open(killed), VectorShards.open(whole)
    assert found.doc_ids.to_pylist() == [row["id"] for row in rows]
    assert found.doc_ids.equals(expected.doc_ids)
    np.testing.assert_array_equal(found.read(0, 1200), expected.read(0, 1200))
