"""Scores of all documents, term by term, where bounds would rule out few of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from raydist.bow.weighted.candidates import kept, offer
from raydist.bow.weighted.lists import RANKED, load
from raydist.bow.weighted.workspace import WEIGHTED_ARRAYS, WeightedSegment, WeightedWork
from raydist.kernels.addresses import Array, view
from raydist.kernels.jit import kernel

U = np.uint64


@kernel
def sum_weighted(segments: Array, number: Any, workspace: Array, terms: Any, k: Any) -> Any:
    """Ranks a query in one segment as `rank_weighted` does, by all postings of its terms."""
    segment = view(segments, U(number) * U(WEIGHTED_ARRAYS), WeightedSegment)
    work = view(workspace, U(0), WeightedWork)
    rows, docs, tfs, sums = work.rows, work.docs, work.tfs, work.sums
    documents, allowed = segment.facts[0], segment.allowed
    sums[:documents] = 0.0
    for j in range(U(terms)):
        if rows[j, 0]:
            outcome, value, end = load(segment, work, j)
            if outcome != RANKED:
                return outcome, value, end
            factor = work.factors[j]
            for p in range(rows[j, 2]):
                sums[docs[p]] += factor * np.float64(tfs[p])
    count = U(0)
    for doc in range(documents):
        if sums[doc] > 0.0:
            if allowed.shape[0] and not (allowed[doc >> U(3)] >> (doc & U(7))) & np.uint8(1):
                continue
            outcome, count = offer(work, count, U(k), doc, np.float32(sums[doc]))
            if outcome != RANKED:
                return outcome, np.int64(0), np.int64(0)
    return RANKED, np.int64(kept(work, count, U(k))), np.int64(0)
