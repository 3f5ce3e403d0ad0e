from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from raydist.build import build_reranker
from raydist.config.load import load
from raydist.config.rerank import RerankConfig
from raydist.config.reranker import RegisteredReranking, settled
from raydist.errors import ConfigError
from raydist.rerank.biencoder import BiEncoderReranker
from tests.training.small import checkpoint, texts


class Counting:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        self.seen.extend(texts)
        return np.array([[len(text), 2.0] for text in texts], np.float32)


def test_scores_are_dot_products_and_equal_documents_are_encoded_once() -> None:
    encoder = Counting()
    got = BiEncoderReranker(encoder).score([("aa", ["x", "xyz"]), ("a", []), ("aaa", ["x"])])
    assert got == [[4.0, 8.0], [], [5.0]]
    assert encoder.seen == ["x", "xyz"]


def test_nothing_to_score_encodes_nothing() -> None:
    assert BiEncoderReranker(Counting()).score([("a", []), ("b", [])]) == [[], []]
    assert BiEncoderReranker(Counting()).score([]) == []


def test_a_configured_budget_is_used_and_options_without_meaning_are_refused(
    tmp_path: Path,
) -> None:
    model = f"reranker.model={checkpoint(tmp_path / 'model')}"
    words = ["run=r", "corpus=c", "queries=q", "out=o", "reranker.kind=biencoder", model]
    batch = [("river stone", texts()[:9])]
    scores = []
    for tokens in (0, 16):
        config = load(RerankConfig, (), [*words, f"reranker.batch_tokens={tokens}"])
        reranker = build_reranker(config.reranker)
        assert isinstance(reranker, BiEncoderReranker)
        assert reranker.options.get("max_tokens", 0) == tokens
        scores.append(reranker.score(batch)[0])
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    for option in ("truncation=error", "threads=4"):
        with pytest.raises(ConfigError, match=rf"reranker\.(biencoder\.)?{option[:5]}"):
            load(RerankConfig, (), [*words, f"reranker.{option}"])
    registered = RegisteredReranking(model="models:/m@champion", device="cpu")
    assert settled(registered, str(tmp_path / "model")).device == "cpu"
