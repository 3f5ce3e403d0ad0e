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
from raydist.models.scratch import create
from tests.training.small import checkpoint, texts

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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and 30 documents: a.jsonl has 20 of them, b.jsonl the rest."""
    folder = tmp_path_factory.mktemp("growing")
    checkpoint(folder / "model")
    (folder / "queries.jsonl").write_text('{"id": "q1", "text": "river lamp"}\n')
    lines = [
        json.dumps({"id": f"d{i}", "text": "river stone lamp " * (i % 7) + f"w{i}"}) + "\n"
        for i in range(30)
    ]
    (folder / "all.jsonl").write_text("".join(lines))
    (folder / "a.jsonl").write_text("".join(lines[:20]))
    (folder / "b.jsonl").write_text("".join(lines[20:]))
    return folder


def ok(*words: object) -> None:
    assert main([*map(str, words)]) == 0


def ranking(folder: Path, out: Path) -> bytes:
    ok("search", f"index={folder}", f"queries={out.parent / 'queries.jsonl'}", f"out={out}")
    return out.read_bytes()


def test_vectors_that_grew_and_shrank_are_searched_as_those_that_were_embedded_at_once(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    model = ["model=model", "model.pooling=mean"]
    ok("embed", "corpus=a.jsonl", *model, "out=vec", "precision=float16", "ann=hnsw")
    ok("embed", "corpus=b.jsonl", "out=vec", "--append")
    (place / "gone.txt").write_text("d3\nd21\n")
    ok("embed", "delete=gone.txt", "out=vec")
    (place / "new.jsonl").write_text('{"id": "d5", "text": "a new lamp"}\n')
    ok("embed", "corpus=new.jsonl", "out=vec", "--append", "duplicates=last", *model)
    rows = [line for line in (place / "all.jsonl").read_text().splitlines()]
    live = [line for line in rows if json.loads(line)["id"] not in ("d3", "d5", "d21")]
    (place / "live.jsonl").write_text("\n".join([*live, (place / "new.jsonl").read_text()]))
    ok("embed", "corpus=live.jsonl", *model, "out=fresh", "precision=float16", "ann=hnsw")
    expected = ranking(place / "fresh", place / "fresh.txt")
    assert ranking(place / "vec", place / "vec.txt") == expected
    ok("verify", "vec")
    assert "raydist merge out=vec removes 3 deleted documents" in capsys.readouterr().err
    ok("merge", "vec", "--dry-run")
    assert "would merge vec (3 segments, 3 deleted documents)" in capsys.readouterr().err
    ok("merge", "vec")
    assert ranking(place / "vec", place / "vec.txt") == expected
    ok("verify", "vec")
    assert "removes" not in capsys.readouterr().err
    ok("merge", "vec", "segments=2")
    assert ranking(place / "vec", place / "vec.txt") == expected
    ok("merge", "vec", "segments=2")
    assert "nothing to merge" in capsys.readouterr().err


def test_an_append_takes_the_settings_of_the_folder_and_refuses_others(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    ok("embed", "corpus=a.jsonl", "model=model", "out=set", "precision=int8", "dimension=16")
    append = ["embed", "corpus=b.jsonl", "out=set", "--append"]
    for words, message in (
        (["precision=float16"], 'precision: "int8" -> "float16"'),
        (["model=model", "model.pooling=mean"], 'model.pooling: null -> "mean"'),
    ):
        assert main([*append, *words]) == 2
        assert message in capsys.readouterr().err
    create(texts(), place / "other", layers=1, hidden=32, heads=2, vocab=300, seed=7)
    assert main([*append, "model=other"]) == 2
    assert "model.fingerprint" in capsys.readouterr().err
    assert main(["embed", "corpus=b.jsonl", "out=set"]) == 2
    assert "model: required" in capsys.readouterr().err
    assert main(["embed", "out=set"]) == 2
    assert "give one of corpus=" in capsys.readouterr().err
    ok(*append, "precision=int8")
    ok(*append)
    assert "these documents were already appended" in capsys.readouterr().err
    vectors = VectorShards.open("set")
    assert (len(vectors), vectors.dimension, vectors.precision) == (30, 16, "int8")
    (place / "one.txt").write_text("d4\n")
    ok("embed", "delete=one.txt", "out=set", "purge=true")
    assert VectorShards.open("set").live is None
    assert not list((place / "set").glob("deletions/*"))
