"""Tools of language models, as the official SDK's client sees them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from raydist.cli import main
from raydist.commands.mcp import open_tools
from raydist.config.load import load
from raydist.config.mcp import McpConfig
from raydist.serving.mcp import Tools

ROOT = Path(__file__).parents[2]
LONG = "The lock keeper writes a letter about the lock. " * 50
DOCUMENTS = [
    {"id": "h", "title": "Heron", "text": "A heron waits in the shallows. It eats fish."},
    {"id": "b", "text": "Canal boats carry coal, and sometimes fish, along the canal."},
    {"id": "l", "title": "Locks", "text": LONG.strip()},
]
ENGLISH = {"kind": "bm25", "analyzer": "english"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Indexes of three documents, with and without texts."""
    folder = tmp_path_factory.mktemp("mcp")
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(each) + "\n" for each in DOCUMENTS))
    assert main(["index", f"corpus={corpus}", f"out={folder / 'idx'}"]) == 0
    assert main(["index", f"corpus={corpus}", f"out={folder / 'bare'}", "store=false"]) == 0
    return folder


def tools(index: Path, *, reranker: Any = None, about: str = "", **limits: int) -> Tools:
    keys = {"index": [str(index)], "reranker": reranker, "about": about, "limits": limits}
    config = load(McpConfig, [keys])
    return open_tools(config)


