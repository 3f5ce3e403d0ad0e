"""A disk that fills up during work: a clear error, and with more room the same command continues.

The disk is a small tmpfs; without the right to mount one the tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from raydist.bow.index import BowIndex
from raydist.cli import main
from tests.outputs import results

KIB = 1 << 10
PAGES = (24, 48, 96, 192, 384)  # KiB; a larger disk is full later
ROOM = 64 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except OSError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    documents = [
        {"_id": f"d{i}", "text": f"document {i} " + " ".join(f"w{i * j % 97}" for j in range(40))}
        for i in range(200)
    ]
    samples = [
        {"query": f"query {i} w{i}", "pos": [documents[i]["text"]], "neg": [documents[-i]["text"]]}
        for i in range(1, 90)
    ]
    for name, rows in (("corpus", documents), ("train", samples)):
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    queries = "".join(f'{{"_id": "q{i}", "text": "w{i} w{i + 1}"}}\n' for i in range(60))
    (tmp_path / "queries.jsonl").write_text(queries)
    (tmp_path / "qrels.txt").write_text("".join(f"q{i} 0 d{i} 1\n" for i in range(60)))
    run = (f"q{i} Q0 d{(i * 3 + j) % 200} {j} {50 - j} t\n" for i in range(60) for j in range(50))
    (tmp_path / "run.txt").write_text("".join(run))
    return tmp_path


def fill_and_continue(
    words: Sequence[str],
    disk: Path,
    capsys: pytest.CaptureFixture[str],
    *flags: str,
    command: Callable[[Sequence[str]], int] = main,
    sizes: Sequence[int] = PAGES,
) -> Path:
    """Runs a command on ever larger disks that are full, then with room; returns its output."""
    full = 0
    for size in (*(page * KIB for page in sizes), ROOM):
        resize(disk, size)
        code = command([*words, *flags])
        error = capsys.readouterr().err
        assert "Traceback" not in error
        if size < ROOM and code:
            full += 1
            assert code == 1 and "the disk is full; make room" in error, error
        else:
            assert code == 0, error
            break
    assert full >= 2, "the disk was never full"
    return disk / "out"


def test_an_index(data: Path, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["index", f"corpus={data}/corpus.jsonl", "split_bytes=8kB"]
    out = fill_and_continue([*words, f"out={disk}/out"], disk, capsys)
    assert main([*words, f"out={data}/whole"]) == 0
    assert results(out) == results(data / "whole")


def test_vectors(
    data: Path, disk: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["embed", f"corpus={data}/corpus.jsonl", f"model={tiny_bert}", "split_bytes=8kB"]
    out = fill_and_continue([*words, f"out={disk}/out"], disk, capsys)
    assert main([*words, f"out={data}/whole"]) == 0
    assert results(out / "shards") == results(data / "whole/shards")


def test_training(
    data: Path, disk: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", f"data={data}/train.jsonl", f"model={tiny_bert}", "steps=6", "batch_size=8"]
    words += ["checkpoint.every=1", "tracking=none", "threads=1", "train_group_size=2"]
    out = fill_and_continue([*words, f"out={disk}/out"], disk, capsys, "--resume")
    assert main([*words, f"out={data}/whole"]) == 0
    assert results(out / "checkpoint-final") == results(data / "whole/checkpoint-final")


@pytest.mark.parametrize("verb", ["mine", "score", "rerank", "search"])
def test_files(
    verb: str, data: Path, disk: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"corpus={data}/corpus.jsonl", f"queries={data}/queries.jsonl"]
    if verb == "search":
        assert main(["index", texts[0], f"out={data}/index"]) == 0
    model = f"{{kind: biencoder, model: {tiny_bert}}}"
    own = {
        "mine": [*texts, f"run={data}/run.txt", f"qrels={data}/qrels.txt"],
        "score": [*texts, f"run={data}/run.txt", f"teacher={model}", "split_pairs=300"],
        "rerank": [*texts, f"run={data}/run.txt", f"reranker={model}", "split_pairs=300"],
        "search": [f"index={data}/index", texts[1], "k=50"],
    }
    out = fill_and_continue([verb, *own[verb], f"out={disk}/out"], disk, capsys)
    assert main([verb, *own[verb], f"out={data}/whole"]) == 0
    assert out.read_bytes() == (data / "whole").read_bytes()


def test_a_pipeline_with_its_records(
    data: Path, disk: Path, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """At first the disk has no room even for the record of the first stage."""
    index = {"corpus": f"{data}/corpus.jsonl", "split_bytes": 8000, "out": "{out}/index"}
    search = {"verb": "search", "index": "{out}/index", "queries": f"{data}/queries.jsonl"}
    evaluate = {"run": ["{out}/run.txt"], "qrels": f"{data}/qrels.txt", "out": "{out}/report"}
    plan: dict[str, object] = {"out": f"{disk}/out", "tracking": database}
    plan["stages"] = {"index": index, "run": search | {"out": "{out}/run.txt"}}
    plan["stages"] |= {"evaluate": evaluate}  # type: ignore[operator]
    (data / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))

    def pipeline(words: list[str]) -> int:
        return main(["pipeline", *words])

    sizes = (4, 8, 12, 16, *PAGES)
    out = fill_and_continue([f"{data}/plan.yaml"], disk, capsys, command=pipeline, sizes=sizes)
    assert (out / "report/manifest.json").is_file()
    assert pipeline([f"{data}/plan.yaml"]) == 0 and "done" not in capsys.readouterr().err


def test_an_append_is_done_although_there_is_no_room_to_merge(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def append(number: int, out: Path) -> int:
        corpus = tmp_path / f"{number}.jsonl"
        texts = [" ".join(f"w{i * j % 997}" for j in range(99)) for i in range(1, 100)]
        rows = [{"id": f"d{number}", "text": "word"}]
        if number < 10:  # these take more room when they are merged than the last when it is added
            rows += [{"id": f"d{number}-{i}", "text": text} for i, text in enumerate(texts)]
        corpus.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        flags = ["--append"] if number else []
        return main(["index", f"corpus={corpus}", f"out={out}", *flags])

    assert [append(number, tmp_path / "idx") for number in range(10)] == [0] * 10
    resize(disk, ROOM)
    low, high, ends = 0, 1024, set()  # KiB
    while (True, True) not in ends:  # the room in which an append fits and its merge does not
        assert high - low > 1, "no room is too small for the merge alone"
        room = (low + high) // 2
        index = disk / f"idx{room}"
        shutil.copytree(tmp_path / "idx", index)
        status = os.statvfs(disk)
        resize(disk, (status.f_blocks - status.f_bfree) * status.f_frsize + room * KIB)
        code = append(10, index)
        resize(disk, ROOM)
        warned = "appended, but not merged" in capsys.readouterr().err
        assert ("d10" in BowIndex.open(index).doc_ids.to_pylist()) == (code == 0), room
        ends.add((code == 0, warned))
        low, high = (room, high) if code else (low, room)
        shutil.rmtree(index)
