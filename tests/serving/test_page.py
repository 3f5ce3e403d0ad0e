from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import uvicorn
from fastapi import FastAPI

from raydist.serving.http import make_app
from raydist.serving.search import Searcher
from tests.serving.local import TEXTS, Store, Words, service
from tests.serving.test_live import free_port

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")


def serving(app: FastAPI) -> Iterator[str]:
    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    ends = time.monotonic() + 20
    while not server.started and time.monotonic() < ends:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def rerank_url() -> Iterator[str]:
    yield from serving(make_app(service()))


@pytest.fixture
def search_url() -> Iterator[str]:
    searcher = Searcher({"words": Words(TEXTS)}, [Store(TEXTS)])
    yield from serving(make_app(service(searcher=searcher)))


def dom(url: str, folder: Path) -> str:
    """Returns the page as it is after its scripts ran."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={folder}",
            "--virtual-time-budget=8000",
            "--dump-dom",
            url,
        ],
        capture_output=True,
        text=True,
        timeout=90,
    )
    return done.stdout


def items(page: str) -> list[str]:
    return re.findall(r"<li\b[^>]*>(.*?)</li>", page.partition('id="results"')[2], re.DOTALL)


def test_pasted_documents_are_put_in_order(rerank_url: str, tmp_path: Path) -> None:
    fields = {"query": "rain", "documents": "bread is baked\nrain falls\nsnow <b>ice</b>"}
    page = dom(f"{rerank_url}/?{urlencode(fields)}", tmp_path)
    entries = items(page)
    assert len(entries) == 3 and "<mark>rain</mark> falls" in entries[0]
    assert "score 0." in entries[0] and "&lt;b&gt;" in page  # texts are never markup
    assert "3 results" in page and "infer" in page
    assert "bm25 (reranker)" in page


def test_tokens_that_met_are_marked_and_listed(tiny_bert: Path, tmp_path: Path) -> None:
    from raydist.models.biencoder import BiEncoder
    from raydist.reranking.biencoder import BiEncoderReranker
    from raydist.reranking.spec import BiEncoderSpec

    options = {"kind": "multivector", "projection": 16, "device": "cpu"}
    BiEncoder.load(tiny_bert, **options).save(tmp_path / "model")
    reranker = BiEncoderReranker(BiEncoderSpec(model=str(tmp_path / "model"), device="cpu"))
    fields = {"query": "the vector", "documents": "a vector of the index\nnot <b>the</b> model"}
    for url in serving(make_app(service({"late": reranker}))):
        page = dom(f"{url}/?{urlencode(fields)}", tmp_path / "profile")
    entries = items(page)
    assert len(entries) == 2 and all('class="met"' in entry for entry in entries)
    assert all(entry.count("<b>the</b> → ") == 1 for entry in entries)  # a chip, never markup
    assert 'class="shade" style="--share: 100%' in page


def test_the_search_box_shows_snippets_scores_and_times(search_url: str, tmp_path: Path) -> None:
    page = dom(f"{search_url}/?{urlencode({'query': 'rain snow'})}", tmp_path)
    entries = items(page)
    assert len(entries) == 3
    assert all("words " in item and "rerank " in item for item in entries)
    assert "<strong>" in entries[0] and "<mark>" in entries[0]
    assert 'aria-label="up ' in page and 'id="first" aria-labelledby="first-title">' in page
    assert re.search(r"3 results · words [\d.]+ ms", page)
    assert 'id="paste" hidden=""' in page


def test_what_was_done_otherwise_is_shown(tmp_path: Path) -> None:
    searcher = Searcher({"words": Words(TEXTS)}, [Store({"c": TEXTS["c"]})])
    for url in serving(make_app(service(searcher=searcher))):
        page = dom(f"{url}/?{urlencode({'query': 'rain snow'})}", tmp_path)
    assert len(items(page)) == 3 and "2 of 3 hits were not reranked" in page


def test_an_error_is_shown(rerank_url: str, tmp_path: Path) -> None:
    fields = {"query": "a" * 40_000, "documents": "b"}
    page = dom(f"{rerank_url}/?{urlencode(fields)}", tmp_path)
    assert 'class="error"' in page and "the limit is 32768" in page
