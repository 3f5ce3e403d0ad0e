from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from raydist.cli import main
from tests.reranking import small_qwen3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_dry_run_says_what_would_be_served(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert main(["serve", "reranker=bm25", f"port={port}", "--dry-run"]) == 0
    assert f"would serve bm25 at http://127.0.0.1:{port}" in capsys.readouterr().err


def test_dry_run_loads_the_models_and_refuses_what_a_replica_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_qwen3.write(tmp_path / "qwen3")
    words = ["serve", f"reranker={model}", f"port={free_port()}", "--dry-run"]
    assert main(words) == 0
    assert main([*words, "reranker.max_length=100000"]) == 2
    assert "expected 1 to 8192" in capsys.readouterr().err
    (model / "model.safetensors").unlink()
    assert main(words) == 2
    assert "safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["reranker=nosuch", "embedder=no/such"])
def test_dry_run_refuses_a_name_that_is_no_model(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", word, f"port={free_port()}", "--dry-run"]) == 2
    name = word.partition("=")[2]
    error = capsys.readouterr().err
    assert f"model {name}: neither a folder nor a model that can be fetched" in error
    assert "would serve" not in error


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_without_keys_others_are_not_served(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAYDIST_API_KEYS", raising=False)
    words = ["serve", "reranker=bm25", "host=0.0.0.0", f"port={free_port()}", *flags]
    assert main(words) == 2
    assert "others can connect, so keys are needed" in capsys.readouterr().err


def test_a_taken_port_is_named_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "reranker=bm25", f"port={port}"]) == 2
    assert f"port={port}: cannot listen on 127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("index=nowhere", "nowhere: no such folder"),
        ("reranker=./nowhere", "reranker: model ./nowhere: no such folder"),
        ("embedder=/nowhere", "embedder: model /nowhere: no such folder"),
        ("reranker=.", "reranker: model .: this folder has no config.json of a model"),
        ("embedder=weightless", "embedder: model weightless: no *.safetensors"),
    ],
)
def test_a_folder_without_a_model_is_named_before_anything_starts(
    word: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weightless").mkdir()
    Path("weightless/config.json").write_text('{"model_type": "bert"}')
    assert main(["serve", word, f"port={free_port()}"]) != 0
    assert message in capsys.readouterr().err


@pytest.mark.ray
def test_sigterm_answers_what_is_running_and_ends(tmp_path: Path) -> None:
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "raydist", "serve", "reranker=bm25", f"port={port}"),
            "access_log=requests.jsonl",
        ],
        stdout=log,
        stderr=log,
        env=environment | {"OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        ends = time.monotonic() + 150
        while True:
            assert process.poll() is None and time.monotonic() < ends, (
                tmp_path / "log"
            ).read_text()
            try:
                if httpx.get(f"{url}/readyz", timeout=10).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        texts = [f"{'word ' * 400}{i}" for i in range(1500)]
        statuses: list[int] = []

        def ask() -> None:
            body = {"query": "word " * 60, "documents": texts}
            statuses.append(httpx.post(f"{url}/v1/rerank", json=body, timeout=60).status_code)

        late: Counter[str] = Counter()

        def ask_late() -> None:
            while "ConnectError" not in late and process.poll() is None:
                try:
                    answer = httpx.get(f"{url}/healthz", timeout=60)
                    if answer.status_code != 200:
                        late[answer.json()["error"]["code"]] += 1
                        assert int(answer.headers["retry-after"]) >= 1
                    time.sleep(0.02)
                except httpx.TransportError as error:
                    late[type(error).__name__] += 1

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        asking_late = threading.Thread(target=ask_late)
        asking_late.start()
        asking.join(60)
        assert statuses == [200]
        assert process.wait(60) == 0
        asking_late.join(60)
        # Until the port is closed, all are told when to try again; one may meet the closing itself.
        assert late["not_ready"] and set(late) <= {"not_ready", "ConnectError", "ReadError"}, late
        assert late["ReadError"] <= 1, late
        messages = (tmp_path / "log").read_text()
        assert "no key is needed on this machine; others get 401" in messages
        assert "stopping" in messages
        lines = (tmp_path / "requests.jsonl").read_text().splitlines()
        logged = [json.loads(line) for line in lines]
        assert [(line["route"], line["status"]) for line in logged] == [("/v1/rerank", 200)]
        assert "word" not in "".join(lines)
    finally:
        process.kill()
        process.wait()
        log.close()


def test_a_service_that_does_not_end_after_an_error_still_says_it() -> None:
    code = (
        "import time; from raydist.commands import serve; from raydist.errors import JobError\n"
        "serve._shut_down = lambda: time.sleep(60)\n"
        "serve._end(0.1, error=JobError('the service did not start: why'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (1, "error: the service did not start: why\n")
