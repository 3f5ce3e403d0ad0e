"""A pipeline is served by a process of its own, which ends with the block."""

from __future__ import annotations

import socket
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
