"""`raydist status`, `ls` and `diff`: outputs seen from outside, on a disk and an object store."""

from __future__ import annotations

import json
import os
import socket
import uuid
from pathlib import Path

import pytest

from raydist.cli import main
from raydist.errors import JobError
from raydist.inventory import state_of, states_in


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"d{i}", "text": f"heron {i}"} for i in range(3)]
    Path("corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["index", "corpus=corpus.jsonl", "out=IDX"]) == 0


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_the_status_says_from_what_and_how_large(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "status", "IDX").splitlines()
    assert lines[0] == "IDX: bow-index, complete"
    rows = dict(line.split(maxsplit=1) for line in lines[1:])
    files = [path for path in Path("IDX").rglob("*") if path.is_file()]
    assert rows["size"].endswith(f"in {len(files)} files")
    assert rows["corpus"].startswith("corpus.jsonl (full:") and rows["documents"] == "3"
    (state,) = json.loads(printed(capsys, "status", "IDX", "format=json"))
    assert state["bytes"] == sum(path.stat().st_size for path in files)
    assert state["facts"]["documents"] == 3 and state["error"] is None


def test_the_list_has_a_line_per_output(capsys: pytest.CaptureFixture[str]) -> None:
    Path("plain").mkdir()
    lines = printed(capsys, "ls").splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["IDX", "bow-index"], ["corpus.jsonl", "file"], ["plain", "folder"],
    ]  # fmt: skip
    assert lines[1].endswith("corpus=corpus.jsonl")
    assert [each["path"] for each in json.loads(printed(capsys, "ls", "format=json"))] == [
        "./IDX", "./corpus.jsonl", "./plain",
    ]  # fmt: skip


def test_an_unfinished_output_says_why_it_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise JobError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("raydist.artefact.Output.finish", fail)
        assert main(["index", "corpus=corpus.jsonl", "out=HALF"]) == 1
    state = state_of("HALF")
    assert (state.state, state.error) == ("unfinished", "the disk is full")
    out = printed(capsys, "status", "HALF")
    assert out.startswith("HALF: bow-index, not complete; the same command again continues it\n")
    assert main(["index", "corpus=corpus.jsonl", "out=HALF"]) == 0
    assert state_of("HALF").state == "complete" and state_of("HALF").error is None


def test_a_writer_is_named_while_it_lives(capsys: pytest.CaptureFixture[str]) -> None:
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "command": "raydist", "since": "1"}
    Path(".IDX.lock.json").write_text(json.dumps(holder))
    assert printed(capsys, "status", "IDX").startswith("IDX: bow-index, being written\n  writer")
    Path(".IDX.lock.json").write_text(json.dumps({**holder, "pid": 2**22 + 1}))
    assert state_of("IDX").writer is None


def test_a_damaged_manifest_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path("IDX/manifest.json").write_text('{"format": 1')
    assert state_of("IDX").state == "damaged"
    assert main(["diff", "IDX", "IDX"]) == 2
    assert main(["status", "nothing"]) == 2 and main(["ls", "nothing"]) == 2
    assert "error: nothing: no such file or folder" in capsys.readouterr().err


def test_two_outputs_are_compared_by_what_decides_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "corpus=corpus.jsonl", "out=OTHER", "analyzer.stemmer=none"]) == 0
    assert printed(capsys, "diff", "IDX", "OTHER") == 'analyzer.stemmer: "porter" -> "none"\n'
    assert "the same configuration" in printed(capsys, "diff", "IDX", "IDX")
    Path("corpus.jsonl").write_text('{"id": "a", "text": "boat"}\n')
    assert main(["index", "corpus=corpus.jsonl", "out=NEW"]) == 0
    (line,) = json.loads(printed(capsys, "diff", "IDX", "NEW", "format=json"))
    assert line.startswith("content of corpus: ")


def test_remote_outputs_are_seen_without_a_copy(capsys: pytest.CaptureFixture[str]) -> None:
    bucket = f"memory://{uuid.uuid4().hex}"
    assert main(["index", "corpus=corpus.jsonl", f"out={bucket}/a/IDX"]) == 0
    state = state_of(f"{bucket}/a/IDX")
    assert (state.kind, state.state, state.facts["documents"]) == ("bow-index", "complete", 3)
    assert state.bytes > 0 and state.sources() == {"corpus": "corpus.jsonl"}
    assert [each.path for each in states_in(f"{bucket}/a")] == [f"{bucket}/a/IDX"]
    assert [each.kind for each in states_in(bucket)] == ["folder"]
    assert "same configuration" in printed(capsys, "diff", "IDX", f"{bucket}/a/IDX")
