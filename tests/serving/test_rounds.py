from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from raydist.serving.rounds import Rounds


class Gate:
    """An encoder that waits to be let through, and keeps what each call was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, role: str, texts: Sequence[str]) -> np.ndarray:
        self.calls.append((role, list(texts)))
        self.entered.set()
        assert self.open.wait(10)
        if "bad" in texts:
            raise RuntimeError("no")
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32)


def test_waiting_requests_share_a_round_and_get_their_own_vectors() -> None:
    gate = Gate()
    rounds = Rounds(gate)
    first = rounds.submit("document", ["x"])
    assert gate.entered.wait(10)
    others = [rounds.submit("document", [f"{i}a", f"{i}bc"]) for i in range(5)]
    query = rounds.submit("query", ["q"])
    assert rounds.queued == 11
    gate.open.set()
    for i, future in enumerate(others):
        found = future.result(10)
        np.testing.assert_array_equal(found.vectors_nD, [[2, 48 + i], [3, 48 + i]])
        assert found.queue_s > 0 and found.infer_s > 0
    assert first.result(10).vectors_nD.tolist() == [[1, 120]]
    assert query.result(10).vectors_nD.tolist() == [[1, 113]]
    assert [(role, len(texts)) for role, texts in gate.calls] == [
        ("document", 1),
        ("document", 10),
        ("query", 1),
    ]
    rounds.close()


def test_a_small_request_does_not_wait_for_a_large_one() -> None:
    gate = Gate()
    rounds = Rounds(gate, round_chars=200)
    large = rounds.submit("document", [f"large {i}" for i in range(100)])
    assert gate.entered.wait(10)
    small = rounds.submit("document", ["small"])
    gate.open.set()
    small.result(10)
    done = next(i for i, (_, texts) in enumerate(gate.calls) if "small" in texts)
    assert done <= 2 and len(large.result(10).vectors_nD) == 100
    assert len(gate.calls) > 5
    assert [t for _, texts in gate.calls for t in texts if t != "small"] == [
        f"large {i}" for i in range(100)
    ]
    rounds.close()


def test_a_text_larger_than_a_round_goes_alone() -> None:
    gate = Gate()
    gate.open.set()
    rounds = Rounds(gate, round_chars=50)
    texts = ["a" * 40, "b" * 500, "c"]
    assert rounds.submit("document", texts).result(10).vectors_nD[:, 0].tolist() == [40, 500, 1]
    assert [texts for _, texts in gate.calls] == [[texts[0]], [texts[1]], [texts[2]]]
    rounds.close()


def test_what_was_cancelled_is_not_encoded_and_an_error_reaches_only_its_round() -> None:
    gate = Gate()
    rounds = Rounds(gate)
    rounds.submit("document", ["x"])
    assert gate.entered.wait(10)
    gone = rounds.submit("document", ["gone"])
    bad = rounds.submit("query", ["bad"])
    assert gone.cancel()
    gate.open.set()
    with pytest.raises(RuntimeError, match="no"):
        bad.result(10)
    assert rounds.submit("document", ["y"]).result(10).vectors_nD.tolist() == [[1, 121]]
    assert not any("gone" in texts for _, texts in gate.calls)
    rounds.close()
