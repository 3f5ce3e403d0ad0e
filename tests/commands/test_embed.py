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

from raydist.cli import main
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
    vectors, expected = VectorShards.open(killed), VectorShards.open(whole)
    assert vectors.doc_ids.to_pylist() == [row["id"] for row in rows]
    assert vectors.doc_ids.equals(expected.doc_ids)
    np.testing.assert_array_equal(vectors.read(0, 1200), expected.read(0, 1200))


def test_ids_that_are_in_no_split_are_named_and_the_command_goes_on_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, corpus = checkpoint(tmp_path / "model"), tmp_path / "corpus.jsonl"
    rows = [{"id": f"d{i}", "text": "river stone"} for i in range(9)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "ids.txt").write_text("d1\nd2\nabsent\n")
    (tmp_path / "not.txt").write_text("d2\n")
    words = ["embed", f"corpus={corpus}", f"model={model}", f"out={tmp_path / 'v'}"]
    words += [f"corpus.ids={tmp_path / 'ids.txt'}", f"corpus.exclude_ids={tmp_path / 'not.txt'}"]
    assert main(words) == 2
    messages = capsys.readouterr().err
    assert "the source lacks 1 of 3 ids: 'absent'" in messages and "corpus.missing=warn" in messages
    assert main([*words, "corpus.missing=warn"]) == 0
    assert VectorShards.open(tmp_path / "v").doc_ids.to_pylist() == ["d1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dimension=9999"], "dimension=9999: expected 1 to 32"),
        (["precision=binary", "dimension=9"], "precision=binary: a dimension of 9"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_what_the_model_cannot_do_is_said_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str,
    flags: list[str],
) -> None:  # fmt: skip
    model, corpus = checkpoint(tmp_path / "model"), tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"id": "d1", "text": "river stone"}) + "\n")
    command = ["embed", f"corpus={corpus}", f"model={model}", f"out={tmp_path / 'v'}"]
    assert main([*command, *words, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "v").exists()
