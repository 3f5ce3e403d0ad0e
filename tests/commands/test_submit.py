from __future__ import annotations

import os
import socket
import subprocess
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.runtime_env.packaging import create_package
from ray.dashboard.modules.dashboard_sdk import SubmissionClient

from raydist import job_server
from raydist.cli import main
from raydist.commands.submit import _environment, package_files, submit_files
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


class Server:
    """Something that listens: silent, or with one line for whoever connects."""

    def __init__(self, line: bytes | None) -> None:
        self.line = line
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection = self.socket.accept()[0]
            except OSError:
                return
            self.connections.append(connection)
            if self.line is not None:
                connection.recv(4096)
                connection.sendall(self.line)
                connection.close()

    def close(self) -> None:
        for each in (self.socket, *self.connections):
            each.close()


HTTP = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param(None, "does not answer", id="silent"),
        pytest.param(b"\0\0\x06\x04\0\0\0\0\0", "no web server", id="Ray's own port"),
        pytest.param(HTTP + b"{}", "no dashboard of Ray", id="another server"),
        pytest.param(HTTP + b"hello", "no dashboard of Ray", id="a page"),
        pytest.param(HTTP + b"3", "no dashboard of Ray", id="a number"),
    ],
)
def test_what_is_no_dashboard_is_named_soon(
    line: bytes | None, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_server, "_PATIENCE_S", 1.0)
    server = Server(line)
    try:
        for address in (server.address, f"http://{server.address}/"):
            pattern = rf"^address = {address}: {problem}; expected the URL of the .*dashboard"
            with pytest.raises(JobError, match=pattern):
                job_server.connect(address)
    finally:
        server.close()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "auto", "http://", "[::1"])
def test_an_address_where_nothing_is_ends_with_one_line(address: str) -> None:
    with pytest.raises(JobError, match=r"address = .*: .*; expected the URL of the .*dashboard"):
        job_server.connect(address)


def test_the_address_of_the_command_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's client would take that of the environment."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    server = Server(HTTP + f'{{"ray_version": "{ray.__version__}"}}'.encode())
    try:
        assert job_server.connect(server.address).get_address() == f"http://{server.address}"
    finally:
        server.close()
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:1"


def test_names_that_are_not_utf8_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    monkeypatch.chdir(tmp_path)
    for folder in ("without git", "with git"):
        assert main(["submit", "verify", "/data/IDX", "--dry-run"]) == 2, folder
        assert r"b'caf\xe9.txt': is not UTF-8" in capsys.readouterr().err
        git(tmp_path, "init")
    (tmp_path / ".gitignore").write_text("*.txt\n")
    assert main(["submit", "verify", "/data/IDX", "--dry-run"]) == 0
    assert main(["submit", "verify", os.fsdecode(b"/data/\xe9"), "--dry-run"]) == 2
    assert r"'/data/\udce9': is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("index corpus=out/c.jsonl out=x", "out/c.jsonl"),
        ("index corpus=nowhere.jsonl out=x", "nowhere.jsonl"),
        ("index corpus=../c.jsonl out=x", "../c.jsonl"),
        ("index corpus=- out=x", "-"),
        ("index corpus=c.jsonl,out/*.jsonl out=x", "out/*.jsonl"),
        ("index corpus=mixed out=x", "mixed"),
        ("index corpus=c.jsonl corpus.ids=out/ids out=x", "out/ids"),
        ("search index=out queries=q.tsv out=x", "out"),
        ("embed model=./out corpus=c.jsonl out=x", "./out"),
        ("embed model=out corpus=c.jsonl out=x", "out"),
        ("rerank run=r.trec queries=q.tsv index=/i reranker.kind=cross_encoder "
         "reranker.model=./out out=x", "./out"),
        ("index corpus=c.jsonl out=x", ""),
        ("index corpus=*.jsonl out=x", ""),
        ("index corpus=sub out=x", ""),
        ("index corpus=/data/c.jsonl out=x", ""),
        ("index corpus=~/c.jsonl out=x", ""),
        ("index corpus=s3://bucket/c.jsonl out=x", ""),
        ("index corpus=irds:cranfield out=x", ""),
        ("index corpus=docstrings:json out=x", ""),
        ("embed model=sentence-transformers/all-MiniLM-L6-v2 corpus=c.jsonl out=x", ""),
    ],
)  # fmt: skip
def test_inputs_that_do_not_travel_are_refused(
    words: str,
    refused: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "here"
    names = ("c.jsonl", "out/c.jsonl", "out/ids", "mixed/a.jsonl", "mixed/b.db", "sub/a/c.jsonl")
    for name in (*names, "q.tsv", "r.trec", "sub/.hidden", "../c.jsonl"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    git(root, "init")
    (root / ".gitignore").write_text("out/\n*.db\n.hidden\n")
    monkeypatch.chdir(root)
    assert main(["submit", *words.split(), "--dry-run"]) == (2 if refused else 0)
    if refused:
        assert f"submit: {refused}: does not travel with the job" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("plan.yaml", ""),
        ("plan.yaml stages.index.corpus=/data/c.jsonl", ""),
        ("plan.yaml stages.index.corpus=out/c.jsonl", "out/c.jsonl: does not travel with the job"),
        ("out/plan.yaml", "out/plan.yaml: does not travel with the job"),
        ("nowhere.yaml", "nowhere.yaml"),
        ("plan.yaml stages.search.k=0", "stages.search.k = '0'"),
        ("", "expected one YAML file"),
    ],
)
def test_a_pipeline_is_checked_before_it_is_sent(
    words: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "out").mkdir()
    for name in ("c.jsonl", "q.tsv", "out/c.jsonl"):
        (tmp_path / name).write_text("x")
    plan = """out: ranked
stages:
  index: {corpus: c.jsonl, out: "{out}/idx"}
  search: {index: "{out}/idx", queries: q.tsv, out: "{out}/run.txt"}
"""
    for name in ("plan.yaml", "out/plan.yaml"):
        (tmp_path / name).write_text(plan)
    git(tmp_path, "init")
    (tmp_path / ".gitignore").write_text("out/\n")
    monkeypatch.chdir(tmp_path)
    assert main(["submit", "pipeline", *words.split(), "--dry-run"]) == (2 if message else 0)
    said = capsys.readouterr().err
    assert (message or f"python -m raydist pipeline {words}") in said


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


def test_a_password_of_the_tracking_server_does_not_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:s3cret@host:5000")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as error:
        _environment()
    assert "s3cret" not in str(error.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert _environment()["MLFLOW_TRACKING_URI"] == "http://host:5000"
