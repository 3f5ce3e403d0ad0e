from __future__ import annotations

import bz2
import gzip
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raydist.data.splits
from raydist.data import files
from raydist.data.contents import file_fingerprint
from raydist.data.parts import CORPUS
from raydist.data.readers import read_documents, read_queries, read_split
from raydist.data.sources import expand
from raydist.data.splits import plan_splits, warn_of_idle_workers
from raydist.errors import DataError
from raydist.manifest import write_manifest
from raydist.records import RUN
from raydist.run_writer import open_run

LINES = "".join(json.dumps({"id": str(i), "text": f"text {i}"}) + "\n" for i in range(300)).encode()


def ids_of(path: Any) -> list[str]:
    return [i for t in read_documents(path) for i in t["doc_id"].to_pylist()]


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=60), st.data()
)
def test_blocks_are_whole_lines_and_join_to_the_file(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], data: st.DataObject
) -> None:
    content = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + b"\n".join(lines)
    file = tmp_path_factory.mktemp("blocks") / "f"
    size = data.draw(st.integers(1, 50))
    for compression, stored in ((None, content), ("gzip", gzip.compress(content))):
        file.write_bytes(stored)
        blocks = list(files.read_blocks(file, compression=compression, block_bytes=size))
        bom = b"\xef\xbb\xbf" if content.startswith(b"\xef\xbb\xbf") else b""
        assert bom + b"".join(block for _, block in blocks) == content
        assert all(block.endswith(b"\n") for _, block in blocks[:-1])
        starts = [len(bom)]
        for _, block in blocks:
            starts.append(starts[-1] + len(block))
        assert [offset for offset, _ in blocks] == starts[:-1]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20000), st.sampled_from(["jsonl", "trec"]))
def test_splits_cut_between_records_and_cover_all_of_them(
    tmp_path_factory: pytest.TempPathFactory, split_bytes: int, kind: str
) -> None:
    file = tmp_path_factory.mktemp("splits") / f"c.{kind}"
    if kind == "jsonl":
        file.write_bytes(LINES)
    else:
        file.write_text(
            "".join(
                f"<DOC>\n<DOCNO> {i} </DOCNO>\n<TEXT>t {i}</TEXT>\n</DOC>\n" for i in range(300)
            )
        )
    splits = plan_splits(file, split_bytes=split_bytes)
    assert json.loads(json.dumps(splits)) == splits
    assert splits[0]["start"] == 0 and splits[-1]["stop"] == file.stat().st_size
    assert all(a["stop"] == b["start"] for a, b in pairwise(splits))
    ids = [i for s in splits for t in read_split(s) for i in t["doc_id"].to_pylist()]
    assert ids == [str(i) for i in range(300)]


def test_splits_know_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(LINES))
    ids = pa.array([f"p{i}" for i in range(1000)])
    pq.write_table(pa.table({"id": ids, "text": ids}), tmp_path / "c.parquet", row_group_size=100)
    splits = plan_splits(tmp_path, split_bytes=1000)
    plain = [split for split in splits if split["path"].endswith("a.jsonl")]
    assert [split["size"] for split in plain] == [s["stop"] - s["start"] for s in plain]
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"):
        sizes = [split["size"] for split in splits if split["path"].endswith(name)]
        assert sum(sizes) == pytest.approx((tmp_path / name).stat().st_size, abs=len(sizes))