def ask(server: Any, talk: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with Client(server) as client:
            return await talk(client)

    return asyncio.run(run())


def call(server: Any, name: str, **arguments: Any) -> Any:
    """Returns a tool's structured answer, or the text of its error."""
    answer = ask(server, lambda client: client.call_tool(name, arguments))
    return answer.content[0].text if answer.is_error else answer.structured_content


def test_a_search_has_scores_titles_and_passages(folder: Path) -> None:
    server = tools(folder / "idx").server()
    results = call(server, "search", query="herons and fish")["results"]
    assert [(each["rank"], each["id"], each["title"]) for each in results] == [
        (1, "h", "Heron"),
        (2, "b", ""),
    ]
    assert results[0]["score"] > results[1]["score"] > 0
    assert results[0]["passage"] == "A heron waits in the shallows. It eats fish."
    assert len(call(server, "search", query="fish", k=1)["results"]) == 1
    assert call(server, "search", query="zebra") == {"results": []}


def test_a_long_document_is_read_in_parts(folder: Path) -> None:
    server = tools(folder / "idx", max_fetch_chars=1000).server()
    text, start = "", 0
    while True:
        (part,) = call(server, "fetch", ids=["l"], start=start)["documents"]
        text, start = text + part["text"], part["end"]
        assert part["length"] == len(LONG.strip())
        if start == part["length"]:
            break
    assert text == LONG.strip()
    answer = call(server, "fetch", ids=["h", "l", "h", "nothing"])
    assert [each["id"] for each in answer["documents"]] == ["h", "l"]
    assert answer["missing"] == ["nothing"]
    assert sum(len(each["text"]) for each in answer["documents"]) <= 1000


def test_a_rerank_orders_documents_by_a_question(folder: Path) -> None:
    server = tools(folder / "idx", reranker=ENGLISH).server()
    results = call(server, "rerank", query="letters of keepers", ids=["h", "l", "b"])["results"]
    assert results[0]["id"] == "l" and "letter" in results[0]["passage"]
    assert sorted(each["id"] for each in results) == ["b", "h", "l"]


def test_mistakes_are_answered_with_a_sentence(folder: Path) -> None:
    server = tools(folder / "idx", reranker=ENGLISH, max_documents=3, max_query_chars=9).server()
    many = ["a", "b", "c", "d"]
    assert call(server, "search", query="ten lettrs") == (
        "query: string should have at most 9 characters"
    )
    assert call(server, "search", query="fish", k=51) == (
        "k: input should be less than or equal to 50"
    )
    assert call(server, "search", query="fish", limit=3) == (
        "search has no argument limit; it takes query, k"
    )
    assert call(server, "search") == "query: field required"
    assert call(server, "fetch", ids=many).startswith("ids: list should have at most 3 items")
    assert call(server, "rerank", query="q", ids=[]).startswith("ids: list should have at least 1")
    assert call(server, "fetch", ids=["x"]) == (
        "ids: no document has the id x; use ids that search returned"
    )
    assert call(server, "fetch", ids=["x" * 100_000]) == (
        f"ids: no document has the id {'x' * 100}…; use ids that search returned"
    )
    assert call(server, "fetch", ids=["h"], start=-1).startswith("start: input should be greater")


def test_a_model_is_told_what_is_searched_and_how(folder: Path) -> None:
    server = tools(folder / "idx", about="notes on waterways", reranker="bm25").server()
    listed = {tool.name: tool for tool in ask(server, lambda c: c.list_tools()).tools}
    assert list(listed) == ["search", "fetch", "rerank"]
    search = listed["search"]
    assert "notes on waterways: 3 documents." in search.description
    assert search.input_schema["properties"]["k"]["maximum"] == 50
    assert search.input_schema["additionalProperties"] is False
    assert "by their words" in search.input_schema["properties"]["query"]["description"]
    assert "description" in search.output_schema["properties"]["results"]
    assert all(each.annotations.read_only_hint and each.title for each in listed.values())
    assert "notes on waterways" in server.instructions
    alone = tools(folder / "bare").server()
    assert [tool.name for tool in ask(alone, lambda c: c.list_tools()).tools] == ["search"]
    assert call(alone, "search", query="fish")["results"][0]["passage"] == ""


def test_vectors_alone_are_searched_by_meaning(folder: Path, tiny_bert: Path) -> None:
    words = ["embed", f"corpus={folder / 'corpus.jsonl'}", f"model={tiny_bert}"]
    assert main([*words, f"out={folder / 'vec'}"]) == 0
    server = tools(folder / "vec").server()
    (search,) = ask(server, lambda client: client.list_tools()).tools
    assert "by their meaning" in search.input_schema["properties"]["query"]["description"]
    results = call(server, "search", query="a heron", k=2)["results"]
    assert len(results) == 2 and results[0]["passage"] == results[0]["title"] == ""
    config = load(McpConfig, [{"index": [str(folder / "idx"), str(folder / "vec")]}])
    fused = open_tools(config).server()
    results = call(fused, "search", query="herons", k=3)["results"]
    assert len(results) == 3 and all(each["passage"] for each in results)


def environment() -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if k != "RAYDIST_API_KEYS"}
    return {**own, "PYTHONPATH": str(ROOT)}


def words(folder: Path, *more: str) -> list[str]:
    return ["-m", "raydist", "mcp", f"index={folder / 'idx'}", "reranker=bm25", *more]


def test_a_client_talks_with_it_over_standard_input_and_output(folder: Path) -> None:
    program = StdioServerParameters(
        command=sys.executable, args=words(folder), env=environment(), cwd=str(folder)
    )

    async def talk(client: Client) -> Any:
        search = await client.call_tool("search", {"query": "fish"})
        ids = [each["id"] for each in search.structured_content["results"]]
        fetch = await client.call_tool("fetch", {"ids": ids})
        rerank = await client.call_tool("rerank", {"query": "coal", "ids": ids})
        return search, fetch, rerank

    for answer in ask(program, talk):
        assert not answer.is_error and answer.structured_content


