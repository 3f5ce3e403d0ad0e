"""Reranking and validation by weights of terms, which are kept without their zeros."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from raydist.models.biencoder import BiEncoder
from raydist.reranking.biencoder import BiEncoderReranker, similarities
from raydist.reranking.spec import BiEncoderSpec

BATCH = [
    ("retrieval of a document", ["a vector index", "rank", "", "rank"]),
    ("rank", []),
    ("a score", ["the document of a query"]),
]


@pytest.fixture(scope="module")
def expected(sparse_model: Path) -> list[list[float]]:
    model = BiEncoder.load(sparse_model, device="cpu")
    return [
        (model.encode_documents(texts) @ model.encode_queries([query])[0]).tolist() if texts else []
        for query, texts in BATCH
    ]


def test_scores_are_the_products_of_the_weights(
    sparse_model: Path, expected: list[list[float]]
) -> None:
    reranker = BiEncoderReranker(BiEncoderSpec(model=str(sparse_model), device="cpu"))
    model = BiEncoder.load(sparse_model, device="cpu")
    for scores in (reranker.score(BATCH), similarities(model, BATCH)):
        for mine, own in zip(scores, expected, strict=True):
            np.testing.assert_allclose(mine, own, rtol=1e-5)


def test_recent_texts_are_kept_as_terms_and_weights(sparse_model: Path) -> None:
    reranker = BiEncoderReranker(BiEncoderSpec(model=str(sparse_model), device="cpu"))
    scorer = reranker.scorer
    rows = [
        row
        for query, texts in BATCH
        for pieces in scorer.encode(query, texts, reranker.options).rows
        for row in pieces
    ]
    recent: OrderedDict = OrderedDict()
    scorer.similarities(rows, recent)
    assert recent and all(len(terms) == len(weights) for terms, weights in recent.values())
    assert all((weights > 0).all() for _, weights in recent.values())
