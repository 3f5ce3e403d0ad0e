"""BM25Reranker: BM25 over a query's own candidates, or with a collection's statistics.

Okapi's idf is negative for a term in more than half of the candidates (rank-bm25 then takes a share
of the mean), and 0 for one in exactly half; Lucene's is always positive.

No torch is imported here: this reranker runs anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, cast

import numpy as np
from rank_bm25 import BM25Okapi


class Statistics(Protocol):
    """BM25's statistics of a whole collection."""

    @property
    def nonempty(self) -> int:
        """Number of documents with at least one token."""
        ...

    @property
    def average_length(self) -> float:
        """The mean number of tokens in a document."""
        ...

    def document_frequency(self, term: str) -> int:
        """Returns in how many documents `term` occurs, 0 if in none."""
        ...


class Candidates:
    """The statistics of a query's own candidates, n lists of tokens."""

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        self.nonempty = sum(1 for document in documents if document)
        self.average_length = sum(map(len, documents)) / max(self.nonempty, 1)
        self._frequencies = Counter(term for document in documents for term in set(document))

    def document_frequency(self, term: str) -> int:
        """Returns in how many candidates `term` occurs."""
        return self._frequencies[term]


def split_on_space(text: str) -> list[str]:
    """Returns the pieces of `text` between single spaces (two spaces hold an empty piece)."""
    return text.split(" ")


@dataclass(frozen=True)
class BM25Reranker:
    """Scores candidates with Okapi BM25, the candidates being the collection (rank-bm25).

    Attributes:
        tokens: the analysis of queries and documents; by default a split on a single space.
        k1: saturation of the term frequency, in [0, inf).
        b: how much a document's length counts, in [0, 1].
        epsilon: the share of the mean idf that a term in more than half of the candidates gets.
        statistics: a collection's statistics, or "candidates": their own. With them the score is
            Lucene's BM25 formula (Robertson and Zaragoza 2009,
            idf = ln(1 + (N - df + 0.5) / (df + 0.5))); with a collection's, scores of
            different candidate lists can be compared.
    """

    tokens: Callable[[str], Sequence[str]] = split_on_space
    k1: float = 1.5
    b: float = 0.75
    epsilon: float = 0.25
    statistics: Statistics | Literal["candidates"] | None = field(default=None)

    def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Returns one score per document, larger is better; an empty list stays empty."""
        return [self._scores(query, documents) for query, documents in batch]

    def _scores(self, query: str, documents: Sequence[str]) -> list[float]:
        tokenised = [list(self.tokens(text)) for text in documents]
        terms = list(self.tokens(query))
        if self.statistics is not None:
            candidates = self.statistics == "candidates"
            known = Candidates(tokenised) if candidates else cast(Statistics, self.statistics)
            return _with_statistics(terms, tokenised, known, self.k1, self.b)
        if not any(tokenised):  # rank-bm25 divides by the mean length and by the vocabulary's size
            return [0.0] * len(tokenised)
        okapi = BM25Okapi(tokenised, k1=self.k1, b=self.b, epsilon=self.epsilon)
        return [float(score) for score in okapi.get_scores(terms)]


def _with_statistics(
    terms: Sequence[str],
    documents: Sequence[Sequence[str]],
    statistics: Statistics,
    k1: float,
    b: float,
) -> list[float]:
    """Returns sum over terms of idf * tf / (tf + k1 * (1 - b + b * length / average length))."""
    total, average = statistics.nonempty, statistics.average_length
    weights = {}
    for term, repeats in Counter(terms).items():
        frequency = statistics.document_frequency(term)
        if frequency:
            weights[term] = repeats * float(np.log1p((total - frequency + 0.5) / (frequency + 0.5)))
    scores = []
    for document in documents:
        counts = Counter(document)
        floor = k1 * (1.0 - b + b * len(document) / average) if average else k1
        scores.append(
            sum(
                weight * counts[term] / (counts[term] + floor)
                for term, weight in weights.items()
                if counts[term]
            )
        )
    return scores