def test_its_output_is_the_protocol_alone_and_ends_with_its_input(folder: Path) -> None:
    client = {"name": "test", "version": "1"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
    search = {"name": "search", "arguments": {"query": "fish"}}
    messages = [
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": search},
    ]
    with subprocess.Popen(
        [sys.executable, *words(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    ) as program:
        assert program.stdin and program.stdout and program.stderr
        program.stdin.write("no JSON at all\n")
        for each in messages:
            program.stdin.write(json.dumps({"jsonrpc": "2.0", **each}) + "\n")
        program.stdin.flush()
        answers: dict[int, Any] = {}
        while 2 not in answers:
            answer = json.loads(program.stdout.readline())
            assert answer["jsonrpc"] == "2.0"
            answers[answer.get("id")] = answer
        program.stdin.close()
        assert program.wait(30) == 0
        assert program.stdout.read() == ""
        assert "tools for" in program.stderr.read()
    assert answers[1]["result"]["serverInfo"]["name"] == "raydist"
    assert answers[2]["result"]["structuredContent"]["results"][0]["id"] in ("h", "b")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_it_waits_for_input(folder: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, *words(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    ) as program:
        assert program.stderr and "tools for" in program.stderr.readline()
        time.sleep(0.3)
        program.send_signal(number)
        assert program.wait(10) == 0
        assert program.stdout and program.stdout.read() == ""


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Callable[..., str]]:
    """Starts it over HTTP with further keys; returns its URL."""
    running: list[subprocess.Popen[str]] = []

    def start(*more: str, **variables: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        program = subprocess.Popen(
            [sys.executable, *words(folder, f"port={port}", *more)],
            stderr=subprocess.PIPE,
            env={**environment(), **variables},
            text=True,
        )
        running.append(program)
        assert program.stderr and "tools for" in program.stderr.readline()
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        return f"http://127.0.0.1:{port}/mcp"

    yield start
    for program in running:
        program.send_signal(signal.SIGTERM)
        assert program.wait(20) == 0
        assert program.stderr and "Traceback" not in program.stderr.read()


def post(url: str, **headers: str) -> int:
    """Returns the status of a request that lists the tools."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accept = {"Accept": "application/json, text/event-stream"}
    return httpx.post(url, json=body, headers={**accept, **headers}, trust_env=False).status_code


def test_http_answers_this_machine_alone(served: Callable[..., str]) -> None:
    url = served()
    assert call(url, "search", query="fish", k=1)["results"][0]["rank"] == 1
    assert post(url) == 200
    assert post(url, Host="evil.example") in (403, 421)
    assert post(url, Origin="http://evil.example") == 403
    assert post(url, Origin=url.removesuffix("/mcp")) == 200


def test_with_keys_http_needs_one(served: Callable[..., str]) -> None:
    url = served(RAYDIST_API_KEYS="secret")
    assert post(url) == post(url, Authorization="Bearer wrong") == 401
    assert post(url, Authorization="Bearer secret") == 200
    assert post(url, Authorization="Bearer secret", Host="evil.example") == 421

    async def talk() -> Any:
        http = httpx2.AsyncClient(headers={"Authorization": "Bearer secret"}, trust_env=False)
        async with Client(streamable_http_client(url, http_client=http)) as client:
            return await client.call_tool("search", {"query": "fish"})

    assert not asyncio.run(talk()).is_error


def test_what_cannot_work_is_refused_before_a_client_waits(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert main(["mcp", "index=idx", "--dry-run"]) == 0
    assert "would give tools for idx at standard input and output" in capsys.readouterr().err
    assert main(["mcp", "index=bare", "reranker=bm25"]) == 2
    assert "reranker: reads the documents' texts" in capsys.readouterr().err
    assert main(["mcp", "index=bare", "reranker=bm25", "--dry-run"]) == 2
    assert "reranker: reads the documents' texts" in capsys.readouterr().err
    assert main(["mcp", "index=idx", "reranker=./nothing", "--dry-run"]) == 2
    assert "nothing" in capsys.readouterr().err
    assert main(["mcp", "index=nothing"]) == 2
    assert main(["mcp", "index=idx", "keys_file=keys.txt"]) == 2
    assert "keys_file" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["mcp", "index=idx", f"port={taken.getsockname()[1]}"]) == 2
    assert "cannot listen" in capsys.readouterr().err
