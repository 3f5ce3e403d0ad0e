"""What the scorer engine gives back: a request's scores, and counters of its own work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer to one request of n documents.

    Attributes:
        scores: float64 [n], larger is better.
        logits: float32 [n], the model's own numbers.
        truncated: for each document whether a part of it or of the query was not read.
        chunks: in how many pieces each document was read.
        tokens: prompt tokens, shared prefixes counted once per row.
        cached_prefix_tokens: how many of them were not computed again.
        queue_s: seconds of waiting, for a tokeniser and for the first batch.
        tokenize_s: seconds of tokenising.
        infer_s: seconds from the first batch to the end.
    """

    scores: np.ndarray
    logits: np.ndarray
    truncated: list[bool]
    chunks: list[int]
    tokens: int = 0
    cached_prefix_tokens: int = 0
    queue_s: float = 0.0
    tokenize_s: float = 0.0
    infer_s: float = 0.0


@dataclass(slots=True)
class Stats:
    """Counters since the engine began; `padded_tokens` includes `tokens`."""

    requests: int = 0
    documents: int = 0
    rows: int = 0
    batches: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    tokenize_s: float = 0.0
    infer_s: float = 0.0

    @property
    def padding_waste(self) -> float:
        """The share of computed tokens that was padding."""
        return 1.0 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0
