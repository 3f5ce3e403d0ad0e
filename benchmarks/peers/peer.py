"""Peers at work: a program in its environment, asked line by line."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.environment import HERE, Unavailable, environment
from benchmarks.peers.protocol import Settings


@dataclass(frozen=True)
class PeerSpec:
    """A peer: its environment, its program there, and how that program runs the model.

    With a checkout it is raydist of that checkout, in the environment of this process.
    """

    environment: str
    program: str
    precision: str
    engine: str = ""
    checkout: str = ""


@dataclass(frozen=True)
class Answer:
    """A peer's answer: vectors or scores, and the seconds that they took."""

    values: np.ndarray
    cpu: float
    wall: float


class Peer:
    """A running program; `running` starts one."""

    def __init__(self, process: subprocess.Popen[str], log: Any) -> None:
        self._process, self._log = process, log

    def ask(self, **request: Any) -> dict[str, Any]:
        """Returns the answer to one request.

        Raises:
            Unavailable: it failed or ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise Unavailable(answer["error"])
        return answer

    def work(self, texts: Sequence[str], query: str = "") -> Answer:
        """Returns the vectors of texts, or their scores for a query."""
        answer = self.ask(texts=list(texts), query=query)
        return Answer(np.array(answer["values"], np.float32), answer["cpu"], answer["wall"])

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:500] if lines else "it ended without a word"


@contextlib.contextmanager
def running(spec: PeerSpec, settings: Settings, cache: Path) -> Iterator[Peer]:
    """Yields a peer with its model loaded.

    Raises:
        Unavailable: its environment cannot be built, or it cannot load the model.
    """
    python = sys.executable if spec.checkout else environment(spec.environment, cache) / "python"
    threads = str(settings.threads)
    variables = os.environ | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false" if settings.threads == 1 else "true",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
    }
    variables.pop("PYTHONPATH", None)
    if spec.checkout:
        variables["PYTHONPATH"] = spec.checkout
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [python, HERE / f"with_{spec.program}.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=variables,
            text=True,
            encoding="utf-8",
        ) as process,
    ):
        peer = Peer(process, log)
        try:
            peer.ask(**asdict(settings))
            yield peer
        finally:
            process.kill()
