"""The cost model of building an index and of embedding: from rates to hours on N nodes.

    index   T = A + S / (r W) + D (m + v log2 s) / W + i N log2 N
    embed   T = A + L / (t W)

A seconds until workers are at work, S bytes of text, W workers, N documents, D postings, L tokens;
s splits, each a run to be merged. Rates: r bytes/s and t tokens/s of a worker, m + v log2 s seconds
of a worker per merged posting, i seconds of the driver per document and doubling (it looks for ids
that occur twice). What grows faster than the corpus: the merge, since s grows with it, and the ids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MS_MARCO_V2", "Collection", "Rates", "embed_seconds", "fit_merge", "index_seconds"]


@dataclass(frozen=True, slots=True)
class Collection:
    """What a corpus is to the model: documents, bytes of its files, postings, tokens, splits."""

    documents: float
    nbytes: float
    postings: float
    tokens: float
    split_bytes: float = 64 << 20

    @property
    def splits(self) -> float:
        """How many runs there are to merge."""
        return max(1.0, self.nbytes / self.split_bytes)


@dataclass(frozen=True, slots=True)
class Rates:
    """What was measured; see the module for the letters."""

    start_s: float
    bytes_per_s: float
    merge_s: float
    merge_log_s: float
    ids_log_s: float
    tokens_per_s: float


MS_MARCO_V2 = Collection(
    documents=138_364_198,
    nbytes=138_364_198 * 480,
    postings=138_364_198 * 33,
    tokens=138_364_198 * 78,
)
"""Passages of MS MARCO v2; assumed per passage: 480 bytes of a line with id and text, 33 distinct
terms after stop words and stemming, 78 word pieces (v1 passages have 57 words; v2's are longer)."""


def index_seconds(rates: Rates, corpus: Collection, workers: int) -> dict[str, float]:
    """Returns the seconds of the parts of a build with so many workers, in their order."""
    per_posting = rates.merge_s + rates.merge_log_s * math.log2(corpus.splits)
    ids = rates.ids_log_s * corpus.documents * math.log2(max(2.0, corpus.documents))
    return {
        "start": rates.start_s,
        "splits": corpus.nbytes / (rates.bytes_per_s * min(workers, corpus.splits)),
        "merge": corpus.postings * per_posting / workers,
        "ids": ids,
    }


def embed_seconds(rates: Rates, corpus: Collection, workers: int) -> dict[str, float]:
    """Returns the seconds of the parts of embedding a corpus with so many workers."""
    return {"start": rates.start_s, "encode": corpus.tokens / (rates.tokens_per_s * workers)}


def fit_merge(
    splits: Sequence[int], seconds: Sequence[float], postings: float
) -> tuple[float, float]:
    """Returns m and v of the model from merges of the same postings out of more and more splits.

    The least-squares line of seconds per posting over log2 of the number of splits.
    """
    x = [math.log2(each) for each in splits]
    y = [each / postings for each in seconds]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y))
    slope /= sum((a - mean_x) ** 2 for a in x)
    return mean_y - slope * mean_x, slope
