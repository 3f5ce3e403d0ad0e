"""Scores of every matching document: any model, any number of terms, no pruning.

Legend: N documents of a segment, M of them matching.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.format.segment import Segment
from raydist.bow.formulas import NORM_LENGTHS
from raydist.bow.search.scoring import Collection, Scoring, Term
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]


@kernel
def _add(sums_N: Array, seen_N: Array, docs: Array, parts: Array) -> None:
    for i in range(docs.shape[0]):
        sums_N[docs[i]] += parts[i]
        seen_N[docs[i]] = True


def term_postings(segment: Segment, row: Array) -> tuple[Array, Array]:
    """Decodes one term's documents and frequencies from its row of `Segment.lookup`."""
    numbers = row[None, 2:4].astype(np.uint64)
    _, docs, tfs = segment.decode(numbers, int(row[5]), int(row[4]))
    return docs, tfs


def occurrences(segments: Sequence[Segment], rows: Sequence[Array]) -> list[int]:
    """Returns how often each term occurs in the collection."""
    counts = np.zeros(len(rows[0]), np.int64)
    for segment, found in zip(segments, rows):
        for i in np.flatnonzero(found[:, 0]).tolist():
            counts[i] += int(term_postings(segment, found[i])[1].sum(dtype=np.int64))
    return counts.tolist()


def document_lengths(segment: Segment, scoring: Scoring, docs: Array) -> Array:
    """Returns the lengths of documents as the model takes them."""
    if scoring.lengths == "exact":
        return segment.lengths_N[docs].astype(np.int64)
    return NORM_LENGTHS[segment.norms_N[docs]]


def score_all(
    segment: Segment,
    rows: Array,
    terms: Sequence[Term],
    scoring: Scoring,
    collection: Collection,
    query_tokens: float,
    allowed: Array | None,
) -> tuple[Array, Array]:
    """Returns the matching documents, ascending (int64 [M]), and their scores (float32 [M]).

    Args:
        segment: where to look.
        rows: what its dictionary said of the terms.
        terms: the same terms' statistics.
        scoring: the model.
        collection: statistics of all segments.
        query_tokens: length of the query, unknown terms included.
        allowed: which documents of the segment may be found (bool or uint8 [N]), all if None.
    """
    sums_N = np.zeros(segment.documents, np.float64)
    seen_N = np.zeros(segment.documents, np.bool_)
    for row, term in zip(rows, terms):
        if row[0]:
            docs, tfs = term_postings(segment, row)
            lengths = document_lengths(segment, scoring, docs)
            _add(sums_N, seen_N, docs, scoring.parts(term, collection, tfs, lengths))
    if allowed is not None:
        seen_N &= allowed.astype(np.bool_)
    found = np.flatnonzero(seen_N)
    scores = sums_N[found]
    constant = scoring.constant(query_tokens, document_lengths(segment, scoring, found))
    if constant is not None:
        scores = scores + constant
    return found, scores.astype(np.float32)
