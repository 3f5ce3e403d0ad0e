"""A pipeline is served by a process of its own, which ends with the block."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import raydist as rd

CORPUS = {"d1": "A heron waits for fish.", "d2": "Canal boats carry coal."}


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_its_process_ends_with_the_one_that_started_it(port: int, tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(f"reranker: bm25\nport: {port}\n")
    words = [sys.executable, "-m", "raydist.api.served", str(file)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as service:
        assert service.stdin
        service.stdin.close()  # as where the other process is killed
        assert service.wait(60) in (-signal.SIGTERM, 0)


SCRIPT = """
import os, signal, raydist as rd
service = rd.serve(reranker="bm25", port={port})
print(service._process.pid, flush=True)
signal.pause()
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_script_that_is_killed_leaves_no_service(
    number: signal.Signals, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = [sys.executable, "-c", SCRIPT.format(port=port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=tmp_path, text=True) as script:
        assert script.stdout
        service = int(script.stdout.readline())
        script.send_signal(number)
        script.wait(10)
    ends = time.monotonic() + 60
    while Path(f"/proc/{service}").exists() and time.monotonic() < ends:
        time.sleep(0.2)
    assert not Path(f"/proc/{service}").exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_folder_without_a_model_is_refused_at_once(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rd.index(CORPUS, "idx")
    began = time.monotonic()
    with pytest.raises(rd.ConfigError, match=r"reranker: model .*idx: its config.json names no"):
        rd.serve(reranker={"kind": "cross_encoder", "model": "./idx"}, port=port)
    assert time.monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.ray
def test_a_pipeline_answers_over_http_until_the_block_ends(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    pipe = rd.index(CORPUS, "idx").bm25() >> rd.rerank("bm25")
    with rd.serve(pipe, port=port) as service:
        assert service.running and service.url == f"http://127.0.0.1:{port}"
        body = {"query": "boats", "k": 1}
        answer = httpx.post(f"{service.url}/v1/search", json=body, timeout=60).json()
        assert answer["results"][0]["id"] == "d2"
        assert service.url in service._repr_html_()
        with pytest.raises(rd.ConfigError, match=f"port={port}: cannot listen"):
            rd.serve(pipe, port=port)
    assert not service.running and "stopped" in repr(service)
    began = time.monotonic()
    service.stop()
    assert time.monotonic() - began < 1
