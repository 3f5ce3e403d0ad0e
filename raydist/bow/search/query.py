"""A query's terms inside one kernel: counted, looked up in the dictionaries, weighted.

Legend: W terms of the query in order, q distinct ones, S segments.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from raydist.bow.format.dictionary import find_one
from raydist.bow.search.workspace import MOST_TERMS, SEGMENT_ARRAYS, SegmentArrays, Work
from raydist.kernels.addresses import Array, Bytes, Longs, view
from raydist.kernels.jit import inlined, kernel

U = np.uint64
F32 = np.float32


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
