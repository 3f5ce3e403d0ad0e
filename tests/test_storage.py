from __future__ import annotations

import json
from pathlib import Path

import pytest

from raydist import storage
from raydist.errors import ConfigError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAYDIST_STORAGE", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    return tmp_path / "cache"


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
    assert storage.local(tmp_path) == tmp_path
    assert storage.local(f"file://{tmp_path}/x") == tmp_path / "x"


@pytest.mark.parametrize(
    ("out", "paths"),
    [
        ("run.txt", ["run.txt"]),
        ("./run.txt", ["link.txt"]),
        ("c2.jsonl", ["c1.jsonl", "c[0-9].jsonl"]),
        ("s3://b/run.txt", ["s3://b/run.txt"]),
    ],
)
def test_an_output_never_replaces_a_file_that_the_command_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, paths: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run.txt", "c1.jsonl", "c2.jsonl"):
        Path(name).touch()
    Path("link.txt").symlink_to("run.txt")
    with pytest.raises(ConfigError, match=r"is what run = .* reads, which would be lost"):
        storage.spare_inputs(out, {"run": paths})
    storage.spare_inputs(f"{out}.new", {"run": paths})
