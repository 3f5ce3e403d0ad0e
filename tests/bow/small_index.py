"""Indexes of documents that are given as lists of terms, and a slow oracle for their scores."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from raydist.bow.format.segment import Segment
from raydist.bow.format.writing import SegmentWriter
from raydist.bow.index import BowIndex
from raydist.text.analyzer import Analyzer


def index_of(
    documents: Sequence[Sequence[str]],
    folder: Path,
    *,
    cuts: Sequence[int] = (),
    ids: Sequence[str] | None = None,
    compress: bool = True,
    block_size: int = 128,
    analyzer: Analyzer | None = None,
) -> BowIndex:
    """Writes one segment per stretch of documents between `cuts` and opens them as an index."""
    names = list(ids) if ids is not None else [f"d{i}" for i in range(len(documents))]
    segments = []
    for number, (a, z) in enumerate(itertools.pairwise([0, *cuts, len(documents)])):
        postings: dict[bytes, list[tuple[int, int]]] = {}
        for doc, terms in enumerate(documents[a:z]):
            for term, tf in Counter(terms).items():
                postings.setdefault(term.encode(), []).append((doc, tf))
        terms = sorted(postings)
        indptr = np.cumsum([0] + [len(postings[term]) for term in terms])
        flat = [pair for term in terms for pair in postings[term]]
        pairs = np.array(flat, np.int64).reshape(-1, 2)
        writer = SegmentWriter(
            folder / f"{number:05d}",
            lengths_N=np.array([len(terms) for terms in documents[a:z]], np.uint32),
            doc_ids=pa.array(names[a:z], pa.string()),
            compress=compress,
            block_size=block_size,
        )
        writer.append(pa.array(terms, pa.large_binary()), indptr, pairs[:, 0], pairs[:, 1])
        writer.close()
        segments.append(Segment.open(folder / f"{number:05d}"))
    return BowIndex(segments, analyzer)


def norm_length(length: int) -> int:
    """Lucene's lossy length, from its definition: 4 significant bits above 24."""
    if length < 24:
        return length
    rest = length - 24
    shift = max(0, rest.bit_length() - 4)
    return 24 + ((rest >> shift) << shift)


def lucene_scores(
    documents: Sequence[Sequence[str]],
    query: dict[str, float],
    k1: float = 0.9,
    b: float = 0.4,
    lengths: str = "norm",
) -> dict[int, np.float32]:
    """Scores by the definition of Lucene's BM25Similarity, a document and a term at a time.

    With exact lengths Anserini's AccurateBM25Similarity.
    """
    with np.errstate(divide="ignore"):  # k1 = 0
        return _lucene_scores(documents, query, k1, b, lengths)


def _lucene_scores(
    documents: Sequence[Sequence[str]], query: dict[str, float], k1: float, b: float, lengths: str
) -> dict[int, np.float32]:
    f = np.float32
    with_terms = [terms for terms in documents if terms]
    n = len(with_terms)
    mean = f(sum(map(len, with_terms)) / n) if n else f(0)
    counts = [Counter(terms) for terms in documents]
    dfs = {term: sum(1 for tfs in counts if tfs[term]) for term in query}
    scores = {}
    for doc, tfs in enumerate(counts):
        total, matched = 0.0, False
        for term, boost in query.items():
            if not tfs[term]:
                continue
            matched = True
            idf = f(np.log(1 + (n - dfs[term] + 0.5) / (dfs[term] + 0.5)))
            weight = f(f(boost) * idf)
            length = len(documents[doc])
            dl = f(norm_length(length) if lengths == "norm" else length)
            if lengths == "exact":  # Anserini's AccurateBM25Similarity
                tf, slope = f(tfs[term]), f(f(f(k1) * f(b)) / mean)
                below = f(f(tf + f(f(k1) * f(f(1) - f(b)))) + f(slope * dl))
                total += float(f(f(weight * tf) / below))
                continue
            inverse = f(1) / f(f(k1) * f(f(f(1) - f(b)) + f(f(f(b) * dl) / mean)))
            total += float(f(weight - f(weight / f(f(1) + f(f(tfs[term]) * inverse)))))
        if matched:
            scores[doc] = f(total)
    return scores


def ranking(scores: dict[int, np.float32], k: int) -> list[tuple[int, np.float32]]:
    """The best k, equal scores by document number."""
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k]
