from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from raydist.cli import main
from raydist.commands.submit import package_files
from raydist.errors import ConfigError


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
