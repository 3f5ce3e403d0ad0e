"""The commands that change an index, with the index on an object store."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from raydist import on_demand, storage
from raydist.bow.index import BowIndex
from raydist.cli import main
from raydist.dense.vectors import VectorShards
from raydist.stores.objects import Objects
from tests.training.small import checkpoint


def corpus(folder: Path, name: str, count: int) -> str:
    rows = [json.dumps({"id": f"{name}{i}", "text": f"word {name} {i}"}) for i in range(count)]
    (folder / f"{name}.jsonl").write_text("\n".join(rows))
    return f"corpus={folder}/{name}.jsonl"


def ids(uri: str) -> list[str]:
    return sorted(BowIndex.open(storage.local(uri), verify=True).doc_ids.to_pylist())


def test_an_index_lives_on_an_object_store(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = f"out={s3}/idx"
    Objects(s3).upload({"corpus/a.jsonl": Path(corpus(tmp_path, "a", 5)[len("corpus=") :])})
    assert main(["index", f"corpus={s3}/corpus/", out]) == 0
    assert main(["index", f"corpus={s3}/corpus/", out]) == 0
    reader = BowIndex.open(storage.local(f"{s3}/idx"))
    assert main(["index", corpus(tmp_path, "b", 3), out, "--append"]) == 0
    (tmp_path / "some.txt").write_text("a0\nb1\n")
    assert main(["index", f"delete={tmp_path}/some.txt", out]) == 0
    assert ids(f"{s3}/idx") == ["a1", "a2", "a3", "a4", "b0", "b2"]
    assert [each.text for each in reader.store.get(["a0", "a4"])] == ["word a 0", "word a 4"]
    # The bucket holds what the manifest names, and nothing else.
    copy = storage.local(f"{s3}/idx")
    local = {p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file()}
    remote = {name for name in Objects(f"{s3}/idx").names() if not name.startswith(".files-")}
    assert remote == local
    assert main(["verify", f"{s3}/idx"]) == 0
    assert main(["merge", out]) == 0
    assert main(["verify", f"{s3}/idx"]) == 0
    assert ids(f"{s3}/idx") == ["a1", "a2", "a3", "a4", "b0", "b2"]
    held = Objects(f"{s3}/idx")
    objects = {name: held.read(name) for name in held.names()}
    texts = b"".join(each[0] for n, each in objects.items() if each and n.endswith(".arrow"))
    assert b"word b 2" in texts and b"word b 1" not in texts and b"word a 0" not in texts
    assert len([name for name in objects if name.endswith("segment.json")]) == 1
    (tmp_path / "q.tsv").write_text("1\tword 4\n")
    assert (
        main(["search", f"index={s3}/idx", f"queries={tmp_path}/q.tsv", f"out={s3}/run.txt"]) == 0
    )
    assert storage.local(f"{s3}/run.txt").read_text().startswith("1 Q0 a4 1 ")


def test_appends_from_two_machines_are_both_in(s3: str, tmp_path: Path) -> None:
    assert main(["index", corpus(tmp_path, "a", 5), f"out={s3}/idx"]) == 0
    processes = []
    for name in ("b", "c"):
        words = ["index", corpus(tmp_path, name, 3), f"out={s3}/idx", "--append", "lock_wait=120"]
        machine = {**os.environ, "RAYDIST_CACHE": str(tmp_path / f"cache-{name}")}
        processes.append(subprocess.Popen([sys.executable, "-m", "raydist", *words], env=machine))
    assert [process.wait(200) for process in processes] == [0, 0]
    assert ids(f"{s3}/idx") == sorted(
        [f"{n}{i}" for n in "bc" for i in range(3)] + [f"a{i}" for i in range(5)]
    )


def test_a_deletion_and_an_update_put_their_own_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "cache"))
    uri = f"memory://{uuid.uuid4().hex}/idx"
    assert main(["index", corpus(tmp_path, "a", 5), f"out={uri}"]) == 0
    put: list[str] = []
    upload = Objects.upload

    def watched(self, files, check=None):  # type: ignore[no-untyped-def]
        put.extend(files)
        return upload(self, files, check)

    monkeypatch.setattr(Objects, "upload", watched)
    (tmp_path / "some.txt").write_text("a0\n")
    assert main(["index", f"delete={tmp_path}/some.txt", f"out={uri}"]) == 0
    assert {name.split("/")[0].split("-")[0] for name in put} == {"deletions", "joined"}
    put.clear()
    more = corpus(tmp_path, "a", 2)  # one that was deleted, one that is replaced
    assert main(["index", more, f"out={uri}", "--append", "duplicates=last"]) == 0
    new = {name.split("-")[0] for name in put}
    assert new == {"deletions/00001", "joined", "segments/00001", "store"}
    assert ids(uri) == ["a0", "a1", "a2", "a3", "a4"]
    monkeypatch.setattr(Objects, "upload", upload)


def test_messages_name_the_uri_and_not_its_local_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "cache"))
    uri = f"memory://{uuid.uuid4().hex}/idx"
    assert main(["merge", f"out={uri}"]) == 2
    assert f"error: {uri}: no such folder" in capsys.readouterr().err
    assert main(["index", corpus(tmp_path, "a", 5), f"out={uri}"]) == 0
    (tmp_path / "some.txt").write_text("a0\n")
    assert main(["index", f"delete={tmp_path}/some.txt", f"out={uri}"]) == 0
    assert main(["verify", uri]) == 0
    assert main(["index", corpus(tmp_path, "b", 2), f"out={uri}"]) == 2
    messages = capsys.readouterr().err
    assert f"raydist merge out={uri} removes 1 deleted document\n" in messages
    assert f"index in {uri}\n" in messages and f"out = {uri}: the folder was written" in messages
    assert str(tmp_path / "cache") not in messages


def test_a_mistake_leaves_no_copy_of_the_index_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "cache"))
    uri = f"memory://{uuid.uuid4().hex}/idx"
    staging = tmp_path / "cache" / "outputs"
    assert main(["merge", f"out={uri}"]) == 2
    assert main(["index", corpus(tmp_path, "a", 5), f"out={uri}"]) == 0
    (tmp_path / "some.txt").write_text("nobody\n")
    assert main(["index", f"delete={tmp_path}/some.txt", f"out={uri}"]) == 2
    assert main(["index", corpus(tmp_path, "a", 2), f"out={uri}", "--append"]) == 2
    assert list(staging.glob("*")) == []


def test_a_writer_fetches_nothing_that_a_reader_has_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "cache"))
    uri = f"memory://{uuid.uuid4().hex}/idx"
    assert main(["index", corpus(tmp_path, "a", 5), f"out={uri}"]) == 0
    reader = BowIndex.open(storage.local(uri))
    fetched: list[str] = []
    download = Objects.download

    def watched(self, entries, targets):  # type: ignore[no-untyped-def]
        fetched.extend(entries)
        return download(self, entries, targets)

    monkeypatch.setattr(Objects, "download", watched)
    assert main(["index", corpus(tmp_path, "b", 3), f"out={uri}", "--append"]) == 0
    assert fetched == []
    assert main(["merge", f"out={uri}"]) == 0
    assert len(reader) == 5 and reader.store.get(["a0"])[0].text == "word a 0"
    assert len(ids(uri)) == 8


def test_a_writer_fetches_only_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(1)
    rows = [
        {"id": f"a{i}", "text": " ".join(f"w{rng.randrange(3000)}" for _ in range(200))}
        for i in range(1000)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    uri = f"memory://{uuid.uuid4().hex}/idx"
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "builder"))
    assert main(["index", f"corpus={tmp_path}/a.jsonl", f"out={uri}"]) == 0
    total = sum(entry.size for entry in Objects(uri).names().values())
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "writer"))
    fetched: dict[str, int] = {}
    chunks = Objects._chunks

    def counted(self, name, start, stop, entry):  # type: ignore[no-untyped-def]
        fetched[name] = fetched.get(name, 0) + stop - start
        return chunks(self, name, start, stop, entry)

    monkeypatch.setattr(Objects, "_chunks", counted)
    (tmp_path / "some.txt").write_text("a0\na7\n")
    assert main(["index", f"delete={tmp_path}/some.txt", f"out={uri}"]) == 0
    blocks = fetched.pop("store/parts/00000.arrow")
    assert blocks + sum(fetched.values()) < total / 10
    assert not {f"segments/00000/{name}" for name in ("postings", "terms", "ids")} & fetched.keys()
    fetched.clear()
    assert main(["index", corpus(tmp_path, "b", 3), f"out={uri}", "--append"]) == 0
    assert sum(fetched.values()) < total / 10 and "store/parts/00000.arrow" not in fetched
    fetched.clear()
    assert main(["index", f"corpus={tmp_path}/a.jsonl", f"out={uri}"]) == 0  # already built
    assert sum(fetched.values()) < total / 50
    monkeypatch.setattr(Objects, "_chunks", chunks)
    assert main(["verify", uri]) == 0  # what stayed in the bucket belongs to the index
    assert main(["merge", f"out={uri}"]) == 0  # all that is written anew is fetched
    assert main(["verify", uri]) == 0
    assert ids(uri) == sorted(
        [f"a{i}" for i in range(1000) if i not in (0, 7)] + ["b0", "b1", "b2"]
    )
    assert not list((tmp_path / "writer" / "outputs").glob("*"))


def test_an_interrupted_writer_continues_with_the_files_that_it_had_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"memory://{uuid.uuid4().hex}/idx"
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "builder"))
    assert main(["index", corpus(tmp_path, "a", 50), f"out={uri}"]) == 0
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "writer"))
    patterns = ("segments/*", "store*")
    with pytest.raises(KeyboardInterrupt), storage.writing(uri, later=patterns) as place:
        assert not (place / "segments/00000/postings").exists()
        on_demand.fetch(place / "segments/00000/ids")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), storage.writing(uri, later=patterns) as place:
        assert (place / "segments/00000/ids").exists()
        assert on_demand.is_absent(place / "segments/00000/postings")
        raise KeyboardInterrupt
    (tmp_path / "some.txt").write_text("a0\n")
    assert main(["index", f"delete={tmp_path}/some.txt", f"out={uri}"]) == 0
    assert main(["verify", uri]) == 0
    with storage.writing(uri) as place:  # another command has all of it
        assert (place / "segments/00000/postings").exists()


def test_vectors_grow_and_shrink_on_an_object_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "cache"))
    uri = f"memory://{uuid.uuid4().hex}/vec"
    model = checkpoint(tmp_path / "model")
    assert main(["embed", corpus(tmp_path, "a", 4), f"model={model}", f"out={uri}"]) == 0
    put: list[str] = []
    upload = Objects.upload

    def watched(self, files, check=None):  # type: ignore[no-untyped-def]
        put.extend(files)
        return upload(self, files, check)

    monkeypatch.setattr(Objects, "upload", watched)
    assert main(["embed", corpus(tmp_path, "b", 3), f"out={uri}", "--append"]) == 0
    assert {name.split("-")[0] for name in put} == {"segments/00001"}
    put.clear()
    (tmp_path / "some.txt").write_text("a1\nb2\n")
    assert main(["embed", f"delete={tmp_path}/some.txt", f"out={uri}"]) == 0
    assert {name.split("-")[0] for name in put} == {"deletions/00002"}
    before = VectorShards.open(storage.local(uri))
    assert before.doc_ids.to_pylist() == ["a0", "a2", "a3", "b0", "b1"]
    assert main(["merge", uri]) == 0 and main(["verify", uri]) == 0
    after = VectorShards.open(storage.local(uri))
    assert after.doc_ids.to_pylist() == before.doc_ids.to_pylist()
    assert after.read(0, 5).tobytes() == before.read(0, 5).tobytes()
    left = {name.split("/")[0] for name in Objects(uri).names() if not name.startswith(".")}
    assert left == {"manifest.json", "config.json", "segments"}
