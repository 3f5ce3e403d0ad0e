from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raydist import storage
from raydist.errors import ArtifactError, DataError
from raydist.stores import copies
from raydist.stores.objects import Objects
from tests.stores.test_publish import generation_of, parts


def publish(bucket: str, *names: str) -> None:
    with storage.writing(f"{bucket}/idx") as path:
        generation_of(path, *names)


def test_a_remote_folder_is_copied_once_and_each_generation_is_a_copy_of_its_own(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(bucket, "a", "b")
    first = storage.local(f"{bucket}/idx")
    assert first.name == "idx" and parts(first) == ["a", "b"]
    fetched: list[str] = []
    download = Objects.download

    def watched(self, entries, targets):  # type: ignore[no-untyped-def]
        fetched.extend(entries)
        download(self, entries, targets)

    monkeypatch.setattr(Objects, "download", watched)
    assert storage.local(f"{bucket}/idx/") == first and fetched == []
    publish(bucket, "b", "c")
    fetched.clear()
    second = storage.local(f"{bucket}/idx")
    assert second != first and parts(second) == ["b", "c"] and parts(first) == ["a", "b"]
    assert fetched == ["parts/c"]  # the other one is linked


def test_a_generation_that_goes_while_it_is_copied_is_no_error(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    publish(bucket, "a", "b")
    download = Objects.download
    late = [("b", "c"), ("c", "d")]

    def overtaken(self, entries, targets):  # type: ignore[no-untyped-def]
        if late and "cache" in str(next(iter(targets.values()))):
            names = late.pop(0)
            with monkeypatch.context() as other:
                other.setenv("RAYDIST_CACHE", str(tmp_path / "other"))
                publish(bucket, *names)
        download(self, entries, targets)

    monkeypatch.setattr(Objects, "download", overtaken)
    assert parts(storage.local(f"{bucket}/idx")) == ["c", "d"]


def test_a_folder_without_a_record_of_files_is_what_it_holds(bucket: str) -> None:
    folder = Objects(f"{bucket}/idx")
    folder.write("parts/a", b"content of a")
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        storage.local(f"{bucket}/idx")
    folder.write("manifest.json", b"{}")
    assert parts(storage.local(f"{bucket}/idx")) == ["a"]
    publish(bucket, "b")
    assert sorted(Objects(f"{bucket}/idx").names())[1:] == ["manifest.json", "parts/b"]
    with pytest.raises(DataError, match="no such file or folder"):
        storage.local(f"{bucket}/none")


def test_many_processes_that_open_one_folder_make_one_copy(s3: str, tmp_path: Path) -> None:
    with storage.writing(f"{s3}/idx") as path:
        generation_of(path, *(f"p{i}" for i in range(20)))
    code = """
import sys
from pathlib import Path
from raydist import storage
from raydist.stores.objects import Objects
download = Objects.download
def watched(self, entries, targets):
    print("copied", len(entries), flush=True)
    download(self, entries, targets)
Objects.download = watched
print(len(list((storage.local(sys.argv[1]) / "parts").iterdir())))
"""
    command = [sys.executable, "-c", code, f"{s3}/idx"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(12)
    ]
    outputs = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0] * 12, outputs
    assert sorted(out for out, _ in outputs) == ["20\n"] * 11 + ["copied 20\n20\n"]


def test_what_was_used_least_recently_is_removed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYDIST_CACHE_GB", "20e-9")
    for name in ("old", "new"):
        with storage.writing(f"{bucket}/{name}") as path:
            generation_of(path, "a")
    old, new = (storage.local(f"{bucket}/{name}") for name in ("old", "new"))
    assert old.exists()  # used a moment ago
    for age, path in ((2, old), (1, new)):
        used = time.time() - copies.GRACE - age
        os.utime(path.parent / ".files.json", (used, used))
    copies.evict(tmp_path / "cache/inputs")
    assert not old.exists() and new.exists()
    assert storage.local(f"{bucket}/old").exists()


def test_a_copy_that_a_newer_one_replaced_stays_for_an_hour(bucket: str, tmp_path: Path) -> None:
    publish(bucket, "a")
    first = storage.local(f"{bucket}/idx")
    publish(bucket, "b")
    second = storage.local(f"{bucket}/idx")
    assert first.exists()
    used = time.time() - copies.GRACE - 1
    os.utime(first.parent / ".files.json", (used, used))
    copies.evict(tmp_path / "cache/inputs")
    assert not first.exists() and second.exists()