def test_the_number_of_splits_is_bounded_for_any_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raydist.data.splits, "MOST", 10)
    (tmp_path / "a.jsonl").write_bytes(LINES)
    few = plan_splits(tmp_path / "a.jsonl", split_bytes=len(LINES) // 9 + 100)
    many = plan_splits(tmp_path / "a.jsonl", split_bytes=100)
    assert len(few) <= len(many) <= 10 and "parts" not in many[0]
    for i in range(35):
        (tmp_path / f"b{i:02d}.jsonl").write_text(f'{{"id": "x{i}", "text": "t"}}\n')
    splits = plan_splits(tmp_path, split_bytes=100)
    assert len(splits) <= 20 and sum(len(split.get("parts", [1])) for split in splits) > 40
    ids = [i for s in splits for t in read_split(s) for i in t["doc_id"].to_pylist()]
    assert ids == [str(i) for i in range(300)] + [f"x{i}" for i in range(35)]
    assert sum(s["size"] for s in splits) == sum(f.stat().st_size for f in tmp_path.iterdir())


def test_workers_that_a_whole_file_leaves_idle_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(LINES))
    splits = plan_splits(tmp_path / "c.jsonl.gz")
    warn_of_idle_workers(splits, 64)
    assert capsys.readouterr().err == ""  # it is short
    monkeypatch.setattr(raydist.data.splits, "_LONG", 100)
    warn_of_idle_workers(splits, 1)
    assert capsys.readouterr().err == ""
    warn_of_idle_workers(splits, 64)
    told = capsys.readouterr().err
    assert "of gzip data cannot be cut" in told and "63 of 64 have nothing to do" in told
    assert "give the corpus as several files, or decompressed" in told
    (tmp_path / "c.csv").write_text("id,text\n" + "1,a\n" * 40)
    warn_of_idle_workers(plan_splits(tmp_path / "c.csv"), 4)
    told = capsys.readouterr().err
    assert "of csv data cannot be cut" in told and "several files, or as jsonl" in told


@pytest.mark.parametrize("pack", [gzip.compress, zstd, bz2.compress], ids=["gzip", "zstd", "bz2"])
def test_compressed_files_are_read_whatever_their_name(tmp_path: Path, pack: object) -> None:
    file = tmp_path / "c.jsonl"
    file.write_bytes(pack(LINES))  # type: ignore[operator]
    assert ids_of(file) == [str(i) for i in range(300)]
    half = len(LINES) // 2
    file.write_bytes(pack(LINES[:half]) + pack(LINES[half:]))  # type: ignore[operator]
    assert len(ids_of(file)) == 300


def test_a_truncated_gzip_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    import random

    text = "".join(random.Random(1).choices("abcdefgh ", k=300_000))
    packed = gzip.compress(json.dumps({"id": "1", "text": text}).encode())
    file = tmp_path / "c.jsonl.gz"
    file.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=r"c\.jsonl\.gz: gzip data damaged or truncated"):
        ids_of(file)


def test_globs_directories_and_several_paths_keep_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl", "_x.jsonl", ".y.jsonl", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"id": name, "text": "x"}))
    assert ids_of(tmp_path) == ["a.jsonl", "b.jsonl", "sub/c.jsonl"]
    assert ids_of(tmp_path / "*.jsonl") == ["_x.jsonl", "a.jsonl", "b.jsonl"]
    assert ids_of(f"{tmp_path}/**/c.jsonl") == ["sub/c.jsonl"]
    assert ids_of([tmp_path / "b.jsonl", tmp_path / "a.jsonl"]) == ["b.jsonl", "a.jsonl"]
    (tmp_path / "corpus.jsonl").write_text('{"id": "whole", "text": "x"}')
    (tmp_path / "queries.jsonl").write_text('{"id": "q", "text": "x"}')
    assert ids_of(tmp_path) == ["whole"]
    assert [q.query_id for q in read_queries(tmp_path)] == ["q"]


