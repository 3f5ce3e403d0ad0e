from __future__ import annotations

import socket
from pathlib import Path

import pytest

from raydist.cli import main
from raydist.commands import doctor


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_a_bare_machine_is_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[:-1]} <= {"ok", "note"}
    for what in ("python", "ray", "torch", "memory", "Ray cluster", "Ray auth", "embed, train"):
        assert any(line[6:].startswith(what) for line in lines), what


def test_what_was_asked_for_and_is_broken_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code = main(
        [
            "doctor",
            f"storage={tmp_path}/file/below",
            "address=127.0.0.1:9",
            "tracking=http://127.0.0.1:9",
        ]
    )
    bad = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bad")]
    assert code == 1
    assert [line[6:].split()[0] for line in bad] == ["Ray", "storage", "MLflow"]


def test_a_job_server_that_does_not_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "address=http://127.0.0.1:9"]) == 1
    assert "bad   Ray jobs               http://127.0.0.1:9: " in capsys.readouterr().out


def test_a_port_that_is_no_heads_is_told_soon(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_HEAD_S", 4)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert main(["doctor", f"address={address}"]) == 1
    line = line_about(capsys, "Ray cluster")
    assert line.startswith(f"bad Ray cluster {address}: no head of a cluster answers within 4 s")


def test_storage_that_can_be_written_is_left_clean(tmp_path: Path) -> None:
    assert main(["doctor", f"storage={tmp_path}/new"]) == 0
    assert list((tmp_path / "new").iterdir()) == []


def line_about(capsys: pytest.CaptureFixture[str], what: str) -> str:
    """Returns the line about something, its words one blank apart."""
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line[6:].startswith(f"{what} ")]
    return " ".join(line.split())


def test_storage_is_what_the_verbs_take_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for storage in ("~/new", "memory://doctor", f"file://{tmp_path}/a b[1]"):
        assert main(["doctor", f"storage={storage}"]) == 0
        assert line_about(capsys, "storage") == f"ok storage {storage}: writable from here"
    assert (tmp_path / "home/new").is_dir() and (tmp_path / "a b[1]").is_dir()
    assert list((tmp_path / "here").iterdir()) == []
    assert main(["doctor", "storage=nowhere://x"]) == 1
    assert "no file system for this scheme" in line_about(capsys, "storage")


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("postgresql://u:secret@127.0.0.1:9/x", "bad MLflow postgresql://127.0.0.1:9/x: "),
        ("mysql+pymysql://u@127.0.0.1:9/x", "bad MLflow mysql+pymysql://127.0.0.1:9/x: "),
        ("http://u:secret@127.0.0.1:9", "bad MLflow http://127.0.0.1:9: "),
        ("file:///{here}/runs", "bad MLflow file:///{here}/runs: MLflow cannot be used"),
        ("databricks", "bad MLflow databricks: MLflow cannot be used"),
        ("sqlite:///garbage", "bad MLflow sqlite:///{here}/garbage: MLflow cannot be used"),
        (
            "sqlite:///garbage/x.db",
            "bad MLflow sqlite:///{here}/garbage/x.db: {here}/garbage is not",
        ),
        ("sqlite:///new/x.db", "ok MLflow sqlite:///{here}/new/x.db: the first run creates it"),
        ("none", "note MLflow none: runs are not tracked"),
    ],
)
def test_tracking_is_asked_and_nothing_is_made(
    uri: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "garbage").write_bytes(bytes(range(256)) * 8)
    assert main(["doctor", f"tracking={uri.format(here=tmp_path)}"]) == int(line.startswith("bad"))
    text = line_about(capsys, "MLflow")
    assert text.startswith(line.format(here=tmp_path)) and "secret" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["garbage"]


def test_a_database_that_mlflow_reads_is_well(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", f"tracking={database}"]) == 0
    assert line_about(capsys, "MLflow") == f"ok MLflow {database}: MLflow reads it"


@pytest.mark.parametrize(
    ("cpus", "gpus", "sizes", "lines"),
    [
        (8, 0, [], ["workers up to 8", "workers up to 8, on CPU, dtype float32"]),
        (0, 0, [], ["no worker now; RAYDIST_AUTOSCALING=1", "no worker now"]),
        (
            8,
            2,
            [],
            ["workers up to 8", "workers up to 2 with gpus_per_worker=1", "in one", "Qwen3"],
        ),
        (8, 1, [9 << 30], ["", "", "", "Qwen3-Reranker-0.6B, -4B in bfloat16 within a GPU's"]),
    ],
)
def test_what_verbs_could_run_with(
    cpus: int, gpus: int, sizes: list[int], lines: list[str]
) -> None:
    texts = [line for _, _, line in doctor._verbs(cpus, gpus, sizes)]
    assert len(texts) == 4
    assert all(text.startswith(start) for text, start in zip(texts, lines)), texts


@pytest.mark.ray
def test_every_node_must_see_the_same_storage(
    ray_cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    words = ["doctor", "address=auto"]
    assert main([*words, f"storage={tmp_path}/shared"]) == 0
    output = capsys.readouterr().out
    assert "writable from here and from 1 node, which see the same" in output
    assert "auto: 1 node, Ray" in output and "Ray auth               token" in output
    assert list((tmp_path / "shared").iterdir()) == []
    assert main([*words, "storage=memory://doctor"]) == 1  # a memory is a process's own
    assert "is not the same place as here" in line_about(capsys, "storage")


@pytest.mark.ray
def test_nodes_that_do_not_answer_are_named(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    nodes = [{"NodeID": "ab" * 28, "Alive": True}, {"NodeID": "cd" * 28, "Alive": False}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    state, _, text = doctor.check_storage(str(tmp_path), 1)
    assert state == "bad" and f"{tmp_path}: node abababab: " in text and "cdcd" not in text
    monkeypatch.undo()
    monkeypatch.setattr(doctor, "_PATIENCE_S", 0)
    state, _, text = doctor.check_storage(str(tmp_path), 1)
    assert state == "bad" and "no answer within 0 seconds" in text
