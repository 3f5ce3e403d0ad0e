"""A submitted job as its submitter sees it: its log, its status, its end.

Neither the log's stream nor the way to the cluster is reliable: a stream ends early or breaks, a
forwarded port is away for a while. So the status alone says when a job has ended, every question is
asked again until it is answered, and what was printed of the log is counted: a stream begins at
the log's first character each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from raydist import log
from raydist.errors import JobError

T = TypeVar("T")
_ENDING_S = 60.0  # that a job which was told to stop may take


class Follower:
    """Prints a job's log until the job has ended.

    Attributes:
        client: what talks to the cluster, a `JobSubmissionClient`.
        job: the submission's id.
        patience_s: for how long the cluster may not answer.
    """

    def __init__(self, client: Any, job: str, patience_s: float = 120.0) -> None:
        self.client = client
        self.job = job
        self.patience_s = patience_s
        self._printed = 0  # characters of the log

    def exit_code(self) -> int:
        """Follows the job and returns its exit code; Ctrl-C asks whether it is to be stopped.

        Raises:
            JobError: the cluster no longer answers, or the job does not stop.
        """
        while True:
            try:
                self._follow()
                break
            except KeyboardInterrupt:
                if _wants_to_stop(self.job):
                    self._stop()
                    break
        info = self._answer(self.client.get_job_info)
        code, status = info.driver_exit_code, str(info.status)
        told = "" if code is None else f", exit code {code}"
        log.say(f"{self.job} {status.lower()}{told}")
        if status == "SUCCEEDED":
            return 0
        if code in (None, 0):
            log.say(info.message or "the job did not end by itself")
            return 1
        return int(code)

    def _follow(self) -> None:
        """Prints the log as it grows, until the status says that the job has ended."""
        while True:
            with contextlib.suppress(*_failures()):
                asyncio.run(self._stream())
            ended = self._answer(self.client.get_job_status).is_terminal()
            whole = self._answer(self.client.get_job_logs)
            self._print(whole, len(whole))
            if ended:
                return
            time.sleep(1)

    async def _stream(self) -> None:
        end = 0
        async for text in self.client.tail_job_logs(self.job):
            end += len(text)
            self._print(text, end)

    def _print(self, text: str, end: int) -> None:
        """Prints what is new of a text that ends at character `end` of the log."""
        if end > self._printed:
            sys.stdout.write(text[self._printed - end :])
            sys.stdout.flush()
            self._printed = end

    def _answer(self, ask: Callable[[str], T]) -> T:
        """Returns the cluster's answer about the job, waiting while it gives none."""
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                return ask(self.job)
            except _failures() as error:
                if time.monotonic() > deadline:
                    reason = str(error).partition("\n")[0] or type(error).__name__
                    raise JobError(
                        f"{self.job}: the cluster does not answer: {reason}; the job may go on "
                        f"without being followed: ray job status {self.job}"
                    ) from error
                time.sleep(1)

    def _stop(self) -> None:
        self._answer(self.client.stop_job)
        log.say(f"stopping {self.job}")
        deadline = time.monotonic() + _ENDING_S
        while not (status := self._answer(self.client.get_job_status)).is_terminal():
            if time.monotonic() > deadline:
                raise JobError(f"{self.job} is still {status} after a minute")
            time.sleep(0.5)
        whole = self._answer(self.client.get_job_logs)
        self._print(whole, len(whole))


def _failures() -> tuple[type[Exception], ...]:
    """Returns what Ray's client raises where the way to the cluster fails."""
    import aiohttp

    return RuntimeError, OSError, aiohttp.ClientError


def _wants_to_stop(job: str) -> bool:
    """Asks whether the job is to be stopped; a second Ctrl-C means yes."""
    try:
        answer = input(f"\nstop {job}? [y/N] ") if sys.stdin.isatty() else "y"
    except (KeyboardInterrupt, EOFError):
        answer = "y"
    return answer.strip().lower().startswith("y")
