"""Scores with a bi-encoder: the dot product of the query's and the document's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raydist.protocols import Encoder

__all__ = ["BiEncoderReranker"]


class BiEncoderReranker:
    """Reranks with an encoder; equal texts of a batch are encoded once.

    Args:
        encoder: a bi-encoder, or anything with `encode_queries` and `encode_documents`.
        max_tokens: budget of a batch, for an encoder that takes it in both; 0 = its own.
    """

    def __init__(self, encoder: Encoder, *, max_tokens: int = 0) -> None:
        self.encoder: Any = encoder
        self.options = {"max_tokens": max_tokens} if max_tokens else {}

    def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Returns one similarity per document, larger is better; lists may be ragged or empty."""
        batch = list(batch)
        queries = {query: i for i, query in enumerate(dict.fromkeys(q for q, d in batch if d))}
        documents = {d: i for i, d in enumerate(dict.fromkeys(d for _, ds in batch for d in ds))}
        if not documents:
            return [[] for _ in batch]
        # Vectors: query [n, d], document [m, d].
        query_nd = self.encoder.encode_queries(list(queries), **self.options)
        document_md = self.encoder.encode_documents(list(documents), **self.options)
        scores = []
        for query, texts in batch:
            rows = np.fromiter((documents[text] for text in texts), np.int64, len(texts))
            values = document_md[rows] @ query_nd[queries[query]] if len(texts) else np.zeros(0)
            scores.append(values.astype(np.float64).tolist())
        return scores
