from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator

import pytest

from raydist.cli import main
from raydist.serving.load import documents_of, rerank_bodies, run_load
from raydist.serving.spec import LoadSpec


class Server:
    """A real HTTP server on loopback that answers after a delay, then with errors."""

    def __init__(self, delay_s: float, status: int = 200) -> None:
        self.delay_s, self.status, self.seen = delay_s, status, 0
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self.thread.start()
        started.wait()

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._answer, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self.loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.close()

    def close(self) -> None:
        """Ends the thread: what is open is cut off, nothing is left to the garbage collector."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # by close()
            await self._answers(reader, writer)

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            assert head.startswith(b"POST")
            length = 0
            while (line := await reader.readline()).strip():
                if line.lower().startswith(b"content-length"):
                    length = int(line.split(b":")[1])
            await reader.readexactly(length)
            self.seen += 1
            await asyncio.sleep(self.delay_s)
            writer.write(f"HTTP/1.1 {self.status} X\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            await writer.drain()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    instance = Server(0.05)
    yield instance
    instance.close()


def bodies() -> Iterator[dict[str, object]]:
    return rerank_bodies(["q"], documents_of(5, 10), 3)


def test_a_share_of_the_requests_has_a_long_document(server: Server) -> None:
    drawn = rerank_bodies(["q"], documents_of(5, 10), 3, long=0.05)
    sizes = [max(map(len, next(drawn)["documents"])) for _ in range(60)]
    assert [number for number, size in enumerate(sizes) if size == 900_000] == [19, 39, 59]
    drawn = rerank_bodies(["q"], documents_of(5, 10), 3, long=0.25)
    result = run_load(server.url, drawn, LoadSpec(rate=20, seconds=1, long=0.25))
    assert (len(result.latencies_s), len(result.small_latencies_s)) == (20, 15)
    assert {"small_p50_ms", "small_p99_ms"} <= set(result.figures())


def test_a_fixed_rate_sends_what_is_due_and_counts_pairs(server: Server) -> None:
    before = server.seen
    result = run_load(server.url, bodies(), LoadSpec(rate=20, seconds=1))
    assert server.seen - before == 20 and result.statuses == {"200": 20}
    assert result.pairs == 60 and 50 <= result.quantile_ms(0.5) < 1000


def test_clients_wait_for_their_answers(server: Server) -> None:
    result = run_load(server.url, bodies(), LoadSpec(clients=2, seconds=0.5))
    assert 2 <= result.statuses["200"] <= 22


def test_a_stalled_server_cannot_hide(server: Server) -> None:
    """Requests beyond the open ones are counted as refused instead of being sent later."""
    slow = Server(0.6)
    result = run_load(slow.url, bodies(), LoadSpec(rate=20, seconds=0.5, most_in_flight=2))
    slow.close()
    assert result.statuses == {"200": 2, "refused": 8}


def test_requests_without_an_answer_are_counted() -> None:
    slow = Server(5)
    result = run_load(slow.url, bodies(), LoadSpec(rate=4, seconds=0.5, timeout=0.2))
    slow.close()
    assert result.statuses == {"timeout": 2} and result.figures()["pairs_per_s"] == 0
    assert result.latencies_s == [0.2, 0.2] and result.answered == 0


def test_a_quick_refusal_betters_no_quantile() -> None:
    refusing = Server(0, status=429)
    result = run_load(refusing.url, bodies(), LoadSpec(rate=10, seconds=0.5))
    refusing.close()
    assert result.statuses == {"429": 5} and result.answered == 5
    assert result.latencies_s == [] and "p99_ms" not in result.figures()


def test_the_command_prints_figures_as_json(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["load", f"url={server.url}", "rate=20", "seconds=0.5", "documents=7"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["requests"] == figures["status_200"] == 10, figures
    assert figures["pairs_per_s"] > 0 and "p99_ms" in figures


def test_the_figures_go_to_mlflow_on_request(server: Server, database: str) -> None:
    from mlflow import MlflowClient

    words = [f"url={server.url}", "rate=20", "seconds=0.5", f"tracking={database}"]
    assert main(["load", *words, "tracking.experiment=load"]) == 0
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("load")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["status_200"] == 10 and run.data.metrics["p99_ms"] > 0
    assert run.data.params["rate"] == "20.0" and run.info.status == "FINISHED"


def test_a_service_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", "url=http://127.0.0.1:9", "rate=4", "seconds=0.5"]) == 1
    assert "no request was answered" in capsys.readouterr().err
    assert main(["load", "rate=4", "clients=2"]) == 2
