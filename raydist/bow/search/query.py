"""Queries inside one kernel: their terms are counted, looked up, weighted, their segments ranked.

Legend: W terms of the queries in order, q distinct ones of a query, S segments, Q queries, R rows
of their results.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from raydist.bow.format.dictionary import find_one
from raydist.bow.search.rank import RANKED, rank
from raydist.bow.search.workspace import MOST_TERMS, SEGMENT_ARRAYS, SegmentArrays, Work
from raydist.kernels.addresses import Array, Bytes, Longs, view
from raydist.kernels.jit import inlined, kernel

U = np.uint64
F32 = np.float32

# Outcomes of `rank_queries`, beside those of `rank`.
LONG, FULL = 5, 6


class Strings(NamedTuple):
    """Strings one after another, such as a lexicon's terms."""

    heap: Bytes
    starts: Longs  # where each begins, and the end


@inlined
def _lost(segment: SegmentArrays, heap: Array, begin: Any, end: Any, row: Array) -> Any:
    """Returns how many deleted documents have a term; `row` is overwritten."""
    terms = segment.facts[2]
    if terms == U(0):
        return U(0)
    find_one(segment.lost_terms, segment.lost_groups, terms, heap, begin, end, row)
    return row[2]


@kernel
def prepare(
    segments: Array, lexicon: Array, workspace: Array, terms_W: Array, documents: Any
) -> Any:
    """Writes a query's terms in each segment's dictionary to the workspace, and Lucene's weights.

    Args:
        segments: addresses of all segments' arrays.
        lexicon: addresses of the terms' bytes (uint8) and where each begins (uint64).
        workspace: addresses of its arrays.
        terms_W: the lexicon's numbers of the query's terms.
        documents: N of the idf.

    Returns:
        Whether the query has no more distinct terms than there is room for.
    """
    strings = view(lexicon, U(0), Strings)
    work = view(workspace, U(0), Work)
    rows, weights, lost, counts = work.rows, work.weights, work.lost, work.counts
    numbers, boosts = work.numbers, work.boosts
    distinct = U(0)
    for w in range(U(terms_W.shape[0])):
        term = terms_W[w]
        i: Any = U(0)
        while i < distinct and numbers[i] != term:
            i += U(1)
        if i == distinct:
            if distinct == U(MOST_TERMS):
                return False
            numbers[i] = term
            boosts[i] = F32(0)
            distinct += U(1)
        boosts[i] += F32(1)
    for s in range(U(counts.shape[0])):
        counts[s] = 0
    for i in range(distinct):
        begin, end = strings.starts[numbers[i]], strings.starts[numbers[i] + U(1)]
        df = U(0)
        for s in range(U(counts.shape[0])):
            # A segment's rows have no gaps: that of an unknown term is overwritten by the next.
            place = s * U(MOST_TERMS) + U(counts[s])
            row = rows[place]
            segment = view(segments, s * SEGMENT_ARRAYS, SegmentArrays)
            lost[place] = _lost(segment, strings.heap, begin, end, row)
            find_one(segment.terms, segment.groups, segment.facts[0], strings.heap, begin, end, row)
            df += row[2] - lost[place]
            row[1] = i
            counts[s] += np.int64(row[2] > lost[place])
        if df:
            ratio = (np.float64(documents) - np.float64(df) + 0.5) / (np.float64(df) + 0.5)
            boosts[i] *= F32(math.log(1.0 + ratio))
    for s in range(U(counts.shape[0])):
        first = s * U(MOST_TERMS)
        for j in range(first, first + U(counts[s])):
            weights[j] = boosts[rows[j, U(1)]]
    return True


@kernel
def rank_queries(
    segments: Array,
    lexicon: Array,
    workspace: Array,
    terms_W: Array,
    bounds_Q1: Array,
    first: Any,
    entered: Any,
    documents: Any,
    k: Any,
    tied: Any,
    docs_R: Array,
    scores_R: Array,
    sizes_Q: Array,
) -> Any:
    """Ranks queries from `first` on; their results lie one after another, best first.

    Args:
        segments: addresses of all segments' arrays.
        lexicon: addresses of the terms' bytes (uint8) and where each begins (uint64).
        workspace: addresses of its arrays.
        terms_W: the lexicon's numbers of the queries' terms.
        bounds_Q1: where the terms of each query begin (int64).
        first: the query to begin with.
        entered: whether the workspace has the terms of the only query already.
        documents: N of the idf.
        k: number of documents of each query.
        tied: whether documents with the score of the k-th are wanted, too.
        docs_R: receives their positions, ascending where scores are equal (int64).
        scores_R: receives their scores (float32).
        sizes_Q: receives how many results each query has (int64).

    Returns:
        RANKED, how many queries are ranked, how many rows they have, 0, 0; or, after the queries
        that were ranked: FULL and the rows that the next query needs; LONG where it has too many
        distinct terms; an outcome of `rank`, the segment and what `rank` says.
    """
    work = view(workspace, U(0), Work)
    best_docs, best_scores = work.best_docs, work.best_scores
    room, k = U(docs_R.shape[0]), U(k)
    filled = U(0)
    for q in range(U(first), U(bounds_Q1.shape[0] - 1)):
        if not entered:
            terms = terms_W[bounds_Q1[q] : bounds_Q1[q + U(1)]]
            if not prepare(segments, lexicon, workspace, terms, documents):
                return LONG, np.int64(q), np.int64(filled), 0, np.int64(0)
        have = U(0)
        floor = -math.inf
        for s in range(U(work.counts.shape[0])):
            segment = view(segments, s * SEGMENT_ARRAYS, SegmentArrays)
            outcome, value = rank(segment, work, s, k, floor)
            if outcome != RANKED:
                return outcome, np.int64(q), np.int64(filled), np.int64(s), value
            count = _cut(best_scores, U(0), U(value), k, tied)
            if filled + have + count > room:
                return FULL, np.int64(q), np.int64(filled), 0, np.int64(have + count)
            # Both are in order; of equal scores those of earlier segments come first.
            to = filled + have + count
            old = filled + have
            have += count
            while count:
                to -= U(1)
                if old > filled and scores_R[old - U(1)] < best_scores[count - U(1)]:
                    old -= U(1)
                    docs_R[to] = docs_R[old]
                    scores_R[to] = scores_R[old]
                else:
                    count -= U(1)
                    docs_R[to] = best_docs[count] + np.int64(segment.facts[5])
                    scores_R[to] = best_scores[count]
            have = _cut(scores_R, filled, have, k, tied)
            if have >= k:
                floor = np.float64(scores_R[filled + k - U(1)])
        sizes_Q[q] = have
        filled += have
    return RANKED, np.int64(bounds_Q1.shape[0] - 1), np.int64(filled), 0, np.int64(0)


@kernel
def _cut(scores: Array, start: Any, count: Any, k: Any, tied: Any) -> Any:
    """Returns how many of the `count` descending scores from `start` are among the best k."""
    if count <= k:
        return count
    to = k
    while tied and to < count and scores[start + to] == scores[start + k - U(1)]:
        to += U(1)
    return to
