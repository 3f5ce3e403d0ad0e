from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ray._private.runtime_env.packaging import create_package
from ray.dashboard.modules.dashboard_sdk import SubmissionClient

from raydist.cli import main
from raydist.commands.submit import package_files, submit_files
from raydist.errors import ConfigError, JobError


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def test_what_git_ignores_does_not_travel(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / ".gitignore").write_text("out/\n*.db\n")
    for name in ("a.py", "out/big.bin", "mlflow.db", "jobs/x.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    names = [p.relative_to(tmp_path).as_posix() for p in package_files(tmp_path)]
    assert names == [".gitignore", "a.py", "jobs/x.yaml"]


def test_without_git_hidden_files_and_outputs_stay(tmp_path: Path) -> None:
    for name in ("a.py", ".secret", "out/x", "jobs/x.yaml", "__pycache__/y"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    names = [p.relative_to(tmp_path).as_posix() for p in package_files(tmp_path)]
    assert names == ["a.py", "jobs/x.yaml"]


def test_data_is_refused_with_its_name(tmp_path: Path) -> None:
    with open(tmp_path / "corpus.jsonl", "wb") as out:
        out.truncate(11 << 20)
    with pytest.raises(ConfigError, match=r"corpus\.jsonl has 11\.5 MB: data does not travel"):
        package_files(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["submit"], "expected VERB"),
        (["submit", "idnex"], "unknown verb"),
        (["submit", "fields"], "not run on a cluster"),
        (["submit", "jobs/nowhere.py"], "no such script below the working directory"),
        (["submit", "doctor", "nonsense=1"], "nonsense: unknown key"),
    ],
)
def test_mistakes_are_found_before_anything_is_sent(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["index", "out/plan.yaml"],
        ["index", "../plan.yaml"],
        ["index", "{above}/here/plan.yaml"],
        ["out/script.py"],
        ["../script.py"],
        ["script.py", "out/plan.yaml"],
    ],
)
def test_files_that_do_not_travel_are_refused(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "here"
    (root / "out").mkdir(parents=True)
    for folder in (root, root / "out", tmp_path):
        (folder / "plan.yaml").write_text("corpus: /data/corpus.jsonl\nout: index\n")
        (folder / "script.py").write_text("")
    git(root, "init")
    (root / ".gitignore").write_text("out/\n")
    monkeypatch.chdir(root)
    words = [word.format(above=tmp_path) for word in words]
    assert main(["submit", *words, "--dry-run"]) == 2
    assert f"{words[-1]}: does not travel with the job" in capsys.readouterr().err
    for travelling in (["index", "./plan.yaml"], ["script.py", "plan.yaml", "nothing"]):
        assert main(["submit", *travelling, "--dry-run"]) == 0


class Packing(SubmissionClient):  # type: ignore[misc]
    """Packs as Ray does, and keeps the names of what it would send."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def _upload_package_if_needed(self, path: str, include_gitignore: bool, **_: object) -> None:
        package = Path(path).with_suffix(".zip")
        create_package(path, package, include_gitignore=include_gitignore)
        self.sent = sorted(zipfile.ZipFile(package).namelist())
        package.unlink()

    def submit_job(self, runtime_env: dict[str, Any], **_: object) -> str:
        self._upload_working_dir_if_needed(runtime_env)
        raise RuntimeError("enough")


def test_a_file_that_git_was_told_to_keep_travels_although_it_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "")
    git(tmp_path, "init")
    for name in ("a.py", "kept.db", "b.db"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".gitignore").write_text("*.db\n")
    git(tmp_path, "add", "--force", "kept.db")
    client = Packing()
    with pytest.raises(JobError, match="enough"):
        submit_files(client, "http://somewhere", "true", "x", tmp_path, package_files(tmp_path))
    assert client.sent == [".gitignore", "a.py", "kept.db"]


def test_a_cluster_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["submit", "doctor", "address=http://127.0.0.1:9"]) == 1
    assert "address = http://127.0.0.1:9" in capsys.readouterr().err


def test_a_script_is_submitted_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    words = ["jobs/pipeline.py", "jobs/quickstart/pipeline.yaml", "storage=/mnt/raydist"]
    assert main(["submit", *words, "address=http://127.0.0.1:9", "--dry-run"]) == 0
    assert f"to http://127.0.0.1:9: python {' '.join(words)}" in capsys.readouterr().err


def test_a_folder_as_a_word_is_no_file_that_travels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["submit", "verify", "/data/IDX", "--dry-run"]) == 0
    assert "would submit to" in (messages := capsys.readouterr().err)
    assert "python -m raydist verify /data/IDX" in messages
    assert main(["submit", "merge", "out=/data/IDX", "segments=2", "--dry-run"]) == 0
