"""Rows are encoded and collated beside the model, within bounds, in order."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from raydist.models.encode import EncodeStats, encode_rows
from raydist.models.inference import fitting_tokens, tokens_for
from raydist.reranking.engine import Engine
from raydist.reranking.rows import EncodedDocuments, Options, Row
from tests.reranking.test_engine import Letters, wanted


class Steps(Letters):
    """Letters in two steps, which are recorded."""

    def __init__(self) -> None:
        super().__init__(packed=True)
        self.steps: list[str] = []
        self.collated = threading.Semaphore(0)

    def collate(self, rows: Sequence[Row]) -> list[list[int]]:
        if any(ord("?") in row.tokens for row in rows):
            raise MemoryError if len(rows) > 1 else ValueError("no such letter")
        self.steps.append("collate")
        self.collated.release()
        return [list(row.tokens) for row in rows]

    def compute(self, batch: list[list[int]]) -> np.ndarray:
        assert self.collated.acquire(timeout=5)  # its own
        if len(self.steps) < 4:
            assert self.collated.acquire(timeout=5), "the next batch waits for this one"
            self.collated.release()
        self.steps.append("compute")
        return super().forward([Row(tokens) for tokens in batch])


def test_the_next_batch_is_collated_while_one_is_computed_and_no_more() -> None:
    scorer = Steps()
    texts = [chr(97 + i) * 4 for i in range(16)]
    with Engine(scorer, batch_tokens=8) as engine:
        assert engine.score([("q", texts)]) == [list(map(wanted, texts))]
        before = len(scorer.batches)
        assert engine.submit("q", texts).result(5).scores.tolist() == list(map(wanted, texts))
    assert before == 8 and len(scorer.batches) == 16
    ahead = 0
    for step in scorer.steps:
        ahead += 1 if step == "collate" else -1
        assert 0 <= ahead <= 2


def test_an_error_of_collation_reaches_the_row_s_own_request() -> None:
    scorer = Steps()
    scorer.steps = ["collate"] * 4
    with Engine(scorer, batch_tokens=1000) as engine:
        scorer.gate.clear()
        first = engine.submit("q", ["aa"])
        good, bad = engine.submit("q", ["ab", "abc"]), engine.submit("q", ["a?"])
        scorer.gate.set()
        assert first.result(5).scores.tolist() == [wanted("aa")]
        assert good.result(5).scores.tolist() == [wanted("ab"), wanted("abc")]
        with pytest.raises(ValueError, match="no such letter"):
            bad.result(5)
        with pytest.raises(ValueError, match="no such letter"):
            engine.score([("q", ["a", "?"])])


def test_a_list_is_encoded_in_growing_parts_beside_the_model() -> None:
    class Counting(Letters):
        encoded: list[int] = []

        def encode(
            self, query: str, documents: Sequence[str], options: Options
        ) -> EncodedDocuments:
            self.encoded.append(len(documents))
            return super().encode(query, documents, options)

        def forward(self, rows: Sequence[Row]) -> np.ndarray:
            seen.append(sum(self.encoded))
            return super().forward(rows)

    seen: list[int] = []
    texts = [f"{number:x}" for number in range(100)]
    with Engine(Counting(packed=True), batch_tokens=1 << 20) as engine:
        scores = engine.score([("q", texts)] * 20)
    assert scores == [list(map(wanted, texts))] * 20
    # Groups of 2, 5, 10 and 3 queries; a group's batch begins when the next one is encoding.
    assert len(seen) == 4 and seen[0] <= 700


def test_tokens_of_a_batch_go_by_the_memory_that_a_trial_took() -> None:
    gib = 1 << 30
    assert tokens_for(100 * gib, gib, 65_536) == 65_536  # what suits the device
    assert tokens_for(10 * gib, gib, 65_536) == 8 * 4096
    assert tokens_for(gib, 8 * gib, 65_536) == 4096  # what was tried
    assert tokens_for(gib, 0, 65_536) == 65_536

    def no_trial(tokens: int) -> None:
        raise AssertionError("a CPU's memory is not measured")

    assert fitting_tokens(no_trial, torch.device("cpu"), 1024) == 1024


class Small:
    """An encoder whose memory holds few rows: a text's vector is its ids' sum."""

    device, dimension, packs = torch.device("cpu"), 1, False
    room = 3

    def role_tokenizer(self, role: str) -> Any:
        raise NotImplementedError

    def pad(self, token_ids: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        longest = max(map(len, token_ids))
        return {
            "input_ids": torch.tensor([[*row, *[0] * (longest - len(row))] for row in token_ids])
        }

    def __call__(self, inputs: dict[str, torch.Tensor], role: str) -> torch.Tensor:
        if len(inputs["input_ids"]) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inputs["input_ids"].sum(1, keepdim=True)


def test_where_memory_is_short_texts_are_encoded_in_halves() -> None:
    model, stats = Small(), EncodeStats()
    rows = [list(range(n)) for n in (5, 1, 9, 2, 2, 7, 4, 3)]
    vectors = encode_rows(model, rows, "document", 1000, stats)
    assert vectors[:, 0].tolist() == [sum(row) for row in rows]
    assert stats.tokens == 33 and stats.padded == 2 * 9 + 2 * 5 + 2 * 3 + 2 * 2
    model.room = 0
    with pytest.raises(torch.OutOfMemoryError):
        encode_rows(model, rows, "document", 1000)
