"""Fingerprints of inputs: what the reader reads changes them, nothing else does."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
import xxhash

from raydist.data import file_hashes
from raydist.data.contents import contents, file_fingerprint
from raydist.data.sampled import sampled_fingerprint
from raydist.data.spec import CorpusSource, QrelsSource, QueriesSource
from raydist.stores.objects import Objects

LINES = b"".join(b'{"id": "%d", "text": "text %d"}\n' % (i, i) for i in range(300))
BIG = LINES * 2000
assert len(BIG) > 16 << 20


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/hashes"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets hashes of files be kept that were written just now."""
    monkeypatch.setattr(file_hashes, "_SETTLED_NS", -(10**12))


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns a list that grows by the path of each piece that is read."""
    seen: list[str] = []
    hash_piece = file_hashes._hash_piece

    def recorded(path: str, start: int) -> bytes:
        seen.append(Path(path).name)
        return hash_piece(path, start)

    monkeypatch.setattr(file_hashes, "_hash_piece", recorded)
    return seen


def test_values_stay_what_manifests_hold(tmp_path: Path) -> None:
    small, big = write(tmp_path / "c.jsonl", LINES), write(tmp_path / "d.jsonl", BIG)
    assert file_fingerprint(small) == "full:c2258724b9df24c1b3e9378f7555f2af"
    assert (
        file_fingerprint([small, big, "irds:some/set"]) == "full:2cfe9c17b0ed3f6600b813b033990282"
    )
    assert sampled_fingerprint([str(small)]) == "f2e010dc18c86cd6a40a3b1cd78164be"


def test_the_hash_of_a_file_is_that_of_its_size_and_its_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_hashes, "PIECE", 1000)
    monkeypatch.setattr(file_hashes, "_CHUNK", 64)
    for size in (0, 1, 999, 1000, 1001, 2500):
        data = os.urandom(size)
        pieces = [data[start : start + 1000] for start in range(0, max(size, 1), 1000)]
        joined = b"".join(xxhash.xxh3_128_digest(piece) for piece in pieces)
        expected = xxhash.xxh3_128_hexdigest(size.to_bytes(8, "little") + joined)
        assert file_hashes.file_hashes([str(write(tmp_path / "x", data))]) == [expected]


@pytest.mark.parametrize("at", [0, 7_777_777, len(BIG) - 3])
def test_one_changed_byte_of_a_large_file_changes_the_fingerprint(tmp_path: Path, at: int) -> None:
    path = write(tmp_path / "c.jsonl", BIG)
    before = file_fingerprint(path)
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"~")
    assert file_fingerprint(path) != before


def test_the_way_to_a_file_does_not_count_its_name_and_bytes_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "docs/c.jsonl", LINES)
    (tmp_path / "link").symlink_to("docs")
    (tmp_path / "link.jsonl").symlink_to("docs/c.jsonl")
    write(tmp_path / "other/c.jsonl", LINES)
    same = (
        *("docs/c.jsonl", "./docs/c.jsonl", "docs/../docs/c.jsonl", "docs", "docs/", "link"),
        *("link/c.jsonl", "link.jsonl", "other/c.jsonl", "docs/*.jsonl", f"file://{path}"),
    )
    assert {file_fingerprint(CorpusSource.of(each)) for each in same} == {file_fingerprint(path)}
    write(tmp_path / "d.jsonl", LINES)
    write(tmp_path / "deeper/c.jsonl", LINES + b"\n")
    (tmp_path / "link.tsv").symlink_to("docs/c.jsonl")  # read as another format
    others = [file_fingerprint(each) for each in ("d.jsonl", "deeper/c.jsonl", "link.tsv")]
    assert file_fingerprint(path) not in others


def test_a_folder_is_the_files_that_its_reader_reads(tmp_path: Path) -> None:
    folder = tmp_path / "beir"
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv", "run.txt"):
        write(folder / name, name.encode())
    sources = CorpusSource.of(folder), QueriesSource.of(folder), QrelsSource.of(folder)
    before = [file_fingerprint(each) for each in sources]
    for number, name in enumerate(("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")):
        assert before[number] == file_fingerprint(folder / name)
        write(folder / name, b"other")
        after = [file_fingerprint(each) for each in sources]
        assert [i for i in range(3) if before[i] != after[i]] == [number]
        before = after
    write(folder / "run.jsonl", b"new")
    write(folder / ".hidden.jsonl", b"new")
    assert [file_fingerprint(each) for each in sources] == before
    loose = tmp_path / "loose"
    write(loose / "a.jsonl", b"a")
    alone = file_fingerprint(CorpusSource.of(loose))
    write(loose / "run.txt", b"a run")
    write(loose / "idx/.job.json", b"{}")
    write(loose / "idx/store.json", b"{}")
    assert file_fingerprint(CorpusSource.of(loose)) == alone
    write(loose / "b.jsonl", b"b")
    assert file_fingerprint(CorpusSource.of(loose)) != alone


def test_a_collection_in_memory_is_told_by_its_bytes(tmp_path: Path) -> None:
    with fsspec.open("memory://bucket/fp/c.jsonl", "wb") as out:
        out.write(LINES)
    path = write(tmp_path / "c.jsonl", LINES)
    assert file_fingerprint("memory://bucket/fp/c.jsonl") == file_fingerprint(path)


def test_names_sizes_and_times_are_the_fast_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = write(tmp_path / "c.jsonl", LINES), reads(monkeypatch)
    before = file_fingerprint(path, "fast")
    assert before.startswith("fast:") and seen == []
    assert before == file_fingerprint(f"file://{path}", "fast")
    os.utime(path, ns=(1, 1))
    touched = file_fingerprint(path, "fast")
    write(path, LINES + b" ")
    os.utime(path, ns=(1, 1))
    assert len({before, touched, file_fingerprint(path, "fast")}) == 3


def test_an_output_is_recognised_in_the_form_that_it_was_built_with(tmp_path: Path) -> None:
    source = CorpusSource.of(write(tmp_path / "c.jsonl", BIG))
    for recorded in (
        file_fingerprint(source),
        file_fingerprint(source, "fast"),
        sampled_fingerprint(source.paths),
    ):
        for form in ("full", "fast"):
            assert contents(source, form).matches(recorded)
            assert not contents(source, form).matches(recorded[:-1] + "z")


def test_hashes_are_kept_until_their_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, settled: None
) -> None:
    seen = reads(monkeypatch)
    paths = [write(tmp_path / f"in/{name}", BIG[: 2 << 20]) for name in "abc"]
    small = write(tmp_path / "in/small", LINES)
    before = file_fingerprint(paths)
    assert sorted(seen) == ["a", "b", "c"]
    seen.clear()
    assert file_fingerprint(paths) == before and seen == []
    assert file_fingerprint([*paths, small]) != before and seen == ["small"]
    seen.clear()
    status = paths[1].stat()
    with open(paths[1], "r+b") as file:  # of the same size, and dated back
        file.write(b"~")
    os.utime(paths[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_fingerprint(paths) != before and seen == ["b"]
    paths[0].unlink()
    file_fingerprint(paths[1:])
    os.utime(paths[2])
    file_fingerprint(paths[2])
    (record,) = cache.glob("*.json")
    assert set(json.loads(record.read_text())["files"]) == {"b", "c"}


def test_the_hash_of_a_file_that_changed_just_now_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    path, seen = write(tmp_path / "c.jsonl", BIG), reads(monkeypatch)
    os.utime(path, ns=(1, 1))  # dated back, which tells nothing
    assert file_fingerprint(path) == file_fingerprint(path)
    assert seen == ["c.jsonl"] * 2 and not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"[1, 2", b"\xff{}", b'{"folder": 3}', b"flip"])
def test_a_damaged_cache_costs_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, settled: None, damage: bytes
) -> None:
    path = write(tmp_path / "c.jsonl", BIG)
    before = file_fingerprint(path)
    (record,) = cache.glob("*.json")
    data = record.read_bytes()
    value = json.loads(data)["files"]["c.jsonl"][1].encode()
    other = value.replace(value[:1], b"0" if value[:1] != b"0" else b"1")
    record.write_bytes(data.replace(value, other) if damage == b"flip" else damage)
    seen = reads(monkeypatch)
    assert file_fingerprint(path) == before and seen == ["c.jsonl"]
    seen.clear()
    assert file_fingerprint(path) == before and seen == []


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: None
) -> None:
    path = write(tmp_path / "c.jsonl", BIG)
    monkeypatch.setenv("RAYDIST_CACHE", str(write(tmp_path / "file", b"")))
    assert file_fingerprint(path) == file_fingerprint(path)


def test_the_cache_is_bounded_and_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, settled: None
) -> None:
    paths = [write(tmp_path / f"{i}/c.jsonl", BIG[: 2 << 20]) for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(file_fingerprint, [*paths, *paths]))) == 1
    assert len(list(cache.glob("*"))) == 12
    monkeypatch.setattr(file_hashes, "_LIMIT", 9 * next(cache.glob("*.json")).stat().st_size // 2)
    file_fingerprint(write(tmp_path / "new/c.jsonl", BIG))
    assert len(list(cache.glob("*"))) == 4


@pytest.fixture
def requests() -> Iterator[list[str]]:
    """The requests that the S3 server gets."""
    seen: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    logger, handler = logging.getLogger("werkzeug"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield seen
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_many_objects_are_told_by_a_listing(s3: str, requests: list[str]) -> None:
    objects = Objects(f"{s3}/corpus")
    for number in range(100):
        objects.write(f"{number:05}.jsonl", b"{}")
    requests.clear()
    before = file_fingerprint(CorpusSource.of(f"{s3}/corpus"))
    assert 0 < len(requests) <= 12
    assert file_fingerprint(CorpusSource.of(f"{s3}/corpus/"), "fast")[5:] == before[5:]
    assert file_fingerprint(CorpusSource.of(f"{s3}/corpus/*.jsonl")) == before
    objects.write("00070.jsonl", b"[]")  # of the same size
    assert file_fingerprint(CorpusSource.of(f"{s3}/corpus")) != before
    one = [file_fingerprint(f"{s3}/corpus/00001.jsonl") for _ in range(2)]
    objects.write("00001.jsonl", b"[]")
    assert one[0] == one[1] != file_fingerprint(f"{s3}/corpus/00001.jsonl")