def test_a_name_with_glob_characters_is_a_file_if_it_exists(tmp_path: Path) -> None:
    (tmp_path / "c[1]?.jsonl").write_bytes(LINES)
    assert len(ids_of(tmp_path / "c[1]?.jsonl")) == 300


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_uris_are_read_like_paths(tmp_path: Path, scheme: str) -> None:
    root = f"file://{tmp_path}" if scheme == "file" else "memory://bucket"
    fs = fsspec.filesystem(scheme)
    fs.makedirs(f"{root}/in", exist_ok=True)
    for name, data in (
        ("a.jsonl", LINES),
        ("b.jsonl.gz", gzip.compress(LINES.replace(b'"id": "', b'"id": "b'))),
    ):
        with fs.open(f"{root}/in/{name}", "wb") as out:
            out.write(data)
    expected = [str(i) for i in range(300)]
    assert ids_of(f"{root}/in/a.jsonl") == expected
    assert ids_of(f"{root}/in/*.jsonl") == expected
    assert ids_of(f"{root}/**/a.jsonl") == expected
    assert ids_of(f"{root}/in") == expected + [f"b{i}" for i in expected]
    assert ids_of(f"{root}/in/") == ids_of(f"{root}/in")
    splits = plan_splits(f"{root}/in/a.jsonl", split_bytes=1000)
    assert [i for s in splits for t in read_split(s) for i in t["doc_id"].to_pylist()] == expected
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/a.jsonl").write_bytes(LINES)
    assert file_fingerprint(f"{root}/in/a.jsonl") == file_fingerprint(tmp_path / "copy/a.jsonl")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.jsonl", "no such file or directory"),
        ("*.nothing", "no file matches"),
        ("nowhere://x/y", "no file system"),
        ("az://nobody/x.jsonl", "pip install adlfs"),
        ("memory://none/x.jsonl", "no such file"),
        ("http://127.0.0.1:9/x.jsonl", "cannot be reached: .*127.0.0.1"),
        ("empty", "holds no file"),
        ("empty.jsonl", "no documents"),
        ("blob.xyz", "format="),
    ],
)
def test_what_is_not_there_is_named(
    tmp_path: Path, path: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blob.xyz").write_text("plain words")
    with pytest.raises(DataError, match=message) as caught:
        ids_of(path)
    assert path in str(caught.value)


def test_outputs_below_a_folder_are_no_inputs_and_a_message_names_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "docs"
    written = ("built/store.json", "begun/deep/a.jsonl", "mined.jsonl", "deeper/built/x.jsonl")
    for name in ("a.jsonl", "manifest.json", "mine/b.jsonl", "mine/manifest.json", *written):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"format": 1, "kind": "the user\'s own"}\n')
    for output in ("built", "deeper/built", "mined.jsonl.raydist"):
        (folder / output).mkdir(exist_ok=True)
        write_manifest(folder / output, {"format": 1, "kind": "thing"})
    (folder / "begun/.job.json").write_text("{}")
    for _ in range(2):
        names = [Path(file.path).relative_to(folder).as_posix() for file in expand(folder)]
        assert names == ["a.jsonl", "manifest.json", "mine/b.jsonl", "mine/manifest.json"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"{folder}: begun, built, deeper/built, mined.jsonl, mined.jsonl.raydist"
    )
    assert line.endswith("not read, because raydist wrote it")
    write_manifest(folder, {"format": 1, "kind": "thing"})  # it was asked for itself
    assert len(expand(folder)) == 4


def test_runs_beside_the_documents_of_a_folder_are_no_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "1", "text": "x"}\n')
    for name in ("run.csv", "run.jsonl", "run.parquet", "run.tsv", "run.txt"):
        with open_run(tmp_path / name, RUN, "t") as write:
            write(pa.table([["q"], ["d"], [1.5]], schema=RUN))
    (tmp_path / "run.txt").rename(tmp_path / "trec.tsv")
    assert ids_of(tmp_path) == ["1"]
    runs = "run.csv, run.jsonl, run.parquet, run.tsv, trec.tsv"
    assert f"{tmp_path}: {runs}: not read, because it is a run" in capsys.readouterr().err
    assert CORPUS.files(str(tmp_path / "run.tsv"))  # it was asked for itself


def test_a_link_to_a_folder_that_it_lies_in_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "docs/deep").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "docs/deep/a.jsonl").write_text('{"id": "1", "text": "x"}\n')
    (tmp_path / "other/b.jsonl").write_text('{"id": "2", "text": "x"}\n')
    (tmp_path / "docs/deep/up").symlink_to("..")
    (tmp_path / "docs/other").symlink_to(tmp_path / "other")
    (tmp_path / "other/back").symlink_to(tmp_path / "docs")
    assert ids_of(tmp_path / "docs") == ["1", "2"]


def test_a_name_that_is_not_utf_8_is_an_error_that_names_it(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.jsonl")).write_text('{"id": "1", "text": "x"}\n')
    with pytest.raises(DataError, match=r"the name '\\udcff.jsonl' is not UTF-8; rename it"):
        ids_of(tmp_path)


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("nothing", "nothing/x.jsonl"):
        with pytest.raises(DataError, match=f"nobody/{name}: cannot be reached: .*; set HF_TOKEN"):
            ids_of(f"hf://datasets/nobody/{name}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"nobody/other: cannot be reached: .*; set HF_TOKEN"):
        ids_of("hf://datasets/nobody/other")
