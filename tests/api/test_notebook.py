"""A real notebook's kernel: tables as HTML, Ctrl-C in the middle of a call, its running loop."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs a cell; returns its messages. `interrupt_s`: seconds from "ready to stop" to Ctrl-C."""
    from jupyter_client.manager import start_new_kernel

    folder = tmp_path_factory.mktemp("notebook")
    rows = ({"id": str(i), "text": f"heron {i} " * 20} for i in range(60_000))
    (folder / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    manager, client = start_new_kernel(
        kernel_name="python3", startup_timeout=120, cwd=str(folder), env=environment
    )

    def run(code: str, interrupt_s: float | None = None) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        interrupt = threading.Timer(interrupt_s or 0, manager.interrupt_kernel)

        def collect(message: dict[str, Any]) -> None:
            if message["msg_type"] == "status" or interrupt_s is None:
                pass
            elif "text" in message["content"] and "ready to stop" in message["content"]["text"]:
                interrupt.start()
            messages.append({"kind": message["msg_type"], **message["content"]})

        client.execute_interactive(code, timeout=120, output_hook=collect)
        interrupt.cancel()
        return messages

    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def shown(messages: list[dict[str, Any]]) -> dict[str, str]:
    """Returns what a cell's value shows, by its kind; the error of a cell that fails."""
    errors = [each for each in messages if each["kind"] == "error"]
    assert not errors, errors[0]["evalue"]
    data: dict[str, str] = next(m["data"] for m in messages if m["kind"] == "execute_result")
    return data


def test_a_table_of_hits_is_html_with_the_words_marked(run: Run) -> None:
    run("import asyncio, raydist as rd; assert asyncio.get_running_loop().is_running()")
    run('texts = {"1": "A heron eats <b>fish</b>.", "2": {"title": "Boats", "text": "Canals."}}')
    data = shown(run('index = rd.index(texts, "idx"); index.search("herons & boats")'))
    assert "<mark>heron</mark> eats &lt;b&gt;fish" in data["text/html"]
    assert "<mark>Boats</mark>" in data["text/html"] and "herons &amp; boats" in data["text/html"]
    assert "*heron*" in data["text/plain"]
    for value in ('index.search({"q": "heron"})', "index", 'index.bm25() >> rd.rerank("bm25")'):
        assert shown(run(value))["text/plain"]
    table = 'rd.compare({"a": index}, {"q": "heron"}, {"q": {"1": 1}}, ["RR"], tracking="none")'
    assert "<table>" in shown(run(table))["text/html"]


def test_a_model_is_loaded_without_bars_and_warnings(run: Run, tiny_bert: Path) -> None:
    messages = run(f"import raydist as rd; encoder = rd.Encoder({str(tiny_bert)!r}); encoder")
    assert "32 dimensions" in shown(messages)["text/plain"]
    assert [each["text"] for each in messages if each["kind"] == "stream"] == []


def interrupt(run: Run, code: str) -> None:
    """Interrupts a call in its middle; on a fast machine a call may be over before."""
    for interrupt_s in (0.5, 0.2, 0.1, 0.05, 0.02):
        messages = run(f'print("ready to stop", flush=True); {code}', interrupt_s=interrupt_s)
        errors = [each["ename"] for each in messages if each["kind"] == "error"]
        if errors:
            break
    assert errors == ["KeyboardInterrupt"]


def test_an_interrupted_call_ends_and_the_same_call_continues(run: Run) -> None:
    run("import shutil")
    index = 'big = rd.index("corpus.jsonl", "big"); len(big)'
    interrupt(run, f'shutil.rmtree("big", ignore_errors=True); {index}')
    assert shown(run(index))["text/plain"] == "60000"
    run('queries = {str(i): f"heron {i}" for i in range(20_000)}')
    interrupt(run, "big.search(queries, k=1000)")
    assert shown(run('big.search("59999", k=1)[0].id'))["text/plain"] == "'59999'"
