"""A query's terms inside one kernel: counted, found in the dictionaries, weighed.

Legend: W terms of the query in order, q distinct ones, S segments.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from raydist.bow.format.dictionary import find_one
from raydist.bow.search.lists import FACTS, GROUPS, SEGMENT_ROWS, TERMS
from raydist.bow.search.workspace import BOOSTS, COUNTS, MOST_TERMS, NUMBERS, ROWS, WEIGHTS
from raydist.kernels.addresses import flat, grid
from raydist.kernels.jit import kernel

Array = npt.NDArray[Any]
U = np.uint64
F32 = np.float32


@kernel
def prepare(
    segments: Array, lexicon: Array, workspace: Array, terms_W: Array, documents: Any
) -> Any:
    """Writes what each segment says of a query's terms to the workspace, and Lucene's weights.

    Args:
        segments: addresses of all segments' arrays.
        lexicon: addresses of the terms' bytes (uint8) and where each begins (uint64).
        workspace: addresses of its arrays.
        terms_W: the lexicon's numbers of the query's terms.
        documents: N of the idf.

    Returns:
        Whether the query has no more distinct terms than there is room for.
    """
    heap = flat(lexicon, U(0), np.uint8)
    starts = flat(lexicon, U(1), np.uint64)
    rows = grid(workspace, ROWS, np.uint64)
    weights = flat(workspace, WEIGHTS, np.float32)
    counts = flat(workspace, COUNTS, np.int64)
    numbers = flat(workspace, NUMBERS, np.uint32)
    boosts = flat(workspace, BOOSTS, np.float32)
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
        begin, end = starts[numbers[i]], starts[numbers[i] + U(1)]
        df = U(0)
        for s in range(U(counts.shape[0])):
            # A segment's rows are closed up: one that is not found is overwritten by the next.
            row = rows[s * U(MOST_TERMS) + U(counts[s])]
            first = s * U(SEGMENT_ROWS)
            find_one(
                flat(segments, first + TERMS, np.uint8),
                grid(segments, first + GROUPS, np.uint64),
                flat(segments, first + FACTS, np.uint64)[0],
                heap, begin, end, row,
            )  # fmt: skip
            df += row[2]
            row[1] = i
            counts[s] += np.int64(row[0])
        if df:
            ratio = (np.float64(documents) - np.float64(df) + 0.5) / (np.float64(df) + 0.5)
            boosts[i] *= F32(math.log(1.0 + ratio))
    for s in range(U(counts.shape[0])):
        first = s * U(MOST_TERMS)
        for j in range(first, first + U(counts[s])):
            weights[j] = boosts[rows[j, U(1)]]
    return True
