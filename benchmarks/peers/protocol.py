"""A peer's side of the protocol: one JSON line asks, one answers.

The first line has the settings (`Settings`), and `{}` answers it when the model is loaded. Then
each line has `texts`, and `query` where the task is rerank; the answer has `values` (a vector or a
score a text) and the `cpu` and `wall` seconds of the work alone. `{"error": "…"}` ends it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """What a peer is to run: a task (embed, rerank) of the model in a folder, in a precision."""

    task: str
    folder: str
    precision: str
    engine: str
    max_length: int
    threads: int


Work = Callable[[str, list[str]], Any]
"""From a query (empty where the task is embed) and texts to an array of vectors or scores."""


def serve(load: Callable[[Settings], Work]) -> None:
    """Answers requests from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(**content: Any) -> None:
        answers.write(json.dumps(content, default=_plain) + "\n")
        answers.flush()

    try:
        work = load(Settings(**json.loads(sys.stdin.readline())))
        answer()
        for line in sys.stdin:
            request = json.loads(line)
            query, texts = request.get("query", ""), request["texts"]
            wall, cpu = time.perf_counter(), time.process_time()
            values = work(query, texts)
            seconds = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
            values = values.tolist() if hasattr(values, "tolist") else list(values)
            answer(values=values, **seconds)
    except Exception as error:  # the benchmark says it
        answer(error=f"{type(error).__name__}: {error}"[:500])
        raise


def _plain(value: Any) -> Any:
    """Returns a number or an array of NumPy or torch as JSON has it."""
    return value.tolist()
