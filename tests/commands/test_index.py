"""`raydist index` and `raydist analyze` as a user calls them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from raydist.bow.build import splits
from raydist.bow.index import BowIndex
from raydist.cli import main
from raydist.manifest import read_manifest
from tests.bow.documents import contents


def corpus(path, rows):
    lines = [json.dumps({"_id": i, "title": t, "text": x}) for i, t, x in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def small(tmp_path):
    rows = [(f"d{i}", f"Title {i}", f"text number {i} runs") for i in range(30)]
    return corpus(tmp_path / "corpus.jsonl", rows)


def test_an_index_is_built_once_and_described(small, tmp_path, capsys):
    words = ["index", f"corpus={small}", f"out={tmp_path / 'idx'}"]
    assert main(words) == 0
    assert "documents" in capsys.readouterr().err
    manifest = read_manifest(tmp_path / "idx", ["bow-index"])
    assert manifest["documents"] == 30 and manifest["segments"] == ["segments/00000"]
    assert main(words) == 0
    assert "already built with the same configuration" in capsys.readouterr().err
    assert main([*words, "block_size=64"]) == 2
    assert "block_size: 128 -> 64" in capsys.readouterr().err
    assert main([*words, "workers=3", "memory_per_worker=200MiB", "batch_size=5"]) == 0


def test_the_same_deletion_again_is_done_already_and_its_purge_is_finished(small, tmp_path, capsys):
    out = f"out={tmp_path / 'idx'}"
    (tmp_path / "ids.txt").write_text("d3\nd11\n")
    words = ["index", f"delete={tmp_path / 'ids.txt'}", out]
    assert main(["index", f"corpus={small}", out]) == 0
    assert main(words) == 0  # as if the second step of purge=true had been killed
    assert read_manifest(tmp_path / "idx")["deleted"] == 2
    assert main([*words, "purge=true"]) == 0
    messages = capsys.readouterr().err
    assert "already deleted" in messages and "bytes of deleted documents are removed" in messages
    manifest = read_manifest(tmp_path / "idx")
    assert (manifest["documents"], manifest["deleted"]) == (28, 0)
    assert not any(b"number 11 " in data for data in contents(tmp_path / "idx").values())
    assert main(["index", f"corpus={small}", out, "--append", "duplicates=first"]) == 0
    assert main(words) == 0  # they were there again
    assert read_manifest(tmp_path / "idx")["documents"] == 28


def test_a_command_that_writes_nothing_leaves_no_folders(tmp_path, capsys):
    out = f"out={tmp_path / 'some' / 'where' / 'idx'}"
    (tmp_path / "ids.txt").write_text("d3\n")
    for words in (["merge", out], ["index", f"delete={tmp_path / 'ids.txt'}", out]):
        assert main(words) == 2
        assert "no such folder" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["ids.txt"]


def test_documents_are_appended(small, tmp_path, capsys):
    more = corpus(tmp_path / "more.jsonl", [("new", "", "another document")])
    out = f"out={tmp_path / 'idx'}"
    assert main(["index", f"corpus={small}", out]) == 0
    assert main(["index", f"corpus={more}", out, "--append"]) == 0
    assert len(BowIndex.open(tmp_path / "idx")) == 31
    assert main(["index", f"corpus={more}", out, "--append"]) == 0
    assert "already appended" in capsys.readouterr().err


def test_the_same_file_read_otherwise_is_another_append(small, tmp_path):
    rows = [{"id": f"n{i}", "text": "crane", "body": "egret"} for i in range(30)]
    lines = [json.dumps(row) + "\n" for row in rows]
    (tmp_path / "more.jsonl").write_text("".join(lines))
    out = f"out={tmp_path / 'idx'}"
    more = ["index", f"corpus={tmp_path / 'more.jsonl'}", out, "--append", "duplicates=last"]
    assert main(["index", f"corpus={small}", out]) == 0
    assert main(more) == 0
    assert main([*more, "corpus.fields.text=body"]) == 0
    index = BowIndex.open(tmp_path / "idx")
    assert [each.text for each in index.store.get(["n0", "n29"])] == ["egret", "egret"]
    # Nor is what was finished with other settings continued from.
    (tmp_path / "more.jsonl").write_text("".join([*lines, "bad\n"]).replace('"n', '"m'))
    assert main([*more, "split_bytes=400"]) == 2
    assert main([*more, "split_bytes=400", "corpus.fields.text=body", "corpus.on_bad=skip"]) == 0
    index = BowIndex.open(tmp_path / "idx")
    assert [each.text for each in index.store.get(["m0", "m29"])] == ["egret", "egret"]


@pytest.mark.parametrize("change", ["split_bytes=700", "merge=false", "corpus.path=more.jsonl"])
def test_a_failed_append_is_no_obstacle_to_the_corrected_one(small, monkeypatch, change):
    monkeypatch.chdir(small.parent)
    lines = "".join(json.dumps({"id": f"n{i}", "text": "crane"}) + "\n" for i in range(30))
    (small.parent / "more.jsonl").write_text(lines + "bad\n")
    path = f"corpus.path={small.parent}/more.jsonl"
    append = ["index", "out=idx", "--append", "split_bytes=400"]
    assert main(["index", f"corpus={small}", "out=idx"]) == 0
    assert main([*append, path]) == 2
    changed = [change] if change.startswith("corpus.path") else [path, change]
    assert main([*append, "corpus.on_bad=skip", *changed]) == 0
    assert len(BowIndex.open("idx")) == 60
    assert not list(small.parent.glob("idx/.append-*"))
    assert main([*append, f"corpus.path={small}", "store=false"]) == 2
    assert not list(small.parent.glob("idx/.append-*"))


def test_ids_and_bad_lines_are_chosen_counted_and_kept(small, tmp_path, capsys):
    (tmp_path / "ids.txt").write_text("d3\nd7\n")
    base = ["index", f"corpus={small}"]
    chosen = [f"corpus.ids={tmp_path / 'ids.txt'}", f"out={tmp_path / 'some'}"]
    assert main([*base, *chosen]) == 0
    assert BowIndex.open(tmp_path / "some").doc_ids.to_pylist() == ["d3", "d7"]
    (tmp_path / "ids.txt").write_text("d3\nabsent\nd7\n")
    (tmp_path / "not.txt").write_text("d7\n")
    few = [f"corpus.ids={tmp_path / 'ids.txt'}", f"corpus.exclude_ids={tmp_path / 'not.txt'}"]
    few.append(f"out={tmp_path / 'few'}")
    assert main([*base, *few]) == 2
    messages = capsys.readouterr().err
    assert "the source lacks 1 of 3 ids: 'absent'" in messages and "corpus.missing=warn" in messages
    assert main([*base, *few, "corpus.missing=warn"]) == 0  # goes on where it stopped
    assert BowIndex.open(tmp_path / "few").doc_ids.to_pylist() == ["d3"]
    small.write_text(small.read_text() + "oops\n")
    assert main([*base, f"out={tmp_path / 'bad'}"]) == 2
    assert "line 31" in capsys.readouterr().err
    rejects = tmp_path / "rejects.jsonl"
    skip = ["corpus.on_bad=skip", f"corpus.rejects={rejects}", f"out={tmp_path / 'skip'}"]
    assert main([*base, *skip]) == 0
    assert "1 bad line skipped, the first:" in capsys.readouterr().err
    assert json.loads(rejects.read_text())["line"] == 31


def test_what_stopped_at_a_bad_line_goes_on_as_its_message_says(tmp_path, capsys):
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "idx"
    corpus.write_bytes(b'{"id":"1","text":"cat"}\n{"id":"2","text":"dog \xff"}\n')
    words = ["index", f"corpus={corpus}", f"out={out}"]
    assert main(words) == 2
    messages = capsys.readouterr().err
    assert "line 2" in messages and "byte offset 46" in messages
    assert "on_bad=skip" in messages and "encoding_errors=replace" in messages
    assert main([*words, "corpus.on_bad=skip"]) == 0
    assert read_manifest(out)["documents"] == 1
    other = [*words[:2], f"out={tmp_path / 'other'}"]
    assert main(other) == 2
    assert main([*other, "corpus.encoding_errors=replace"]) == 0
    assert read_manifest(tmp_path / "other")["documents"] == 2


def test_an_index_without_its_bad_lines_is_another_than_one_with_them_replaced(tmp_path, capsys):
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "idx"
    good = [f'{{"id":"{i}","text":"cat"}}\n'.encode() for i in range(40)]
    corpus.write_bytes(b"".join(good) + b'{"id":"x","text":"dog \xff"}\n')
    words = ["index", f"corpus={corpus}", f"out={out}", "split_bytes=400"]
    assert main(words) == 2
    assert list(out.glob(".work/splits/*.done")), "no split was finished before the bad line"
    assert main([*words, "corpus.on_bad=skip"]) == 0
    assert "discards" not in capsys.readouterr().err, "what was finished without it is the same"
    assert main([*words, "corpus.on_bad=skip"]) == 0
    assert "already built" in capsys.readouterr().err
    assert main([*words, "corpus.encoding_errors=replace"]) == 2
    message = capsys.readouterr().err
    assert 'corpus.encoding_errors: null -> "replace"' in message and "corpus.on_bad" in message
    assert main(words) == 2
    assert read_manifest(out)["documents"] == 40


def test_a_dry_run_writes_nothing(small, tmp_path, capsys):
    assert main(["index", f"corpus={small}", f"out={tmp_path / 'idx'}", "--dry-run"]) == 0
    assert "would index 1 split of" in capsys.readouterr().err
    assert not (tmp_path / "idx").exists()


def test_a_dry_run_of_a_change_needs_an_index(small, tmp_path, capsys):
    (tmp_path / "ids").write_text("d1\n")
    out = f"out={tmp_path / 'idx'}"
    append = ["index", f"corpus={small}", out, "--append", "--dry-run"]
    delete = ["index", f"delete={tmp_path / 'ids'}", out, "--dry-run"]
    assert main(append) == main(delete) == 2
    assert capsys.readouterr().err.count("idx: no such folder") == 2
    assert main(["index", f"corpus={small}", out]) == 0
    before = contents(tmp_path / "idx")
    assert main(append) == main(delete) == 0
    messages = capsys.readouterr().err
    assert "would append 1 split of" in messages
    assert f"would delete 1 id from {tmp_path / 'idx'}" in messages
    assert contents(tmp_path / "idx") == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["corpus=nowhere.jsonl", "out={tmp}/idx"], "nowhere.jsonl: no such file"),
        (["corpus={tmp}/empty.jsonl", "out={tmp}/idx"], "no documents"),
        (["corpus={tmp}/corpus.jsonl", "out={tmp}/file/idx"], "is a file, expected a folder"),
        (["corpus={tmp}/corpus.jsonl", "out={tmp}/idx", "block_size=4"], "block_size"),
        (
            ["corpus={tmp}/corpus.jsonl", "out={tmp}/idx", "memory_per_worker=1MiB"],
            "memory_per_worker = 1048576: at least",
        ),
        (
            ["corpus={tmp}/corpus.jsonl", "out={tmp}/idx", "analyzer.language=polish"],
            "has no analyzer of its own",
        ),
        (["corpus={tmp}/corpus.jsonl", "out={tmp}/idx", "corpus.order=list"], "keeps the order"),
    ],
)
def test_mistakes_are_told_in_a_line(small, tmp_path, capsys, words, message):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "file").touch()
    assert main(["index", *(word.format(tmp=tmp_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_full_disk_is_told_and_the_build_goes_on_later(small, tmp_path, capsys, monkeypatch):
    words = ["index", f"corpus={small}", f"out={tmp_path / 'idx'}"]

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "run.bin")

    with monkeypatch.context() as patch:
        patch.setattr(splits, "write_spill", full)
        assert main(words) == 1
    assert "the disk is full; make room" in capsys.readouterr().err
    assert main(words) == 0


def test_a_disk_that_is_really_full_is_told(tmp_path, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        rows = [(f"d{i}", "", " ".join(f"w{i * j}" for j in range(50))) for i in range(900)]
        path = corpus(tmp_path / "corpus.jsonl", rows)
        assert main(["index", f"corpus={path}", f"out={disk / 'idx'}"]) == 1
        error = capsys.readouterr().err
        assert "the disk is full; make room" in error and "Traceback" not in error
        assert not (disk / "idx/manifest.json").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


ON_RAY = pytest.param(2, marks=[pytest.mark.slow, pytest.mark.ray])


@pytest.mark.parametrize("workers", [0, ON_RAY])
def test_a_build_killed_in_its_middle_goes_on_and_leaves_the_same_bytes(tmp_path, workers):
    rows = [(f"d{i}", "", " ".join(f"w{i * j % 9973}" for j in range(60))) for i in range(8_000)]
    path = corpus(tmp_path / "corpus.jsonl", rows)
    command = [sys.executable, "-m", "raydist", "index", f"corpus={path}", "split_bytes=200kB"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [*command, f"out={killed}", f"workers={workers}"], stderr=subprocess.DEVNULL
    )
    while len(list(killed.glob(".work/splits/*.done"))) < 2:
        assert process.poll() is None, "the build was over before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "manifest.json").exists()
    for folder in (killed, whole):
        subprocess.run([*command, f"out={folder}"], check=True, stderr=subprocess.DEVNULL)
    for part in ("segments", "store"):
        assert contents(killed / part) == contents(whole / part)
    assert not (killed / ".work").exists()


def test_analyze_prints_the_terms_of_a_text(capsysbinary):
    assert main(["analyze", "text=The quick brown fox's den"]) == 0
    assert capsysbinary.readouterr().out == b"quick brown fox den\n"
    assert main(["analyze", "text=Les étés", "analyzer.stop_words=les,des"]) == 0
    assert capsysbinary.readouterr().out.decode() == "été\n"


def test_analyze_keeps_the_lines_of_a_file(tmp_path, capsysbinary):
    lines = tmp_path / "lines.txt"
    lines.write_bytes("Running dogs\n\nform\x0cfeed\rreturn\u2028line\nthe\nlast".encode())
    assert main(["analyze", f"input={lines}"]) == 0
    assert capsysbinary.readouterr().out == b"run dog\n\nform feed return line\n\nlast\n"


def test_analyze_takes_the_analyzer_of_an_index(small, tmp_path, capsysbinary):
    out = f"out={tmp_path / 'idx'}"
    assert main(["index", f"corpus={small}", out, "analyzer=none"]) == 0
    assert main(["analyze", "text=running dogs", f"index={tmp_path / 'idx'}"]) == 0
    assert capsysbinary.readouterr().out == b"running dogs\n"


def test_analyze_wants_one_input(tmp_path, capsys):
    assert main(["analyze"]) == 2
    assert "give one of text= and input=" in capsys.readouterr().err
    assert main(["analyze", f"input={tmp_path / 'no'}"]) == 2
    assert "no such file" in capsys.readouterr().err
