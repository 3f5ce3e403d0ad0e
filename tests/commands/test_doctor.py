from __future__ import annotations

from pathlib import Path

import pytest

from raydist.cli import main


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


def test_storage_that_can_be_written_is_left_clean(tmp_path: Path) -> None:
    assert main(["doctor", f"storage={tmp_path}/new"]) == 0
    assert list((tmp_path / "new").iterdir()) == []
