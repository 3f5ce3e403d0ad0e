from __future__ import annotations

import json
import uuid
from pathlib import Path

import fsspec
import pytest

from raydist import storage
from raydist.errors import ArtifactError, ConfigError, DataError, JobError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAYDIST_STORAGE", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def bucket() -> str:
    return f"memory://bucket-{uuid.uuid4().hex}"


def index(folder: Path, content: str = "x") -> Path:
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    (folder / "parts/0.bin").write_text(content)
    (folder / "manifest.json").write_text(json.dumps({"content": content}))
    return folder


def test_outputs_lie_below_the_storage_root(monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.resolve("out") == "out"
    assert storage.resolve("out", "s3://bucket/run") == "s3://bucket/run/out"
    assert storage.resolve("/abs/out", "s3://bucket") == "/abs/out"
    assert storage.resolve("gs://b/out", "/mnt") == "gs://b/out"
    monkeypatch.setenv("RAYDIST_STORAGE", "/mnt/shared")
    assert storage.resolve("a/b") == "/mnt/shared/a/b"


def test_a_home_folder_is_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert storage.resolve("~/out") == "/home/me/out"
    assert storage.resolve("out", "~/storage") == "/home/me/storage/out"
    monkeypatch.setenv("RAYDIST_STORAGE", "~")
    assert storage.resolve("out") == "/home/me/out"


def test_a_submitted_job_needs_a_root_for_relative_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"runtime_env": {}, "metadata": {"job_submission_id": "raysubmit_1"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(about))
    assert storage.in_submitted_job()
    with pytest.raises(ConfigError, match=r"out = .out.: a submitted job .* set storage="):
        storage.resolve("out")
    with pytest.raises(ConfigError, match=r"out = .out. below storage = .shared.: a submitted job"):
        storage.resolve("out", "shared")
    assert storage.resolve("out", "/mnt") == "/mnt/out"
    assert storage.resolve("out", "s3://bucket") == "s3://bucket/out"
    assert storage.resolve("/abs") == "/abs"


def test_a_local_output_is_its_own_path(tmp_path: Path) -> None:
    for out in (str(tmp_path / "o"), f"file://{tmp_path}/o"):
        with storage.writing(out) as path:
            assert path == tmp_path / "o"


def test_a_remote_output_is_put_whole_with_its_manifest_last(bucket: str, cache: Path) -> None:
    fs = fsspec.filesystem("memory")
    order: list[str] = []
    opened = type(fs)._open

    def watched(self, path, mode="rb", **options):  # type: ignore[no-untyped-def]
        if "w" in mode:
            order.append(path.rsplit("/", 1)[-1])
        return opened(self, path, mode, **options)

    type(fs)._open = watched
    try:
        with storage.writing(f"{bucket}/idx") as path:
            index(path)
            (path / "z-last-by-name.json").write_text("{}")
    finally:
        type(fs)._open = opened
    assert order[-1] == "manifest.json" and len(order) == 3
    assert fs.cat(f"{bucket}/idx/parts/0.bin") == b"x"
    assert list((cache / "outputs").iterdir()) == []


def test_a_failed_command_leaves_its_local_copy_and_nothing_remote(bucket: str) -> None:
    with pytest.raises(DataError), storage.writing(f"{bucket}/idx") as path:
        index(path)
        raise DataError("stopped")
    assert not fsspec.filesystem("memory").exists(f"{bucket}/idx")
    with storage.writing(f"{bucket}/idx") as again:
        assert again == path and (again / "parts/0.bin").read_text() == "x"
    assert fsspec.filesystem("memory").exists(f"{bucket}/idx/manifest.json")


def test_what_is_complete_remotely_is_seen_by_the_next_command(bucket: str) -> None:
    with storage.writing(f"{bucket}/idx") as path:
        index(path)
    with storage.writing(f"{bucket}/idx") as path:
        assert json.loads((path / "manifest.json").read_text()) == {"content": "x"}
        index(path, "new")
    assert fsspec.filesystem("memory").cat(f"{bucket}/idx/parts/0.bin") == b"new"


def test_a_remote_folder_is_copied_once_and_again_when_it_changes(
    bucket: str, tmp_path: Path
) -> None:
    storage.put(index(tmp_path / "a", "one"), f"{bucket}/idx")
    copy = storage.local(f"{bucket}/idx")
    assert (copy / "parts/0.bin").read_text() == "one" and copy.name == "idx"
    before = (copy / "parts/0.bin").stat().st_ino
    assert (storage.local(f"{bucket}/idx/") / "parts/0.bin").stat().st_ino == before
    storage.put(index(tmp_path / "a", "two"), f"{bucket}/idx")
    assert (storage.local(f"{bucket}/idx") / "parts/0.bin").read_text() == "two"


def test_an_incomplete_or_missing_remote_folder_is_refused(bucket: str) -> None:
    fs = fsspec.filesystem("memory")
    with fs.open(f"{bucket}/idx/parts/0.bin", "wb") as out:
        out.write(b"x")
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        storage.local(f"{bucket}/idx")
    with pytest.raises(DataError, match="no such file or folder"):
        storage.local(f"{bucket}/none")
    with pytest.raises(DataError, match="no file system"):
        storage.local("nowhere://x")


def test_single_files_travel_as_well(bucket: str, tmp_path: Path) -> None:
    with storage.writing(f"{bucket}/runs/run.txt") as path:
        path.write_text("1 Q0 d 1 1 t\n")
        index(path.with_name("run.txt.raydist"))
    assert storage.local(f"{bucket}/runs/run.txt").read_text() == "1 Q0 d 1 1 t\n"
    assert (storage.local(f"{bucket}/runs/run.txt.raydist") / "manifest.json").exists()
    assert storage.local(tmp_path) == tmp_path
    assert storage.local(f"file://{tmp_path}/x") == tmp_path / "x"


def test_a_store_that_refuses_is_an_error_that_names_it(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = fsspec.filesystem("memory")

    def refuse(self, path, mode="rb", **options):  # type: ignore[no-untyped-def]
        raise PermissionError("forbidden")

    monkeypatch.setattr(type(fs), "_open", refuse)
    with pytest.raises(JobError, match=rf"{bucket}/idx: cannot be written: .*forbidden"):
        storage.put(index(tmp_path / "a"), f"{bucket}/idx")


@pytest.mark.parametrize(
    ("out", "field", "value"),
    [
        ("run.txt", "run", {"path": "run.txt"}),
        ("./run.txt", "run", {"path": "link.txt"}),
        ("c2.jsonl", "corpus", {"path": ["c1.jsonl", "c[0-9].jsonl"]}),
        ("s3://b/run.txt", "run", "s3://b/run.txt"),
    ],
)
def test_an_output_never_replaces_a_file_that_the_command_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, field: str, value: object
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run.txt", "c1.jsonl", "c2.jsonl"):
        Path(name).touch()
    Path("link.txt").symlink_to("run.txt")
    with pytest.raises(ConfigError, match=rf"is what {field}.* reads, which would be lost"):
        storage.spare_inputs(out, {field: value, "out": out, "tag": "a\0b", "long": "x" * 9999})
    storage.spare_inputs(f"{out}.new", {field: value, "out": out})
