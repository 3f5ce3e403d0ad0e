from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raydist.rerank.biencoder import BiEncoderReranker


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
