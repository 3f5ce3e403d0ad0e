from __future__ import annotations

import time
from typing import Any

import pytest

from raydist.reranking.engine import Engine
from raydist.serving import metrics
from tests.reranking.test_engine import Letters


class Numbers:
    """A metric that keeps its numbers; Ray's own go to a process elsewhere."""

    totals: dict[str, float] = {}

    def __init__(self, name: str, *_: Any, **__: Any) -> None:
        self.name = name

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0 and tags == {"model": "letters"}
        self.totals[self.name] = self.totals.get(self.name, 0) + value

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.totals[self.name] = value


def test_the_work_of_a_batcher_is_counted_once_and_continues_with_a_newer_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "Counter", Numbers)
    monkeypatch.setattr(metrics, "Gauge", Numbers)
    Numbers.totals = {}
    counted = metrics.BatcherMetrics("letters")
    for turn in (1, 2):  # the second engine is a newer model's
        scorer = Letters()
        with Engine(scorer, batch_tokens=20) as engine:
            counted.update(engine.batcher)
            engine.score([("q", ["a" * 10, "b" * 6, "c" * 10])])
            counted.update(engine.batcher)
            counted.update(engine.batcher)
            assert Numbers.totals == {
                "raydist_batches": 2 * turn,
                "raydist_batch_tokens": 26 * turn,
                "raydist_padded_batch_tokens": 26 * turn,
                "raydist_queued_tokens": 0,
            }
    scorer.gate.clear()
    with Engine(scorer, batch_tokens=20) as engine:
        engine.submit("q", [f"{'a' * 18}{i:02}" for i in range(10)])
        ends = time.monotonic() + 10
        while not engine.batcher.queued_tokens and time.monotonic() < ends:
            time.sleep(0.01)
        counted.update(engine.batcher)
        assert Numbers.totals["raydist_queued_tokens"] > 0
        scorer.gate.set()
