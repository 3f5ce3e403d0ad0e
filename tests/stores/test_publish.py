from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raydist import storage
from raydist.errors import DataError, JobError
from raydist.stores import generation, lease
from raydist.stores.objects import Objects


def generation_of(folder: Path, *names: str, **facts: object) -> None:
    """Writes an output whose manifest names files, one a name, and removes the others."""
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    for old in (folder / "parts").iterdir():
        if old.name not in names:
            old.unlink()
    for name in names:
        if not (folder / "parts" / name).exists():
            (folder / "parts" / name).write_text(f"content of {name}")
    (folder / "manifest.json").write_text(json.dumps({"parts": names, **facts}))


def parts(path: Path) -> list[str]:
    return sorted(each.name for each in (path / "parts").iterdir())


def visible(bucket: str, name: str = "idx") -> list[str]:
    names = Objects(f"{bucket}/{name}").names()
    return sorted(each for each in names if not generation.is_record(each))


def test_an_output_is_published_with_its_manifest_last(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    replace, upload = Objects.replace, Objects.upload

    def replaced(self, name, data, old):  # type: ignore[no-untyped-def]
        order.append(name)
        return replace(self, name, data, old)

    def uploaded(self, files, check):  # type: ignore[no-untyped-def]
        order.extend(files)
        return upload(self, files, check)

    monkeypatch.setattr(Objects, "replace", replaced)
    monkeypatch.setattr(Objects, "upload", uploaded)
    with storage.writing(f"{bucket}/idx") as path:
        generation_of(path, "a", "b")
    assert order == [".idx.lease.json", "parts/a", "parts/b", "manifest.json"]
    assert visible(bucket) == ["manifest.json", "parts/a", "parts/b"]
    assert Objects(bucket).names(".idx.lease.json") == {}
    assert list((tmp_path / "cache/outputs").iterdir()) == []


def test_the_next_generation_puts_what_is_new_and_removes_what_is_gone(bucket: str) -> None:
    with storage.writing(f"{bucket}/idx") as path:
        generation_of(path, "a", "b")
    before = Objects(f"{bucket}/idx").names()
    Objects(f"{bucket}/idx").write("notes/mine.txt", b"another's")
    with storage.writing(f"{bucket}/idx") as path:
        assert parts(path) == ["a", "b"]
        generation_of(path, "b", "c")
    after = Objects(f"{bucket}/idx").names()
    assert visible(bucket) == ["manifest.json", "notes/mine.txt", "parts/b", "parts/c"]
    assert after["parts/b"] == before["parts/b"]
    assert len(after) == len(visible(bucket)) + 1  # one record of files


def test_a_failed_command_publishes_nothing_and_continues_where_it_stopped(bucket: str) -> None:
    with pytest.raises(DataError), storage.writing(f"{bucket}/idx") as path:
        (path / "parts").mkdir(parents=True)
        (path / "parts/a").write_text("half")
        raise DataError("stopped")
    assert visible(bucket) == []
    with storage.writing(f"{bucket}/idx") as again:
        assert again == path and (again / "parts/a").read_text() == "half"
        generation_of(again, "a")
    assert visible(bucket) == ["manifest.json", "parts/a"]


def test_a_generation_that_was_not_published_is_forgotten(bucket: str) -> None:
    with storage.writing(f"{bucket}/idx") as path:
        generation_of(path, "a")
    with pytest.raises(DataError), storage.writing(f"{bucket}/idx") as path:
        generation_of(path, "a", "refused")
        raise DataError("stopped")
    with storage.writing(f"{bucket}/idx") as path:
        assert parts(path) == ["a"]
        generation_of(path, "a", "b")
    assert visible(bucket) == ["manifest.json", "parts/a", "parts/b"]


def test_who_comes_second_is_refused_and_loses_nothing_of_the_first(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with storage.writing(f"{bucket}/idx") as path:
        generation_of(path, "a", documents=1000)
    monkeypatch.setattr(lease.Lease, "_is_valid", staticmethod(lambda data: False))
    monkeypatch.setattr(lease.Lease, "check", lambda self: None)  # as if the clocks disagreed
    with pytest.raises(JobError) as failure, storage.writing(f"{bucket}/idx") as path:
        generation_of(path, "a", "slow", documents=1001)
        with monkeypatch.context() as other:
            other.setenv("RAYDIST_CACHE", str(tmp_path / "other"))
            with storage.writing(f"{bucket}/idx") as place:
                generation_of(place, "a", "quick", documents=1002)
    message = str(failure.value)
    assert f"{bucket}/idx: was changed by process {os.getpid()} on " in message
    assert "(documents: 1,000 -> 1,002); nothing of this command was published" in message
    assert {"parts/a", "parts/quick"} <= set(visible(bucket))
    with storage.writing(f"{bucket}/idx") as path:  # nothing refused comes in by the back door
        assert parts(path) == ["a", "quick"]
        generation_of(path, "a", "quick", "again")
    assert visible(bucket) == ["manifest.json", "parts/a", "parts/again", "parts/quick"]


def test_two_first_builds_do_not_mix(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease.Lease, "_is_valid", staticmethod(lambda data: False))
    monkeypatch.setattr(lease.Lease, "check", lambda self: None)
    with (
        pytest.raises(JobError, match="was built by process"),
        storage.writing(f"{bucket}/idx") as path,
    ):
        generation_of(path, "slow")
        with monkeypatch.context() as other:
            other.setenv("RAYDIST_CACHE", str(tmp_path / "other"))
            with storage.writing(f"{bucket}/idx") as place:
                generation_of(place, "quick")
    assert parts(storage.local(f"{bucket}/idx")) == ["quick"]


def test_a_repeated_request_whose_answer_was_lost_is_no_refusal(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Objects._put

    def twice(self, name, data, mode):  # type: ignore[no-untyped-def]
        put(self, name, data, mode)
        return put(self, name, data, mode)

    monkeypatch.setattr(Objects, "_put", twice)
    for names in (["a"], ["a", "b"]):
        with storage.writing(f"{bucket}/idx") as path:
            generation_of(path, *names)
    assert visible(bucket) == ["manifest.json", "parts/a", "parts/b"]


def test_single_files_travel_as_well(bucket: str) -> None:
    for content in ("one", "two"):
        with storage.writing(f"{bucket}/runs/run.txt") as path:
            path.write_text(content)
            generation_of(path.with_name("run.txt.raydist"), content)
        assert storage.local(f"{bucket}/runs/run.txt").read_text() == content
        assert parts(storage.local(f"{bucket}/runs/run.txt.raydist")) == [content]


HOLD = """
import sys, time
from raydist.stores.lease import Lease
from raydist.stores.objects import Objects
with Lease(Objects(sys.argv[1]), "idx", 0):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lease_is_waited_for_and_taken_over_from_the_dead(
    s3: str, capsys: pytest.CaptureFixture[str]
) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, s3], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with (
        pytest.raises(JobError, match=rf"idx: is being written by process {process.pid} on"),
        storage.writing(f"{s3}/idx", 0.6),
    ):
        raise AssertionError("the lease was not respected")
    assert "waiting up to 0.6 s for process" in capsys.readouterr().err
    process.kill()
    process.wait()
    with storage.writing(f"{s3}/idx", 0) as path:
        generation_of(path, "a")
    assert visible(s3) == ["manifest.json", "parts/a"]


def test_a_lease_of_another_machine_runs_out(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "TERM", 1.0)
    objects = Objects(s3)
    held = lease.Lease(objects, "idx", 0)
    held._holder = type(held._holder)("elsewhere", 1, "raydist", "2026-01-01T00:00:00Z")
    with held:
        with (
            pytest.raises(JobError, match="process 1 on elsewhere"),
            lease.Lease(objects, "idx", 0),
        ):
            pass
        held._ended.set()  # it stops, without a word
        with lease.Lease(objects, "idx", 5), pytest.raises(JobError, match="lost its lease to"):
            held.check()
