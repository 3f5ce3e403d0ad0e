"""Following a submitted job over a way to the cluster that fails now and then."""

from __future__ import annotations

import asyncio
import io
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from ray.dashboard.modules.job.common import JobStatus

from raydist.commands.submit import Follower
from raydist.errors import JobError

Chunk = str | Exception | Callable[[], None]


@dataclass
class Info:
    status: JobStatus
    driver_exit_code: int | None = None
    message: str = ""
    driver_node_id: str = "node"


@dataclass
class Bytes:
    content: bytes
    status_code: int = 200
    text: str = "lost"


@dataclass
class Cluster:
    """A job's server: what each stream of the log gives, and what each question is answered with.

    Every stream begins at the log's start. The job ends when the last stream has.
    """

    log: str
    streams: list[list[Chunk]]
    end: Info = field(default_factory=lambda: Info(JobStatus.SUCCEEDED, 0))
    failing: list[Exception] = field(default_factory=list)
    stopped: int = 0
    bytes: bytes | None = None

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for chunk in self.streams.pop(0):
            if isinstance(chunk, Exception):
                raise chunk
            if isinstance(chunk, str):
                yield chunk
            else:
                chunk()
                await asyncio.sleep(60)

    def _answer(self) -> Info:
        if self.failing:
            raise self.failing.pop(0)
        return self.end if self.stopped or not self.streams else Info(JobStatus.RUNNING)

    def get_job_status(self, job: str) -> JobStatus:
        return self._answer().status

    def get_job_info(self, job: str) -> Info:
        return self._answer()

    def get_job_logs(self, job: str) -> str:
        return self.log if self._answer() is self.end else self.log[:3]

    def _do_request(self, method: str, endpoint: str, params: dict[str, Any]) -> Bytes:
        self._answer()
        assert (method, endpoint) == ("GET", "/api/v0/logs/file")
        assert params == {"submission_id": "job", "node_id": "node", "lines": -1}
        return Bytes(self.bytes) if self.bytes is not None else Bytes(b"", 500)

    def stop_job(self, job: str) -> None:
        self._answer()
        self.stopped += 1
        self.end = Info(JobStatus.STOPPED)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "streams",
    [
        pytest.param([["abc"], ["ab", "cde"]], id="an early end"),
        pytest.param([["ab", RuntimeError("closed")], ["abcd", "e"]], id="an abnormal close"),
        pytest.param([[OSError("refused")], ["abcde"]], id="no stream at first"),
        pytest.param([["abcdef"]], id="no trouble"),
        pytest.param([["a"], [], ["abcd"]], id="shorter than what was printed"),
        pytest.param([[TimeoutError()]], id="never a stream"),
    ],
)
def test_the_log_is_printed_once_and_whole(
    streams: list[list[Chunk]], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Cluster("abcdefgh", streams, Info(JobStatus.FAILED, 3))
    assert Follower(cluster, "job").exit_code() == 3
    assert capsys.readouterr().out == "abcdefgh"


def test_a_cluster_that_is_away_for_a_while_is_waited_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = Cluster("abcd", [["abcd"]], failing=[ConnectionError("refused"), RuntimeError("502")])
    assert Follower(cluster, "job").exit_code() == 0
    assert capsys.readouterr().out == "abcd"


def test_a_cluster_that_stays_away_ends_the_following_and_not_the_job() -> None:
    failing: list[Exception] = [OSError("refused")] * 9
    follower = Follower(Cluster("abcd", [["abcd"]], failing=failing), "job", patience_s=0)
    with pytest.raises(JobError, match=r"job: the cluster does not answer: refused; .*job status"):
        follower.exit_code()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_ctrl_c_asks_and_goes_on_or_stops_the_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("n\ny\n"))
    streams: list[list[Chunk]] = [["ab", interrupt], ["abc", interrupt], ["never"]]
    cluster = Cluster("abcd", streams)
    assert Follower(cluster, "job").exit_code() == 1
    said = capsys.readouterr()
    question = "\nstop job? [y/N] "
    assert said.out == f"ab{question}c{question}d"
    assert cluster.stopped == 1 and "job stopped" in said.err and len(cluster.streams) == 1


def test_ctrl_c_without_a_terminal_stops_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster("ab", [[interrupt], ["never"]], failing=[])
    assert Follower(cluster, "job").exit_code() == 1
    assert cluster.stopped == 1 and capsys.readouterr().out == "ab"


class Strict(Cluster):
    """Decodes the log as Ray's job server does."""

    def get_job_logs(self, job: str) -> str:
        self._answer()
        raise RuntimeError("Request failed with status code 500: Server got itself in trouble")


def test_a_log_that_is_not_utf8_is_printed_with_a_mark_and_the_jobs_exit_code_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = "été ".encode() + b"\xe9 10%\r20%\r\nend\n"
    cluster = Strict("", [["été "], []], bytes=whole)
    assert Follower(cluster, "job").exit_code() == 0
    assert capsys.readouterr().out == "été \ufffd 10%\n20%\nend\n"


def test_a_log_that_cannot_be_read_does_not_fail_the_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    follower = Follower(Strict("", [["ab"]]), "job", patience_s=0)
    assert follower.exit_code() == 0
    said = capsys.readouterr()
    assert (
        said.out == "ab"
        and "job: its log cannot be read now: Request failed with status code 500" in said.err
    )
